/**
 * Packed integer multiplication, sums of products and of differences, horizontal arithmetic. SDM Vol. 2.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import { readAligned, requireSse } from "./operands.ts";
import { type VectorOperation, vector } from "./packed-integer.ts";
import { elements, joinHalves } from "./vector.ts";

/** High halves of the 16-bit products. */
function highProducts(sign: "s" | "u"): Semantics {
  return vector((fn, a, b) =>
    elements(
      fn,
      2,
      [1, 3, 5, 7, 9, 11, 13, 15],
      fn.op(`i32x4.extmul_low_i16x8_${sign}`, a, b),
      fn.op(`i32x4.extmul_high_i16x8_${sign}`, a, b),
    ),
  );
}

/** 64-bit products of the even 32-bit elements. */
function evenProducts(sign: "s" | "u"): Semantics {
  return vector((fn, a, b) =>
    fn.op(
      `i64x2.extmul_low_i32x4_${sign}`,
      elements(fn, 4, [0, 2, 0, 2], a, a),
      elements(fn, 4, [0, 2, 0, 2], b, b),
    ),
  );
}

/** Unsigned bytes of a times signed bytes of b, neighbours added with saturation. */
const multiplyAddBytes: VectorOperation = (fn, a, b) => {
  const eight = fn.i32(8);
  const even = fn.op(
    "i16x8.mul",
    fn.op("v128.and", a, fn.v128x2(0x00ff00ff00ff00ffn, 0x00ff00ff00ff00ffn)),
    fn.op("i16x8.shr_s", fn.op("i16x8.shl", b, eight), eight),
  );
  const odd = fn.op("i16x8.mul", fn.op("i16x8.shr_u", a, eight), fn.op("i16x8.shr_s", b, eight));
  return fn.op("i16x8.add_sat_s", even, odd);
};

/** Q15 products rounded. WebAssembly saturates -1 * -1, the processor wraps it. */
const multiplyRound: VectorOperation = (fn, a, b) => {
  const minimum = fn.v128x2(0x8000800080008000n, 0x8000800080008000n);
  const overflow = fn.op("v128.and", fn.op("i16x8.eq", a, minimum), fn.op("i16x8.eq", b, minimum));
  return fn.op("v128.xor", fn.op("i16x8.q15mulr_sat_s", a, b), overflow);
};

function absoluteDifference(fn: FunctionBuilder, a: Val, b: Val): Val {
  return fn.op("v128.or", fn.op("i8x16.sub_sat_u", a, b), fn.op("i8x16.sub_sat_u", b, a));
}

const sumOfDifferences: VectorOperation = (fn, a, b) => {
  const words = fn.op("i16x8.extadd_pairwise_i8x16_u", absoluteDifference(fn, a, b));
  const quads = fn.op("i32x4.extadd_pairwise_i16x8_u", words);
  const sums = fn.op("i64x2.add", quads, fn.op("i64x2.shr_u", quads, fn.i32(32)));
  return fn.op("v128.and", sums, fn.v128x2(0xffffn, 0xffffn));
};

/** PHADD, PHSUB: neighbours of the destination in the low half of the result, of the source in the high half. */
function horizontal(bytes: 2 | 4, name: string): Semantics {
  const even = bytes === 2 ? [0, 2, 4, 6, 8, 10, 12, 14] : [0, 2, 4, 6];
  return vector((fn, a, b, insn) => {
    const [x, y] = insn.kind(0) === "q" ? [joinHalves(fn, a, b), joinHalves(fn, a, b)] : [a, b];
    return fn.op(
      name,
      elements(fn, bytes, even, x, y),
      elements(
        fn,
        bytes,
        even.map((n) => n + 1),
        x,
        y,
      ),
    );
  });
}

/** The least of eight words and its index: both in one 32-bit number, so that the first of equals wins. */
const minimumPosition: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const v = readAligned(insn, 1);
  const tag = (half: "low" | "high", indexes: readonly [bigint, bigint]): Val =>
    fn.op(
      "v128.or",
      fn.op("i32x4.shl", fn.op(`i32x4.extend_${half}_i16x8_u`, v), fn.i32(16)),
      fn.v128x2(...indexes),
    );
  const four = fn.op(
    "i32x4.min_u",
    tag("low", [0x0000_0001_0000_0000n, 0x0000_0003_0000_0002n]),
    tag("high", [0x0000_0005_0000_0004n, 0x0000_0007_0000_0006n]),
  );
  const two = fn.op("i32x4.min_u", four, elements(fn, 4, [2, 3, 2, 3], four, four));
  const least = fn.lane(
    "i32x4.extract_lane",
    0,
    fn.op("i32x4.min_u", two, elements(fn, 4, [1, 1, 1, 1], two, two)),
  );
  insn.regWrite(0, 16, fn.lane("i32x4.replace_lane", 0, fn.v128x2(0n, 0n), least.rotl(16)));
};

/** Sums of four byte differences of one source block against eight sliding blocks of the destination. */
const slidingSums: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const source = readAligned(insn, 1);
  const destination = insn.regRead(0, 16);
  const imm = insn.immediate(2);
  const splat = (n: Val): Val => fn.op("i8x16.splat", n);
  const window = fn.op(
    "i8x16.add",
    fn.v128x2(0x0706050403020100n, 0x0706050403020100n),
    splat(imm.and(4)),
  );
  const block = splat(imm.and(3).shl(2));
  let sums: Val | null = null;
  for (let k = 0; k < 4; k++) {
    const offset = splat(fn.i32(k));
    const slid = fn.op("i8x16.swizzle", destination, fn.op("i8x16.add", window, offset));
    const byte = fn.op("i8x16.swizzle", source, fn.op("i8x16.add", block, offset));
    const wide = fn.op("i16x8.extend_low_i8x16_u", absoluteDifference(fn, slid, byte));
    sums = sums ? fn.op("i16x8.add", sums, wide) : wide;
  }
  insn.regWrite(0, 16, sums!);
};

export const PACKED_MULTIPLY: SemanticsTable = {
  pmullw: vector((fn, a, b) => fn.op("i16x8.mul", a, b)),
  pmulld: vector((fn, a, b) => fn.op("i32x4.mul", a, b)),
  pmulhw: highProducts("s"),
  pmulhuw: highProducts("u"),
  pmuludq: evenProducts("u"),
  pmuldq: evenProducts("s"),
  pmaddwd: vector((fn, a, b) => fn.op("i32x4.dot_i16x8_s", a, b)),
  pmaddubsw: vector(multiplyAddBytes),
  pmulhrsw: vector(multiplyRound),
  psadbw: vector(sumOfDifferences),
  mpsadbw: slidingSums,
  phminposuw: minimumPosition,
  phaddw: horizontal(2, "i16x8.add"),
  phaddd: horizontal(4, "i32x4.add"),
  phaddsw: horizontal(2, "i16x8.add_sat_s"),
  phsubw: horizontal(2, "i16x8.sub"),
  phsubd: horizontal(4, "i32x4.sub"),
  phsubsw: horizontal(2, "i16x8.sub_sat_s"),
};
