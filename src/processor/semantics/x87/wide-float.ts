/**
 * 128-bit significands for the transcendental functions, over the builder.
 *
 * Wide: an unsigned 128-bit number in two i64. A wide float is value = wide / 2^127 * 2^exponent with bit 127 set; fixed-point numbers
 * are named by their fraction bits. Products keep the upper 128 bits and are up to three units too small.
 */
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { Cpu } from "../cpu.ts";
import type { Procedure } from "../procedure.ts";
import { BIAS, defineHelper, parameters, Scratch } from "./state.ts";
import { mulHigh } from "./wide.ts";

export interface Wide {
  readonly high: Val;
  readonly low: Val;
}

export interface WideFloat extends Wide {
  readonly exponent: Val;
}

export function wideConstant(cpu: Cpu, n: bigint): Wide {
  return { high: cpu.i64(n >> 64n), low: cpu.i64(BigInt.asIntN(64, n)) };
}

export function addWide(a: Wide, b: Wide): Wide {
  const low = a.low.add(b.low);
  return { high: a.high.add(b.high).add(low.ltU(a.low).extU()), low };
}

export function subWide(a: Wide, b: Wide): Wide {
  return { high: a.high.sub(b.high).sub(a.low.ltU(b.low).extU()), low: a.low.sub(b.low) };
}

/** Shift left by n (i64) in 0..63. */
export function shiftLeftWide(a: Wide, n: Val): Wide {
  return { high: a.high.shl(n).or(a.low.shrU(1).shrU(n.xor(63))), low: a.low.shl(n) };
}

/** Shift right by n (i64), any amount. */
export function shiftRightWide(cpu: Cpu, a: Wide, n: Val): Wide {
  const far = n.gtU(63);
  const zero = cpu.i64(0);
  const low = a.low.shrU(n).or(a.high.shl(1).shl(n.and(63).xor(63)));
  return {
    high: far.select(zero, a.high.shrU(n)),
    low: n.gtU(127).select(zero, far.select(a.high.shrU(n), low)),
  };
}

/** Upper half of the product. */
export function mulWide(cpu: Cpu, a: Wide, b: Wide): Wide {
  const high = cpu.fn.call(cpu.module.get("x87MulWide"), a.high, a.low, b.high, b.low);
  return { high, low: cpu.raw(8, Scratch.LOW) };
}

/** Shifts a number other than zero up to bit 127; `shift` is how far (i32). */
export function normalizeWide(cpu: Cpu, a: Wide): Wide & { shift: Val } {
  const fn = cpu.fn;
  const high = fn.variable("i64", a.high);
  const low = fn.variable("i64", a.low);
  const far = a.high.eqz();
  fn.if(far, () => {
    high.set(a.low);
    low.set(0n);
  });
  const upper = high.read();
  const n = upper.clz();
  const shifted = shiftLeftWide({ high: upper, low: low.read() }, n);
  return { ...shifted, shift: n.wrap().add(far.shl(6)) };
}

/** Product of two wide floats, normalized. */
export function mulFloat(cpu: Cpu, a: WideFloat, b: WideFloat): WideFloat {
  const product = normalizeWide(cpu, mulWide(cpu, a, b));
  return {
    high: product.high,
    low: product.low,
    exponent: a.exponent.add(b.exponent).add(1).sub(product.shift),
  };
}

/** Quotient of two wide floats, normalized. */
export function divFloat(cpu: Cpu, a: WideFloat, b: WideFloat): WideFloat {
  const high = cpu.fn.call(cpu.module.get("x87DivideWide"), a.high, a.low, b.high, b.low);
  const quotient = normalizeWide(cpu, { high, low: cpu.raw(8, Scratch.LOW) });
  return {
    high: quotient.high,
    low: quotient.low,
    exponent: a.exponent.sub(b.exponent).sub(quotient.shift),
  };
}

/** A wide float below one as fixed point with 128 fraction bits. */
export function toFraction(cpu: Cpu, a: WideFloat): Wide {
  return shiftRightWide(cpu, a, cpu.i32(-1).sub(a.exponent).extU());
}

/**
 * c0 -+ c1 z +- c2 z^2 ...: coefficients and result with 127 fraction bits, z with 128. `negate`: null for alternating signs, else
 * nonzero (i32) to make them alternate.
 */
export function polynomial(
  cpu: Cpu,
  z: Wide,
  coefficients: readonly bigint[],
  negate: Val | null,
): Wide {
  const last = coefficients[coefficients.length - 1]!;
  let sum = wideConstant(cpu, last);
  for (let k = coefficients.length - 2; k >= 0; k--) {
    const term = mulWide(cpu, sum, z);
    const c = wideConstant(cpu, coefficients[k]!);
    if (negate === null) sum = subWide(c, term);
    else {
      const mask = negate.ne(0).extU().neg();
      const flipped = { high: term.high.xor(mask), low: term.low.xor(mask) };
      // -x = ~x + 1; the one is below what matters.
      sum = addWide(c, flipped);
    }
  }
  return sum;
}

/** A 64-bit significand as a wide float. */
export function floatOf(cpu: Cpu, sig: Val, exponent: Val): WideFloat {
  return { high: sig, low: cpu.i64(0), exponent };
}

export function constantFloat(cpu: Cpu, n: bigint, exponent: number): WideFloat {
  return { ...wideConstant(cpu, n), exponent: cpu.i32(exponent) };
}

/** A fixed-point number other than zero with `fractionBits` as a wide float. */
export function fixedToFloat(cpu: Cpu, w: Wide, fractionBits: number): WideFloat {
  const n = normalizeWide(cpu, w);
  return { high: n.high, low: n.low, exponent: cpu.i32(127 - fractionBits).sub(n.shift) };
}

/** A function of one wide float: (high, low, exponent) -> high, the rest in Scratch.LOW and EXPONENT. */
export function defineFloatFunction(
  module: ModuleBuilder,
  name: string,
  body: (p: Procedure, x: WideFloat) => WideFloat,
): void {
  defineHelper(module, name, ["i64", "i64", "i32"], "i64", (p, fn) => {
    const [high, low, exponent] = parameters(fn);
    const r = body(p, { high, low, exponent });
    p.setRaw(8, Scratch.LOW, r.low);
    p.setRaw(4, Scratch.EXPONENT, r.exponent);
    fn.return(r.high);
  });
}

export function callFloat(cpu: Cpu, name: string, x: WideFloat): WideFloat {
  const high = cpu.fn.call(cpu.module.get(name), x.high, x.low, x.exponent);
  return { high, low: cpu.raw(8, Scratch.LOW), exponent: cpu.raw(4, Scratch.EXPONENT) };
}

/** Rounds an irrational result into a slot: never exact, whatever the low bits say. */
export function storeIrrational(
  p: Procedure,
  sign: Val,
  x: WideFloat,
  end: { flags: Val; slot: Val; pop: number },
): void {
  const biased = x.exponent.add(BIAS);
  p.fn.callVoid(
    p.module.get("x87Round64"),
    sign,
    biased,
    x.high,
    x.low.or(p.i64(1)),
    end.flags,
    end.slot,
    end.pop,
  );
}

export function defineWideFloat(module: ModuleBuilder): void {
  defineHelper(module, "x87MulHigh", ["i64", "i64"], "i64", (_, fn) =>
    fn.return(mulHigh(fn.param(0), fn.param(1))),
  );
  defineHelper(module, "x87MulWide", ["i64", "i64", "i64", "i64"], "i64", (p, fn) => {
    const [ah, al, bh, bl] = parameters(fn);
    const high = module.get("x87MulHigh");
    const cross1 = fn.call(high, ah, bl);
    const cross2 = fn.call(high, al, bh);
    const middle = cross1.add(cross2);
    const low = ah.mul(bh).add(middle);
    const carries = middle.ltU(cross1).extU().add(low.ltU(middle).extU());
    p.setRaw(8, Scratch.LOW, low);
    fn.return(fn.call(high, ah, bh).add(carries));
  });
  // (a / 2) / b with 128 fraction bits, for both with bit 127 set: between 1/4 and 1, a few units too small.
  defineHelper(module, "x87DivideWide", ["i64", "i64", "i64", "i64"], "i64", (p, fn) => {
    const [ah, al, bh, bl] = parameters(fn);
    // Digits of 64 bits, by a divisor rounded up to 64 bits (0 stands for 2^64).
    const divisor = bh.add(1);
    const divide = (high: Val, low: Val): { quotient: Val; rest: Val } => {
      const quotient = fn.variable("i64", high);
      const rest = fn.variable("i64", low);
      fn.if(divisor.nez(), () => {
        quotient.set(fn.call(module.get("x87Divide128"), high, low, divisor));
        rest.set(p.raw(8, Scratch.LOW));
      });
      return { quotient: quotient.read(), rest: rest.read() };
    };
    const first = divide(ah.shrU(1), al.shrU(1).or(ah.shl(63)));
    // What is left, a / 2 * 2^64 - first * b = rest * 2^64 + first * (2^64 - bl), can be some times the divisor.
    const q = first.quotient;
    const product = bl.eqz().select(q, fn.call(module.get("x87MulHigh"), q, bl.neg()));
    const sum = first.rest.add(product);
    const carry = fn.variable("i64", sum.ltU(product).extU());
    const upper = fn.variable("i64", sum);
    const extra = fn.variable("i64", 0n);
    fn.while(
      () =>
        carry
          .read()
          .nez()
          .or(divisor.nez().and(upper.read().geU(divisor))),
      () => {
        const before = upper.read();
        carry.set(carry.read().sub(before.ltU(divisor).or(divisor.eqz()).extU()));
        upper.set(before.sub(divisor));
        extra.set(extra.read().add(1));
      },
    );
    const second = divide(upper.read(), q.mul(bl.neg()));
    p.setRaw(8, Scratch.LOW, second.quotient);
    fn.return(q.add(extra.read()));
  });
}
