/**
 * Conversions between binary32, binary64 and integers. SDM Vol. 2, CVT*; Vol. 1, "Masked Response to Invalid Operation".
 *
 * To integers: rounded to an integral value first; what does not fit is IE and the most negative integer. Denormals raise no DE.
 * From integers and to binary32: native if MXCSR is plain, else exact (soft-arithmetic.ts). To binary64: always exact.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { defineProcedure, type Procedure } from "../procedure.ts";
import { F32, F64, type Format, floatBits, loadFloat } from "./float-format.ts";
import { dazOperand } from "./float-round.ts";
import {
  aboveLeast,
  all,
  any,
  both,
  either,
  element,
  float,
  isZero,
  notDenormal,
  notNan,
  replaceElement,
  scalarAboveLeast,
  scalarIsZero,
  scalarNotDenormal,
  splat,
} from "./float-vector.ts";
import { isPlain, Mxcsr, Rounding, raise, roundingOf } from "./mxcsr.ts";
import {
  enterMmx,
  isMmx,
  lowHalf,
  readAligned,
  readLow,
  requireMmx,
  requireSse,
  writeMmx,
  zeroExtend,
} from "./operands.ts";
import { result, setResult } from "./scratch.ts";
import { softBits, softFlags } from "./soft-round.ts";
import { elements, repeated } from "./vector.ts";

// ---- to integers ----

const INDEFINITE_32 = 0x8000_0000n;

/** In [-2^31, 2^31) or [-2^63, 2^63); v holds integral values. NaN is not. */
function fits(p: Procedure, f: Format, v: Val, bits: 32 | 64): Val {
  const { fn } = p;
  const limit = fn.constant(f.bits === 32 ? "f32" : "f64", 2 ** (bits - 1));
  const bound = fn.op(f.bits === 32 ? "f32x4.splat" : "f64x2.splat", limit);
  return both(fn, float(fn, f, "lt", v, bound), float(fn, f, "ge", v, float(fn, f, "neg", bound)));
}

function integerFlags(p: Procedure, f: Format, v: Val, r: Val, fit: Val): Val {
  const { fn } = p;
  const changed = both(fn, float(fn, f, "ne", r, v), fit);
  const inexact = any(fn, changed).select(fn.i32(Mxcsr.PE), fn.i32(0));
  return all(fn, f, fit).xor(1).or(inexact);
}

/** sseToInt{32,64}(v, truncates): elements as 32-bit integers, from binary64 in the low half. */
function defineToInt(module: ModuleBuilder, f: Format): void {
  defineProcedure(module, `sseToInt${f.bits}`, ["v128", "i32"], (p) => {
    const { fn } = p;
    const rounding = fn.param(1).select(fn.i32(Rounding.ZERO), roundingOf(p.get(S.MXCSR)));
    const v = dazOperand(p, f, fn.param(0));
    const r = fn.call(module.get(`integral${f.bits}`), v, rounding);
    const fit = fits(p, f, r, 32);
    const flags = integerFlags(p, f, v, r, fit);
    const wide = fn.op(
      f.bits === 32 ? "i32x4.trunc_sat_f32x4_s" : "i32x4.trunc_sat_f64x2_s_zero",
      r,
    );
    // Masks of 64-bit elements fold to the low half like the results.
    const zero = fn.v128x2(0n, 0n);
    const mask = f.bits === 32 ? fit : elements(fn, 4, [0, 2, 4, 5], fit, zero);
    const indefinite =
      f.bits === 32
        ? repeated(fn, 4, INDEFINITE_32)
        : fn.v128x2((INDEFINITE_32 << 32n) | INDEFINITE_32, 0n);
    setResult(p, 16, fn.op("v128.bitselect", wide, indefinite, mask));
    raise(p, flags);
  });
}

/** sseToQuad{32,64}(v, truncates): element 0 as a 64-bit integer. */
function defineToQuad(module: ModuleBuilder, f: Format): void {
  defineProcedure(module, `sseToQuad${f.bits}`, ["v128", "i32"], (p) => {
    const { fn } = p;
    const rounding = fn.param(1).select(fn.i32(Rounding.ZERO), roundingOf(p.get(S.MXCSR)));
    const v = dazOperand(p, f, fn.param(0));
    const r = fn.call(module.get(`integral${f.bits}`), v, rounding);
    const fit = fits(p, f, r, 64);
    const flags = integerFlags(p, f, v, r, fit);
    const shape = f.bits === 32 ? "f32x4" : "f64x2";
    const n = fn.op(`i64.trunc_sat_f${f.bits}_s`, fn.lane(`${shape}.extract_lane`, 0, r));
    setResult(
      p,
      8,
      element(fn, f, 0, fit)
        .ne(0)
        .select(n, fn.i64(1n << 63n)),
    );
    raise(p, flags);
  });
}

function toInteger(insn: Insn, procedure: string, v: Val, truncates: boolean): void {
  const flag = insn.i32(truncates ? 1 : 0);
  insn.propagate(insn.fn.call(insn.module.get(procedure), v, flag));
}

/**
 * CVT(T)SS2SI, CVT(T)SD2SI. Inline where the integer is exact, or PE is quiet: truncation has nothing else to say about a value that
 * fits, whatever MXCSR holds.
 */
const scalarToInteger =
  (f: Format, truncates: boolean): Semantics =>
  (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const bits = insn.rd(1);
    const wide = insn.bytes(0) === 8;
    const type = wide ? "i64" : "i32";
    const value = loadFloat(f, fn, bits);
    const integral = value.un(truncates ? "trunc" : "nearest");
    const limit = 2 ** (wide ? 63 : 31);
    const fit = integral.bin("lt", limit).and(integral.bin("ge", -limit));
    const mxcsr = insn.get(S.MXCSR);
    const quiet = isPlain(mxcsr).and(scalarNotDenormal(f, bits));
    const fast = fit.and(integral.eq(value).or(quiet));
    const converted = fn.op(`${type}.trunc_sat_f${f.bits}_s`, integral);
    const r = insn.usually(converted, fast.eqz(), () => {
      toInteger(insn, `sseTo${wide ? "Quad" : "Int"}${f.bits}`, splat(fn, f, bits), truncates);
      return result(insn, wide ? 8 : 4);
    });
    insn.wr(0, r);
  };

const packedToInteger =
  (f: Format, truncates: boolean): Semantics =>
  (insn) => {
    requireSse(insn);
    toInteger(insn, `sseToInt${f.bits}`, readAligned(insn, 1), truncates);
    insn.regWrite(0, 16, result(insn, 16));
  };

/** CVT(T)PS2PI from 8 bytes, CVT(T)PD2PI from 16. The unused upper elements repeat the lower ones. */
const toMmx =
  (f: Format, truncates: boolean): Semantics =>
  (insn) => {
    requireSse(insn);
    requireMmx(insn);
    const v = f.bits === 32 ? insn.fn.op("i64x2.splat", readLow(insn, 1, 8)) : readAligned(insn, 1);
    // The processor has gone over to MMX when it finds an unmasked exception.
    enterMmx(insn);
    toInteger(insn, `sseToInt${f.bits}`, v, truncates);
    writeMmx(insn, 0, result(insn, 16));
  };

// ---- from integers ----

/** sseFromInt{32,64}(n): one 64-bit integer. sseFromInts(v): four 32-bit integers to binary32. */
function defineFromInt(module: ModuleBuilder): void {
  for (const f of [F32, F64]) {
    defineProcedure(module, `sseFromInt${f.bits}`, ["i64"], (p) => {
      const r = p.fn.call(module.get(`softFromInt${f.bits}`), p.fn.param(0), p.get(S.MXCSR));
      setResult(p, 8, softBits(r));
      raise(p, softFlags(r));
    });
  }
  defineProcedure(module, "sseFromInts", ["v128"], (p) => {
    const { fn } = p;
    const mxcsr = p.get(S.MXCSR);
    let vector: Val = fn.v128x2(0n, 0n);
    let flags: Val = fn.i32(0);
    for (let i = 0; i < 4; i++) {
      const n = fn.lane("i32x4.extract_lane", i, fn.param(0)).extS();
      const r = fn.call(module.get("softFromInt32"), n, mxcsr);
      vector = replaceElement(fn, F32, i, vector, softBits(r).wrap());
      flags = flags.or(softFlags(r));
    }
    setResult(p, 16, vector);
    raise(p, flags);
  });
}

const scalarFromInteger =
  (f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const n = insn.rd(1);
    const bits = floatBits(f, fn, fn.op(`f${f.bits}.convert_${n.type}_s`, n));
    const narrow = (v: Val): Val => (f.bits === 64 ? v : v.wrap());
    const isExact = f.bits === 64 && n.type === "i32";
    const isRare = isExact ? insn.i32(0) : isPlain(insn.get(S.MXCSR)).eqz();
    const r = insn.usually(narrow(bits), isRare, () => {
      insn.propagate(fn.call(insn.module.get(`sseFromInt${f.bits}`), n.extS()));
      return narrow(result(insn, 8));
    });
    insn.regWrite(0, f.bytes, r);
  };

/** Four integers to binary32. */
function singles(insn: Insn, v: Val): Val {
  const { fn } = insn;
  return insn.usually(fn.op("f32x4.convert_i32x4_s", v), isPlain(insn.get(S.MXCSR)).eqz(), () => {
    insn.propagate(fn.call(insn.module.get("sseFromInts"), v));
    return result(insn, 16);
  });
}

/**
 * CVTPI2PS, CVTPI2PD. From memory neither touches the MMX state: SDM says so of the latter only, processors treat both alike.
 */
const fromMmx =
  (f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    if (isMmx(insn, 1)) requireMmx(insn);
    const { fn } = insn;
    const v = fn.op("i64x2.splat", readLow(insn, 1, 8));
    if (isMmx(insn, 1)) enterMmx(insn);
    const r = f.bits === 32 ? singles(insn, v) : fn.op("f64x2.convert_low_i32x4_s", v);
    if (f.bits === 32) insn.regWrite(0, 8, lowHalf(r));
    else insn.regWrite(0, 16, r);
  };

// ---- between the formats ----

/** sseWiden(v): the two low binary32 of v to binary64; a scalar comes as equal elements. */
function defineWiden(module: ModuleBuilder): void {
  defineProcedure(module, "sseWiden", ["v128"], (p) => {
    const { fn } = p;
    const v = dazOperand(p, F32, fn.param(0));
    const first = elements(fn, 4, [0, 1, 0, 1], v, v);
    const quietBits = repeated(fn, 4, F32.quiet);
    const isNan = float(fn, F32, "ne", first, first);
    const signals = both(
      fn,
      isNan,
      fn.op("i32x4.eq", both(fn, first, quietBits), fn.v128x2(0n, 0n)),
    );
    const denormal = all(fn, F32, notDenormal(fn, F32, first)).eqz();
    const flags = any(fn, signals).or(denormal.select(fn.i32(Mxcsr.DE), fn.i32(0)));
    // A NaN keeps its payload in the upper bits: assembled from integers, as a native conversion may choose another.
    const wide = fn.op("i64x2.extend_low_i32x4_u", first);
    const payload = fn.op(
      "i64x2.shl",
      both(fn, wide, repeated(fn, 8, F32.normal - 1n)),
      fn.i32(29),
    );
    const sign = fn.op("i64x2.shl", both(fn, wide, repeated(fn, 8, F32.sign)), fn.i32(32));
    const quietNan = repeated(fn, 8, F64.infinity | F64.quiet);
    const nanResult = either(fn, either(fn, payload, sign), quietNan);
    const wideNan = fn.op("i64x2.extend_low_i32x4_s", isNan);
    const native = fn.op("f64x2.promote_low_f32x4", first);
    setResult(p, 16, fn.op("v128.bitselect", nanResult, native, wideNan));
    raise(p, flags);
  });
}

/** sseNarrow(a): one binary64. sseNarrows(v): two, to the low half. */
function defineNarrow(module: ModuleBuilder): void {
  defineProcedure(module, "sseNarrow", ["i64"], (p) => {
    const r = p.fn.call(module.get("softNarrow"), p.fn.param(0), p.get(S.MXCSR));
    setResult(p, 8, softBits(r));
    raise(p, softFlags(r));
  });
  defineProcedure(module, "sseNarrows", ["v128"], (p) => {
    const { fn } = p;
    const mxcsr = p.get(S.MXCSR);
    const one = (i: number): Val =>
      fn.call(module.get("softNarrow"), element(fn, F64, i, fn.param(0)), mxcsr);
    const [low, high] = [one(0), one(1)];
    const bits = softBits(low).or(softBits(high).shl(32));
    setResult(p, 16, zeroExtend(bits));
    raise(p, softFlags(low).or(softFlags(high)));
  });
}

const widenScalar: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const bits = insn.rd(1);
  const value = loadFloat(F32, fn, bits);
  const out = fn.variable("i64", floatBits(F64, fn, fn.op("f64.promote_f32", value)));
  fn.if(value.eq(value).and(scalarNotDenormal(F32, bits)).eqz(), () => {
    insn.propagate(fn.call(insn.module.get("sseWiden"), splat(fn, F32, bits)));
    out.set(result(insn, 8));
  });
  insn.regWrite(0, 8, out.read());
};

const widenPacked: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const v = fn.op("i64x2.splat", readLow(insn, 1, 8));
  const out = fn.variable("v128", fn.op("f64x2.promote_low_f32x4", v));
  const safe = both(fn, notNan(fn, F32, v), notDenormal(fn, F32, v));
  fn.if(all(fn, F32, safe).eqz(), () => {
    insn.propagate(fn.call(insn.module.get("sseWiden"), v));
    out.set(result(insn, 16));
  });
  insn.regWrite(0, 16, out.read());
};

const narrowScalar: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const bits = insn.rd(1);
  const r = fn.op("i32.reinterpret_f32", fn.op("f32.demote_f64", loadFloat(F64, fn, bits)));
  const out = fn.variable("i32", r);
  const safe = scalarAboveLeast(F32, r).or(scalarIsZero(bits));
  fn.if(safe.and(isPlain(insn.get(S.MXCSR))).eqz(), () => {
    insn.propagate(fn.call(insn.module.get("sseNarrow"), bits));
    out.set(result(insn, 4));
  });
  insn.regWrite(0, 4, out.read());
};

const narrowPacked: Semantics = (insn) => {
  requireSse(insn);
  const { fn } = insn;
  const v = readAligned(insn, 1);
  const r = fn.op("f32x4.demote_f64x2_zero", v);
  const out = fn.variable("v128", r);
  const twice = elements(fn, 8, [0, 0], r, r);
  const zeros = isZero(fn, F64, v);
  const exactZero = elements(fn, 4, [0, 2, 0, 2], zeros, zeros);
  const safe = either(fn, aboveLeast(fn, F32, twice), exactZero);
  fn.if(
    all(fn, F32, safe)
      .and(isPlain(insn.get(S.MXCSR)))
      .eqz(),
    () => {
      insn.propagate(fn.call(insn.module.get("sseNarrows"), v));
      out.set(result(insn, 16));
    },
  );
  insn.regWrite(0, 16, out.read());
};

export function defineFloatConvert(module: ModuleBuilder): void {
  for (const f of [F32, F64]) {
    defineToInt(module, f);
    defineToQuad(module, f);
  }
  defineFromInt(module);
  defineWiden(module);
  defineNarrow(module);
}

export const FLOAT_CONVERT: SemanticsTable = {
  cvtss2si: scalarToInteger(F32, false),
  cvttss2si: scalarToInteger(F32, true),
  cvtsd2si: scalarToInteger(F64, false),
  cvttsd2si: scalarToInteger(F64, true),
  cvtps2dq: packedToInteger(F32, false),
  cvttps2dq: packedToInteger(F32, true),
  cvtpd2dq: packedToInteger(F64, false),
  cvttpd2dq: packedToInteger(F64, true),
  cvtps2pi: toMmx(F32, false),
  cvttps2pi: toMmx(F32, true),
  cvtpd2pi: toMmx(F64, false),
  cvttpd2pi: toMmx(F64, true),
  cvtsi2ss: scalarFromInteger(F32),
  cvtsi2sd: scalarFromInteger(F64),
  cvtdq2ps: (insn) => {
    requireSse(insn);
    insn.regWrite(0, 16, singles(insn, readAligned(insn, 1)));
  },
  cvtdq2pd: (insn) => {
    requireSse(insn);
    const v = insn.fn.op("i64x2.splat", readLow(insn, 1, 8));
    insn.regWrite(0, 16, insn.fn.op("f64x2.convert_low_i32x4_s", v));
  },
  cvtpi2ps: fromMmx(F32),
  cvtpi2pd: fromMmx(F64),
  cvtss2sd: widenScalar,
  cvtps2pd: widenPacked,
  cvtsd2ss: narrowScalar,
  cvtpd2ps: narrowPacked,
};
