/**
 * Rounding of an exact number to a format under MXCSR: all rounding modes, denormals, flush to zero, OE UE PE.
 * Spec: SDM Vol. 1, "Rounding", "Numeric Overflow Exception (#O)", "Numeric Underflow Exception (#U)", "Flush-To-Zero".
 *
 * Numbers of the soft functions: sign (i32), exponent e (i32), significand (i64) with its leading 1 at bit 62, value = significand *
 * 2^(e-62). The lowest bit is sticky: it stands for everything below it that was lost.
 * Answers of the soft functions: v128 with the result's bits in the low half and MXCSR flags in the high one.
 * Tininess is detected after rounding.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { Format } from "./float-format.ts";
import { Mxcsr, Rounding, roundingOf } from "./mxcsr.ts";

/** Bit of the leading 1. */
export const TOP = 62;

/** The answer of a soft function. */
export function softResult(fn: FunctionBuilder, bits: Val | bigint, flags: Val): Val {
  const v = bits instanceof Object ? bits : fn.i64(bits);
  return fn.lane("i64x2.replace_lane", 1, fn.op("i64x2.splat", v), flags.extU());
}

export const softBits = (v: Val): Val => v.fn.lane("i64x2.extract_lane", 0, v);
export const softFlags = (v: Val): Val => v.fn.lane("i64x2.extract_lane", 1, v).wrap();

/** v >> n with the lost bits kept in the lowest one; n (i32) at least 0. */
export function shiftSticky(fn: FunctionBuilder, v: Val, n: Val): Val {
  const by = n
    .ltU(TOP + 1)
    .select(n, fn.i32(TOP + 1))
    .extU();
  const kept = v.shrU(by);
  return kept.or(kept.shl(by).ne(v).extU());
}

/** What is added below the last kept bit before cutting, for a sign and rounding mode. */
function increment(fn: FunctionBuilder, rounding: Val, sign: Val, extra: number): Val {
  const half = 1n << BigInt(extra - 1);
  const away = rounding.eq(sign.select(fn.i32(Rounding.DOWN), fn.i32(Rounding.UP)));
  const directed = away.select(fn.i64(2n * half - 1n), fn.i64(0));
  return rounding.select(directed, fn.i64(half));
}

/** softRound32, softRound64: (sign, e, significand, mxcsr, flags so far) -> answer. */
export function defineRound(module: ModuleBuilder, f: Format): void {
  module.function(`softRound${f.bits}`, ["i32", "i32", "i64", "i32", "i32"], ["v128"], (fn) => {
    const sign = fn.param(0);
    const mxcsr = fn.param(3);
    const extra = TOP - f.fraction;
    const mask = (1n << BigInt(extra)) - 1n;
    const minimum = 1 - f.bias;
    const rounding = roundingOf(mxcsr);
    const add = increment(fn, rounding, sign, extra);
    const signBit = sign.extU().shl(f.bits - 1);
    const e = fn.variable("i32", fn.param(1));
    const significand = fn.variable("i64", fn.param(2));
    const flags = fn.variable("i32", fn.param(4));

    fn.if(e.read().ltS(minimum), () => {
      const carries = significand
        .read()
        .add(add)
        .shrU(TOP + 1)
        .wrap();
      const tiny = e
        .read()
        .ltS(minimum - 1)
        .or(carries.eqz());
      fn.if(tiny, () => {
        // Unmasked, the result would be rounded as if the exponent had no bound: PE says whether that is exact.
        fn.if(mxcsr.and(Mxcsr.UM).eqz(), () => {
          const lost = significand.read().and(mask).ne(0).select(fn.i32(Mxcsr.PE), fn.i32(0));
          fn.return(softResult(fn, signBit, flags.read().or(lost).or(Mxcsr.UE)));
        });
        fn.if(mxcsr.and(Mxcsr.FTZ), () =>
          fn.return(softResult(fn, signBit, flags.read().or(Mxcsr.UE | Mxcsr.PE))),
        );
      });
      significand.set(shiftSticky(fn, significand.read(), fn.i32(minimum).sub(e.read())));
      const underflow = tiny.and(significand.read().and(mask).ne(0));
      flags.set(flags.read().or(underflow.select(fn.i32(Mxcsr.UE), fn.i32(0))));
      e.set(minimum);
    });

    const exact = significand.read();
    const rest = exact.and(mask);
    const tie = rounding.eqz().and(rest.eq(1n << BigInt(extra - 1)));
    const rounded = exact
      .add(add)
      .shrU(extra)
      .and(tie.select(fn.i64(-2), fn.i64(-1)));
    const inexact = rest.ne(0).select(fn.i32(Mxcsr.PE), fn.i32(0));
    // The leading 1 of a normal number adds the last 1 to the exponent field, and so does a carry out of the fraction.
    const field = e.read().add(f.bias - 1);
    const huge = field.gtS(2 * f.bias + 2).select(fn.i32(2 * f.bias + 2), field);
    const bits = huge.extU().shl(f.fraction).add(rounded);
    fn.if(bits.geU(f.infinity), () => {
      const over = fn.i32(Mxcsr.OE);
      const masked = mxcsr.and(Mxcsr.OM).nez();
      const away = rounding
        .eqz()
        .or(rounding.eq(sign.select(fn.i32(Rounding.DOWN), fn.i32(Rounding.UP))));
      const limit = away.select(fn.i64(f.infinity), fn.i64(f.infinity - 1n));
      const lost = masked.select(fn.i32(Mxcsr.PE), inexact);
      fn.return(softResult(fn, limit.or(signBit), flags.read().or(over).or(lost)));
    });
    fn.return(softResult(fn, bits.or(signBit), flags.read().or(inexact)));
  });
}
