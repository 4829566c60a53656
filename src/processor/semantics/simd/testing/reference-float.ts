/**
 * IEEE 754 arithmetic on exact rational numbers in bigint, with the flags of MXCSR: an independent reading of the standard for the tests.
 * All exceptions masked.
 */
import type { Format } from "../float-format.ts";
import { Mxcsr, Rounding } from "../mxcsr.ts";

export interface Outcome {
  readonly bits: bigint;
  readonly flags: number;
}

/** A finite number: sign, and magnitude numerator / denominator (sticky if the magnitude is a truncated root). */
interface Rational {
  readonly negative: boolean;
  readonly numerator: bigint;
  readonly denominator: bigint;
}

const isNan = (f: Format, v: bigint): boolean => (v & (f.sign - 1n)) > f.infinity;
const isInfinite = (f: Format, v: bigint): boolean => (v & (f.sign - 1n)) === f.infinity;
const isZero = (f: Format, v: bigint): boolean => (v & (f.sign - 1n)) === 0n;
const isDenormal = (f: Format, v: bigint): boolean =>
  !isZero(f, v) && (v & (f.sign - 1n)) < f.normal;
const isNegative = (f: Format, v: bigint): boolean => (v & f.sign) !== 0n;

function rationalOf(f: Format, v: bigint): Rational {
  const field = Number((v & f.infinity) >> BigInt(f.fraction));
  const significand = (v & (f.normal - 1n)) | (field ? f.normal : 0n);
  const exponent = Math.max(field, 1) - f.bias - f.fraction;
  const negative = isNegative(f, v);
  return exponent >= 0
    ? { negative, numerator: significand << BigInt(exponent), denominator: 1n }
    : { negative, numerator: significand, denominator: 1n << BigInt(-exponent) };
}

/** floor(n / d * 2^shift), and whether anything is left. */
function scaled(
  v: Rational,
  shift: number,
): { readonly q: bigint; readonly rest: bigint; readonly d: bigint } {
  const n = shift > 0 ? v.numerator << BigInt(shift) : v.numerator;
  const d = shift < 0 ? v.denominator << BigInt(-shift) : v.denominator;
  return { q: n / d, rest: n % d, d };
}

function roundsUp(q: bigint, rest: bigint, d: bigint, negative: boolean, mode: number): boolean {
  if (rest === 0n) return false;
  if (mode === Rounding.NEAREST) return 2n * rest > d || (2n * rest === d && (q & 1n) === 1n);
  return mode === (negative ? Rounding.DOWN : Rounding.UP);
}

/** Rounds a nonzero rational. */
function round(f: Format, v: Rational, mxcsr: number): Outcome {
  const mode = (mxcsr >> 13) & 3;
  const sign = v.negative ? f.sign : 0n;
  // Exponent e with 2^e <= v < 2^(e+1).
  let e = v.numerator.toString(2).length - v.denominator.toString(2).length;
  if (scaled(v, -e).q === 0n) e--;
  const minimum = 1 - f.bias;
  const at = (exponent: number) => {
    const { q, rest, d } = scaled(v, f.fraction - exponent);
    return { q: q + (roundsUp(q, rest, d, v.negative, mode) ? 1n : 0n), exact: rest === 0n };
  };
  const unbounded = at(e);
  const tiny = e < minimum && !(e === minimum - 1 && unbounded.q === 2n * f.normal);
  if (tiny && mxcsr & Mxcsr.FTZ) return { bits: sign, flags: Mxcsr.UE | Mxcsr.PE };
  const { q, exact } = at(Math.max(e, minimum));
  const bits = (BigInt(Math.max(e, minimum) + f.bias - 1) << BigInt(f.fraction)) + q;
  if (bits >= f.infinity) {
    const away = mode === Rounding.NEAREST || mode === (v.negative ? Rounding.DOWN : Rounding.UP);
    return { bits: sign | (away ? f.infinity : f.infinity - 1n), flags: Mxcsr.OE | Mxcsr.PE };
  }
  return { bits: sign | bits, flags: exact ? 0 : Mxcsr.PE | (tiny ? Mxcsr.UE : 0) };
}

const signed = (v: Rational): bigint => (v.negative ? -v.numerator : v.numerator);

function squareRoot(n: bigint): bigint {
  let x = 1n << BigInt((n.toString(2).length + 1) >> 1);
  for (;;) {
    const y = (x + n / x) >> 1n;
    if (y >= x) return x;
    x = y;
  }
}

type Name = "add" | "sub" | "mul" | "div" | "sqrt";

function special(f: Format, name: Name, a: bigint, b: bigint, down: boolean): Outcome | null {
  const invalid = { bits: f.defaultNan, flags: Mxcsr.IE };
  const sign = (a ^ b) & f.sign;
  const infinite = isInfinite(f, a) || isInfinite(f, b);
  const answer = (bits: bigint): Outcome => ({ bits, flags: 0 });
  switch (name) {
    case "add":
      if (infinite)
        return isInfinite(f, a) && isInfinite(f, b) && sign
          ? invalid
          : answer(isInfinite(f, a) ? a : b);
      if (isZero(f, a) && isZero(f, b)) return answer(sign ? (down ? f.sign : 0n) : a);
      return null;
    case "mul":
      if (infinite) return isZero(f, a) || isZero(f, b) ? invalid : answer(sign | f.infinity);
      return isZero(f, a) || isZero(f, b) ? answer(sign) : null;
    case "div":
      if (isInfinite(f, a)) return isInfinite(f, b) ? invalid : answer(sign | f.infinity);
      if (isInfinite(f, b)) return answer(sign);
      if (isZero(f, b))
        return isZero(f, a) ? invalid : { bits: sign | f.infinity, flags: Mxcsr.ZE };
      return isZero(f, a) ? answer(sign) : null;
    default:
      if (isZero(f, a)) return answer(a);
      if (isNegative(f, a)) return invalid;
      return isInfinite(f, a) ? answer(a) : null;
  }
}

function finite(f: Format, name: Name, a: bigint, b: bigint): Rational {
  const [x, y] = [rationalOf(f, a), rationalOf(f, b)];
  const negative = x.negative !== y.negative;
  if (name === "add") {
    const n = signed(x) * y.denominator + signed(y) * x.denominator;
    return {
      negative: n < 0n,
      numerator: n < 0n ? -n : n,
      denominator: x.denominator * y.denominator,
    };
  }
  if (name === "mul") {
    return {
      negative,
      numerator: x.numerator * y.numerator,
      denominator: x.denominator * y.denominator,
    };
  }
  if (name === "div") {
    return {
      negative,
      numerator: x.numerator * y.denominator,
      denominator: x.denominator * y.numerator,
    };
  }
  // A root cut far beyond the precision, with a last bit that says whether anything was cut.
  const precision = 2 * (f.fraction + 8 + Math.max(0, f.bias));
  const n = (x.numerator << BigInt(2 * precision)) / x.denominator;
  const root = squareRoot(n);
  const isExact =
    root * root === n && (x.numerator << BigInt(2 * precision)) % x.denominator === 0n;
  return {
    negative: false,
    numerator: 2n * root + (isExact ? 0n : 1n),
    denominator: 2n << BigInt(precision),
  };
}

/** name(a, b) under MXCSR; sqrt looks at a only. */
export function reference(f: Format, name: Name, a: bigint, b: bigint, mxcsr: number): Outcome {
  const operands = name === "sqrt" ? [a, a] : [a, b];
  let flags = 0;
  const taken = operands.map((v) => {
    if (!isDenormal(f, v)) return v;
    if (mxcsr & Mxcsr.DAZ) return v & f.sign;
    flags = Mxcsr.DE;
    return v;
  });
  const nan = taken.find((v) => isNan(f, v));
  if (nan !== undefined) {
    const signals = taken.some((v) => isNan(f, v) && (v & f.quiet) === 0n);
    return { bits: nan | f.quiet, flags: signals ? Mxcsr.IE : 0 };
  }
  const [x, y] = [taken[0]!, name === "sub" ? taken[1]! ^ f.sign : taken[1]!];
  const operation = name === "sub" ? "add" : name;
  const down = ((mxcsr >> 13) & 3) === Rounding.DOWN;
  const known = special(f, operation, x, y, down);
  // Invalid operations and divisions by zero come before the denormal operand exception.
  if (known) return { bits: known.bits, flags: known.flags || flags };
  const exact = finite(f, operation, x, y);
  if (exact.numerator === 0n) return { bits: down ? f.sign : 0n, flags };
  const r = round(f, exact, mxcsr);
  return { bits: r.bits, flags: r.flags | flags };
}
