/**
 * Packed shifts. SDM Vol. 2, "PSLLW/PSLLD/PSLLQ", "PSRAW/PSRAD/PSRAQ", "PSLLDQ", "PALIGNR".
 *
 * The count is an immediate byte or the low 64 bits of the source; counts beyond the element give zeros (or signs), where WebAssembly
 * would take them modulo the width.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { lowHalf, readVector, requireSse, requireUnit, writeVector } from "./operands.ts";
import { vector } from "./packed-integer.ts";
import { vectorOf } from "./vector.ts";

/** The count as i32, `limit` if it is that much or more. */
function count(insn: Insn, limit: number): Val {
  if (insn.kind(1) === "i") {
    const n = insn.immediate(1).and(0xff);
    return n.ltU(limit).select(n, insn.i32(limit));
  }
  const n = lowHalf(readVector(insn, 1));
  return n.ltU(limit).select(n.wrap(), insn.i32(limit));
}

function destination(insn: Insn): Val {
  return insn.kind(0) === "q" ? readVector(insn, 0) : insn.regRead(0, 16);
}

function logical(shape: string, bits: number, name: "shl" | "shr_u"): Semantics {
  return (insn) => {
    requireUnit(insn);
    const n = count(insn, bits);
    const shifted = insn.fn.op(`${shape}.${name}`, destination(insn), n);
    writeVector(insn, 0, n.eq(bits).select(insn.fn.v128x2(0n, 0n), shifted));
  };
}

function arithmetic(shape: string, bits: number): Semantics {
  return (insn) => {
    requireUnit(insn);
    const n = count(insn, bits - 1);
    writeVector(insn, 0, insn.fn.op(`${shape}.shr_s`, destination(insn), n));
  };
}

const ASCENDING = Array.from({ length: 16 }, (_, i) => i);

/** Whole-register byte shifts: an index outside 0..15 gives zero. */
function bytes(name: "i8x16.add" | "i8x16.sub"): Semantics {
  return (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const by = fn.op("i8x16.splat", count(insn, 16));
    const index = fn.op(name, vectorOf(fn, 1, ASCENDING), by);
    insn.regWrite(0, 16, fn.op("i8x16.swizzle", insn.regRead(0, 16), index));
  };
}

/** Bytes imm.. of the source with the destination above it. */
function align(fn: FunctionBuilder, a: Val, b: Val, insn: Insn): Val {
  const by = fn.op("i8x16.splat", insn.immediate(2));
  const index = fn.op("i8x16.add_sat_u", vectorOf(fn, 1, ASCENDING), by);
  if (insn.kind(0) === "q") {
    const both = fn.lane("i64x2.replace_lane", 1, b, lowHalf(a));
    return fn.op("i8x16.swizzle", both, index);
  }
  const sixteen = fn.op("i8x16.splat", fn.i32(16));
  return fn.op(
    "v128.or",
    fn.op("i8x16.swizzle", b, index),
    fn.op("i8x16.swizzle", a, fn.op("i8x16.sub", index, sixteen)),
  );
}

export const PACKED_SHIFT: SemanticsTable = {
  psllw: logical("i16x8", 16, "shl"),
  pslld: logical("i32x4", 32, "shl"),
  psllq: logical("i64x2", 64, "shl"),
  psrlw: logical("i16x8", 16, "shr_u"),
  psrld: logical("i32x4", 32, "shr_u"),
  psrlq: logical("i64x2", 64, "shr_u"),
  psraw: arithmetic("i16x8", 16),
  psrad: arithmetic("i32x4", 32),
  pslldq: bytes("i8x16.sub"),
  psrldq: bytes("i8x16.add"),
  palignr: vector(align),
};
