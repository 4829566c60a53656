/**
 * FPATAN: x87Arctan(a, b) leaves arctan(b / a), in the quadrant of (a, b), in slot b and pops.
 * Spec: SDM Vol. 2, FPATAN and its table of special operands.
 *
 * t = min / max of the magnitudes; the nearest j/8 is taken off by arctan(t) = arctan(j/8) + arctan((8t - j) / (8 + jt)), whose argument
 * is at most 1/16. Here pi has full precision, unlike in the reduction of FSIN.
 */

import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Procedure } from "../procedure.ts";
import { Class, classOf, normalize } from "./nan.ts";
import { endIfNan } from "./outcome.ts";
import { ARCTAN_EIGHTHS, PI, reciprocals } from "./series.ts";
import { defineHelper, EXPONENT_MAX, Pop, parameters, signExponent, significand } from "./state.ts";
import { mulHigh } from "./wide.ts";
import {
  addWide,
  callFloat,
  constantFloat,
  defineFloatFunction,
  divFloat,
  fixedToFloat,
  mulFloat,
  mulWide,
  polynomial,
  storeIrrational,
  subWide,
  toFraction,
  type Wide,
  type WideFloat,
  wideConstant,
} from "./wide-float.ts";

/** Terms of arctan(u)/u for u <= 1/16. */
const TERMS = 17;
/** Exponent distance from which t < 1/16. */
const FAR = 5;

/** arctan(u), always below u. */
function defineSeries(module: ModuleBuilder): void {
  defineFloatFunction(module, "x87ArctanSeries", (p, u) => {
    const f = toFraction(p, u);
    const series = polynomial(p, mulWide(p, f, f), reciprocals(TERMS), null);
    return mulFloat(p, u, fixedToFloat(p, subWide(series, wideConstant(p, 1n)), 127));
  });
}

interface Reduced {
  /** arctan of what is left, its sign, and j. */
  readonly rest: WideFloat;
  readonly negative: Val;
  readonly j: Val;
}

/** For small / large = sigS / sigL / 2^distance. */
function reduce(p: Procedure, sigS: Val, sigL: Val, distance: Val): Reduced {
  const fn = p.fn;
  const [nh, nl, dh, dl] = [sigS, p.i64(0), sigL, p.i64(0)].map((v) => fn.variable("i64", v));
  const exponent = fn.variable("i32", distance.neg());
  const negative = fn.variable("i32", 0);
  const index = fn.variable("i32", 0);
  fn.if(distance.ltS(FAR), () => {
    const d = distance.extU();
    const toDouble = (v: Val): Val => fn.op("f64.convert_i64_u", v);
    const scale = fn.op("f64.convert_i64_u", fn.i64(8).shl(p.i64(FAR)).shrU(d));
    const ratio = fn.op("f64.div", fn.op("f64.mul", toDouble(sigS), scale), toDouble(sigL));
    // 8 t rounded to an integer; `ratio` is 2^FAR times that.
    const j = fn.op("i64.trunc_sat_f64_u", ratio).add(16).shrU(FAR);
    const factor = j.shl(d);
    const subtrahend = { high: mulHigh(sigL, factor), low: sigL.mul(factor) };
    const difference = subWide({ high: sigS.shrU(61), low: sigS.shl(3) }, subtrahend);
    const below = difference.high.shrS(63);
    const bit = below.neg();
    const magnitude = addWide(
      { high: difference.high.xor(below), low: difference.low.xor(below) },
      { high: p.i64(0), low: bit },
    );
    const shift = d.add(3);
    const eight = { high: sigL.shrU(fn.i64(64).sub(shift)), low: sigL.shl(shift) };
    const sum = addWide(eight, { high: mulHigh(sigS, j), low: sigS.mul(j) });
    const n = fixedToFloat(p, magnitude, 127);
    const m = fixedToFloat(p, sum, 127);
    nh.set(n.high);
    nl.set(n.low);
    dh.set(m.high);
    dl.set(m.low);
    exponent.set(n.exponent.sub(m.exponent));
    negative.set(bit.wrap());
    index.set(j.wrap());
  });
  const numerator = { high: nh.read(), low: nl.read(), exponent: exponent.read() };
  const denominator = { high: dh.read(), low: dl.read(), exponent: p.i32(0) };
  const rest = callFloat(p, "x87ArctanSeries", divFloat(p, numerator, denominator));
  return { rest, negative: negative.read(), j: index.read() };
}

/** arctan(j/8), 128 fraction bits. */
function tabulated(fn: FunctionBuilder, j: Val): Wide {
  const high = fn.variable("i64", 0n);
  const low = fn.variable("i64", 0n);
  const cases = ARCTAN_EIGHTHS.map((value) => () => {
    high.set(fn.i64(value >> 64n));
    low.set(fn.i64(value));
  });
  fn.switch(j, cases, () => {});
  return { high: high.read(), low: low.read() };
}

function defineFinite(module: ModuleBuilder): void {
  // Sign of the result, 1 if a is negative; exponents and normalized significands of a and b; flags, slot.
  const params = ["i32", "i32", "i32", "i64", "i32", "i64", "i32", "i32"] as const;
  defineHelper(module, "x87ArctanFinite", params, null, (p, fn) => {
    const [sign, left, expA, sigA, expB, sigB, flags, slot] = parameters(fn);
    const end = { flags, slot, pop: Pop.POP };
    const steep = expB.gtS(expA).or(expB.eq(expA).and(sigB.gtU(sigA)));
    const distance = expA.sub(expB);
    const r = reduce(
      p,
      steep.select(sigA, sigB),
      steep.select(sigB, sigA),
      steep.select(distance.neg(), distance),
    );
    const isPlain = steep.or(left).eqz();
    fn.if(isPlain.and(r.j.eqz()), () => {
      storeIrrational(p, sign, r.rest, end);
      fn.return();
    });
    const table = tabulated(fn, r.j);
    const fraction = toFraction(p, r.rest);
    const sum = addWide(table, fraction);
    const difference = subWide(table, fraction);
    const angle = {
      high: r.negative.select(difference.high, sum.high),
      low: r.negative.select(difference.low, sum.low),
    };
    fn.if(isPlain, () => {
      storeIrrational(p, sign, fixedToFloat(p, angle, 128), end);
      fn.return();
    });
    // pi/2 - angle, pi/2 + angle or pi - angle, with 126 fraction bits.
    const part = { high: angle.high.shrU(2), low: angle.low.shrU(2).or(angle.high.shl(62)) };
    const half = wideConstant(p, PI >> 1n);
    const whole = wideConstant(p, PI);
    const base = {
      high: steep.select(half.high, whole.high),
      low: steep.select(half.low, whole.low),
    };
    const [more, less] = [addWide(base, part), subWide(base, part)];
    const adds = steep.and(left);
    const result = {
      high: adds.select(more.high, less.high),
      low: adds.select(more.low, less.low),
    };
    storeIrrational(p, sign, fixedToFloat(p, result, 126), end);
  });
}

export function defineArctangent(module: ModuleBuilder): void {
  defineSeries(module);
  defineFinite(module);
  defineHelper(module, "x87Arctan", ["i32", "i32"], null, (p, fn) => {
    const [a, b] = parameters(fn);
    const [kindA, kindB] = [classOf(p, a), classOf(p, b)];
    endIfNan(p, kindA.geU(Class.QNAN).or(kindB.geU(Class.QNAN)), a, b, b, Pop.POP);
    const [seA, seB] = [signExponent(p, a), signExponent(p, b)];
    const [left, sign] = [seA.shrU(15), seB.shrU(15)];
    const flags = kindA.eq(Class.DENORMAL).or(kindB.eq(Class.DENORMAL)).shl(1);
    const end = { flags, slot: b, pop: Pop.POP };
    const store = module.get("x87Store");
    fn.if(flags.and(p.get(S.FCW).not()), () => {
      fn.callVoid(store, b, 0, p.i64(0), flags, Pop.POP);
      fn.return();
    });
    const multiple = (condition: Val, wide: bigint, exponent: number): void =>
      fn.if(condition, () => {
        storeIrrational(p, sign, constantFloat(p, wide, exponent), end);
        fn.return();
      });
    const [zeroA, zeroB] = [kindA.eq(Class.ZERO), kindB.eq(Class.ZERO)];
    const [infiniteA, infiniteB] = [kindA.eq(Class.INFINITY), kindB.eq(Class.INFINITY)];
    const onAxis = zeroB.or(infiniteA.and(infiniteB.eqz()));
    fn.if(onAxis.and(left.eqz()), () => {
      fn.callVoid(store, b, sign.shl(15), p.i64(0), flags, Pop.POP);
      fn.return();
    });
    multiple(onAxis, PI, 1);
    const both = infiniteA.and(infiniteB);
    multiple(both.and(left.eqz()), PI, -1);
    multiple(both, (PI >> 2n) * 3n, 1);
    multiple(infiniteB.or(zeroA), PI, 0);
    const x = normalize(seA.and(EXPONENT_MAX), significand(p, a));
    const y = normalize(seB.and(EXPONENT_MAX), significand(p, b));
    const finite = module.get("x87ArctanFinite");
    fn.callVoid(finite, sign, left, x.exponent, x.significand, y.exponent, y.significand, flags, b);
  });
}
