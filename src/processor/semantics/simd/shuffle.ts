/**
 * Shuffles, interleaving, packing, widening, blends, element insertion and extraction. SDM Vol. 2.
 *
 * Selectors come from an immediate that an interpreter knows only at run time: a two-bit field per element becomes a vector of byte
 * indexes by one multiplication that brings every field to the same place, and a swizzle does the rest.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import {
  enterMmx,
  highHalf,
  isMmx,
  lowHalf,
  readLow,
  requireSse,
  requireUnit,
  writeVector,
  zeroExtend,
} from "./operands.ts";
import { vector } from "./packed-integer.ts";
import { bitsToMask, elements, joinHalves, repeated, vectorOf } from "./vector.ts";

const swizzle = (fn: FunctionBuilder, v: Val, index: Val): Val => fn.op("i8x16.swizzle", v, index);

/** Byte indexes of four 32-bit elements chosen by the fields of an i32. */
function dwordIndexes(fn: FunctionBuilder, imm: Val): Val {
  const fields = fn.op("i32x4.mul", fn.op("i32x4.splat", imm), vectorOf(fn, 4, [64, 16, 4, 1]));
  const numbers = fn.op("v128.and", fn.op("i32x4.shr_u", fields, fn.i32(6)), repeated(fn, 4, 3n));
  const scaled = fn.op("i32x4.mul", numbers, repeated(fn, 4, 0x04040404n));
  return fn.op("i32x4.add", scaled, repeated(fn, 4, 0x03020100n));
}

/** Byte indexes of words: four chosen by fields in the half that starts at word `first`, the others in place. */
function wordIndexes(fn: FunctionBuilder, imm: Val, first: 0 | 4): Val {
  const scale = [0, 0, 0, 0, 0, 0, 0, 0];
  const base = [0x0100, 0x0302, 0x0504, 0x0706, 0x0908, 0x0b0a, 0x0d0c, 0x0f0e];
  for (let i = 0; i < 4; i++) {
    scale[first + i] = 64 >> (2 * i);
    base[first + i] = first === 0 ? 0x0100 : 0x0908;
  }
  const fields = fn.op("i16x8.mul", fn.op("i16x8.splat", imm), vectorOf(fn, 2, scale));
  const numbers = fn.op("v128.and", fn.op("i16x8.shr_u", fields, fn.i32(6)), repeated(fn, 2, 3n));
  const scaled = fn.op("i16x8.mul", numbers, repeated(fn, 2, 0x0202n));
  return fn.op("i16x8.add", scaled, vectorOf(fn, 2, base));
}

const shuffleWords = (first: 0 | 4): Semantics =>
  vector((fn, _, b, insn) => swizzle(fn, b, wordIndexes(fn, insn.immediate(2), first)));

/** Element n (i32) of `bytes` in the low element of the answer (everywhere, in fact). */
function pick(fn: FunctionBuilder, v: Val, bytes: 1 | 2 | 4, n: Val): Val {
  if (bytes === 1) return swizzle(fn, v, fn.op("i8x16.splat", n));
  const index = bytes === 2 ? n.mul(0x0202).add(0x0100) : n.mul(0x04040404).add(0x03020100);
  return swizzle(fn, v, fn.op(bytes === 2 ? "i16x8.splat" : "i32x4.splat", index));
}

const pickHalf = (v: Val, bit: Val): Val => bit.select(highHalf(v), lowHalf(v));

const unpack = (bytes: 1 | 2 | 4 | 8, high: boolean): Semantics =>
  vector((fn, a, b, insn) => {
    const all = 16 / bytes;
    // In a 64-bit register the high half of the operands starts in the middle of their 8 bytes.
    const first = high ? (insn.kind(0) === "q" ? all / 4 : all / 2) : 0;
    const order = Array.from(
      { length: all },
      (_, i) => ((first + (i >> 1)) % all) + (i & 1 ? all : 0),
    );
    return elements(fn, bytes, order, a, b);
  });

const pack = (name: string): Semantics =>
  vector((fn, a, b, insn) => {
    if (insn.kind(0) !== "q") return fn.op(name, a, b);
    const both = joinHalves(fn, a, b);
    return fn.op(name, both, both);
  });

/** PMOVSX, PMOVZX through one doubling of the width after the other. */
function widen(sign: "s" | "u", ...steps: readonly string[]): Semantics {
  return (insn) => {
    requireSse(insn);
    const source = insn.kind(1) === "m" ? zeroExtend(insn.rd(1)) : insn.regRead(1, 16);
    const { fn } = insn;
    insn.regWrite(
      0,
      16,
      steps.reduce((v, step) => fn.op(`${step}_${sign}`, v), source),
    );
  };
}

const B_TO_W = "i16x8.extend_low_i8x16";
const W_TO_D = "i32x4.extend_low_i16x8";
const D_TO_Q = "i64x2.extend_low_i32x4";

const select = (fn: FunctionBuilder, mask: Val, b: Val, a: Val): Val =>
  fn.op("v128.bitselect", b, a, mask);

const blend = (bytes: 2 | 4 | 8): Semantics =>
  vector((fn, a, b, insn) => select(fn, bitsToMask(fn, bytes, insn.immediate(2)), b, a));

/** Blends by the sign bits of XMM0. */
const blendVariable = (shape: string, bits: number): Semantics =>
  vector((fn, a, b, insn) =>
    select(fn, fn.op(`${shape}.shr_s`, insn.regRead(2, 16), fn.i32(bits - 1)), b, a),
  );

/** Writes an element to a general register, zero-extended, or to memory. */
function extracted(insn: Insn, v: Val): void {
  if (isMmx(insn, 1)) enterMmx(insn);
  insn.wr(0, insn.bytes(0) === 8 ? v.extU() : v);
}

function extract(bytes: 1 | 2 | 4): Semantics {
  return (insn) => {
    requireUnit(insn, 1);
    const { fn } = insn;
    const mmx = isMmx(insn, 1);
    const v = mmx ? zeroExtend(insn.regRead(1, 8)) : insn.regRead(1, 16);
    const n = insn.immediate(2).and((mmx ? 8 : 16) / bytes - 1);
    const lane = { 1: "i8x16.extract_lane_u", 2: "i16x8.extract_lane_u", 4: "i32x4.extract_lane" };
    extracted(insn, fn.lane(lane[bytes], 0, pick(fn, v, bytes, n)));
  };
}

function insert(bytes: 1 | 2 | 4 | 8): Semantics {
  const shape = { 1: "i8x16", 2: "i16x8", 4: "i32x4", 8: "i64x2" }[bytes];
  const all = 16 / bytes;
  return (insn) => {
    requireUnit(insn);
    const { fn } = insn;
    const mmx = isMmx(insn);
    const v = fn.op(`${shape}.splat`, readLow(insn, 1, bytes));
    const n = insn.immediate(2).and((mmx ? 8 : 16) / bytes - 1);
    const number = fn.op(`${shape}.splat`, bytes === 8 ? n.extU() : n);
    const numbers =
      bytes === 8
        ? fn.v128x2(0n, 1n)
        : vectorOf(
            fn,
            bytes,
            Array.from({ length: all }, (_, i) => i),
          );
    const old = mmx ? zeroExtend(insn.regRead(0, 8)) : insn.regRead(0, 16);
    writeVector(insn, 0, select(fn, fn.op(`${shape}.eq`, number, numbers), v, old));
  };
}

/** INSERTPS: source element imm[7:6] (memory: the only one) to element imm[5:4], then zeros by imm[3:0]. */
const insertSingle: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const imm = insn.immediate(2);
  const v =
    insn.kind(1) === "m"
      ? fn.op("i32x4.splat", readLow(insn, 1, 4))
      : pick(fn, insn.regRead(1, 16), 4, imm.shrU(6).and(3));
  const place = fn.op("i32x4.splat", imm.shrU(4).and(3));
  const here = fn.op("i32x4.eq", place, vectorOf(fn, 4, [0, 1, 2, 3]));
  const r = select(fn, here, v, insn.regRead(0, 16));
  insn.regWrite(0, 16, fn.op("v128.andnot", r, bitsToMask(fn, 4, imm)));
};

export const SHUFFLE: SemanticsTable = {
  pshufb: vector((fn, a, b, insn) => {
    const bits = insn.kind(0) === "q" ? 0x87n : 0x8fn;
    return swizzle(fn, a, fn.op("v128.and", b, repeated(fn, 1, bits)));
  }),
  pshufd: vector((fn, _, b, insn) => swizzle(fn, b, dwordIndexes(fn, insn.immediate(2)))),
  pshuflw: shuffleWords(0),
  pshufhw: shuffleWords(4),
  pshufw: shuffleWords(0),
  shufps: vector((fn, a, b, insn) => {
    const index = dwordIndexes(fn, insn.immediate(2));
    return elements(fn, 4, [0, 1, 6, 7], swizzle(fn, a, index), swizzle(fn, b, index));
  }),
  shufpd: vector((fn, a, b, insn) => {
    const imm = insn.immediate(2);
    const low = fn.op("i64x2.splat", pickHalf(a, imm.and(1)));
    return fn.lane("i64x2.replace_lane", 1, low, pickHalf(b, imm.and(2)));
  }),
  punpcklbw: unpack(1, false),
  punpcklwd: unpack(2, false),
  punpckldq: unpack(4, false),
  punpcklqdq: unpack(8, false),
  punpckhbw: unpack(1, true),
  punpckhwd: unpack(2, true),
  punpckhdq: unpack(4, true),
  punpckhqdq: unpack(8, true),
  unpcklps: unpack(4, false),
  unpckhps: unpack(4, true),
  unpcklpd: unpack(8, false),
  unpckhpd: unpack(8, true),
  packsswb: pack("i8x16.narrow_i16x8_s"),
  packuswb: pack("i8x16.narrow_i16x8_u"),
  packssdw: pack("i16x8.narrow_i32x4_s"),
  packusdw: pack("i16x8.narrow_i32x4_u"),
  pmovsxbw: widen("s", B_TO_W),
  pmovsxbd: widen("s", B_TO_W, W_TO_D),
  pmovsxbq: widen("s", B_TO_W, W_TO_D, D_TO_Q),
  pmovsxwd: widen("s", W_TO_D),
  pmovsxwq: widen("s", W_TO_D, D_TO_Q),
  pmovsxdq: widen("s", D_TO_Q),
  pmovzxbw: widen("u", B_TO_W),
  pmovzxbd: widen("u", B_TO_W, W_TO_D),
  pmovzxbq: widen("u", B_TO_W, W_TO_D, D_TO_Q),
  pmovzxwd: widen("u", W_TO_D),
  pmovzxwq: widen("u", W_TO_D, D_TO_Q),
  pmovzxdq: widen("u", D_TO_Q),
  blendps: blend(4),
  blendpd: blend(8),
  pblendw: blend(2),
  blendvps: blendVariable("i32x4", 32),
  blendvpd: blendVariable("i64x2", 64),
  pblendvb: blendVariable("i8x16", 8),
  pextrb: extract(1),
  pextrw: extract(2),
  pextrd: extract(4),
  extractps: extract(4),
  pextrq: (insn) => {
    requireSse(insn);
    insn.wr(0, pickHalf(insn.regRead(1, 16), insn.immediate(2).and(1)));
  },
  pinsrb: insert(1),
  pinsrw: insert(2),
  pinsrd: insert(4),
  pinsrq: insert(8),
  insertps: insertSingle,
};
