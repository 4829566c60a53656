/**
 * Exact addition, multiplication, division and square root for every MXCSR: the reference that the fast paths fall back to.
 * Spec: SDM Vol. 1, "Floating-Point Exceptions in SSE", "Results of Operations with NaN Operands or a NaN Result for SSE/SSE2/SSE3";
 * IEEE 754-2008, clause 5.4.1.
 *
 * soft{Add,Sub,Mul,Div}{32,64}(a, b, mxcsr) and soft{Sqrt}{32,64}(a, mxcsr) answer result and flags (soft-round.ts).
 * Products, quotients and roots come from one native operation on the significands as integers in f64, which is right to half a unit, and
 * the exact remainder in wrapping 64-bit arithmetic, whose sign says to which side the exact value lies.
 */
import type { FunctionBuilder, Variable } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import {
  F32,
  F64,
  type Format,
  isDenormal,
  isInfinite,
  isNan,
  isSignalling,
  magnitude,
  signOf,
} from "./float-format.ts";
import { Mxcsr, Rounding, roundingOf } from "./mxcsr.ts";
import { answerIfPlain, product, quotient, UNIT } from "./soft-exact.ts";
import { defineRound, shiftSticky, softResult, TOP } from "./soft-round.ts";

interface Unpacked {
  readonly exponent: Val;
  /** Leading 1 at bit UNIT; 0 for zero, with an exponent below every other. */
  readonly significand: Val;
}

export function unpack(f: Format, v: Val): Unpacked {
  const { fn } = v;
  const m = magnitude(f, v);
  const field = m.shrU(f.fraction).wrap();
  const fraction = m.and(f.normal - 1n);
  const shift = field.select(
    fn.i32(0),
    fraction
      .clz()
      .wrap()
      .sub(63 - f.fraction),
  );
  const hidden = field.select(fn.i64(f.normal), fn.i64(0));
  const significand = fraction
    .or(hidden)
    .shl(shift.extU())
    .shl(UNIT - f.fraction);
  const exponent = field.select(field, fn.i32(1)).sub(f.bias).sub(shift);
  return { exponent, significand };
}

const flag = (condition: Val, bit: number): Val =>
  condition.select(condition.fn.i32(bit), condition.fn.i32(0));

/** One call's operands after DAZ, and the flags so far. */
interface Frame {
  readonly fn: FunctionBuilder;
  readonly f: Format;
  readonly operands: readonly Variable[];
  readonly mxcsr: Val;
  readonly flags: Variable;
}

/** DAZ or DE of denormal operands, then NaN operands: the first NaN, made quiet, is the result. */
function takeOperands(fn: FunctionBuilder, f: Format, count: number): Frame {
  const mxcsr = fn.param(count);
  const flags = fn.variable("i32", 0);
  const operands = Array.from({ length: count }, (_, i) => fn.variable("i64", fn.param(i)));
  for (const x of operands) {
    const v = x.read();
    fn.if(isDenormal(f, v), () =>
      fn.if(
        mxcsr.and(Mxcsr.DAZ),
        () => x.set(v.and(f.sign)),
        () => flags.set(Mxcsr.DE),
      ),
    );
  }
  const values = operands.map((x) => x.read());
  const nans = values.map((v) => isNan(f, v));
  fn.if(
    nans.reduce((x, y) => x.or(y)),
    () => {
      const first = nans[0]!.select(values[0]!, values[count - 1]!);
      const signalling = values.map((v, i) => nans[i]!.and(isSignalling(f, v)));
      const invalid = flag(
        signalling.reduce((x, y) => x.or(y)),
        Mxcsr.IE,
      );
      fn.return(softResult(fn, first.or(f.quiet), invalid));
    },
  );
  return { fn, f, operands, mxcsr, flags };
}

function invalid({ fn, f }: Frame): void {
  fn.return(softResult(fn, f.defaultNan, fn.i32(Mxcsr.IE)));
}

function answer({ fn, flags }: Frame, bits: Val): void {
  fn.return(softResult(fn, bits, flags.read()));
}

/** Rounds sign, e and a nonzero significand whose leading 1 is anywhere, e belonging to bit TOP. */
function finish(frame: Frame, module: ModuleBuilder, sign: Val, e: Val, significand: Val): void {
  const { fn, f, mxcsr, flags } = frame;
  const shift = significand.clz().sub(1);
  const normal = shift
    .ltS(0)
    .select(shiftSticky(fn, significand, fn.i32(1)), significand.shl(shift));
  const exponent = e.sub(shift.wrap());
  fn.return(fn.call(module.get(`softRound${f.bits}`), sign, exponent, normal, mxcsr, flags.read()));
}

/** Appends the sign of an exact remainder below an approximation as the sticky bit. */
function withRemainder(approximation: Val, remainder: Val): Val {
  const { fn } = approximation;
  const below = remainder.ltS(0).select(fn.i64(-1), remainder.ne(0).extU());
  return approximation.add(below);
}

function defineAdd(module: ModuleBuilder, f: Format, subtract: boolean): void {
  module.function(
    `soft${subtract ? "Sub" : "Add"}${f.bits}`,
    ["i64", "i64", "i32"],
    ["v128"],
    (fn) => {
      answerIfPlain(fn, f, subtract ? "Sub" : "Add");
      const frame = takeOperands(fn, f, 2);
      const a = frame.operands[0]!.read();
      const b = subtract ? frame.operands[1]!.read().xor(f.sign) : frame.operands[1]!.read();
      const opposite = a.xor(b).and(f.sign).ne(0);
      fn.if(isInfinite(f, a), () => {
        fn.if(isInfinite(f, b).and(opposite), () => invalid(frame));
        answer(frame, a);
      });
      fn.if(isInfinite(f, b), () => answer(frame, b));

      const swap = magnitude(f, b).gtU(magnitude(f, a));
      const large = unpack(f, swap.select(b, a));
      const small = unpack(f, swap.select(a, b));
      const x = large.significand.shl(TOP - UNIT);
      const distance = large.exponent.sub(small.exponent);
      const y = shiftSticky(fn, small.significand.shl(TOP - UNIT), distance);
      const sum = opposite.select(x.sub(y), x.add(y));
      fn.if(sum.eqz(), () => {
        // Zeros of one sign keep it; an exact zero difference is +0, or -0 rounding down.
        const down = roundingOf(frame.mxcsr).eq(Rounding.DOWN);
        const cancelled = down.select(fn.i64(f.sign), fn.i64(0));
        answer(frame, opposite.select(cancelled, a.and(f.sign)));
      });
      finish(frame, module, signOf(f, swap.select(b, a)), large.exponent, sum);
    },
  );
}

function defineMul(module: ModuleBuilder, f: Format): void {
  module.function(`softMul${f.bits}`, ["i64", "i64", "i32"], ["v128"], (fn) => {
    answerIfPlain(fn, f, "Mul");
    const frame = takeOperands(fn, f, 2);
    const a = frame.operands[0]!.read();
    const b = frame.operands[1]!.read();
    const signBit = a.xor(b).and(f.sign);
    const zero = magnitude(f, a).eqz().or(magnitude(f, b).eqz());
    fn.if(isInfinite(f, a).or(isInfinite(f, b)), () => {
      fn.if(zero, () => invalid(frame));
      answer(frame, signBit.or(f.infinity));
    });
    fn.if(zero, () => answer(frame, signBit));
    const x = unpack(f, a);
    const y = unpack(f, b);
    const { p, remainder } = product(x.significand, y.significand);
    const spare = TOP - UNIT - 2;
    const significand = withRemainder(p.shl(spare), remainder);
    finish(
      frame,
      module,
      signOf(f, signBit),
      x.exponent.add(y.exponent).add(TOP - UNIT - spare),
      significand,
    );
  });
}

function defineDiv(module: ModuleBuilder, f: Format): void {
  module.function(`softDiv${f.bits}`, ["i64", "i64", "i32"], ["v128"], (fn) => {
    answerIfPlain(fn, f, "Div");
    const frame = takeOperands(fn, f, 2);
    const a = frame.operands[0]!.read();
    const b = frame.operands[1]!.read();
    const signBit = a.xor(b).and(f.sign);
    const isZero = (v: Val): Val => magnitude(f, v).eqz();
    fn.if(isInfinite(f, a), () => {
      fn.if(isInfinite(f, b), () => invalid(frame));
      answer(frame, signBit.or(f.infinity));
    });
    fn.if(isInfinite(f, b), () => answer(frame, signBit));
    fn.if(isZero(b), () => {
      fn.if(isZero(a), () => invalid(frame));
      fn.return(softResult(fn, signBit.or(f.infinity), fn.i32(Mxcsr.ZE)));
    });
    fn.if(isZero(a), () => answer(frame, signBit));
    const x = unpack(f, a);
    const y = unpack(f, b);
    const { q, remainder } = quotient(x.significand, y.significand);
    const spare = TOP - UNIT - 2;
    const significand = withRemainder(q.shl(spare), remainder);
    finish(
      frame,
      module,
      signOf(f, signBit),
      x.exponent.sub(y.exponent).add(TOP - UNIT - 1 - spare),
      significand,
    );
  });
}

function defineSqrt(module: ModuleBuilder, f: Format): void {
  module.function(`softSqrt${f.bits}`, ["i64", "i32"], ["v128"], (fn) => {
    const frame = takeOperands(fn, f, 1);
    const a = frame.operands[0]!.read();
    fn.if(magnitude(f, a).eqz(), () => answer(frame, a));
    fn.if(signOf(f, a), () => invalid(frame));
    fn.if(isInfinite(f, a), () => answer(frame, a));
    const x = unpack(f, a);
    // An even exponent; the root of the significand, in [2^26, 2^27), has 26 bits behind the point.
    const odd = x.exponent.and(1);
    const significand = x.significand.shl(odd.extU());
    const half = UNIT / 2;
    const root = fn.op("f64.convert_i64_s", significand).un("sqrt");
    const r = fn.op("i64.trunc_sat_f64_s", root.mul(2 ** half));
    const remainder = significand.shl(UNIT).sub(r.mul(r));
    finish(
      frame,
      module,
      fn.i32(0),
      x.exponent.sub(odd).shrS(1),
      withRemainder(r.shl(TOP - UNIT), remainder),
    );
  });
}

/** softNarrow(a, mxcsr): binary64 to binary32. */
function defineNarrow(module: ModuleBuilder): void {
  module.function("softNarrow", ["i64", "i32"], ["v128"], (fn) => {
    const mxcsr = fn.param(1);
    const flags = fn.variable("i32", 0);
    const operand = fn.variable("i64", fn.param(0));
    fn.if(isDenormal(F64, operand.read()), () =>
      fn.if(
        mxcsr.and(Mxcsr.DAZ),
        () => operand.set(operand.read().and(F64.sign)),
        () => flags.set(Mxcsr.DE),
      ),
    );
    const a = operand.read();
    const signBit = a.shrU(32).and(F32.sign);
    const frame: Frame = { fn, f: F32, operands: [], mxcsr, flags };
    fn.if(isNan(F64, a), () => {
      const payload = a.shrU(F64.fraction - F32.fraction).and(F32.normal - 1n);
      fn.return(
        softResult(
          fn,
          signBit.or(payload).or(F32.infinity | F32.quiet),
          flag(isSignalling(F64, a), Mxcsr.IE),
        ),
      );
    });
    fn.if(isInfinite(F64, a), () => answer(frame, signBit.or(F32.infinity)));
    fn.if(magnitude(F64, a).eqz(), () => answer(frame, signBit));
    const x = unpack(F64, a);
    finish(frame, module, signOf(F64, a), x.exponent, x.significand.shl(TOP - UNIT));
  });
}

/** softFromInt32, softFromInt64(n, mxcsr): a signed 64-bit integer to the format. */
function defineFromInt(module: ModuleBuilder, f: Format): void {
  module.function(`softFromInt${f.bits}`, ["i64", "i32"], ["v128"], (fn) => {
    const n = fn.param(0);
    const flags = fn.variable("i32", 0);
    const frame: Frame = { fn, f, operands: [], mxcsr: fn.param(1), flags };
    fn.if(n.eqz(), () => answer(frame, fn.i64(0)));
    const negative = n.ltS(0);
    finish(frame, module, negative, fn.i32(TOP), negative.select(n.neg(), n));
  });
}

export function defineSoftArithmetic(module: ModuleBuilder): void {
  for (const f of [F32, F64]) {
    defineRound(module, f);
    defineAdd(module, f, false);
    defineAdd(module, f, true);
    defineMul(module, f);
    defineDiv(module, f);
    defineSqrt(module, f);
    defineFromInt(module, f);
  }
  defineNarrow(module);
}
