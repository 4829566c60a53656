/**
 * FSIN, FCOS, FSINCOS, FPTAN.
 * Spec: SDM Vol. 2, the entries of these instructions; Vol. 1, "Approximation of Pi".
 *
 * The argument is reduced exactly by a pi of 66 bits, as Intel and AMD processors do (compared bit by bit with the latter): |x| mod pi/2
 * is an integer remainder, left as a distance r <= pi/4 from the nearest multiple. The functions of r are power series on 128 bits;
 * results are rounded correctly by the rounding control. Processors are up to 0.54 ulp off in 1 of 100 cases.
 *
 *   x87Reduce(exponent, sig): r as a wide float (high; Scratch.LOW, EXPONENT), quadrant and side of r in Scratch.FLAGS
 *   x87Sine(r), x87Cosine(r): wide float functions
 *   x87Sin(slot), x87Cos(slot), x87SinCos(slot, above), x87Tan(slot, above)
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Procedure } from "../procedure.ts";
import { Class, classOf, normalize } from "./nan.ts";
import { endIf, endIfNan, indefinite } from "./outcome.ts";
import { COSINE, REDUCTION_HALF_PI, SINE } from "./series.ts";
import {
  BIAS,
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  INTEGER_BIT,
  Pop,
  parameters,
  Scratch,
  setSlot,
  signExponent,
  significand,
  tagBit,
} from "./state.ts";
import {
  callFloat,
  defineFloatFunction,
  divFloat,
  fixedToFloat,
  mulFloat,
  mulWide,
  normalizeWide,
  polynomial,
  storeIrrational,
  subWide,
  toFraction,
  type Wide,
  type WideFloat,
  wideConstant,
} from "./wide-float.ts";

/** Fraction bits of the remainder. */
const REMAINDER_BITS = 65;

function atLeast(a: Wide, b: Wide): Val {
  return a.high.gtU(b.high).or(a.high.eq(b.high).and(a.low.geU(b.low)));
}

function defineReduce(module: ModuleBuilder): void {
  // For |x| = sig / 2^63 * 2^exponent < 2^63.
  defineHelper(module, "x87Reduce", ["i32", "i64"], "i64", (p, fn) => {
    const [exponent, sig] = parameters(fn);
    p.setRaw(4, Scratch.FLAGS, 0);
    fn.if(exponent.leS(-2), () => {
      p.setRaw(8, Scratch.LOW, 0n);
      p.setRaw(4, Scratch.EXPONENT, exponent);
      fn.return(sig);
    });
    // sig * 2^(exponent + 2), in units of 2^-65, modulo pi/2: a quotient bit for each doubling.
    const period = wideConstant(p, REDUCTION_HALF_PI);
    const high = fn.variable("i64", 0n);
    const low = fn.variable("i64", sig);
    const quotient = fn.variable("i32", 0);
    const count = fn.variable("i32", exponent.add(2));
    fn.while(
      () => count.read(),
      () => {
        const before = low.read();
        const doubled = { high: high.read().shl(1).or(before.shrU(63)), low: before.shl(1) };
        const fits = atLeast(doubled, period);
        const mask = fits.extU().neg();
        const next = subWide(doubled, { high: period.high.and(mask), low: period.low.and(mask) });
        high.set(next.high);
        low.set(next.low);
        quotient.set(quotient.read().shl(1).or(fits));
        count.set(count.read().sub(1));
      },
    );
    const rest = { high: high.read(), low: low.read() };
    const other = subWide(period, rest);
    // Above pi/4: the distance to the next multiple, on its other side.
    const above = atLeast(rest, other);
    const q = quotient.read().add(above);
    p.setRaw(4, Scratch.FLAGS, q.and(3).or(above.shl(2)));
    const distance = {
      high: above.select(other.high, rest.high),
      low: above.select(other.low, rest.low),
    };
    const n = normalizeWide(p, distance);
    p.setRaw(4, Scratch.EXPONENT, p.i32(127 - REMAINDER_BITS).sub(n.shift));
    p.setRaw(8, Scratch.LOW, n.low);
    fn.return(n.high);
  });
}

/**
 * r * (1 - r^2/3! + ...) and 1 - r^2/2! + ..., less a little that keeps sin r < r, cos r < 1 and tan r > r where r^2 is too small to show.
 */
function defineSeries(module: ModuleBuilder): void {
  const series = (
    p: Procedure,
    r: WideFloat,
    coefficients: readonly bigint[],
    less: bigint,
  ): WideFloat => {
    const f = toFraction(p, r);
    const sum = polynomial(p, mulWide(p, f, f), coefficients, null);
    return fixedToFloat(p, subWide(sum, wideConstant(p, less)), 127);
  };
  defineFloatFunction(module, "x87Sine", (p, r) => mulFloat(p, r, series(p, r, SINE, 1n)));
  defineFloatFunction(module, "x87Cosine", (p, r) => series(p, r, COSINE, 16n));
}

/** Special operands. What is left: finite, not zero, below 2^63. */
function begin(
  p: Procedure,
  slot: Val,
  special: { zero: (se: Val) => void; nan: () => void; invalid: () => void },
): Val {
  const { fn } = p;
  const kind = classOf(p, slot);
  const se = signExponent(p, slot);
  fn.if(kind.geU(Class.QNAN), () => special.nan());
  fn.if(kind.eq(Class.INFINITY), () => special.invalid());
  fn.if(kind.eq(Class.ZERO), () => special.zero(se));
  fn.if(se.and(EXPONENT_MAX).geU(BIAS + 63), () => {
    p.set(S.FSW, p.get(S.FSW).and(~Fsw.C1).or(Fsw.C2));
    fn.return();
  });
  const flags = kind.eq(Class.DENORMAL).shl(1);
  endIf(p, flags.and(p.get(S.FCW).not()), slot, () => ({ se, sig: significand(p, slot), flags }));
  return flags;
}

interface Reduced {
  readonly r: WideFloat;
  readonly sign: Val;
  readonly quadrant: Val;
  /** 1 if the argument is below the multiple of pi/2. */
  readonly below: Val;
}

function reduce(p: Procedure, slot: Val): Reduced {
  const se = signExponent(p, slot);
  const n = normalize(se.and(EXPONENT_MAX), significand(p, slot));
  const high = p.fn.call(p.module.get("x87Reduce"), n.exponent.sub(BIAS), n.significand);
  const outcome = p.raw(4, Scratch.FLAGS);
  return {
    r: { high, low: p.raw(8, Scratch.LOW), exponent: p.raw(4, Scratch.EXPONENT) },
    sign: se.shrU(15),
    quadrant: outcome.and(3),
    below: outcome.shrU(2),
  };
}

/** Sine (shift 0) or cosine (shift 1) of a reduced argument into a slot. */
function storeCircular(
  p: Procedure,
  x: Reduced,
  shift: 0 | 1,
  end: { flags: Val; slot: Val; pop: number },
): void {
  const q = x.quadrant.add(shift);
  const outer = q.shrU(1).and(1);
  const sign = shift === 0 ? x.sign.xor(outer) : outer;
  p.fn.if(
    q.and(1),
    () => storeIrrational(p, sign, callFloat(p, "x87Cosine", x.r), end),
    () => storeIrrational(p, sign.xor(x.below), callFloat(p, "x87Sine", x.r), end),
  );
}

function defineSinCos(module: ModuleBuilder): void {
  for (const [name, shift] of [
    ["x87Sin", 0],
    ["x87Cos", 1],
  ] as const) {
    defineHelper(module, name, ["i32"], null, (p, fn) => {
      const [slot] = parameters(fn);
      const end = (r: { se: Val; sig: Val; flags: Val }): void => endIf(p, p.i32(1), slot, () => r);
      const flags = begin(p, slot, {
        nan: () => endIfNan(p, p.i32(1), slot, slot, slot),
        invalid: () => end(indefinite(p)),
        zero: (se) =>
          end({
            se: shift ? p.i32(BIAS) : se,
            sig: p.i64(shift ? INTEGER_BIT : 0n),
            flags: p.i32(0),
          }),
      });
      storeCircular(p, reduce(p, slot), shift, { flags, slot, pop: Pop.NONE });
    });
  }
}

/** Two results: `first` replaces ST(0), `second` is pushed; an unmasked pre-computation exception forbids both. */
function storeTwo(
  p: Procedure,
  end: { slot: Val; above: Val; flags: Val },
  first: SlotValue,
  second: SlotValue,
): void {
  const { fn } = p;
  const stop = fn.call(p.module.get("x87Raise"), end.flags).and(Fsw.BEFORE);
  fn.if(stop, () => fn.return());
  setSlot(p, end.slot, first.se, first.sig);
  fn.callVoid(p.module.get("x87Store"), end.above, second.se, second.sig, 0, Pop.PUSH);
  fn.return();
}

interface SlotValue {
  readonly se: Val;
  readonly sig: Val;
}

function beginTwo(
  p: Procedure,
  slot: Val,
  above: Val,
  zero: (se: Val) => [SlotValue, SlotValue],
): Val {
  return begin(p, slot, {
    nan: () => {
      const flags = p.fn.call(p.module.get("x87ChooseNan"), slot, slot);
      const nan = { se: signExponent(p, Scratch.A), sig: significand(p, Scratch.A) };
      storeTwo(p, { slot, above, flags }, nan, nan);
    },
    invalid: () => {
      const r = indefinite(p);
      storeTwo(p, { slot, above, flags: r.flags }, r, r);
    },
    zero: (se) => storeTwo(p, { slot, above, flags: p.i32(0) }, ...zero(se)),
  });
}

export function defineTrigonometric(module: ModuleBuilder): void {
  defineReduce(module);
  defineSeries(module);
  defineSinCos(module);
  defineHelper(module, "x87SinCos", ["i32", "i32"], null, (p, fn) => {
    const [slot, above] = parameters(fn);
    const one = { se: p.i32(BIAS), sig: p.i64(INTEGER_BIT) };
    const flags = beginTwo(p, slot, above, (se) => [{ se, sig: p.i64(0) }, one]);
    const x = reduce(p, slot);
    storeCircular(p, x, 1, { flags, slot: above, pop: Pop.NONE });
    storeCircular(p, x, 0, { flags, slot, pop: Pop.PUSH });
  });
  defineHelper(module, "x87Tan", ["i32", "i32"], null, (p, fn) => {
    const [slot, above] = parameters(fn);
    const one = { se: p.i32(BIAS), sig: p.i64(INTEGER_BIT) };
    const flags = beginTwo(p, slot, above, (se) => [{ se, sig: p.i64(0) }, one]);
    const x = reduce(p, slot);
    const sine = callFloat(p, "x87Sine", x.r);
    const cosine = callFloat(p, "x87Cosine", x.r);
    setSlot(p, above, one.se, one.sig);
    p.set(S.FTAG_EMPTY, p.get(S.FTAG_EMPTY).and(tagBit(p, above).not()));
    const end = { flags, slot, pop: Pop.PUSH };
    const odd = x.quadrant.and(1);
    const sign = x.sign.xor(x.below).xor(odd);
    fn.if(
      odd,
      () => storeIrrational(p, sign, divFloat(p, cosine, sine), end),
      () => storeIrrational(p, sign, divFloat(p, sine, cosine), end),
    );
  });
}
