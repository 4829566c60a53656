/**
 * Unsigned 64- and 128-bit integer arithmetic that WebAssembly lacks: high halves of products, long division, square root.
 * Second results are left in Scratch.LOW.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { defineHelper, parameters, Scratch } from "./state.ts";

const LOW32 = 0xffff_ffffn;

/** High half of a 64 x 64 product, from four 32 x 32 ones. The low half is a.mul(b). */
export function mulHigh(a: Val, b: Val): Val {
  const [al, ah] = [a.and(LOW32), a.shrU(32)];
  const [bl, bh] = [b.and(LOW32), b.shrU(32)];
  const middle = ah.mul(bl).add(al.mul(bl).shrU(32));
  const cross = al.mul(bh).add(middle.and(LOW32));
  return ah.mul(bh).add(middle.shrU(32)).add(cross.shrU(32));
}

/** One 32-bit digit of a long division: (rest * 2^32 + digit) / divisor, with rest < divisor and bit 63 of the divisor set. */
function quotientDigit(
  fn: FunctionBuilder,
  rest: Val,
  digit: Val,
  divisor: Val,
): { quotient: Val; rest: Val } {
  const [dh, dl] = [divisor.shrU(32), divisor.and(LOW32)];
  const estimate = rest.divU(dh);
  const q = fn.variable("i64", estimate);
  const product = fn.variable("i64", estimate.mul(dl));
  // rest:digit - estimate * divisor, in two pieces; the estimate is at most two too large.
  const left = fn.variable("i64", rest.sub(estimate.mul(dh)));
  const correct = (): void => {
    const l = left.read();
    fn.if(l.leU(LOW32).and(product.read().gtU(l.shl(32).or(digit))), () => {
      q.set(q.read().sub(1));
      product.set(product.read().sub(dl));
      left.set(l.add(dh));
    });
  };
  correct();
  correct();
  return { quotient: q.read(), rest: left.read().shl(32).add(digit).sub(product.read()) };
}

export function defineWide(module: ModuleBuilder): void {
  // high:low / divisor for high < divisor, bit 63 of the divisor set. Answers the quotient; remainder in Scratch.LOW.
  defineHelper(module, "x87Divide128", ["i64", "i64", "i64"], "i64", (p, fn) => {
    const [high, low, divisor] = parameters(fn);
    const first = quotientDigit(fn, high, low.shrU(32), divisor);
    const second = quotientDigit(fn, first.rest, low.and(LOW32), divisor);
    p.setRaw(8, Scratch.LOW, second.rest);
    fn.return(first.quotient.shl(32).add(second.quotient));
  });
  // Square root of high:low (high >= 2^62), 64 bits, bit 63 set. Scratch.LOW: the rest as 0, below half (1) or above half an ulp.
  defineHelper(module, "x87SquareRoot128", ["i64", "i64"], "i64", (p, fn) => {
    const [high, low] = parameters(fn);
    const s = squareRoot64(fn, high);
    const rest = high.sub(s.mul(s));
    // rest <= 2 s. The next 32 bits are (rest:low[63:32]) / 2 s or one less.
    const quotient = rest.shl(31).or(low.shrU(33)).divU(s);
    const guess = s.shl(32).add(quotient.gtU(LOW32).select(fn.i64(LOW32), quotient));
    const square = mulHigh(guess, guess);
    const tooLarge = square.gtU(high).or(square.eq(high).and(guess.mul(guess).gtU(low)));
    const root = guess.sub(tooLarge.extU());
    const restLow = low.sub(root.mul(root));
    const restHigh = high.sub(mulHigh(root, root)).sub(low.ltU(root.mul(root)).extU());
    const above = restHigh.nez().or(restLow.gtU(root)).extU().shl(63);
    p.setRaw(8, Scratch.LOW, above.or(restHigh.or(restLow).nez().extU()));
    fn.return(root);
  });
}

/** floor(sqrt(x)) for x >= 2^62: from a double, whose error is less than one. */
function squareRoot64(fn: FunctionBuilder, x: Val): Val {
  const estimate = fn.op("i64.trunc_sat_f64_u", fn.op("f64.sqrt", fn.op("f64.convert_i64_u", x)));
  const capped = estimate.gtU(LOW32).select(fn.i64(LOW32), estimate);
  const down = capped.sub(capped.mul(capped).gtU(x).extU());
  const next = down.add(1);
  return down.add(next.leU(LOW32).and(next.mul(next).leU(x)).extU());
}
