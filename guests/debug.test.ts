/**
 * Single steps and breakpoints over instructions that the micro-hypervisor carries out. SDM Vol. 3C, "Guest Non-Register State" (pending debug
 * exceptions); Vol. 3B, "Data Memory and I/O Breakpoint Exception Conditions".
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Assembler,
  addr,
  asm32,
  dword,
  far,
  imm,
  mem,
} from "../src/processor/isa/assemble.ts";
import {
  al,
  cr4,
  dr0,
  dr6,
  dr7,
  dx,
  eax,
  ebx,
  ecx,
  edi,
  edx,
  esp,
} from "../src/processor/isa/registers.ts";
import { RAM_BASE } from "../src/processor/state/layout.ts";
import { powerOff, runHosted } from "./hosted.ts";

const CODE_START = 0x10_0020;
const LOG = 0x20_0000;
const BUFFER = 0x30_0000;
const STACK = 0x40_0000;
const CODE = 8;
/** Scratch register of the UART: a port without effects. */
const PORT = 0x3ff;
const TF = 0x100;
const IF = 0x200;
const RF = 0x1_0000;
const HIT0 = 1;
const BS = 0x4000;
const CR4_DE = 8;
const ENTRY_BYTES = 12;
const IRQ = 0x40;
/** Number of interrupts taken. */
const INTERRUPTS = 0x30_1000;
const APIC = 0xfee0_0000;

/** Own descriptor tables, and a #DB handler that writes EIP, DR6 and EFLAGS of each exception to LOG. */
function withHandler(body: (a: Assembler) => void): (a: Assembler) => void {
  return (a) => {
    a.emit("lgdt", mem(0, addr("gdtr")));
    a.emit("jmp", far(CODE, "flat"));
    a.label("flat");
    a.emit("mov", esp, imm(STACK));
    for (const [vector, handler] of [
      [1, "handler"],
      [IRQ, "interrupt"],
    ] as const) {
      a.emit("mov", eax, addr(handler));
      a.emit("mov", ebx, eax);
      a.emit("and", eax, imm(0xffff));
      a.emit("or", eax, imm(CODE << 16));
      a.emit("and", ebx, imm(0xffff_0000));
      a.emit("or", ebx, imm(0x8e00));
      a.emit("mov", dword(addr("idt", 8 * vector)), eax);
      a.emit("mov", dword(addr("idt", 8 * vector + 4)), ebx);
    }
    a.emit("lidt", mem(0, addr("idtr")));
    a.emit("mov", edi, imm(LOG));
    a.emit("mov", dword(addr("cursor")), edi);
    body(a);
    powerOff(a);
    a.label("handler");
    a.emit("push", eax).emit("push", ebx);
    a.emit("mov", ebx, dword(addr("cursor")));
    a.emit("mov", eax, dword(esp, 8));
    a.emit("mov", dword(ebx), eax);
    a.emit("mov", eax, dr6);
    a.emit("mov", dword(ebx, 4), eax);
    a.emit("mov", eax, dword(esp, 16));
    a.emit("mov", dword(ebx, 8), eax);
    a.emit("add", dword(addr("cursor")), imm(ENTRY_BYTES));
    a.emit("pop", ebx).emit("pop", eax);
    a.emit("iretd");
    a.label("interrupt");
    a.emit("inc", dword(INTERRUPTS));
    a.emit("push", eax);
    a.emit("xor", eax, eax);
    a.emit("mov", dword(APIC + 0xb0), eax);
    a.emit("pop", eax);
    a.emit("iretd");
    a.align(16);
    a.label("cursor").dd(0);
    a.label("gdtr").dw(23).dd("gdt");
    a.label("idtr")
      .dw(8 * IRQ + 7)
      .dd("idt");
    a.align(16);
    a.label("gdt").dq(0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn);
    a.label("idt").space(8 * (IRQ + 1));
  };
}

function setFlags(a: Assembler, flags: number): void {
  a.emit("push", imm(flags));
  a.emit("popfd");
}

interface Trap {
  readonly at: string;
  readonly dr6: number;
  readonly rf: boolean;
}

/** The exceptions of a guest, their addresses as labels. It must have taken `interrupts`. */
function trapsOf(body: (a: Assembler) => void, labels: readonly string[], interrupts = 0): Trap[] {
  const build = withHandler(body);
  const names = new Map<number, string>();
  asm32(CODE_START, (a) => {
    build(a);
    for (const label of labels) names.set(a.addressOf(label), label);
  });
  const r = runHosted(build, { limit: 1_000_000 });
  assert.equal(r.end, "poweroff", r.message);
  const view = r.machine.processor.view;
  const word = (at: number): number => view.getUint32(RAM_BASE + at, true);
  assert.equal(word(INTERRUPTS), interrupts);
  const traps: Trap[] = [];
  for (let at = LOG; word(at) !== 0; at += ENTRY_BYTES) {
    const address = word(at);
    const name = names.get(address) ?? address.toString(16);
    traps.push({ at: name, dr6: word(at + 4) & 0xe00f, rf: (word(at + 8) & RF) !== 0 });
  }
  return traps;
}

test("a single-step trap follows every instruction, also those that exit", () => {
  const labels = ["b", "c", "d", "e", "f", "g", "h", "i"];
  const traps = trapsOf((a) => {
    a.emit("mov", dx, imm(PORT));
    setFlags(a, TF | 2);
    a.emit("nop");
    a.label("b").emit("cpuid");
    a.label("c").emit("mov", edi, imm(BUFFER));
    a.label("d").emit("mov", dx, imm(PORT));
    a.label("e").emit("in", al, dx);
    a.label("f").emit("out", dx, al);
    a.label("g").emit("insb");
    a.label("h").emit("wbinvd");
    a.label("i").emit("push", imm(2));
    a.emit("popfd");
  }, labels);
  // After PUSH and POPF, too.
  assert.deepEqual(
    traps.slice(0, 8).map((t) => t.at),
    labels,
  );
  assert.equal(traps.length, 10);
  assert.ok(traps.every((t) => t.dr6 === BS && !t.rf));
});

function enableBreakpoint(a: Assembler, address: number, on: number): void {
  a.emit("mov", eax, cr4);
  a.emit("or", eax, imm(CR4_DE));
  a.emit("mov", cr4, eax);
  a.emit("mov", eax, imm(address));
  a.emit("mov", dr0, eax);
  a.emit("mov", eax, imm(1 | (on << 16)));
  a.emit("mov", dr7, eax);
}

test("an I/O breakpoint traps after an access that a device model has served, and after each iteration of REP", () => {
  const traps = trapsOf(
    (a) => {
      enableBreakpoint(a, PORT, 2);
      a.emit("mov", dx, imm(PORT));
      a.emit("in", al, dx);
      a.label("in done").emit("out", dx, al);
      a.label("out done").emit("mov", edi, imm(BUFFER));
      a.emit("mov", ecx, imm(3));
      a.label("rep").emit("rep insb");
      a.label("rep done").emit("dec", dx);
      a.emit("in", al, dx);
    },
    ["in done", "out done", "rep", "rep done"],
  );
  assert.deepEqual(traps, [
    { at: "in done", dr6: HIT0, rf: false },
    { at: "out done", dr6: HIT0, rf: false },
    { at: "rep", dr6: HIT0, rf: true },
    { at: "rep", dr6: HIT0, rf: true },
    { at: "rep done", dr6: HIT0, rf: false },
  ]);
});

test("a data breakpoint sees what the micro-hypervisor writes for INS", () => {
  const traps = trapsOf(
    (a) => {
      enableBreakpoint(a, BUFFER + 1, 1);
      a.emit("mov", dx, imm(PORT));
      a.emit("mov", edi, imm(BUFFER));
      a.emit("mov", ecx, imm(3));
      a.label("rep").emit("rep insb");
      a.label("rep done").emit("nop");
    },
    ["rep", "rep done"],
  );
  assert.deepEqual(traps, [{ at: "rep", dr6: HIT0, rf: true }]);
});

test("RF holds an instruction breakpoint back for all of a REP INSB, which exits at every iteration", () => {
  const traps = trapsOf(
    (a) => {
      a.emit("mov", edi, addr("rep"));
      a.emit("mov", dr0, edi);
      a.emit("mov", eax, imm(1));
      a.emit("mov", dx, imm(PORT));
      a.emit("mov", edi, imm(BUFFER));
      a.emit("mov", ecx, imm(3));
      a.emit("mov", dr7, eax);
      a.emit("push", imm(RF | 2));
      a.emit("push", imm(CODE));
      a.emit("push", addr("rep"));
      a.emit("iretd");
      a.label("rep").emit("rep insb");
      a.label("rep done").emit("nop");
    },
    ["rep", "rep done"],
  );
  assert.deepEqual(traps, []);
});

/** Sends this processor an interrupt, by memory or by MSR. */
const SEND: Readonly<Record<string, (a: Assembler) => void>> = {
  "a device write": (a) => a.emit("mov", dword(APIC + 0x300), eax),
  WRMSR: (a) => a.emit("wrmsr"),
};

for (const [name, send] of Object.entries(SEND)) {
  test(`the trap after ${name} that raises an interrupt comes before it, and no trap inside its handler`, () => {
    const isMsr = name === "WRMSR";
    const traps = trapsOf(
      (a) => {
        // Software-enable the local APIC.
        a.emit("mov", eax, imm(0x1ff));
        a.emit("mov", dword(APIC + 0xf0), eax);
        if (isMsr) {
          a.emit("mov", ecx, imm(0x1b));
          a.emit("rdmsr");
          a.emit("or", eax, imm(0x400));
          a.emit("wrmsr");
          a.emit("mov", ecx, imm(0x830));
          a.emit("xor", edx, edx);
        }
        a.emit("mov", eax, imm(0x4_0000 | IRQ));
        setFlags(a, TF | IF | 2);
        send(a);
        a.label("sent").emit("nop");
        a.label("end").emit("push", imm(2));
        a.emit("popfd");
      },
      ["sent", "end"],
      1,
    );
    assert.deepEqual(
      traps.slice(0, 2).map((t) => t.at),
      ["sent", "end"],
    );
    assert.equal(traps.length, 4);
  });
}
