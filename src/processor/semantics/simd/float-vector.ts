/**
 * Questions about floating-point elements asked of all elements of a vector at once, and of scalars in their own width.
 *
 * The names say what the fast paths need to know: an operand that is not denormal raises no DE and does not care about DAZ; a result
 * above the least normal number raises no UE, a finite one no OE and no IE.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";
import type { Format } from "./float-format.ts";
import { repeated } from "./vector.ts";

export const intShape = (f: Format): string => (f.bits === 32 ? "i32x4" : "i64x2");
export const floatShape = (f: Format): string => (f.bits === 32 ? "f32x4" : "f64x2");
export const lanesOf = (f: Format): number => 128 / f.bits;

const same = (fn: FunctionBuilder, f: Format, v: bigint): Val => repeated(fn, f.bytes, v);
const int = (fn: FunctionBuilder, f: Format, name: string, a: Val, b: Val): Val =>
  fn.op(`${intShape(f)}.${name}`, a, b);
export const float = (fn: FunctionBuilder, f: Format, name: string, ...args: Val[]): Val =>
  fn.op(`${floatShape(f)}.${name}`, ...args);
export const both = (fn: FunctionBuilder, a: Val, b: Val): Val => fn.op("v128.and", a, b);
export const either = (fn: FunctionBuilder, a: Val, b: Val): Val => fn.op("v128.or", a, b);

// ---- element masks ----

/** Zero, normal, infinite or NaN: twice the bits, less one, is not below that of the least normal number. */
export function notDenormal(fn: FunctionBuilder, f: Format, v: Val): Val {
  const positive = f.sign - 1n;
  const y = int(fn, f, "add", fn.op(`${intShape(f)}.shl`, v, fn.i32(1)), same(fn, f, positive));
  return int(fn, f, "gt_s", y, same(fn, f, 2n * f.normal - 2n - f.sign));
}

export const isZero = (fn: FunctionBuilder, f: Format, v: Val): Val =>
  float(fn, f, "eq", v, fn.v128x2(0n, 0n));

const magnitudes = (fn: FunctionBuilder, f: Format, v: Val): Val =>
  both(fn, v, same(fn, f, f.sign - 1n));

export const finite = (fn: FunctionBuilder, f: Format, v: Val): Val =>
  int(fn, f, "lt_s", magnitudes(fn, f, v), same(fn, f, f.infinity));

/** Finite and above the least normal number. */
export const aboveLeast = (fn: FunctionBuilder, f: Format, v: Val): Val =>
  both(fn, int(fn, f, "gt_s", magnitudes(fn, f, v), same(fn, f, f.normal)), finite(fn, f, v));

export const notNan = (fn: FunctionBuilder, f: Format, v: Val): Val => float(fn, f, "eq", v, v);
export const nan = (fn: FunctionBuilder, f: Format, v: Val): Val => float(fn, f, "ne", v, v);

export function signalling(fn: FunctionBuilder, f: Format, v: Val): Val {
  const quietBit = both(fn, v, same(fn, f, f.quiet));
  return both(fn, nan(fn, f, v), int(fn, f, "eq", quietBit, fn.v128x2(0n, 0n)));
}

export const quieted = (fn: FunctionBuilder, f: Format, v: Val): Val =>
  either(fn, v, same(fn, f, f.quiet));

/** Denormals become zeros of their sign. */
export function flushed(fn: FunctionBuilder, f: Format, v: Val): Val {
  const signs = same(fn, f, f.sign);
  return fn.op("v128.bitselect", v, both(fn, v, signs), notDenormal(fn, f, v));
}

export const all = (fn: FunctionBuilder, f: Format, mask: Val): Val =>
  fn.op(`${intShape(f)}.all_true`, mask);
export const any = (fn: FunctionBuilder, mask: Val): Val => fn.op("v128.any_true", mask);

// ---- scalars: i32 or i64 bits ----

export const scalarNotDenormal = (f: Format, v: Val): Val =>
  v
    .shl(1)
    .sub(1)
    .geU(2n * f.normal - 1n);
export const scalarIsZero = (v: Val): Val => v.shl(1).eqz();
export const scalarFinite = (f: Format, v: Val): Val => v.shl(1).ltU(2n * f.infinity);
export const scalarAboveLeast = (f: Format, v: Val): Val =>
  v
    .shl(1)
    .sub(2n * f.normal + 1n)
    .ltU(2n * (f.infinity - f.normal) - 1n);

// ---- moving between them ----

/** Scalar bits (i32 or i64) in every element. */
export const splat = (fn: FunctionBuilder, f: Format, bits: Val): Val =>
  fn.op(`${intShape(f)}.splat`, bits);

export const element = (fn: FunctionBuilder, f: Format, i: number, v: Val): Val =>
  fn.lane(`${intShape(f)}.extract_lane`, i, v);

export const replaceElement = (fn: FunctionBuilder, f: Format, i: number, v: Val, bits: Val): Val =>
  fn.lane(`${intShape(f)}.replace_lane`, i, v, bits);
