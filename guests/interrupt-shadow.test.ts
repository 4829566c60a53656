/** STI blocks interrupts for one instruction, which an exit says, and a window that was waited for opens behind it. SDM Vol. 2, "STI". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Assembler, asm64, imm } from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { al, rcx } from "../src/processor/isa/registers.ts";
import { Field, PrimaryControl } from "../src/processor/isa/vmcs-fields.ts";
import { EXIT_PORT, runBareMetal } from "./bare-metal.ts";

const ORIGIN = 0x10_0000;
const BLOCKED_BY_STI = 1;

for (const engine of ["interpreter", "jit"] as const) {
  /** Blocking at each CPUID exit; the guest's loop runs often enough to be compiled. */
  const blockingAt = (build: (a: Assembler) => void): number[] => {
    const seen: number[] = [];
    runBareMetal({
      engine,
      mode: "long64",
      image: asm64(ORIGIN, (a) => {
        a.emit("mov", rcx, imm(3));
        a.label("again").emit("cli");
        a.emit("push", rcx);
        build(a);
        a.emit("cpuid");
        a.emit("pop", rcx);
        a.emit("dec", rcx);
        a.emit("jne", "again");
        a.emit("out", imm(EXIT_PORT), al);
      }),
      onExit: (vmcs, reason) => {
        if (reason !== ExitReason.CPUID) return false;
        seen.push(vmcs.number(Field.GUEST_INTERRUPTIBILITY));
        const next = vmcs.big(Field.GUEST_RIP) + BigInt(vmcs.number(Field.EXIT_INSTRUCTION_LENGTH));
        vmcs.setBig(Field.GUEST_RIP, next);
        vmcs.set(Field.GUEST_INTERRUPTIBILITY, 0);
        return true;
      },
    });
    return seen;
  };

  test(`an exit saves blocking by STI right behind it, and only there (${engine})`, () => {
    const behind = blockingAt((a) => {
      a.emit("sti");
    });
    assert.deepEqual(behind, [BLOCKED_BY_STI, BLOCKED_BY_STI, BLOCKED_BY_STI]);
    const later = blockingAt((a) => {
      a.emit("sti");
      a.emit("nop");
    });
    assert.deepEqual(later, [0, 0, 0]);
    const again = blockingAt((a) => {
      a.emit("sti");
      a.emit("sti");
    });
    assert.deepEqual(again, [0, 0, 0]);
  });

  test(`a waiting interrupt window opens one instruction after STI (${engine})`, () => {
    const r = runBareMetal({
      engine,
      mode: "long64",
      image: asm64(ORIGIN, (a) => {
        a.emit("cli");
        a.emit("cpuid");
        a.emit("sti");
        a.emit("nop");
        a.label("window").emit("nop");
        a.emit("out", imm(EXIT_PORT), al);
      }),
      onExit: (vmcs, reason) => {
        if (reason !== ExitReason.CPUID) return false;
        const controls = vmcs.number(Field.PRIMARY_CONTROLS);
        vmcs.set(Field.PRIMARY_CONTROLS, controls | PrimaryControl.INTERRUPT_WINDOW);
        vmcs.setBig(Field.GUEST_RIP, vmcs.big(Field.GUEST_RIP) + 2n);
        return true;
      },
    });
    assert.equal(r.vmcs.number(Field.EXIT_REASON), ExitReason.INTERRUPT_WINDOW);
    const CLI_CPUID_STI_NOP = 5;
    assert.equal(r.vmcs.big(Field.GUEST_RIP), BigInt(ORIGIN + CLI_CPUID_STI_NOP));
  });
}
