/**
 * Classes of 80-bit values, and the result of an operation with a NaN or an encoding that the FPU does not support.
 * Spec: SDM Vol. 1, "Unsupported Double Extended-Precision Floating-Point Encodings and Pseudo-Denormals", "Operating on SNaNs and
 * QNaNs", "Rules for handling NaNs".
 */
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { Cpu } from "../cpu.ts";
import {
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  INDEFINITE,
  INDEFINITE_SE,
  parameters,
  QUIET_BIT,
  Scratch,
  setSlot,
  signExponent,
  significand,
} from "./state.ts";

/** In an order that makes "any NaN or unsupported" one comparison with QNAN. Denormal includes pseudo-denormal. */
export const Class = {
  NORMAL: 0,
  ZERO: 1,
  DENORMAL: 2,
  INFINITY: 3,
  QNAN: 4,
  SNAN: 5,
  UNSUPPORTED: 6,
} as const;

/** Nonzero (i32) if a value of this exponent and significand is a normal number. */
export function isNormal(exponent: Val, sig: Val): Val {
  return exponent
    .sub(1)
    .ltU(EXPONENT_MAX - 1)
    .and(sig.ltS(0));
}

/** A finite number other than zero with its significand shifted up to bit 63, and the exponent that goes with it. */
export function normalize(exponent: Val, sig: Val): { exponent: Val; significand: Val } {
  const shift = sig.clz();
  return {
    exponent: exponent.add(exponent.eqz()).sub(shift.wrap()),
    significand: sig.shl(shift),
  };
}

export function defineNan(module: ModuleBuilder): void {
  defineHelper(module, "x87Class", ["i32"], "i32", (p, fn) => {
    const exponent = signExponent(p, fn.param(0)).and(EXPONENT_MAX);
    const sig = significand(p, fn.param(0));
    fn.if(exponent.eqz(), () =>
      fn.return(sig.eqz().select(p.i32(Class.ZERO), p.i32(Class.DENORMAL))),
    );
    fn.if(sig.geS(0), () => fn.return(Class.UNSUPPORTED));
    fn.if(exponent.ne(EXPONENT_MAX), () => fn.return(Class.NORMAL));
    fn.if(sig.shl(1).eqz(), () => fn.return(Class.INFINITY));
    fn.return(p.i32(Class.SNAN).sub(sig.shrU(62).wrap().and(1)));
  });
  defineChoice(module);
  // Result of an operation on slots a and b (the same slot for one operand), one of which is a NaN or unsupported.
  defineHelper(module, "x87Propagate", ["i32", "i32", "i32", "i32"], null, (p, fn) => {
    const [a, b, slot, pop] = parameters(fn);
    const flags = fn.call(module.get("x87ChooseNan"), a, b);
    const result = p.i32(Scratch.A);
    fn.callVoid(
      module.get("x87Store"),
      slot,
      signExponent(p, result),
      significand(p, result),
      flags,
      pop,
    );
  });
}

/** x87ChooseNan(a, b): puts the NaN that results into Scratch.A, answers IE or 0. */
function defineChoice(module: ModuleBuilder): void {
  defineHelper(module, "x87ChooseNan", ["i32", "i32"], "i32", (p, fn) => {
    const [a, b] = parameters(fn);
    const classify = module.get("x87Class");
    const classA = fn.call(classify, a);
    const classB = fn.call(classify, b);
    fn.if(classA.eq(Class.UNSUPPORTED).or(classB.eq(Class.UNSUPPORTED)), () => {
      setSlot(p, Scratch.A, INDEFINITE_SE, INDEFINITE);
      fn.return(Fsw.IE);
    });
    const chosen = fn.variable("i32", a);
    fn.if(
      classA.geU(Class.QNAN).and(classB.geU(Class.QNAN)),
      // Quiet before signaling, then the larger significand, then the positive one.
      () => {
        const [sigA, sigB] = [significand(p, a), significand(p, b)];
        const equal = sigA.eq(sigB).and(signExponent(p, b).ltU(signExponent(p, a)));
        const larger = sigB.gtU(sigA).or(equal);
        const useB = classA.eq(classB).select(larger, classB.ltU(classA));
        chosen.set(useB.select(b, a));
      },
      () => chosen.set(classA.geU(Class.QNAN).select(a, b)),
    );
    const c = chosen.read();
    const se = signExponent(p, c);
    setSlot(p, Scratch.A, se, significand(p, c).or(p.i64(QUIET_BIT)));
    fn.return(classA.eq(Class.SNAN).or(classB.eq(Class.SNAN)).select(p.i32(Fsw.IE), p.i32(0)));
  });
}

/** Class of a slot (i32). */
export function classOf(cpu: Cpu, slot: Val): Val {
  return cpu.fn.call(cpu.module.get("x87Class"), slot);
}
