/**
 * The two IEEE 754 formats of SSE as bit patterns in i64 (binary32 zero-extended), and questions about them.
 * Spec: SDM Vol. 1, "Floating-Point Data Types", "NaNs", "Rules for Handling NaNs".
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";

export interface Format {
  readonly bits: 32 | 64;
  readonly bytes: 4 | 8;
  /** Stored bits of the significand. */
  readonly fraction: number;
  readonly bias: number;
  readonly sign: bigint;
  readonly infinity: bigint;
  readonly quiet: bigint;
  /** The least normal number. */
  readonly normal: bigint;
  /** The NaN of an invalid operation. */
  readonly defaultNan: bigint;
}

function format(bits: 32 | 64, fraction: number): Format {
  const exponentBits = bits - 1 - fraction;
  const infinity = ((1n << BigInt(exponentBits)) - 1n) << BigInt(fraction);
  const quiet = 1n << BigInt(fraction - 1);
  const sign = 1n << BigInt(bits - 1);
  return {
    bits,
    bytes: bits === 32 ? 4 : 8,
    fraction,
    bias: 2 ** (exponentBits - 1) - 1,
    sign,
    infinity,
    quiet,
    normal: 1n << BigInt(fraction),
    defaultNan: sign | infinity | quiet,
  };
}

export const F32 = format(32, 23);
export const F64 = format(64, 52);

export const magnitude = (f: Format, v: Val): Val => v.and(f.sign - 1n);
export const isNan = (f: Format, v: Val): Val => magnitude(f, v).gtU(f.infinity);
export const isInfinite = (f: Format, v: Val): Val => magnitude(f, v).eq(f.infinity);
/** Denormal and not zero. */
export const isDenormal = (f: Format, v: Val): Val =>
  magnitude(f, v)
    .sub(1)
    .ltU(f.normal - 1n);
/** Of a NaN: signalling. */
export const isSignalling = (f: Format, v: Val): Val => v.and(f.quiet).eqz();
export const signOf = (f: Format, v: Val): Val => v.shrU(f.bits - 1).wrap();

export const loadFloat = (f: Format, fn: FunctionBuilder, bits: Val): Val =>
  f.bits === 64 ? fn.op("f64.reinterpret_i64", bits) : fn.op("f32.reinterpret_i32", bits.wrap());

export const floatBits = (f: Format, fn: FunctionBuilder, v: Val): Val =>
  f.bits === 64 ? fn.op("i64.reinterpret_f64", v) : fn.op("i32.reinterpret_f32", v).extU();
