/**
 * Register stack, status and control word of the x87 FPU as semantic code sees them.
 * Spec: SDM Vol. 1, "x87 FPU Execution Environment".
 *
 * A register is passed around as the i32 address of its 16-byte slot: significand u64 at +0, sign and exponent u16 at +8. Memory and
 * constant operands are put into scratch slots of the same form. Exceptions of an operation are collected as bits in the places of the
 * status word ("flags") and take effect at once, in x87Store and its likes (commit.ts).
 */

import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Type } from "../../ir/ops.ts";
import type { Operand, Val } from "../../ir/value.ts";
import { Cr0 } from "../../state/control-bits.ts";
import { FPR, S } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import { Procedure } from "../procedure.ts";

/** Status word. */
export const Fsw = {
  IE: 1,
  DE: 2,
  ZE: 4,
  OE: 8,
  UE: 0x10,
  PE: 0x20,
  SF: 0x40,
  ES: 0x80,
  C0: 0x100,
  C1: 0x200,
  C2: 0x400,
  TOP: 0x3800,
  C3: 0x4000,
  B: 0x8000,
  /** Exceptions that leave operands as they were when not masked. */
  BEFORE: 7,
  EXCEPTIONS: 0x3f,
  CONDITIONS: 0x4700,
} as const;
export const TOP_SHIFT = 11;

/** Control word: masks in the places of the exceptions, precision control in bits 9:8, rounding control in 11:10. */
export const Fcw = {
  PC_SHIFT: 8,
  RC_SHIFT: 10,
  INIT: 0x37f,
  WRITABLE: 0x1f7f,
  FIXED: 0x40,
} as const;
/** Rounding control. */
export const Rc = { NEAREST: 0, DOWN: 1, UP: 2, CHOP: 3 } as const;

/** Operands and intermediate values of one instruction; nothing here outlives it. */
export const SCRATCH = 0x1800;
export const Scratch = {
  /** Operand from memory. */
  MEMORY: SCRATCH,
  /** The two operands after normalization. */
  A: SCRATCH + 0x10,
  B: SCRATCH + 0x20,
  /** Second results of procedures. */
  LOW: SCRATCH + 0x30,
  EXPONENT: SCRATCH + 0x38,
  FLAGS: SCRATCH + 0x3c,
  /** 128-bit work values of the transcendental functions. */
  WIDE: SCRATCH + 0x40,
} as const;

/** Sign and exponent of the default NaN, and of infinity (with INTEGER_BIT as significand). */
export const INDEFINITE_SE = 0xffff;
export const INDEFINITE = 0xc000_0000_0000_0000n;
export const INTEGER_BIT = 0x8000_0000_0000_0000n;
export const QUIET_BIT = 0x4000_0000_0000_0000n;
export const EXPONENT_MAX = 0x7fff;
export const BIAS = 0x3fff;

/** Change of TOP that goes with a result; TOP is taken modulo eight. */
export const Pop = { NONE: 0, POP: 1, PUSH: 7 } as const;

export const top = (cpu: Cpu): Val => cpu.get(S.FSW).shrU(TOP_SHIFT).and(7);

/** Address of ST(i). */
export function stAddress(cpu: Cpu, i: Operand): Val {
  return top(cpu).add(i).and(7).shl(4).add(FPR);
}

/** Address of physical register Rn. */
export const fprSlot = (cpu: Cpu, n: Val): Val => cpu.i32(FPR).add(n.shl(4));

/** Physical number of the register in a slot. */
export const slotNumber = (slot: Val): Val => slot.shrU(4).and(7);

/** Bit of the tag word for a slot. */
export const tagBit = (cpu: Cpu, slot: Val): Val => cpu.i32(1).shl(slotNumber(slot));

/** Nonzero if the register in this slot is empty. */
export function isEmpty(cpu: Cpu, slot: Val): Val {
  return cpu.get(S.FTAG_EMPTY).shrU(slotNumber(slot)).and(1);
}

export const significand = (cpu: Cpu, slot: Operand): Val => cpu.raw(8, slot);
export const signExponent = (cpu: Cpu, slot: Operand): Val => cpu.raw(2, slot, 8);

export function setSlot(cpu: Cpu, slot: Operand, se: Operand, sig: Operand): void {
  cpu.setRaw(8, slot, sig);
  cpu.setRaw(2, slot, se, 8);
}

export const roundingControl = (cpu: Cpu): Val => cpu.get(S.FCW).shrU(Fcw.RC_SHIFT).and(3);

/** A procedure without result, or with a value of another type than a Status: most of the FPU never faults. */
export function defineHelper(
  module: ModuleBuilder,
  name: string,
  params: readonly Type[],
  result: Type | null,
  body: (p: Procedure, fn: FunctionBuilder) => void,
): void {
  module.function(name, params, result === null ? [] : [result], (fn) =>
    body(new Procedure(module, fn), fn),
  );
}

/** The parameters of a function, for destructuring. */
export const parameters = (fn: FunctionBuilder): Val[] => fn.params.map((_, i) => fn.param(i));

/**
 * The checks that come first in every waiting instruction: #NM, then #MF for an exception that an earlier one left.
 * With CR0.NE clear a processor would report through FERR#; this one has no such pin and goes on, as with IGNNE# asserted.
 */
export function checkWaiting(cpu: Cpu): void {
  checkAvailable(cpu);
  checkException(cpu);
}

/** #MF if an unmasked exception is pending. */
export function checkException(cpu: Cpu): void {
  const pending = cpu.get(S.FSW).and(Fsw.ES);
  const native = cpu.raw(4, 0, S.CR0.at).and(Cr0.NE);
  cpu.faultIf(pending.ne(0).and(native.ne(0)), Vector.MF);
}

/** #NM, the check of every x87 instruction but WAIT. */
export function checkAvailable(cpu: Cpu): void {
  cpu.faultIf(cpu.raw(4, 0, S.CR0.at).and(Cr0.EM | Cr0.TS), Vector.NM);
}
