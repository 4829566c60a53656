/**
 * Comparisons and FXAM.
 * Spec: SDM Vol. 2, FCOM, FUCOM, FCOMI, FTST, FXAM.
 *
 * A relation is a number with C0, C2, C3 in bits 0, 2, 6: their places in the upper byte of the status word, and those of CF, PF, ZF.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import { Class, classOf, normalize } from "./nan.ts";
import {
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  isEmpty,
  parameters,
  Scratch,
  signExponent,
  significand,
} from "./state.ts";

export const Relation = { GREATER: 0, LESS: 1, UNORDERED: 0x45, EQUAL: 0x40 } as const;
/** Added to a relation by x87Compare if an unmasked exception forbids a pop. */
export const NO_POP = 0x100;

export function defineCompare(module: ModuleBuilder): void {
  // Order of two slots without any NaN: a relation. Reports nothing.
  defineHelper(module, "x87Order", ["i32", "i32"], "i32", (p, fn) => {
    const [a, b] = parameters(fn);
    const [seA, seB] = [signExponent(p, a), signExponent(p, b)];
    const [sigA, sigB] = [significand(p, a), significand(p, b)];
    const bothZero = seA.or(seB).and(EXPONENT_MAX).eqz().and(sigA.or(sigB).eqz());
    fn.if(bothZero, () => fn.return(Relation.EQUAL));
    const signA = seA.shrU(15);
    fn.if(signA.ne(seB.shrU(15)), () => fn.return(signA));
    const x = normalize(seA.and(EXPONENT_MAX), sigA);
    const y = normalize(seB.and(EXPONENT_MAX), sigB);
    fn.if(x.exponent.eq(y.exponent).and(x.significand.eq(y.significand)), () =>
      fn.return(Relation.EQUAL),
    );
    const smaller = x.exponent
      .eq(y.exponent)
      .select(x.significand.ltU(y.significand), x.exponent.ltS(y.exponent));
    fn.return(smaller.xor(signA));
  });
  // a against b with all its exceptions; `quiet`: only signaling NaNs are invalid. Answers a relation, plus NO_POP.
  defineHelper(module, "x87Compare", ["i32", "i32", "i32", "i32"], "i32", (p, fn) => {
    const [a, b, denormal, quiet] = parameters(fn);
    const raise = module.get("x87Raise");
    const end = (relation: number | Val, flags: Val): void => {
      const unmasked = fn.call(raise, flags).and(Fsw.BEFORE);
      fn.return(unmasked.ne(0).shl(8).or(relation));
    };
    fn.if(isEmpty(p, a).or(b.ltU(Scratch.MEMORY).select(isEmpty(p, b), p.i32(0))), () =>
      end(Relation.UNORDERED, p.i32(Fsw.IE | Fsw.SF)),
    );
    const [classA, classB] = [classOf(p, a), classOf(p, b)];
    fn.if(classA.geU(Class.QNAN).or(classB.geU(Class.QNAN)), () => {
      const signaling = classA.gtU(Class.QNAN).or(classB.gtU(Class.QNAN));
      end(Relation.UNORDERED, signaling.or(quiet.eqz()));
    });
    const anyDenormal = classA.eq(Class.DENORMAL).or(classB.eq(Class.DENORMAL)).shl(1);
    end(fn.call(module.get("x87Order"), a, b), denormal.or(anyDenormal));
  });
  defineHelper(module, "x87Examine", ["i32"], null, (p, fn) => {
    const [slot] = parameters(fn);
    const kind = classOf(p, slot);
    // C3, C2, C0 (bits 6, 2, 0) by class: normal, zero, denormal, infinity, QNaN, SNaN, unsupported.
    const table = p.i64(0x00_01_01_05_44_40_04n);
    const found = table.shrU(kind.shl(3).extU()).wrap().and(0xff);
    const code = isEmpty(p, slot).select(p.i32(0x41), found);
    const sign = signExponent(p, slot).shrU(15).shl(9);
    p.set(S.FSW, p.get(S.FSW).and(~Fsw.CONDITIONS).or(code.shl(8)).or(sign));
  });
}
