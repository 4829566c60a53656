/**
 * 80-bit values to memory formats. The result is left in Scratch.LOW (BCD: ten bytes there), the answer is nonzero if it is to be
 * written and the stack popped, zero if an unmasked exception forbids it.
 * Spec: SDM Vol. 2, FST/FSTP, FIST/FISTP, FISTTP, FBSTP.
 *
 *   x87ToSingle(slot), x87ToDouble(slot), x87ToInteger(slot, bytes, truncate), x87ToBcd(slot), x87ToExtended(slot)
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Procedure } from "../procedure.ts";
import { roundingFlags, roundSignificand, shiftRightSticky } from "./commit.ts";
import { Class, classOf, normalize } from "./nan.ts";
import {
  BIAS,
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  INDEFINITE,
  INDEFINITE_SE,
  isEmpty,
  parameters,
  roundingControl,
  Scratch,
  signExponent,
  significand,
} from "./state.ts";

/** Ends a conversion: flags take effect, and if they allow it, `bits` is the result. */
function finish(
  p: Procedure,
  flags: Val,
  bits: Val,
  stopOn: number = Fsw.BEFORE | Fsw.OE | Fsw.UE,
): void {
  p.setRaw(8, Scratch.LOW, bits);
  const unmasked = p.fn.call(p.module.get("x87Raise"), flags);
  p.fn.return(unmasked.and(stopOn).eqz());
}

interface Format {
  readonly name: string;
  readonly exponentBits: number;
  /** Bits of an 80-bit significand that the format has no room for. */
  readonly drop: number;
}

/** The encodings are built left-aligned in 64 bits and moved down for single precision. */
function defineBinary(module: ModuleBuilder, format: Format): void {
  const { exponentBits, drop } = format;
  const max = (1 << exponentBits) - 1;
  const bias = max >> 1;
  const fractionBits = 63 - drop;
  defineHelper(module, format.name, ["i32"], "i32", (p, fn) => {
    const [slot] = parameters(fn);
    const dropped = p.i32(drop);
    const encode = (sign: Val, body: Val): Val =>
      sign
        .extU()
        .shl(fractionBits + exponentBits)
        .or(body);
    const indefinite = p.i64(((1n << BigInt(exponentBits + 2)) - 1n) << BigInt(fractionBits - 1));
    fn.if(isEmpty(p, slot), () => finish(p, p.i32(Fsw.IE | Fsw.SF), indefinite));
    const se = signExponent(p, slot);
    const sig = significand(p, slot);
    const sign = se.shrU(15);
    const kind = classOf(p, slot);
    fn.if(kind.geU(Class.INFINITY).or(kind.eq(Class.ZERO)), () => {
      fn.if(kind.eq(Class.ZERO), () => finish(p, p.i32(0), encode(sign, p.i64(0))));
      fn.if(kind.eq(Class.UNSUPPORTED), () => finish(p, p.i32(Fsw.IE), indefinite));
      const quiet = kind.eq(Class.INFINITY).select(p.i64(0), p.i64(1n << BigInt(fractionBits - 1)));
      const fraction = sig
        .shl(1)
        .shrU(drop + 1)
        .or(quiet);
      finish(
        p,
        kind.eq(Class.SNAN),
        encode(sign, fraction.or(p.i64(BigInt(max) << BigInt(fractionBits)))),
      );
    });
    const n = normalize(se.and(EXPONENT_MAX), sig);
    const exponent = n.exponent.sub(BIAS - bias);
    const rounded = roundSignificand(p, sign, n.significand, p.i64(0), dropped);
    const carry = rounded.significand.eqz();
    const finalExponent = exponent.add(carry);
    fn.if(finalExponent.leS(0), () => {
      // Tiny, whatever the smaller format rounds it to.
      fn.if(p.get(S.FCW).and(Fsw.UE).eqz(), () => finish(p, p.i32(Fsw.UE), p.i64(0)));
    });
    fn.if(exponent.leS(0), () => {
      const shifted = shiftRightSticky(fn, n.significand, p.i64(0), p.i32(1).sub(exponent));
      const r = roundSignificand(p, sign, shifted.high, shifted.low, dropped);
      const tiny = finalExponent.leS(0).and(r.inexact).shl(4);
      finish(p, roundingFlags(r).or(tiny), encode(sign, r.significand.shrU(drop)));
    });
    fn.if(finalExponent.geS(max), () => {
      const infinite = p.i32(0x1b).shrU(roundingControl(p).shl(1).or(sign)).and(1);
      const largest = p.i64((BigInt(max) << BigInt(fractionBits)) - 1n).add(infinite.extU());
      const unmasked = p.get(S.FCW).and(Fsw.OE).eqz();
      const flags = unmasked.select(p.i32(0), infinite.shl(9).or(Fsw.PE));
      finish(p, flags.or(Fsw.OE), encode(sign, largest));
    });
    // The integer bit adds one to the exponent field below it.
    const body = finalExponent.sub(1).extU().shl(fractionBits).add(rounded.significand.shrU(drop));
    const carried = carry.extU().shl(fractionBits);
    finish(p, roundingFlags(rounded), encode(sign, body.add(carried)));
  });
}

/** Magnitude of a finite value rounded to an integer; too large ones come out as `overflow` = 1. Ends the caller for specials. */
function roundToInteger(p: Procedure, slot: Val, truncate: Val, invalid: (flags: number) => void) {
  const fn = p.fn;
  fn.if(isEmpty(p, slot), () => invalid(Fsw.IE | Fsw.SF));
  const se = signExponent(p, slot);
  const sign = se.shrU(15);
  const sig = significand(p, slot);
  const kind = classOf(p, slot);
  fn.if(kind.geU(Class.INFINITY), () => invalid(Fsw.IE));
  const exponent = se.and(EXPONENT_MAX);
  const magnitude = fn.variable("i64", sig);
  const up = fn.variable("i32", 0);
  const inexact = fn.variable("i32", 0);
  const shift = p.i32(BIAS + 63).sub(exponent);
  const overflow = shift.ltS(0);
  fn.if(shift.gtS(0), () => {
    const shifted = shiftRightSticky(fn, sig, p.i64(0), shift);
    const rest = shifted.low;
    const rounded = fn.variable("i32", 0);
    fn.if(truncate.eqz(), () => {
      const r = roundSignificand(p, sign, shifted.high, rest, p.i32(0));
      rounded.set(r.up);
    });
    // A zero has a sticky bit here that means nothing.
    const isZero = sig.eqz();
    const increment = rounded.read().and(isZero.eqz());
    magnitude.set(shifted.high.add(increment.extU()));
    up.set(increment);
    inexact.set(rest.nez().and(isZero.eqz()));
  });
  const flags = inexact.read().shl(5).or(up.read().shl(9));
  return { sign, magnitude: magnitude.read(), overflow, flags };
}

function defineInteger(module: ModuleBuilder): void {
  defineHelper(module, "x87ToInteger", ["i32", "i32", "i32"], "i32", (p, fn) => {
    const [slot, bytes, truncate] = parameters(fn);
    const limit = p.i64(1).shl(bytes.shl(3).sub(1).extU());
    const invalid = (flags: number): void => finish(p, p.i32(flags), limit);
    const r = roundToInteger(p, slot, truncate, invalid);
    // -limit is representable, +limit is not.
    fn.if(r.overflow.or(r.magnitude.gtU(limit.sub(1).add(r.sign.extU()))), () => invalid(Fsw.IE));
    const mask = r.sign.extU().neg();
    finish(p, r.flags, r.magnitude.xor(mask).sub(mask));
  });
}

const BCD_LIMIT = 999_999_999_999_999_999n;

function defineBcd(module: ModuleBuilder): void {
  defineHelper(module, "x87ToBcd", ["i32"], "i32", (p, fn) => {
    const [slot] = parameters(fn);
    const invalid = (flags: number): void => {
      p.setRaw(2, Scratch.LOW, 0xffff, 8);
      finish(p, p.i32(flags), p.i64(INDEFINITE));
    };
    const r = roundToInteger(p, slot, p.i32(0), invalid);
    fn.if(r.overflow.or(r.magnitude.gtU(p.i64(BCD_LIMIT))), () => invalid(Fsw.IE));
    const rest = fn.variable("i64", r.magnitude);
    const digits = fn.variable("i64", 0n);
    const shift = fn.variable("i64", 0n);
    // Sixteen digits in the first eight bytes, then the last two with the sign.
    fn.while(
      () => shift.read().ltU(64),
      () => {
        const v = rest.read();
        const next = v.divU(10);
        digits.set(digits.read().or(v.sub(next.mul(10)).shl(shift.read())));
        rest.set(next);
        shift.set(shift.read().add(4));
      },
    );
    const last = rest.read().wrap();
    const tens = last.divU(10);
    const byte = tens.shl(4).or(last.sub(tens.mul(10)));
    p.setRaw(2, Scratch.LOW, r.sign.shl(15).or(byte), 8);
    finish(p, r.flags, digits.read());
  });
}

export function defineStoreConversions(module: ModuleBuilder): void {
  defineBinary(module, { name: "x87ToSingle", exponentBits: 8, drop: 40 });
  defineBinary(module, { name: "x87ToDouble", exponentBits: 11, drop: 11 });
  defineInteger(module);
  defineBcd(module);
  defineHelper(module, "x87ToExtended", ["i32"], "i32", (p, fn) => {
    const [slot] = parameters(fn);
    fn.if(isEmpty(p, slot), () => {
      p.setRaw(2, Scratch.LOW, INDEFINITE_SE, 8);
      finish(p, p.i32(Fsw.IE | Fsw.SF), p.i64(INDEFINITE));
    });
    p.setRaw(2, Scratch.LOW, signExponent(p, slot), 8);
    finish(p, p.i32(0), significand(p, slot));
  });
}
