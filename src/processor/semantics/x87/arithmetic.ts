/**
 * Addition, multiplication and division: 80-bit, rounded to the precision in force.
 * Spec: SDM Vol. 2, FADD, FSUB, FMUL, FDIV and their tables of special operands.
 *
 *   x87Add(a, b, signB, denormal, slot, pop)   a + b, or a - b with signB = 1
 *   x87Mul, x87Div(a, b, denormal, slot, pop)
 * a, b: slots. `denormal` is DE if a memory operand was denormal in its own format, else 0.
 *
 * Normal operands go straight to the core of the operation; everything else takes the ...Special path, which deals with NaNs, infinities
 * and zeros, reports denormals and comes back to the core with normalized significands and an exponent of any size.
 */

import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Procedure } from "../procedure.ts";
import { Class, classOf, isNormal, normalize } from "./nan.ts";
import {
  BIAS,
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  INDEFINITE,
  INDEFINITE_SE,
  INTEGER_BIT,
  parameters,
  Rc,
  roundingControl,
  Scratch,
  signExponent,
  significand,
} from "./state.ts";
import { mulHigh } from "./wide.ts";

interface Unpacked {
  readonly se: Val;
  readonly sign: Val;
  readonly exponent: Val;
  readonly sig: Val;
}

function unpack(p: Procedure, slot: Val): Unpacked {
  const se = signExponent(p, slot);
  return { se, sign: se.shrU(15), exponent: se.and(EXPONENT_MAX), sig: significand(p, slot) };
}

/** What the special paths of two-operand operations share. */
class Special {
  readonly p: Procedure;
  readonly fn: FunctionBuilder;
  readonly a: Unpacked;
  readonly b: Unpacked;
  readonly classA: Val;
  readonly classB: Val;
  readonly flags: Val;
  readonly slot: Val;
  readonly pop: Val;

  /** Deals with NaNs and unsupported operands, after which the body of the function goes on. */
  constructor(p: Procedure, a: Val, b: Val, end: { denormal: Val; slot: Val; pop: Val }) {
    this.p = p;
    this.fn = p.fn;
    this.slot = end.slot;
    this.pop = end.pop;
    this.classA = classOf(p, a);
    this.classB = classOf(p, b);
    this.fn.if(this.classA.geU(Class.QNAN).or(this.classB.geU(Class.QNAN)), () => {
      this.fn.callVoid(p.module.get("x87Propagate"), a, b, this.slot, this.pop);
      this.fn.return();
    });
    this.a = unpack(p, a);
    this.b = unpack(p, b);
    const anyDenormal = this.classA.eq(Class.DENORMAL).or(this.classB.eq(Class.DENORMAL));
    this.flags = end.denormal.or(anyDenormal.shl(1));
  }

  /** The operation ends with this result under this condition. */
  endIf(condition: Val, se: () => Val, sig: () => Val, flags = this.flags): void {
    this.fn.if(condition, () => {
      this.fn.callVoid(this.p.module.get("x87Store"), this.slot, se(), sig(), flags, this.pop);
      this.fn.return();
    });
  }

  invalidIf(condition: Val): void {
    const { p } = this;
    this.endIf(
      condition,
      () => p.i32(INDEFINITE_SE),
      () => p.i64(INDEFINITE),
      p.i32(Fsw.IE),
    );
  }

  /** An unmasked denormal exception ends the operation; x87Store stores nothing then. */
  endIfDenormalUnmasked(): void {
    const { p } = this;
    const unmasked = this.flags.and(p.get(S.FCW).not()).and(Fsw.DE);
    this.endIf(
      unmasked,
      () => p.i32(0),
      () => p.i64(0),
    );
  }

  roundIf(condition: Val, sign: Val, of: Unpacked): void {
    this.fn.if(condition, () => {
      const n = normalize(of.exponent, of.sig);
      const round = this.p.module.get("x87Round");
      this.fn.callVoid(
        round,
        sign,
        n.exponent,
        n.significand,
        this.p.i64(0),
        this.flags,
        this.slot,
        this.pop,
      );
      this.fn.return();
    });
  }
}

export function defineArithmetic(module: ModuleBuilder): void {
  defineAddCore(module);
  defineAdd(module);
  defineMul(module);
  defineDiv(module);
}

/** (-1)^signA * sigA * 2^expA + (-1)^signB * ...: both normalized. */
function defineAddCore(module: ModuleBuilder): void {
  const params = ["i32", "i32", "i64", "i32", "i32", "i64", "i32", "i32", "i32"] as const;
  defineHelper(module, "x87AddCore", params, null, (p, fn) => {
    const [signA, expA, sigA, signB, expB, sigB, flags, slot, pop] = parameters(fn);
    const swap = expA.ltS(expB).or(expA.eq(expB).and(sigA.ltU(sigB)));
    const sign = swap.select(signB, signA);
    const large = swap.select(sigB, sigA);
    const small = swap.select(sigA, sigB);
    const expLarge = swap.select(expB, expA);
    const distance = expLarge.sub(swap.select(expA, expB));
    const high = fn.variable("i64", small);
    const low = fn.variable("i64", 0n);
    fn.if(distance, () => {
      const n = distance.extU();
      fn.if(
        distance.ltU(64),
        () => {
          low.set(small.shl(fn.i64(64).sub(n)));
          high.set(small.shrU(n));
        },
        () => {
          // Exact while it can matter: the difference may lose one leading bit.
          const extra = n.sub(64);
          const exact = small.shrU(extra).or(small.and(extra));
          low.set(distance.leU(65).select(exact, p.i64(1)));
          high.set(0n);
        },
      );
    });
    const addend = high.read();
    const rest = low.read();
    const round = module.get("x87Round");
    fn.if(
      signA.eq(signB),
      () => {
        const sum = large.add(addend);
        const carry = sum.ltU(large);
        fn.if(carry, () => {
          const sticky = rest.shrU(1).or(rest.and(1)).or(sum.shl(63));
          fn.callVoid(
            round,
            sign,
            expLarge.add(1),
            sum.shrU(1).or(p.i64(INTEGER_BIT)),
            sticky,
            flags,
            slot,
            pop,
          );
          fn.return();
        });
        fn.callVoid(round, sign, expLarge, sum, rest, flags, slot, pop);
      },
      () => {
        const difference = large.sub(addend).sub(rest.ne(0).extU());
        const below = rest.neg();
        fn.if(difference.or(below).eqz(), () => {
          const zero = roundingControl(p).eq(Rc.DOWN).shl(15);
          fn.callVoid(module.get("x87Store"), slot, zero, p.i64(0), flags, pop);
          fn.return();
        });
        const z = difference.clz();
        fn.if(z.eq(64), () => {
          const z2 = below.clz();
          fn.callVoid(
            round,
            sign,
            expLarge.sub(64).sub(z2.wrap()),
            below.shl(z2),
            p.i64(0),
            flags,
            slot,
            pop,
          );
          fn.return();
        });
        // below >> (64 - z), in two steps because z may be 0.
        const up = difference.shl(z).or(below.shrU(1).shrU(fn.i64(63).sub(z)));
        fn.callVoid(round, sign, expLarge.sub(z.wrap()), up, below.shl(z), flags, slot, pop);
      },
    );
  });
}

function defineAdd(module: ModuleBuilder): void {
  const params = ["i32", "i32", "i32", "i32", "i32", "i32"] as const;
  defineHelper(module, "x87AddSpecial", params, null, (p, fn) => {
    const [a, b, negate, denormal, slot, pop] = parameters(fn);
    const s = new Special(p, a, b, { denormal, slot, pop });
    const signB = s.b.sign.xor(negate);
    const infiniteA = s.classA.eq(Class.INFINITY);
    const infiniteB = s.classB.eq(Class.INFINITY);
    s.invalidIf(infiniteA.and(infiniteB).and(s.a.sign.xor(signB)));
    s.endIfDenormalUnmasked();
    s.endIf(
      infiniteA,
      () => s.a.se,
      () => s.a.sig,
    );
    s.endIf(
      infiniteB,
      () => s.b.se.xor(negate.shl(15)),
      () => s.b.sig,
    );
    const zeroA = s.classA.eq(Class.ZERO);
    const zeroB = s.classB.eq(Class.ZERO);
    const down = roundingControl(p).eq(Rc.DOWN);
    const zeroSign = s.a.sign.eq(signB).select(signB, down);
    s.endIf(
      zeroA.and(zeroB),
      () => zeroSign.shl(15),
      () => p.i64(0),
    );
    s.roundIf(zeroA, signB, s.b);
    s.roundIf(zeroB, s.a.sign, s.a);
    const x = normalize(s.a.exponent, s.a.sig);
    const y = normalize(s.b.exponent, s.b.sig);
    const core = module.get("x87AddCore");
    fn.callVoid(
      core,
      s.a.sign,
      x.exponent,
      x.significand,
      signB,
      y.exponent,
      y.significand,
      s.flags,
      slot,
      pop,
    );
  });
  defineHelper(module, "x87Add", params, null, (p, fn) => {
    const [a, b, negate, denormal, slot, pop] = parameters(fn);
    const [x, y] = [unpack(p, a), unpack(p, b)];
    fn.if(isNormal(x.exponent, x.sig).and(isNormal(y.exponent, y.sig)).and(denormal.eqz()), () => {
      const core = module.get("x87AddCore");
      fn.callVoid(
        core,
        x.sign,
        x.exponent,
        x.sig,
        y.sign.xor(negate),
        y.exponent,
        y.sig,
        0,
        slot,
        pop,
      );
      fn.return();
    });
    fn.callVoid(module.get("x87AddSpecial"), a, b, negate, denormal, slot, pop);
  });
}

/** Product of normalized significands, rounded; `exponent` is the sum of the biased ones. */
function multiply(
  p: Procedure,
  exponent: Val,
  sigA: Val,
  sigB: Val,
  end: { sign: Val; flags: Val; slot: Val; pop: Val },
): void {
  const fn = p.fn;
  const high = mulHigh(sigA, sigB);
  const low = sigA.mul(sigB);
  const shift = high.shrU(63).xor(1);
  const top = high.shl(shift).or(low.shrU(63).and(shift));
  const biased = exponent.sub(BIAS - 1).sub(shift.wrap());
  const round = p.module.get("x87Round");
  fn.callVoid(round, end.sign, biased, top, low.shl(shift), end.flags, end.slot, end.pop);
}

function defineMul(module: ModuleBuilder): void {
  const params = ["i32", "i32", "i32", "i32", "i32"] as const;
  defineHelper(module, "x87MulSpecial", params, null, (p, fn) => {
    const [a, b, denormal, slot, pop] = parameters(fn);
    const s = new Special(p, a, b, { denormal, slot, pop });
    const sign = s.a.sign.xor(s.b.sign);
    const infinite = s.classA.eq(Class.INFINITY).or(s.classB.eq(Class.INFINITY));
    const zero = s.classA.eq(Class.ZERO).or(s.classB.eq(Class.ZERO));
    s.invalidIf(infinite.and(zero));
    s.endIfDenormalUnmasked();
    s.endIf(
      infinite,
      () => sign.shl(15).or(EXPONENT_MAX),
      () => p.i64(INTEGER_BIT),
    );
    s.endIf(
      zero,
      () => sign.shl(15),
      () => p.i64(0),
    );
    const x = normalize(s.a.exponent, s.a.sig);
    const y = normalize(s.b.exponent, s.b.sig);
    const end = { sign, flags: s.flags, slot, pop };
    multiply(p, x.exponent.add(y.exponent), x.significand, y.significand, end);
  });
  defineHelper(module, "x87Mul", params, null, (p, fn) => {
    const [a, b, denormal, slot, pop] = parameters(fn);
    const [x, y] = [unpack(p, a), unpack(p, b)];
    fn.if(isNormal(x.exponent, x.sig).and(isNormal(y.exponent, y.sig)).and(denormal.eqz()), () => {
      const end = { sign: x.sign.xor(y.sign), flags: p.i32(0), slot, pop };
      multiply(p, x.exponent.add(y.exponent), x.sig, y.sig, end);
      fn.return();
    });
    fn.callVoid(module.get("x87MulSpecial"), a, b, denormal, slot, pop);
  });
}

function defineDiv(module: ModuleBuilder): void {
  // sigA / sigB, both normalized; `exponent` is the difference of the biased ones.
  const core = ["i32", "i32", "i64", "i64", "i32", "i32", "i32"] as const;
  defineHelper(module, "x87DivCore", core, null, (p, fn) => {
    const [sign, exponent, sigA, sigB, flags, slot, pop] = parameters(fn);
    const large = sigA.geU(sigB);
    const shift = large.extU();
    const quotient = fn.call(
      module.get("x87Divide128"),
      sigA.shrU(shift),
      sigA.shl(63).and(shift.neg()),
      sigB,
    );
    const remainder = p.raw(8, Scratch.LOW);
    // The fraction that is left, reduced to: none, below half, half, above.
    const complement = sigB.sub(remainder);
    const half = remainder.geU(complement).extU().shl(63);
    const low = half.or(remainder.nez().and(remainder.ne(complement)).extU());
    const biased = exponent.add(BIAS - 1).add(large);
    fn.callVoid(module.get("x87Round"), sign, biased, quotient, low, flags, slot, pop);
  });
  const params = ["i32", "i32", "i32", "i32", "i32"] as const;
  defineHelper(module, "x87DivSpecial", params, null, (p, fn) => {
    const [a, b, denormal, slot, pop] = parameters(fn);
    const s = new Special(p, a, b, { denormal, slot, pop });
    const sign = s.a.sign.xor(s.b.sign);
    const infiniteA = s.classA.eq(Class.INFINITY);
    const infiniteB = s.classB.eq(Class.INFINITY);
    const zeroA = s.classA.eq(Class.ZERO);
    const zeroB = s.classB.eq(Class.ZERO);
    const infinity = (): Val => sign.shl(15).or(EXPONENT_MAX);
    s.invalidIf(infiniteA.and(infiniteB).or(zeroA.and(zeroB)));
    s.endIf(zeroB.and(infiniteA.eqz()), infinity, () => p.i64(INTEGER_BIT), p.i32(Fsw.ZE));
    s.endIfDenormalUnmasked();
    s.endIf(infiniteA, infinity, () => p.i64(INTEGER_BIT));
    s.endIf(
      zeroA.or(infiniteB),
      () => sign.shl(15),
      () => p.i64(0),
    );
    const x = normalize(s.a.exponent, s.a.sig);
    const y = normalize(s.b.exponent, s.b.sig);
    const exponent = x.exponent.sub(y.exponent);
    fn.callVoid(
      module.get("x87DivCore"),
      sign,
      exponent,
      x.significand,
      y.significand,
      s.flags,
      slot,
      pop,
    );
  });
  defineHelper(module, "x87Div", params, null, (p, fn) => {
    const [a, b, denormal, slot, pop] = parameters(fn);
    const [x, y] = [unpack(p, a), unpack(p, b)];
    fn.if(isNormal(x.exponent, x.sig).and(isNormal(y.exponent, y.sig)).and(denormal.eqz()), () => {
      const exponent = x.exponent.sub(y.exponent);
      fn.callVoid(
        module.get("x87DivCore"),
        x.sign.xor(y.sign),
        exponent,
        x.sig,
        y.sig,
        0,
        slot,
        pop,
      );
      fn.return();
    });
    fn.callVoid(module.get("x87DivSpecial"), a, b, denormal, slot, pop);
  });
}
