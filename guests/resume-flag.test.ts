/** RFLAGS.RF in the VMCS after VM exits. SDM Vol. 3C, "Saving RIP, RSP, RFLAGS, and SSP"; Vol. 3B, "Instruction-Breakpoint Exception Condition". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { BootSelector } from "../src/machine/boot/boot-state.ts";
import { type Assembler, addr, asm64, imm } from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { al, ax, eax, rax, rcx, rdi, rsp, ss } from "../src/processor/isa/registers.ts";
import { VendorField } from "../src/processor/isa/vendor.ts";
import { Field, PrimaryControl } from "../src/processor/isa/vmcs-fields.ts";
import type { Vmcs } from "../src/processor/vmx/vmcs.ts";
import { EXIT_PORT, runBareMetal } from "./bare-metal.ts";

const ORIGIN = 0x10_0000;
const STACK = 0x20_0000;
/** Beyond RAM: a device. */
const DEVICE_PAGE = 0xfe00_0000;
const IF = 0x200;
const RF = 0x1_0000;
const GP_EXITING = 1 << 13;

/** IRETQ to a label with RF set, and other flags. */
function resumeAt(a: Assembler, label: string, flags = 0): void {
  a.emit("mov", ax, ss);
  a.emit("push", rax);
  a.emit("push", rsp);
  a.emit("mov", eax, imm(RF | 2 | flags));
  a.emit("push", rax);
  a.emit("push", imm(BootSelector.CODE));
  a.emit("mov", rax, addr(label));
  a.emit("push", rax);
  a.emit("iretq");
}

interface Exit {
  readonly reason: number;
  readonly rf: boolean;
}

/** The exits of a guest and RF in each, up to the exit port. `more` sees each of them, and may say that RIP stays. */
function exitsOf(
  build: (a: Assembler) => void,
  more: (vmcs: Vmcs, reason: number, count: number) => boolean = () => false,
  prepare: (vmcs: Vmcs) => void = () => {},
): Exit[] {
  const exits: Exit[] = [];
  const image = asm64(ORIGIN, (a) => {
    a.emit("mov", rsp, imm(STACK));
    build(a);
    a.emit("out", imm(EXIT_PORT), al);
  });
  const r = runBareMetal({
    image,
    mode: "long64",
    prepare,
    onExit: (vmcs, reason) => {
      assert.ok(exits.length < 20, "it does not come to an end");
      exits.push({ reason, rf: (vmcs.number(Field.GUEST_RFLAGS) & RF) !== 0 });
      if (reason === ExitReason.IO) return false;
      if (more(vmcs, reason, exits.length)) return true;
      const length = vmcs.number(Field.EXIT_INSTRUCTION_LENGTH);
      vmcs.set(Field.GUEST_RIP, vmcs.number(Field.GUEST_RIP) + length);
      return true;
    },
  });
  assert.equal(r.reason, "exit port");
  return exits;
}

const IO = { reason: ExitReason.IO, rf: false };

test("an instruction that exits saves RF as 0, even if IRET has just set it", () => {
  const exits = exitsOf((a) => {
    resumeAt(a, "here");
    a.label("here").emit("cpuid");
  });
  assert.deepEqual(exits, [{ reason: ExitReason.CPUID, rf: false }, IO]);
});

test("a fault that exits saves RF as 1", () => {
  const exits = exitsOf(
    (a) => {
      a.emit("mov", rdi, imm(0x8000_0000_0000n));
      a.bytes([0x8a, 0x07]);
    },
    (vmcs) => {
      vmcs.set(Field.GUEST_RIP, vmcs.number(Field.GUEST_RIP) + 2);
      return true;
    },
    (vmcs) => vmcs.set(Field.EXCEPTION_BITMAP, GP_EXITING),
  );
  assert.deepEqual(exits, [{ reason: ExitReason.EXCEPTION_OR_NMI, rf: true }, IO]);
});

test("an EPT violation saves RF as 1, so that the instruction is resumed; the write it queues does not", () => {
  const exits = exitsOf(
    (a) => {
      a.emit("mov", rdi, imm(DEVICE_PAGE));
      a.bytes([0x8b, 0x07]);
      a.bytes([0x89, 0x07]);
    },
    (vmcs) => {
      vmcs.setBig(VendorField.DEVICE_READ_REPLY, 5n);
      return true;
    },
  );
  const { EPT_VIOLATION } = ExitReason;
  assert.deepEqual(exits, [
    { reason: EPT_VIOLATION, rf: true },
    { reason: EPT_VIOLATION, rf: false },
    IO,
  ]);
});

test("an exit between instructions saves RF as it is: 1 right after the IRET that set it, 0 later", () => {
  const windowExits = (build: (a: Assembler) => void): Exit[] =>
    exitsOf(build, (vmcs, reason) => {
      const isWindow = reason === ExitReason.INTERRUPT_WINDOW;
      const controls = vmcs.number(Field.PRIMARY_CONTROLS);
      const bit = PrimaryControl.INTERRUPT_WINDOW;
      vmcs.set(Field.PRIMARY_CONTROLS, isWindow ? controls & ~bit : controls | bit);
      return isWindow;
    });
  const first = windowExits((a) => {
    a.emit("cpuid");
    resumeAt(a, "here", IF);
    a.label("here").emit("nop");
  });
  assert.deepEqual(first[1], { reason: ExitReason.INTERRUPT_WINDOW, rf: true });
  const later = windowExits((a) => {
    a.emit("cpuid");
    resumeAt(a, "here");
    a.label("here").emit("mov", rcx, imm(3));
    a.label("again").emit("dec", rcx);
    a.emit("jne", "again");
    a.emit("sti");
    a.emit("nop");
    a.emit("nop");
  });
  assert.deepEqual(later[1], { reason: ExitReason.INTERRUPT_WINDOW, rf: false });
});
