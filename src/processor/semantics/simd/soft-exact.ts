/**
 * The short way through a soft function: rounded to nearest, and nothing but PE in question (float-safe.ts). Then the native operation is
 * the result, and whether it is exact follows from an error that can itself be computed exactly.
 *
 * This is what a program runs through whose arithmetic has been exact so far: PE is not set, so it has to be looked for every time.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";
import { type Format, floatBits, loadFloat, magnitude } from "./float-format.ts";
import { native, type Operation, scalarSafe } from "./float-safe.ts";
import { Mxcsr } from "./mxcsr.ts";
import { softResult } from "./soft-round.ts";

/** Significands as integers with the leading 1 here are exact in f64. */
export const UNIT = 52;

const convert = (v: Val): Val => v.fn.op("f64.convert_i64_s", v);
const truncate = (v: Val): Val => v.fn.op("i64.trunc_sat_f64_s", v);

/** p near x * y / 2^UNIT, below 2^(UNIT+2), and x * y - p * 2^UNIT. x and y have their leading 1 at bit UNIT. */
export function product(x: Val, y: Val): { readonly p: Val; readonly remainder: Val } {
  const p = truncate(
    convert(x)
      .mul(convert(y))
      .mul(2 ** -UNIT),
  );
  return { p, remainder: x.mul(y).sub(p.shl(UNIT)) };
}

/** q near x * 2^(UNIT+1) / y, below 2^(UNIT+2), and what x * 2^(UNIT+1) - q * y leaves. */
export function quotient(x: Val, y: Val): { readonly q: Val; readonly remainder: Val } {
  const q = truncate(
    convert(x)
      .bin("div", convert(y))
      .mul(2 ** (UNIT + 1)),
  );
  return { q, remainder: x.shl(UNIT + 1).sub(q.mul(y)) };
}

/** Significand of a normal number. */
const significand = (f: Format, bits: Val): Val => bits.and(f.normal - 1n).or(f.normal);

/** The error of a sum by Knuth's TwoSum. NaN if a step overflows. */
function sumError(a: Val, b: Val, r: Val): Val {
  const bb = r.sub(a);
  return a.sub(r.sub(bb)).add(b.sub(bb));
}

interface Operands {
  readonly a: Val;
  readonly b: Val;
  /** Bits of a, b as i64. */
  readonly bitsA: Val;
  readonly bitsB: Val;
  readonly r: Val;
}

function isInexact(f: Format, op: Operation, o: Operands): Val {
  const { fn } = o.a;
  if (op === "Add") return sumError(o.a, o.b, o.r).bin("ne", 0);
  if (op === "Sub") return sumError(o.a, o.b.un("neg"), o.r).bin("ne", 0);
  if (f.bits === 32) {
    const wide = (v: Val): Val => fn.op("f64.promote_f32", v);
    const [a, b, r] = [wide(o.a), wide(o.b), wide(o.r)];
    return op === "Mul" ? a.mul(b).bin("ne", r) : r.mul(b).bin("ne", a);
  }
  const [x, y] = [significand(f, o.bitsA), significand(f, o.bitsB)];
  const { remainder } = op === "Mul" ? product(x, y) : quotient(x, y);
  return remainder.ne(0).and(o.r.bin("ne", 0));
}

/** Answers a op b, the soft function's parameters, if it can be done the short way. */
export function answerIfPlain(fn: FunctionBuilder, f: Format, op: Operation): void {
  const [bitsA, bitsB, mxcsr] = [fn.param(0), fn.param(1), fn.param(2)];
  const a = loadFloat(f, fn, bitsA);
  const b = loadFloat(f, fn, bitsB);
  const r = a.bin(native(op), b);
  const bits = floatBits(f, fn, r);
  const narrow = (v: Val): Val => (f.bits === 64 ? v : v.wrap());
  const safe = scalarSafe(f, op, [narrow(bitsA), narrow(bitsB), narrow(bits)]);
  // Below half the largest power of two, so that no step of a sum's error overflows.
  const isModerate = (v: Val): Val => magnitude(f, v).ltU(f.infinity - f.normal);
  const moderate = isModerate(bitsA).and(isModerate(bitsB));
  fn.if(safe.and(moderate).and(mxcsr.and(Mxcsr.RC).eqz()), () => {
    const lost = isInexact(f, op, { a, b, bitsA, bitsB, r }).select(fn.i32(Mxcsr.PE), fn.i32(0));
    fn.return(softResult(fn, bits, lost));
  });
}
