/**
 * F2XM1, FYL2X, FYL2XP1.
 * Spec: SDM Vol. 2, the entries of these instructions and their tables of special operands.
 *
 * Power series on 128 bits, rounded correctly by the rounding control. Processors are up to 0.65 ulp off in 1 of 30 cases.
 *   x87ExpM1(a)                     2^a - 1 into slot a
 *   x87Log(a, b), x87LogP1(a, b)    b * log2(a) and b * log2(a + 1) into slot b, with a pop
 *   x87LogSeries(s)                 2 / ln 2 * artanh(s) for |s| <= 0.172, a wide float function
 *   x87Log2(exponent, high, low)    log2 as a wide float (high; Scratch.LOW, EXPONENT), its sign in Scratch.FLAGS
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Procedure } from "../procedure.ts";
import { Class, classOf, normalize } from "./nan.ts";
import { endIf, endIfNan } from "./outcome.ts";
import { EXPONENTIAL, LN2, reciprocals, TWO_OVER_LN2 } from "./series.ts";
import {
  BIAS,
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  INDEFINITE,
  INDEFINITE_SE,
  INTEGER_BIT,
  Pop,
  parameters,
  Scratch,
  signExponent,
  significand,
} from "./state.ts";
import {
  addWide,
  callFloat,
  constantFloat,
  defineFloatFunction,
  divFloat,
  fixedToFloat,
  floatOf,
  mulFloat,
  mulWide,
  polynomial,
  shiftLeftWide,
  shiftRightWide,
  storeIrrational,
  subWide,
  toFraction,
  type Wide,
  type WideFloat,
  wideConstant,
} from "./wide-float.ts";

/** Terms of artanh(s)/s for s^2 <= 0.0295. */
const LOG_TERMS = 26;
/** Significand of the square root of two, truncated: where the exponent of log2 goes up by one. */
const SQRT2 = 0xb504_f333_f9de_6484n;

function defineExpM1(module: ModuleBuilder): void {
  defineHelper(module, "x87ExpM1", ["i32"], null, (p, fn) => {
    const [slot] = parameters(fn);
    const kind = classOf(p, slot);
    endIfNan(p, kind.geU(Class.QNAN), slot, slot, slot);
    const [se, sig] = [signExponent(p, slot), significand(p, slot)];
    const sign = se.shrU(15);
    const flags = kind.eq(Class.DENORMAL).shl(1);
    endIf(p, kind.eq(Class.ZERO), slot, () => ({ se, sig, flags }));
    endIf(p, flags.and(p.get(S.FCW).not()), slot, () => ({ se, sig, flags }));
    const exponent = se.and(EXPONENT_MAX);
    const isOne = exponent.eq(BIAS).and(sig.eq(p.i64(INTEGER_BIT)));
    // 2^1 - 1 = 1 and 2^-1 - 1 = -1/2.
    endIf(p, isOne, slot, () => ({ se: se.sub(sign), sig, flags: p.i32(Fsw.PE) }));
    // Outside [-1, 1] the result is undefined: the argument stays, as AMD processors have it.
    endIf(p, kind.eq(Class.INFINITY), slot, () => ({
      se: sign.select(p.i32(0x8000 | BIAS), se),
      sig,
      flags,
    }));
    endIf(p, exponent.geU(BIAS), slot, () => ({ se, sig, flags: flags.or(Fsw.PE) }));
    const n = normalize(exponent, sig);
    const t = mulFloat(
      p,
      floatOf(p, n.significand, n.exponent.sub(BIAS)),
      constantFloat(p, LN2, -1),
    );
    const factor = fixedToFloat(p, polynomial(p, toFraction(p, t), EXPONENTIAL, sign), 127);
    storeIrrational(p, sign, mulFloat(p, t, factor), { flags, slot, pop: Pop.NONE });
  });
}

function defineLogSeries(module: ModuleBuilder): void {
  defineFloatFunction(module, "x87LogSeries", (p, s) => {
    const f = toFraction(p, s);
    const series = polynomial(p, mulWide(p, f, f), reciprocals(LOG_TERMS), p.i32(0));
    const scaled = mulFloat(p, fixedToFloat(p, series, 127), constantFloat(p, TWO_OVER_LN2, 1));
    return mulFloat(p, s, scaled);
  });
}

/** log2(w / 2^127 * 2^exponent) = k + log2(m), m in [sqrt(1/2), sqrt(2)], log2(m) by artanh((m - 1) / (m + 1)). */
function defineLog2(module: ModuleBuilder): void {
  defineHelper(module, "x87Log2", ["i32", "i64", "i64"], "i64", (p, fn) => {
    const [exponent, high, low] = parameters(fn);
    const end = (sign: Val, x: WideFloat): void => {
      p.setRaw(4, Scratch.FLAGS, sign);
      p.setRaw(4, Scratch.EXPONENT, x.exponent);
      p.setRaw(8, Scratch.LOW, x.low);
      fn.return(x.high);
    };
    const up = high.gtU(p.i64(SQRT2));
    const k = exponent.add(up);
    const sign = k.shrU(31);
    const magnitude = k.xor(k.shrS(31)).add(sign).extU();
    fn.if(isPowerOfTwo(p, { high, low }), () => {
      const shift = magnitude.clz();
      end(sign, floatOf(p, magnitude.shl(shift), p.i32(63).sub(shift.wrap())));
    });
    // |m - 1| and m + 1 in units of 2^-127, or of 2^-128 for the halved m.
    const w = { high, low };
    const under = subWide(wideConstant(p, 0n), w);
    const numerator = {
      high: up.select(under.high, high.sub(p.i64(INTEGER_BIT))),
      low: up.select(under.low, low),
    };
    const n = fixedToFloat(p, numerator, 127);
    // The sum has 129 bits with the top one set.
    const upper = up.select(high, high.add(p.i64(INTEGER_BIT)));
    const d: WideFloat = {
      high: upper.shrU(1).or(p.i64(INTEGER_BIT)),
      low: low.shrU(1).or(upper.shl(63)),
      exponent: p.i32(1),
    };
    const log = callFloat(p, "x87LogSeries", divFloat(p, n, d));
    fn.if(k.eqz(), () => end(up, log));
    const fraction = toFraction(p, log);
    // |k| plus or minus the fraction.
    const differs = sign.ne(up);
    const mask = differs.extU().neg();
    const rest = addWide(
      { high: fraction.high.xor(mask), low: fraction.low.xor(mask) },
      { high: p.i64(0), low: differs.extU() },
    );
    const whole = magnitude.sub(differs.extU());
    fn.if(whole.eqz(), () => end(sign, fixedToFloat(p, rest, 128)));
    const z = whole.clz();
    const below = shiftLeftWide(rest, z);
    const spill = rest.high.shrU(1).shrU(z.xor(63));
    end(sign, { high: whole.shl(z).or(spill), low: below.high, exponent: p.i32(63).sub(z.wrap()) });
  });
}

interface Operands {
  readonly a: Val;
  readonly b: Val;
  readonly kindA: Val;
  readonly kindB: Val;
  readonly seA: Val;
  readonly seB: Val;
  /** Sign of b. */
  readonly sign: Val;
  readonly flags: Val;
}

function operands(p: Procedure): Operands {
  const [a, b] = parameters(p.fn);
  const [kindA, kindB] = [classOf(p, a), classOf(p, b)];
  endIfNan(p, kindA.geU(Class.QNAN).or(kindB.geU(Class.QNAN)), a, b, b, Pop.POP);
  const seA = signExponent(p, a);
  const seB = signExponent(p, b);
  const flags = kindA.eq(Class.DENORMAL).or(kindB.eq(Class.DENORMAL)).shl(1);
  return { a, b, kindA, kindB, seA, seB, sign: seB.shrU(15), flags };
}

function endPop(
  p: Procedure,
  o: Operands,
  condition: Val,
  se: () => Val,
  sig: bigint,
  flags = o.flags,
): void {
  p.fn.if(condition, () => {
    p.fn.callVoid(p.module.get("x87Store"), o.b, se(), p.i64(sig), flags, Pop.POP);
    p.fn.return();
  });
}

function invalidPop(p: Procedure, o: Operands, condition: Val): void {
  endPop(p, o, condition, () => p.i32(INDEFINITE_SE), INDEFINITE, p.i32(Fsw.IE));
}

function endDenormalUnmasked(p: Procedure, o: Operands): void {
  endPop(p, o, o.flags.and(p.get(S.FCW).not()), () => p.i32(0), 0n);
}

function isPowerOfTwo(p: Procedure, w: Wide): Val {
  return w.high.xor(p.i64(INTEGER_BIT)).or(w.low).eqz();
}

/**
 * b times a wide float, into b with a pop. Inexact is reported for every result, as processors do; what is not `exact` is rounded as
 * the irrational number it is.
 */
function storeProduct(p: Procedure, o: Operands, sign: Val, log: WideFloat, exact: Val): void {
  const n = normalize(o.seB.and(EXPONENT_MAX), significand(p, o.b));
  const product = mulFloat(p, log, floatOf(p, n.significand, n.exponent.sub(BIAS)));
  const low = product.low.or(exact.eqz().extU());
  const round = p.module.get("x87Round64");
  const flags = o.flags.or(Fsw.PE);
  p.fn.callVoid(round, sign, product.exponent.add(BIAS), product.high, low, flags, o.b, Pop.POP);
}

/** b * log2(x) of a normalized x > 0. */
function storeLog(p: Procedure, o: Operands, x: WideFloat): void {
  const high = p.fn.call(p.module.get("x87Log2"), x.exponent, x.high, x.low);
  const log = { high, low: p.raw(8, Scratch.LOW), exponent: p.raw(4, Scratch.EXPONENT) };
  storeProduct(p, o, o.sign.xor(p.raw(4, Scratch.FLAGS)), log, isPowerOfTwo(p, x));
}

function defineLog(module: ModuleBuilder): void {
  defineHelper(module, "x87Log", ["i32", "i32"], null, (p) => {
    const o = operands(p);
    const signA = o.seA.shrU(15);
    const [zeroA, zeroB] = [o.kindA.eq(Class.ZERO), o.kindB.eq(Class.ZERO)];
    const [infiniteA, infiniteB] = [o.kindA.eq(Class.INFINITY), o.kindB.eq(Class.INFINITY)];
    const sigA = significand(p, o.a);
    const isOne = o.seA.eq(BIAS).and(sigA.eq(p.i64(INTEGER_BIT)));
    invalidPop(p, o, zeroA.eqz().and(signA));
    invalidPop(p, o, zeroA.or(infiniteA).and(zeroB).or(isOne.and(infiniteB)));
    const infinity = (sign: Val) => () => sign.shl(15).or(EXPONENT_MAX);
    endPop(p, o, zeroA.and(infiniteB.eqz()), infinity(o.sign.xor(1)), INTEGER_BIT, p.i32(Fsw.ZE));
    endDenormalUnmasked(p, o);
    // Sign of the logarithm: exponents below the bias.
    const negative = o.seA.and(EXPONENT_MAX).ltU(BIAS);
    endPop(p, o, infiniteA.or(infiniteB), infinity(o.sign.xor(negative)), INTEGER_BIT);
    endPop(p, o, zeroB.or(isOne), () => o.sign.xor(negative).shl(15), 0n);
    const n = normalize(o.seA, sigA);
    storeLog(p, o, floatOf(p, n.significand, n.exponent.sub(BIAS)));
  });
}

/** log2(1 + a): by artanh(a / (2 + a)) near zero, by log2 of the sum elsewhere, where the manual leaves it undefined. */
function defineLogP1(module: ModuleBuilder): void {
  defineHelper(module, "x87LogP1", ["i32", "i32"], null, (p, fn) => {
    const o = operands(p);
    const signA = o.seA.shrU(15);
    const [zeroA, zeroB] = [o.kindA.eq(Class.ZERO), o.kindB.eq(Class.ZERO)];
    const [infiniteA, infiniteB] = [o.kindA.eq(Class.INFINITY), o.kindB.eq(Class.INFINITY)];
    const sign = o.sign.xor(signA);
    invalidPop(p, o, zeroA.and(infiniteB).or(infiniteA.and(zeroB.or(signA))));
    endDenormalUnmasked(p, o);
    endPop(p, o, infiniteA.or(infiniteB), () => sign.shl(15).or(EXPONENT_MAX), INTEGER_BIT);
    endPop(p, o, zeroA.or(zeroB), () => sign.shl(15), 0n);
    const n = normalize(o.seA.and(EXPONENT_MAX), significand(p, o.a));
    const x = floatOf(p, n.significand, n.exponent.sub(BIAS));
    // No logarithm: a itself, as AMD processors have it.
    fn.if(signA.and(x.exponent.geS(0)), () => {
      fn.callVoid(module.get("x87Store"), o.b, o.seA, n.significand, o.flags.or(Fsw.PE), Pop.POP);
      fn.return();
    });
    fn.if(x.exponent.geS(0), () => {
      const one = shiftRightWide(p, wideConstant(p, 1n << 127n), x.exponent.extU());
      const sum = addWide(x, one);
      const carry = sum.high.ltU(x.high);
      const shifted = {
        high: sum.high.shrU(1).or(p.i64(INTEGER_BIT)),
        low: sum.low.shrU(1).or(sum.high.shl(63)),
      };
      const w = {
        high: carry.select(shifted.high, sum.high),
        low: carry.select(shifted.low, sum.low),
      };
      storeLog(p, o, { ...w, exponent: x.exponent.add(carry) });
      fn.return();
    });
    // 1 + a and 2 + a with 127 and 126 fraction bits; ones' complement is close enough for a tiny a.
    const fraction = shiftRightWide(p, x, x.exponent.neg().extU());
    const exactPart = x.exponent.gtS(-64);
    const mask = signA.extU().neg();
    const signed = addWide(
      { high: fraction.high.xor(mask), low: fraction.low.xor(mask) },
      { high: p.i64(0), low: signA.and(exactPart).extU() },
    );
    fn.if(x.exponent.geS(-2), () => {
      storeLog(p, o, fixedToFloat(p, addWide(wideConstant(p, 1n << 127n), signed), 127));
      fn.return();
    });
    const half = { high: signed.high.shrS(1), low: signed.low.shrU(1).or(signed.high.shl(63)) };
    const d = fixedToFloat(p, addWide(wideConstant(p, 1n << 127n), half), 126);
    storeProduct(p, o, sign, callFloat(p, "x87LogSeries", divFloat(p, x, d)), p.i32(0));
  });
}

export function defineExponential(module: ModuleBuilder): void {
  defineExpM1(module);
  defineLogSeries(module);
  defineLog2(module);
  defineLog(module);
  defineLogP1(module);
}
