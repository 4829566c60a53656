/**
 * F2XM1, FYL2X, FYL2XP1, FPATAN.
 * Spec: SDM Vol. 2, the entries of these instructions and their tables of special operands.
 *
 * Power series on 128 bits, rounded correctly by the rounding control. Processors are up to 0.65 ulp off in 1 of 30 cases.
 *   x87ExpM1(a)            2^a - 1 into slot a
 *   x87Log(a, b), x87LogP1(a, b), x87Arctan(a, b)   into slot b, with a pop
 */
import { S } from "../../core/layout.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { Procedure } from "../procedure.ts";
import { endIf, endIfNan } from "./integral.ts";
import { Class, classOf, normalize } from "./nan.ts";
import { EXPONENTIAL, LN2 } from "./series.ts";
import { BIAS, defineHelper, EXPONENT_MAX, INTEGER_BIT, parameters, Pop, signExponent, significand } from "./state.ts";
import {
  constantFloat,
  defineFloatFunction,
  floatOf,
  mulFloat,
  normalizeWide,
  polynomial,
  storeIrrational,
  toFraction,
} from "./wide-float.ts";

void defineFloatFunction;
void Pop;
void normalizeWide;

export function defineExponential(module: ModuleBuilder): void {
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
    // 2^1 - 1 and 2^-1 - 1.
    endIf(p, isOne, slot, () => ({ se: se.sub(sign), sig, flags }));
    // Outside [-1, 1] the result is undefined: the argument stays, except for minus infinity.
    const infinite = kind.eq(Class.INFINITY).and(sign);
    endIf(p, exponent.geU(BIAS), slot, () => ({ se: infinite.select(p.i32(0x8000 | BIAS), se), sig, flags }));
    const n = normalize(exponent, sig);
    const t = mulFloat(p, floatOf(p, n.significand, n.exponent.sub(BIAS)), constantFloat(p, LN2, -1));
    const factor = polynomialFloat(p, toFraction(p, t), sign);
    storeIrrational(p, sign, mulFloat(p, t, factor), { flags, slot, pop: Pop.NONE });
  });
}
