/**
 * FSQRT: x87Sqrt(slot), rounded to the precision in force. Spec: SDM Vol. 2, FSQRT.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import { S } from "../../state/layout.ts";
import { Class, classOf, normalize } from "./nan.ts";
import { endIf, endIfNan, indefinite } from "./outcome.ts";
import {
  BIAS,
  defineHelper,
  EXPONENT_MAX,
  Pop,
  parameters,
  Scratch,
  signExponent,
  significand,
} from "./state.ts";

export function defineSquareRoot(module: ModuleBuilder): void {
  defineHelper(module, "x87Sqrt", ["i32"], null, (p, fn) => {
    const [slot] = parameters(fn);
    const kind = classOf(p, slot);
    const [se, sig] = [signExponent(p, slot), significand(p, slot)];
    endIfNan(p, kind.geU(Class.QNAN), slot, slot, slot);
    const same = { se, sig, flags: p.i32(0) };
    endIf(p, kind.eq(Class.ZERO), slot, () => same);
    endIf(p, se.shrU(15), slot, () => indefinite(p));
    endIf(p, kind.eq(Class.INFINITY), slot, () => same);
    const flags = kind.eq(Class.DENORMAL).shl(1);
    endIf(p, flags.and(p.get(S.FCW).not()), slot, () => ({ ...same, flags }));
    const n = normalize(se.and(EXPONENT_MAX), sig);
    // Radicand in [1, 4): an odd unbiased exponent keeps its factor of two.
    const shift = n.exponent.and(1).extU();
    const radicand = {
      high: n.significand.shrU(shift),
      low: n.significand.shl(63).and(shift.neg()),
    };
    const root = fn.call(module.get("x87SquareRoot128"), radicand.high, radicand.low);
    const rest = p.raw(8, Scratch.LOW);
    const exponent = n.exponent.add(BIAS).shrS(1);
    fn.callVoid(module.get("x87Round"), 0, exponent, root, rest, flags, slot, Pop.NONE);
  });
}
