/**
 * Operations on exponents and integral parts: FRNDINT, FSCALE, FXTRACT.
 * Spec: SDM Vol. 2, the entries of these instructions.
 *
 *   x87RoundInteger(slot) · x87Scale(slot, by) · x87Extract(slot, above)
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import { roundingFlags, roundSignificand, shiftRightSticky } from "./commit.ts";
import { Class, classOf, normalize } from "./nan.ts";
import { endIf, endIfNan, indefinite } from "./outcome.ts";
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
} from "./state.ts";

function defineRoundInteger(module: ModuleBuilder): void {
  defineHelper(module, "x87RoundInteger", ["i32"], null, (p, fn) => {
    const [slot] = parameters(fn);
    const kind = classOf(p, slot);
    endIfNan(p, kind.geU(Class.QNAN), slot, slot, slot);
    const se = signExponent(p, slot);
    const sig = significand(p, slot);
    const exponent = se.and(EXPONENT_MAX);
    const isIntegral = exponent.geU(BIAS + 63).or(kind.eq(Class.ZERO));
    endIf(p, isIntegral, slot, () => ({ se, sig, flags: p.i32(0) }));
    const sign = se.shrU(15);
    const denormal = kind.eq(Class.DENORMAL).shl(1);
    endIf(p, denormal.and(p.get(S.FCW).not()), slot, () => ({ se, sig, flags: denormal }));
    const shift = p.i32(BIAS + 63).sub(exponent);
    const shifted = shiftRightSticky(fn, sig, p.i64(0), shift);
    const r = roundSignificand(p, sign, shifted.high, shifted.low, p.i32(0));
    const flags = denormal.or(roundingFlags(r));
    endIf(p, r.significand.eqz(), slot, () => ({ se: sign.shl(15), sig: p.i64(0), flags }));
    const n = normalize(p.i32(BIAS + 63), r.significand);
    endIf(p, p.i32(1), slot, () => ({
      se: sign.shl(15).or(n.exponent),
      sig: n.significand,
      flags,
    }));
  });
}

function defineScale(module: ModuleBuilder): void {
  defineHelper(module, "x87Scale", ["i32", "i32"], null, (p, fn) => {
    const [slot, by] = parameters(fn);
    const [kindA, kindB] = [classOf(p, slot), classOf(p, by)];
    endIfNan(p, kindA.geU(Class.QNAN).or(kindB.geU(Class.QNAN)), slot, by, slot);
    const [seA, seB] = [signExponent(p, slot), signExponent(p, by)];
    const [sigA, sigB] = [significand(p, slot), significand(p, by)];
    const [signA, signB] = [seA.shrU(15), seB.shrU(15)];
    const infiniteB = kindB.eq(Class.INFINITY);
    const isInvalid = infiniteB.and(signB.select(kindA.eq(Class.INFINITY), kindA.eq(Class.ZERO)));
    endIf(p, isInvalid, slot, () => indefinite(p));
    const flags = kindA.eq(Class.DENORMAL).or(kindB.eq(Class.DENORMAL)).shl(1);
    endIf(p, flags.and(p.get(S.FCW).not()), slot, () => ({ se: seA, sig: sigA, flags }));
    endIf(p, kindA.eq(Class.INFINITY).or(kindA.eq(Class.ZERO)), slot, () => ({
      se: seA,
      sig: sigA,
      flags,
    }));
    endIf(p, infiniteB, slot, () => ({
      se: signA.shl(15).or(signB.select(p.i32(0), p.i32(EXPONENT_MAX))),
      sig: signB.select(p.i64(0), p.i64(INTEGER_BIT)),
      flags,
    }));
    const expB = seB.and(EXPONENT_MAX);
    // Integral part of the scale, limited to what certainly leaves the range of exponents.
    const LIMIT = 0x1_8000;
    const large = expB.gtU(BIAS + 16);
    const integral = sigB
      .shrU(
        p
          .i32(BIAS + 63)
          .sub(expB)
          .extU(),
      )
      .wrap();
    const amount = expB.ltU(BIAS).select(p.i32(0), large.select(p.i32(LIMIT), integral));
    const n = normalize(seA.and(EXPONENT_MAX), sigA);
    const exponent = signB.select(n.exponent.sub(amount), n.exponent.add(amount));
    fn.callVoid(
      module.get("x87Round64"),
      signA,
      exponent,
      n.significand,
      p.i64(0),
      flags,
      slot,
      Pop.NONE,
    );
  });
}

export function defineIntegral(module: ModuleBuilder): void {
  defineRoundInteger(module);
  defineScale(module);
  defineExtract(module);
}

/** FXTRACT: the exponent replaces ST(0), the significand is pushed; `slot` is ST(0), `above` the register to push into, both usable. */
function defineExtract(module: ModuleBuilder): void {
  defineHelper(module, "x87Extract", ["i32", "i32"], null, (p, fn) => {
    const [slot, above] = parameters(fn);
    const store = module.get("x87Store");
    // Nothing is pushed unless the first result was stored: x87Raise says so.
    const end = (
      exponent: { se: Val; sig: Val },
      rest: { se: Val; sig: Val },
      flags: Val,
    ): void => {
      const stop = fn.call(module.get("x87Raise"), flags).and(Fsw.BEFORE);
      fn.if(stop, () => fn.return());
      setSlot(p, slot, exponent.se, exponent.sig);
      fn.callVoid(store, above, rest.se, rest.sig, 0, Pop.PUSH);
      fn.return();
    };
    const kind = classOf(p, slot);
    const [se, sig] = [signExponent(p, slot), significand(p, slot)];
    fn.if(kind.geU(Class.QNAN), () => {
      const flags = fn.call(module.get("x87ChooseNan"), slot, slot);
      const nan = { se: signExponent(p, Scratch.A), sig: significand(p, Scratch.A) };
      end(nan, nan, flags);
    });
    fn.if(kind.eq(Class.ZERO), () =>
      end({ se: p.i32(0xffff), sig: p.i64(INTEGER_BIT) }, { se, sig }, p.i32(Fsw.ZE)),
    );
    fn.if(kind.eq(Class.INFINITY), () =>
      end({ se: p.i32(EXPONENT_MAX), sig }, { se, sig }, p.i32(0)),
    );
    const n = normalize(se.and(EXPONENT_MAX), sig);
    fn.callVoid(module.get("x87FromInteger"), n.exponent.sub(BIAS).extS());
    const exponent = { se: signExponent(p, Scratch.MEMORY), sig: significand(p, Scratch.MEMORY) };
    const rest = { se: se.and(0x8000).or(BIAS), sig: n.significand };
    end(exponent, rest, kind.eq(Class.DENORMAL).shl(1));
  });
}
