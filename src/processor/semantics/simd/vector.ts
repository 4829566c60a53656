/**
 * Small vector idioms over the builder: constant shuffles of elements, splats, masks from immediate bits.
 * An immediate is a value here, not a constant: an interpreter reads it from the decoded record, so shuffles by immediate are index
 * arithmetic and a swizzle.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";

/** A constant shuffle in elements of `bytes`; numbers from 16 / bytes up are the elements of b. */
export function elements(
  fn: FunctionBuilder,
  bytes: number,
  order: readonly number[],
  a: Val,
  b: Val,
): Val {
  const lanes = order.flatMap((n) => Array.from({ length: bytes }, (_, k) => n * bytes + k));
  return fn.lane("i8x16.shuffle", lanes, a, b);
}

/** The low half of a under the low half of b. */
export function joinHalves(fn: FunctionBuilder, a: Val, b: Val): Val {
  return elements(fn, 8, [0, 2], a, b);
}

/** A constant of equal elements of 1, 2, 4 or 8 bytes. */
export function repeated(fn: FunctionBuilder, bytes: 1 | 2 | 4 | 8, value: bigint): Val {
  const bits = BigInt(8 * bytes);
  let half = 0n;
  for (let at = 0n; at < 64n; at += bits) half |= BigInt.asUintN(Number(bits), value) << at;
  return fn.v128x2(half, half);
}

/** A constant from its elements of `bytes` each. */
export function vectorOf(fn: FunctionBuilder, bytes: 1 | 2 | 4, values: readonly number[]): Val {
  const out = new Uint8Array(16);
  values.forEach((v, i) => {
    for (let k = 0; k < bytes; k++) out[i * bytes + k] = (v >> (8 * k)) & 0xff;
  });
  return fn.v128(out);
}

/** Elements of `bytes` that are all ones where bit i of an i32 is set. */
export function bitsToMask(fn: FunctionBuilder, bytes: 1 | 2 | 4 | 8, bits: Val): Val {
  if (bytes === 8) {
    const v = fn.op("v128.and", fn.op("i64x2.splat", bits.extU()), fn.v128x2(1n, 2n));
    return fn.op("i64x2.ne", v, fn.v128x2(0n, 0n));
  }
  if (bytes === 1) {
    // Bytes 0..7 test the low byte of the bits, 8..15 the high one.
    const spread = elements(
      fn,
      1,
      [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
      fn.op("i32x4.splat", bits),
      fn.op("i32x4.splat", bits),
    );
    const select = fn.v128x2(0x8040201008040201n, 0x8040201008040201n);
    return fn.op("i8x16.eq", fn.op("v128.and", spread, select), select);
  }
  const shape = bytes === 2 ? "i16x8" : "i32x4";
  const select = vectorOf(
    fn,
    bytes,
    Array.from({ length: 16 / bytes }, (_, i) => 1 << i),
  );
  return fn.op(`${shape}.eq`, fn.op("v128.and", fn.op(`${shape}.splat`, bits), select), select);
}
