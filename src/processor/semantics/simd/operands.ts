/**
 * What every SIMD instruction does before it computes: is the unit available, where are its operands.
 * Spec: SDM Vol. 2, "Exception Conditions for Legacy SIMD/MMX Instructions"; Vol. 3A, "Device Not Available Exception";
 * Vol. 1, "MMX Instructions and the x87 FPU Tag Word".
 *
 * The availability check is two state words and one branch; which fault it is gets decided out of line.
 * MMX registers are the significands of the physical x87 registers. Touching one sets TOP to 0 and all tags valid; writing one sets sign
 * and exponent to ones. That change comes after everything that can fault.
 * A 64-bit MMX operand is read as a vector with both halves equal; operations that do not cross halves then work on it unchanged.
 */

import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { Cr0, Cr4 } from "../../state/control-bits.ts";
import { POISON, S, Status } from "../../state/layout.ts";
import { type Bytes, type Cpu, Vector } from "../cpu.ts";
import type { Insn } from "../insn.ts";
import { defineProcedure } from "../procedure.ts";

const FSW_TOP = 0x3800;
const X87_EXCEPTIONS = 0x3f;
/** Sign and exponent of an x87 register that holds an MMX value. */
const MMX_EXPONENT = 0xffffn;

const cr0 = (cpu: Cpu): Val => cpu.raw(4, 0, S.CR0.at);
const cr4 = (cpu: Cpu): Val => cpu.raw(4, 0, S.CR4.at);

/** Unmasked x87 exceptions that wait (what FSW.ES says). */
function pendingX87(cpu: Cpu): Val {
  return cpu.get(S.FSW).and(cpu.get(S.FCW).not()).and(X87_EXCEPTIONS);
}

export function defineAvailability(module: ModuleBuilder): void {
  defineProcedure(module, "sseUnavailable", [], (p) => {
    p.faultIf(cr0(p).and(Cr0.EM).or(cr4(p).and(Cr4.OSFXSR).eqz()), Vector.UD);
    p.fault(Vector.NM);
  });
  defineProcedure(module, "mmxUnavailable", [], (p) => {
    p.faultIf(cr0(p).and(Cr0.EM), Vector.UD);
    p.faultIf(cr0(p).and(Cr0.TS), Vector.NM);
    p.fault(Vector.MF);
  });
  // A segment violation has its fault recorded already.
  defineProcedure(module, "simdMisaligned", ["i64"], (p) => {
    p.fn.if(p.fn.param(0).eq(POISON), () => p.leave(Status.FAULT));
    p.fault(Vector.GP);
  });
}

function unless(cpu: Cpu, bad: Val, procedure: string, ...args: Val[]): void {
  cpu.fn.if(bad, () => {
    cpu.fn.call(cpu.module.get(procedure), ...args);
    cpu.leave(Status.FAULT);
  });
}

/** Nonzero (i32) if an instruction on XMM registers is #UD or #NM. */
export function isSseOff(fn: FunctionBuilder): Val {
  const off = fn.load("i32.load", 0, S.CR4.at).and(Cr4.OSFXSR).xor(Cr4.OSFXSR);
  return fn
    .load("i32.load", 0, S.CR0.at)
    .and(Cr0.EM | Cr0.TS)
    .or(off);
}

/** #UD and #NM of an instruction on XMM registers. */
export function requireSse(cpu: Cpu): void {
  if (!cpu.hasSse()) unless(cpu, isSseOff(cpu.fn), "sseUnavailable");
}

/** #UD, #NM and #MF of an instruction on MMX registers. */
export function requireMmx(cpu: Cpu): void {
  unless(
    cpu,
    cr0(cpu)
      .and(Cr0.EM | Cr0.TS)
      .or(pendingX87(cpu)),
    "mmxUnavailable",
  );
}

/** The x87 side of an MMX access. Last, when nothing can fault any more. */
export function enterMmx(cpu: Cpu): void {
  cpu.set(S.FSW, cpu.get(S.FSW).and(~FSW_TOP));
  cpu.set(S.FTAG_EMPTY, 0);
}

export const isMmx = (insn: Insn, i = 0): boolean => insn.kind(i) === "q";

/** Availability for the register file of operand i. */
export function requireUnit(insn: Insn, i = 0): void {
  if (isMmx(insn, i)) requireMmx(insn);
  else requireSse(insn);
}

/** #GP(0) unless a linear address is aligned to `bytes`. */
export function requireAligned(cpu: Cpu, linear: Val, bytes: number): void {
  unless(cpu, linear.wrap().and(bytes - 1), "simdMisaligned", linear);
}

/** Linear address of a 16-byte memory operand that must be aligned. */
function alignedAddress(insn: Insn, write: boolean): Val {
  const linear = insn.ea(16, write);
  requireAligned(insn, linear, 16);
  return linear;
}

/** Operand i, 16 bytes, aligned if in memory. */
export function readAligned(insn: Insn, i: number): Val {
  if (insn.kind(i) !== "m") return insn.regRead(i, 16);
  return insn.load(alignedAddress(insn, false), 16, insn.memFlags());
}

export function writeAligned(insn: Insn, i: number, v: Val): void {
  if (insn.kind(i) === "m") insn.store(alignedAddress(insn, true), 16, v, insn.memFlags());
  else insn.regWrite(i, 16, v);
}

/** `bytes` of operand i whatever size its code has: the low ones of a register, or that much memory. */
export function readLow(insn: Insn, i: number, bytes: Bytes): Val {
  if (insn.kind(i) !== "m") return insn.regRead(i, bytes);
  return insn.load(insn.ea(bytes, false), bytes, insn.memFlags());
}

/** A 4- or 8-byte value as the low element of a vector of zeros. */
export function zeroExtend(v: Val): Val {
  const zero = v.fn.v128x2(0n, 0n);
  return v.fn.lane(v.type === "i64" ? "i64x2.replace_lane" : "i32x4.replace_lane", 0, zero, v);
}

export const lowHalf = (v: Val): Val => v.fn.lane("i64x2.extract_lane", 0, v);
export const highHalf = (v: Val): Val => v.fn.lane("i64x2.extract_lane", 1, v);

/**
 * Operand i as a source of an integer operation: 16 bytes, aligned if in memory; for an MMX instruction, 8 bytes twice, or 4 bytes of
 * memory extended to 8 (PUNPCKL).
 */
export function readVector(insn: Insn, i: number): Val {
  if (!isMmx(insn)) return readAligned(insn, i);
  const bytes = insn.kind(i) === "m" ? insn.bytes(i) : 8;
  return insn.fn.op("i64x2.splat", readLow(insn, i, bytes).extU());
}

/** Writes the MMX register i from the low half of v. */
export function writeMmx(insn: Insn, i: number, v: Val): void {
  enterMmx(insn);
  insn.regWrite(i, 16, insn.fn.lane("i64x2.replace_lane", 1, v, insn.i64(MMX_EXPONENT)));
}

/** Writes the vector register that is operand i. */
export function writeVector(insn: Insn, i: number, v: Val): void {
  if (isMmx(insn, i)) writeMmx(insn, i, v);
  else insn.regWrite(i, 16, v);
}
