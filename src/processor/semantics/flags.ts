/**
 * Lazy arithmetic flags, as two values: the last result and a carry word.
 * Spec: SDM Vol. 1, "EFLAGS Register: Status Flags".
 *
 *   result  i64, sign-extended from the operand size:  ZF = (result == 0) · SF = sign(result) ^ carry[0] · PF = even parity(result[7:0] ^ carry[15:8])
 *   carry   i32: bit 31 = CF · bit 30: OF = carry[31] ^ carry[30] · bit 3 = AF · bits 15:8 and bit 0 = corrections that let any flag image be
 *           represented (POPF may set ZF and SF together)
 * For addition, bits 31:30 and 3 are the carries out of the two top bits and of bit 3, so one carry vector gives CF, OF and AF at once.
 *
 * Every flag and every condition costs a few operations with no dependence on what set the flags: an interpreter needs no kind switch,
 * and a region compiler drops what is dead.
 */

import type { Val } from "../ir/value.ts";
import { S } from "../state/layout.ts";
import type { Cpu } from "./cpu.ts";

export const Flag = {
  CF: 1,
  PF: 4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x1_0000,
  VM: 0x2_0000,
  AC: 0x4_0000,
  VIF: 0x8_0000,
  VIP: 0x10_0000,
  ID: 0x20_0000,
} as const;
export const ARITHMETIC_FLAGS = 0x8d5;

const CARRY_BITS = 0xc000_0008 | 0;

/** Sign-extends an operand-sized value (i32 up to 4 bytes) to i64. */
export function signExtend(v: Val, bytes: number): Val {
  if (bytes === 8) return v;
  if (bytes === 4) return v.extS();
  return (bytes === 2 ? v.sext16() : v.sext8()).extS();
}

/** Moves a carry vector (top carry at the operand's sign bit) into the carry word's places. */
function carryWord(vector: Val, bytes: number): Val {
  switch (bytes) {
    case 8:
      return vector
        .high()
        .and(0xc000_0000 | 0)
        .or(vector.wrap().and(8));
    case 4:
      return vector.and(CARRY_BITS);
    default: {
      const shift = 32 - bytes * 8;
      return vector
        .shl(shift)
        .and(0xc000_0000 | 0)
        .or(vector.and(8));
    }
  }
}

/** Carry word of r = a + b (+ carry in). */
export function carryOfAdd(bytes: number, a: Val, b: Val, r: Val): Val {
  return carryWord(a.and(b).or(a.or(b).and(r.not())), bytes);
}

/** Carry word of r = a - b (- borrow in). */
export function carryOfSub(bytes: number, a: Val, b: Val, r: Val): Val {
  return carryWord(a.not().and(b).or(a.xor(b).not().and(r)), bytes);
}

/** Flags of r = a + b + carry in. */
export function flagsAddCarry(cpu: Cpu, bytes: number, a: Val, b: Val, r: Val): void {
  cpu.setFlagResult(signExtend(r, bytes));
  cpu.setFlagCarry(carryOfAdd(bytes, a, b, r));
}

/** Flags of r = a - b - borrow in. */
export function flagsSubBorrow(cpu: Cpu, bytes: number, a: Val, b: Val, r: Val): void {
  cpu.setFlagResult(signExtend(r, bytes));
  cpu.setFlagCarry(carryOfSub(bytes, a, b, r));
}

/** Flags of r = a + b. */
export function flagsAdd(cpu: Cpu, bytes: number, a: Val, b: Val, r: Val): void {
  if (!cpu.noteFlags("add", bytes, a, b, r)) flagsAddCarry(cpu, bytes, a, b, r);
}

/** Flags of r = a - b. */
export function flagsSub(cpu: Cpu, bytes: number, a: Val, b: Val, r: Val): void {
  if (!cpu.noteFlags("sub", bytes, a, b, r)) flagsSubBorrow(cpu, bytes, a, b, r);
}

/** Flags of a logical result: CF = OF = 0 (AF, undefined, is cleared). */
export function flagsLogic(cpu: Cpu, bytes: number, r: Val): void {
  if (cpu.noteFlags("logic", bytes, r, r, r)) return;
  cpu.setFlagResult(signExtend(r, bytes));
  cpu.setFlagCarry(cpu.i32(0));
}

/** ZF SF PF from r; CF and OF given as 0/1 (i32); AF cleared. */
export function flagsResultCarryOverflow(cpu: Cpu, bytes: number, r: Val, cf: Val, of: Val): void {
  cpu.setFlagResult(signExtend(r, bytes));
  cpu.setFlagCarry(cf.shl(31).or(of.xor(cf).shl(30)));
}

// ---- single flags, 0 or 1 as i32 ----

export const readCf = (cpu: Cpu): Val => cpu.flagCarry().shrU(31);
export const readZf = (cpu: Cpu): Val => cpu.flagResult().eqz();
export const readAf = (cpu: Cpu): Val => cpu.flagCarry().shrU(3).and(1);

export function readSf(cpu: Cpu): Val {
  return cpu.flagResult().shrU(63).wrap().xor(cpu.flagCarry().and(1));
}

export function readOf(cpu: Cpu): Val {
  const c = cpu.flagCarry();
  return c.xor(c.shl(1)).shrU(31);
}

export function readPf(cpu: Cpu): Val {
  return cpu.flagResult().wrap().xor(cpu.flagCarry().shrU(8)).and(0xff).popcnt().and(1).xor(1);
}

/** Replaces CF (0/1) and keeps the other flags: a change of CF flips bits 31 and 30 together, which leaves OF. */
export function setCf(cpu: Cpu, cf: Val): void {
  const c = cpu.flagCarry();
  const change = c
    .xor(cf.shl(31))
    .and(1 << 31)
    .shrS(1);
  cpu.setFlagCarry(c.xor(change));
}

/** Replaces OF (0/1) and keeps the other flags. */
export function setOf(cpu: Cpu, of: Val): void {
  const c = cpu.flagCarry();
  cpu.setFlagCarry(c.and(0xbfff_ffff | 0).or(of.xor(c.shrU(31)).shl(30)));
}

/** The six arithmetic flags as their RFLAGS image (i32). */
export function arithmeticImage(cpu: Cpu): Val {
  return readCf(cpu)
    .or(readPf(cpu).shl(2))
    .or(readAf(cpu).shl(4))
    .or(readZf(cpu).shl(6))
    .or(readSf(cpu).shl(7))
    .or(readOf(cpu).shl(11));
}

/** Sets the six arithmetic flags from an RFLAGS image (i32). */
export function setArithmeticImage(cpu: Cpu, image: Val): void {
  const zf = image.shrU(6).and(1);
  const sf = image.shrU(7).and(1);
  const pf = image.shrU(2).and(1);
  const cf = image.and(1);
  const of = image.shrU(11).and(1);
  // result 0 with ZF, else 1: parity of 0 is even, of 1 odd; the corrections make up the difference.
  cpu.setFlagResult(zf.xor(1).extU());
  const parityOfResult = zf;
  cpu.setFlagCarry(
    cf
      .shl(31)
      .or(of.xor(cf).shl(30))
      .or(image.shrU(1).and(8))
      .or(parityOfResult.xor(pf).shl(8))
      .or(sf),
  );
}

/** RFLAGS as a 32-bit image (upper half is zero). */
export function rflagsImage(cpu: Cpu): Val {
  return cpu.get(S.RFLAGS_REST).or(arithmeticImage(cpu));
}

/** Sets all of RFLAGS from an image; the caller has masked what may change. */
export function setRflagsImage(cpu: Cpu, image: Val): void {
  setArithmeticImage(cpu, image);
  cpu.set(S.RFLAGS_REST, image.and(0x003f_7fd5 & ~ARITHMETIC_FLAGS).or(2));
}

/** Condition codes 0..15 as encoded in Jcc, SETcc, CMOVcc: i32, nonzero if it holds. SDM Vol. 1, "EFLAGS Condition Codes". */
export function condition(cpu: Cpu, cc: number): Val {
  const known = cpu.knownCondition(cc);
  if (known) return known;
  const positive = positiveCondition(cpu, cc >> 1);
  return cc & 1 ? positive.eqz() : positive;
}

function positiveCondition(cpu: Cpu, which: number): Val {
  switch (which) {
    case 0:
      return readOf(cpu);
    case 1:
      return readCf(cpu);
    case 2:
      return readZf(cpu);
    case 3:
      return cpu.flagCarry().ltS(0).or(cpu.flagResult().eqz());
    case 4:
      return readSf(cpu);
    case 5:
      return readPf(cpu);
    case 6:
      return lessThan(cpu);
    default:
      return lessThan(cpu).or(cpu.flagResult().eqz());
  }
}

/** SF != OF. */
function lessThan(cpu: Cpu): Val {
  const c = cpu.flagCarry();
  return cpu.flagResult().high().xor(c).xor(c.shl(1)).xor(c.shl(31)).shrU(31);
}
