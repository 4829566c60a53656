/**
 * Packed integer arithmetic, comparison and logic of one vector operation each, on XMM and MMX registers. SDM Vol. 2.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";
import { setArithmeticImage } from "../flags.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { readAligned, readVector, requireSse, requireUnit, writeVector } from "./operands.ts";

/** a: destination, b: source. For MMX both halves of both are equal, and only the low half of the result counts. */
export type VectorOperation = (fn: FunctionBuilder, a: Val, b: Val, insn: Insn) => Val;

export function vector(compute: VectorOperation): Semantics {
  return (insn) => {
    requireUnit(insn);
    const b = readVector(insn, 1);
    const a = insn.kind(0) === "q" ? readVector(insn, 0) : insn.regRead(0, 16);
    writeVector(insn, 0, compute(insn.fn, a, b, insn));
  };
}

/** An operation on the source alone. */
export function vectorUnary(compute: (fn: FunctionBuilder, b: Val) => Val): Semantics {
  return (insn) => {
    requireUnit(insn);
    writeVector(insn, 0, compute(insn.fn, readVector(insn, 1)));
  };
}

const one = (name: string): Semantics => vector((fn, a, b) => fn.op(name, a, b));
const unary = (name: string): Semantics => vectorUnary((fn, b) => fn.op(name, b));

const and = one("v128.and");
const or = one("v128.or");
const xor = one("v128.xor");
/** PANDN complements its destination, v128.andnot its second operand. */
const andNot = vector((fn, a, b) => fn.op("v128.andnot", b, a));

/** PSIGN: negated where b is negative, zero where it is zero. */
function sign(shape: string, bits: number): Semantics {
  return vector((fn, a, b) => {
    const negative = fn.op(`${shape}.shr_s`, b, fn.i32(bits - 1));
    const negated = fn.op(`${shape}.sub`, fn.op("v128.xor", a, negative), negative);
    const zero = fn.op(`${shape}.eq`, b, fn.v128x2(0n, 0n));
    return fn.op("v128.andnot", negated, zero);
  });
}

const none = (fn: FunctionBuilder, v: Val): Val => fn.op("v128.any_true", v).eqz();

/** PTEST: ZF if the source has no bit of the destination, CF if it has no other; PF AF SF OF cleared. */
const test: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const b = readAligned(insn, 1);
  const a = insn.regRead(0, 16);
  const zf = none(fn, fn.op("v128.and", a, b));
  const cf = none(fn, fn.op("v128.andnot", b, a));
  setArithmeticImage(insn, zf.shl(6).or(cf));
};

export const PACKED_INTEGER: SemanticsTable = {
  ptest: test,
  paddb: one("i8x16.add"),
  paddw: one("i16x8.add"),
  paddd: one("i32x4.add"),
  paddq: one("i64x2.add"),
  psubb: one("i8x16.sub"),
  psubw: one("i16x8.sub"),
  psubd: one("i32x4.sub"),
  psubq: one("i64x2.sub"),
  paddsb: one("i8x16.add_sat_s"),
  paddsw: one("i16x8.add_sat_s"),
  paddusb: one("i8x16.add_sat_u"),
  paddusw: one("i16x8.add_sat_u"),
  psubsb: one("i8x16.sub_sat_s"),
  psubsw: one("i16x8.sub_sat_s"),
  psubusb: one("i8x16.sub_sat_u"),
  psubusw: one("i16x8.sub_sat_u"),
  pavgb: one("i8x16.avgr_u"),
  pavgw: one("i16x8.avgr_u"),
  pminub: one("i8x16.min_u"),
  pminuw: one("i16x8.min_u"),
  pminud: one("i32x4.min_u"),
  pminsb: one("i8x16.min_s"),
  pminsw: one("i16x8.min_s"),
  pminsd: one("i32x4.min_s"),
  pmaxub: one("i8x16.max_u"),
  pmaxuw: one("i16x8.max_u"),
  pmaxud: one("i32x4.max_u"),
  pmaxsb: one("i8x16.max_s"),
  pmaxsw: one("i16x8.max_s"),
  pmaxsd: one("i32x4.max_s"),
  pcmpeqb: one("i8x16.eq"),
  pcmpeqw: one("i16x8.eq"),
  pcmpeqd: one("i32x4.eq"),
  pcmpeqq: one("i64x2.eq"),
  pcmpgtb: one("i8x16.gt_s"),
  pcmpgtw: one("i16x8.gt_s"),
  pcmpgtd: one("i32x4.gt_s"),
  pcmpgtq: one("i64x2.gt_s"),
  pabsb: unary("i8x16.abs"),
  pabsw: unary("i16x8.abs"),
  pabsd: unary("i32x4.abs"),
  psignb: sign("i8x16", 8),
  psignw: sign("i16x8", 16),
  psignd: sign("i32x4", 32),
  pand: and,
  andps: and,
  andpd: and,
  por: or,
  orps: or,
  orpd: or,
  pxor: xor,
  xorps: xor,
  xorpd: xor,
  pandn: andNot,
  andnps: andNot,
  andnpd: andNot,
};
