/**
 * Instructions that end in a far transfer: JMP, CALL, RET through segments, IRET, software interrupts, fast system calls.
 * The work is done by the procedures of core/; this is operand handling.
 */

import type { Val } from "../../ir/value.ts";
import { TransitionCause } from "../../isa/vendor.ts";
import { elementFlags, Vector } from "../cpu.ts";
import { readOf } from "../flags.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { endTransfer } from "./common.ts";
import { call } from "./procedure-text.ts";
import { EventType } from "./state.ts";

const { FAR_CALL, FAR_JUMP, FAR_RETURN, IRET, SYSCALL, SYSRET, SYSENTER, SYSEXIT } =
  TransitionCause;

/** Selector and offset of a far pointer, in the instruction or in memory. Immediate 1 of the former is the selector. */
function farPointer(insn: Insn): { selector: Val; offset: Val } {
  const size = insn.shape.opsize;
  if (insn.kind(0) === "f") {
    const offset = insn.immediate(0);
    return {
      selector: insn.immediate(1).and(0xffff),
      offset: (size === 2 ? offset.and(0xffff) : offset).extU(),
    };
  }
  const flags = insn.memFlags().or(elementFlags(size));
  const host = insn.hostR(insn.ea(size + 2, false), size + 2, flags);
  const offset = insn.raw(size, host).extU();
  return { selector: insn.raw(2, host, size), offset };
}

function jmpf(insn: Insn): void {
  const { selector, offset } = farPointer(insn);
  endTransfer(insn, call(insn, "farJump", selector, offset, insn.nextRip()), FAR_JUMP);
}

function callf(insn: Insn): void {
  const { selector, offset } = farPointer(insn);
  endTransfer(
    insn,
    call(insn, "farCall", selector, offset, insn.shape.opsize, insn.nextRip()),
    FAR_CALL,
  );
}

function retf(insn: Insn): void {
  const release = insn.kind(0) === "i" ? insn.immediate(0).and(0xffff) : insn.i32(0);
  endTransfer(insn, call(insn, "farReturn", insn.shape.opsize, release), FAR_RETURN);
}

function softwareInterrupt(vector: number | null, type: number): Semantics {
  return (insn) => {
    const v = vector === null ? insn.immediate(0).and(0xff) : insn.i32(vector);
    const next = insn.nextRip();
    const length = next.sub(insn.rip()).wrap();
    endTransfer(insn, call(insn, "softwareInterrupt", v, type, next, length));
  };
}

const overflow = softwareInterrupt(Vector.OF, EventType.SOFTWARE_EXCEPTION);

export const FAR: SemanticsTable = {
  jmpf,
  callf,
  retf,
  iret: (insn) => endTransfer(insn, call(insn, `iret${insn.shape.opsize}`, insn.nextRip()), IRET),
  int: softwareInterrupt(null, EventType.SOFTWARE_INTERRUPT),
  int3: softwareInterrupt(Vector.BP, EventType.SOFTWARE_EXCEPTION),
  int1: softwareInterrupt(Vector.DB, EventType.PRIVILEGED_SOFTWARE),
  into: (insn) => insn.fn.if(readOf(insn), () => overflow(insn)),
  syscall: (insn) => endTransfer(insn, call(insn, "sysCall", insn.nextRip()), SYSCALL),
  sysret: (insn) => endTransfer(insn, call(insn, "sysReturn", insn.shape.opsize), SYSRET),
  sysenter: (insn) => endTransfer(insn, call(insn, "sysEnter"), SYSENTER),
  sysexit: (insn) => endTransfer(insn, call(insn, "sysExit", insn.shape.opsize), SYSEXIT),
};
