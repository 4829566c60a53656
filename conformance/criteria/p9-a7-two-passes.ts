/**
 * P9-A7: pending interrupts looked at twice before an entry. It happens: an instruction with two device writes reports the second at the next
 * VM entry, before anything is injected. The guest counts its timer's interrupts while it makes such writes at every phase of the timer; one
 * that is lost would stay in service, and none would follow.
 */

import { powerOff, runHosted } from "../../guests/hosted.ts";
import { invariant } from "../../src/base/invariant.ts";
import {
  type Assembler,
  addr,
  dword,
  far,
  imm,
  mem,
  xmmword,
} from "../../src/processor/isa/assemble.ts";
import { cr4, eax, ebx, ecx, edx, esp, xmm0 } from "../../src/processor/isa/registers.ts";
import { RAM_BASE } from "../../src/processor/state/layout.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const WRITES = 500_000;
/** Interrupts that may be under way at the first and at the last time stamp. */
export const EDGES = 2;
const ENGINES = ["interpreter", "jit"] as const;
const RESULTS = 0x20_0000;
const [COUNT, START, END] = [0, 8, 16];
const VECTOR = 0x40;
const CODE = 8;
const STACK = 0x40_0000;
const APIC = 0xfee0_0000;
/** Device space that nobody answers. */
const NOWHERE = 0xd000_0000;
const OSFXSR = 0x200;
const PERIODIC = 0x2_0000;
const DIVIDE_BY_1 = 0xb;
const APIC_ON = 0x1ff;

function stamp(a: Assembler, at: number): void {
  a.emit("rdtsc");
  a.emit("mov", dword(RESULTS + at), eax);
  a.emit("mov", dword(RESULTS + at + 4), edx);
}

const guest =
  (period: number, writes: number) =>
  (a: Assembler): void => {
    a.emit("lgdt", mem(0, addr("gdtr")));
    a.emit("jmp", far(CODE, "flat"));
    a.label("flat").emit("mov", esp, imm(STACK));
    a.emit("mov", eax, cr4);
    a.emit("or", eax, imm(OSFXSR));
    a.emit("mov", cr4, eax);
    a.emit("mov", eax, addr("handler"));
    a.emit("mov", ebx, eax);
    a.emit("and", eax, imm(0xffff));
    a.emit("or", eax, imm(CODE << 16));
    a.emit("and", ebx, imm(0xffff_0000));
    a.emit("or", ebx, imm(0x8e00));
    a.emit("mov", dword(addr("idt", 8 * VECTOR)), eax);
    a.emit("mov", dword(addr("idt", 8 * VECTOR + 4)), ebx);
    a.emit("lidt", mem(0, addr("idtr")));
    a.emit("mov", dword(APIC + 0xf0), imm(APIC_ON));
    a.emit("mov", dword(APIC + 0x3e0), imm(DIVIDE_BY_1));
    a.emit("mov", dword(APIC + 0x320), imm(PERIODIC | VECTOR));
    stamp(a, START);
    a.emit("mov", dword(APIC + 0x380), imm(period));
    a.emit("sti");
    a.emit("mov", ecx, imm(writes));
    a.label("again").emit("movups", xmmword(NOWHERE), xmm0);
    a.emit("test", ecx, imm(3));
    a.emit("je", "short");
    a.emit("nop").emit("nop");
    a.label("short").emit("dec", ecx);
    a.emit("jne", "again");
    a.emit("cli");
    stamp(a, END);
    powerOff(a);
    a.label("handler").emit("inc", dword(RESULTS + COUNT));
    a.emit("push", eax);
    a.emit("xor", eax, eax);
    a.emit("mov", dword(APIC + 0xb0), eax);
    a.emit("pop", eax);
    a.emit("iretd");
    a.align(16);
    a.label("gdtr").dw(23).dd("gdt");
    a.label("idtr")
      .dw(8 * VECTOR + 7)
      .dd("idt");
    a.align(16);
    a.label("gdt").dq(0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn);
    a.label("idt").space(8 * (VECTOR + 1));
  };

/** Interrupts taken, and how many the timer has made. */
export function countInterrupts(
  engine: (typeof ENGINES)[number],
  period: number,
  writes: number,
): { taken: number; made: number } {
  const { machine, end, message } = runHosted(guest(period, writes), {
    engine,
    limit: 200_000_000,
  });
  invariant(end === "poweroff", `the guest ends by itself: ${message}`);
  const { view } = machine.processor;
  const at = (offset: number): number =>
    Number(view.getBigUint64(RAM_BASE + RESULTS + offset, true));
  return { taken: at(COUNT), made: Math.floor((at(END) - at(START)) / period) };
}

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const random = new Random(seed);
  let interrupts = 0;
  for (const engine of ENGINES) {
    progress(`P9-A7: ${engine}`);
    const period = 60 + random.below(40);
    const { taken, made } = countInterrupts(engine, period, WRITES);
    interrupts += taken;
    complaints.check(
      Math.abs(made - taken) <= EDGES,
      () => `${engine}: ${taken} interrupts of ${made}, period ${period}`,
    );
  }
  return complaints.verdict(
    `${ENGINES.length * WRITES} instructions with two device writes each, ${interrupts} interrupts, 0 lost`,
  );
}

export const twoPasses: Criterion = {
  id: "P9-A7",
  title: "two looks at pending interrupts before one entry",
  bar: "0 lost interrupts in 10^6 runs",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: true,
  run,
};
