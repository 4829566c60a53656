/**
 * FPREM and FPREM1: x87Remainder(a, b, nearest) leaves the remainder in slot a, quotient bits in the condition codes.
 * Spec: SDM Vol. 2, FPREM, FPREM1.
 *
 * C2 has been cleared by the caller; C0 and C3 keep their values unless there is a quotient. Where the exponents differ by D >= 64, one execution takes N = 32 + D mod 32 quotient bits off and sets C2, as processors do; the
 * quotient is truncated then in both instructions.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Procedure } from "../procedure.ts";
import { Class, classOf, normalize } from "./nan.ts";
import { endIf, endIfNan, indefinite } from "./outcome.ts";
import {
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  Pop,
  parameters,
  Scratch,
  signExponent,
  significand,
} from "./state.ts";

/** C0, C3, C1 from quotient bits 2, 1, 0. */
function quotientCode(q: Val): Val {
  return q.shl(6).and(Fsw.C0).or(q.shl(13).and(Fsw.C3)).or(q.shl(9).and(Fsw.C1));
}

export function defineRemainder(module: ModuleBuilder): void {
  defineCore(module);
  defineHelper(module, "x87Remainder", ["i32", "i32", "i32"], null, (p, fn) => {
    const [a, b, nearest] = parameters(fn);
    const [kindA, kindB] = [classOf(p, a), classOf(p, b)];
    endIfNan(p, kindA.geU(Class.QNAN).or(kindB.geU(Class.QNAN)), a, b, a);
    endIf(p, kindA.eq(Class.INFINITY).or(kindB.eq(Class.ZERO)), a, () => indefinite(p));
    const [seA, sigA] = [signExponent(p, a), significand(p, a)];
    const flags = kindA.eq(Class.DENORMAL).or(kindB.eq(Class.DENORMAL)).shl(1);
    const same = { se: seA, sig: sigA, flags };
    endIf(p, flags.and(p.get(S.FCW).not()), a, () => same);
    p.set(S.FSW, p.get(S.FSW).and(~(Fsw.C0 | Fsw.C3)));
    endIf(p, kindA.eq(Class.ZERO), a, () => same);
    const x = normalize(seA.and(EXPONENT_MAX), sigA);
    fn.if(kindB.eq(Class.INFINITY), () =>
      finish(
        p,
        { negative: seA.shrU(15), exponent: x.exponent, rest: x.significand, slot: a },
        flags,
      ),
    );
    const y = normalize(signExponent(p, b).and(EXPONENT_MAX), significand(p, b));
    const core = module.get("x87RemainderCore");
    fn.callVoid(
      core,
      seA.shrU(15),
      x.exponent,
      x.significand,
      y.exponent,
      y.significand,
      nearest,
      flags,
      a,
    );
  });
}

/** The finite case: sign, exponent and significand of a; exponent and significand of b. */
function defineCore(module: ModuleBuilder): void {
  const params = ["i32", "i32", "i64", "i32", "i64", "i32", "i32", "i32"] as const;
  defineHelper(module, "x87RemainderCore", params, null, (p, fn) => {
    const [sign, expA, sigA, expB, sigB, nearest, flags, slot] = parameters(fn);
    const distance = expA.sub(expB);
    const end = (negative: Val, exponent: Val, rest: Val, code: Val): void =>
      finish(p, { negative, exponent, rest, slot }, flags.or(code));
    fn.if(distance.ltS(0), () => {
      // |a| < |b|: only FPREM1 with |a| > |b| / 2 changes anything.
      const up = nearest.and(distance.eq(-1)).and(sigA.gtU(sigB));
      const rest = up.select(sigB.shl(1).sub(sigA), sigA);
      end(sign.xor(up), expA, rest, quotientCode(up));
    });
    const partial = distance.geU(64);
    const bits = partial.select(distance.and(31).or(32), distance);
    const n = bits.extU();
    const whole = sigA.geU(sigB).extU();
    const left = sigA.sub(sigB.and(whole.neg()));
    const high = left.shrU(1).shrU(n.xor(63));
    const quotient = fn.call(module.get("x87Divide128"), high, left.shl(n), sigB).add(whole.shl(n));
    const rest = p.raw(8, Scratch.LOW);
    fn.if(partial, () => end(sign, expA.sub(bits), rest, p.i32(Fsw.C2)));
    const other = sigB.sub(rest);
    const q = quotient.wrap();
    const up = nearest.and(rest.gtU(other).or(rest.eq(other).and(q)));
    end(sign.xor(up), expB, up.select(other, rest), quotientCode(q.add(up)));
  });
}

interface Remainder {
  readonly negative: Val;
  readonly exponent: Val;
  readonly rest: Val;
  readonly slot: Val;
}

function finish(p: Procedure, r: Remainder, flags: Val): void {
  const { fn, module } = p;
  const sign = r.negative.and(1);
  endIf(p, r.rest.eqz(), r.slot, () => ({ se: sign.shl(15), sig: r.rest, flags }));
  const shift = r.rest.clz();
  const exponent = r.exponent.sub(shift.wrap());
  fn.callVoid(
    module.get("x87Round64"),
    sign,
    exponent,
    r.rest.shl(shift),
    p.i64(0),
    flags,
    r.slot,
    Pop.NONE,
  );
  fn.return();
}
