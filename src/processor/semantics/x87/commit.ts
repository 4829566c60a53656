/**
 * How an x87 operation ends: the result with its exceptions, rounding to the precision in force, stack faults.
 * Spec: SDM Vol. 1, "x87 FPU Floating-Point Exception Handling", "Masked Responses", "Precision Control Field".
 *
 *   x87Store(slot, se, sig, flags, pop)                    a result as it is
 *   x87Round(sign, exponent, high, low, flags, slot, pop), x87Round64 (whatever the precision control)
 *                                                          a value to round: high:low with bit 127 set, exponent biased, of any size;
 *                                                          low may be sticky (any nonzero bit below the half bit says "a little more")
 *   x87Push(se, sig, flags) · x87Underflow(slot, pop)      with their stack faults
 *
 * An unmasked invalid, denormal or divide exception leaves register and stack as they are; the others come with a result (scaled by
 * 2^24576 for overflow and underflow; infinity or zero where that is not enough) and a pop. Tiny is judged after rounding.
 */

import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";
import type { Procedure } from "../procedure.ts";
import {
  defineHelper,
  EXPONENT_MAX,
  Fcw,
  Fsw,
  INDEFINITE,
  INDEFINITE_SE,
  INTEGER_BIT,
  isEmpty,
  Pop,
  parameters,
  roundingControl,
  setSlot,
  signExponent,
  significand,
  stAddress,
  TOP_SHIFT,
  tagBit,
  top,
} from "./state.ts";

/** Exponent adjustment of the unmasked overflow and underflow responses. */
const WRAP = 24576;

/** Bits of the significand that precision control drops, a byte for each setting (24, reserved, 53, 64 bits). */
const DROPPED = 0x000b_0028;

/** Number of significand bits below the precision in force (i32). */
export function droppedBits(cpu: Cpu): Val {
  const setting = cpu.get(S.FCW).shrU(Fcw.PC_SHIFT).and(3);
  return cpu.i32(DROPPED).shrU(setting.shl(3)).and(0xff);
}

export interface Rounded {
  /** Rounded significand; 0 if it carried out of bit 63. */
  readonly significand: Val;
  readonly inexact: Val;
  /** 1 if the magnitude was rounded up. */
  readonly up: Val;
}

/** Rounds high:low to the 64-`drop` upper bits of high, by the rounding control. */
export function roundSignificand(cpu: Cpu, sign: Val, high: Val, low: Val, drop: Val): Rounded {
  const fn = cpu.fn;
  const kept = fn.variable("i64", high);
  const rest = fn.variable("i64", low);
  fn.if(drop, () => {
    const n = drop.extU();
    kept.set(high.shrU(n).shl(n));
    rest.set(high.shl(fn.i64(64).sub(n)).or(low.ne(0).extU()));
  });
  const truncated = kept.read();
  const remainder = rest.read();
  const up = fn.variable("i32", 0);
  fn.if(remainder.ne(0), () => {
    const control = roundingControl(cpu);
    fn.if(
      control,
      // Down rounds negative magnitudes up, up positive ones: bits 3 and 4 by control:sign.
      () => up.set(fn.i32(0x18).shrU(control.shl(1).or(sign)).and(1)),
      () => {
        const odd = truncated.shrU(drop.extU()).wrap().and(1);
        up.set(remainder.ltS(0).and(remainder.shl(1).ne(0).or(odd)));
      },
    );
  });
  const increment = up.read();
  return {
    significand: truncated.add(increment.extU().shl(drop.extU())),
    inexact: remainder.ne(0),
    up: increment,
  };
}

/** PE and C1 of a rounding. */
export function roundingFlags(r: Rounded): Val {
  return r.inexact.shl(5).or(r.up.shl(9));
}

export function defineCommit(module: ModuleBuilder): void {
  defineStore(module);
  defineStackFaults(module);
  defineOverflow(module);
  defineUnderflow(module);
  defineRound(module, "x87Round", droppedBits);
  defineRound(module, "x87Round64", (p) => p.i32(0));
}

function defineRound(module: ModuleBuilder, name: string, precision: (p: Procedure) => Val): void {
  defineHelper(module, name, ["i32", "i32", "i64", "i64", "i32", "i32", "i32"], null, (p, fn) => {
    const [sign, exponent, high, low, flags, slot, pop] = parameters(fn);
    const drop = precision(p);
    fn.if(exponent.leS(0), () => {
      fn.callVoid(module.get("x87RoundTiny"), sign, exponent, high, low, flags, slot, pop, drop);
      fn.return();
    });
    const r = roundSignificand(p, sign, high, low, drop);
    const carry = r.significand.eqz();
    const finalExponent = exponent.add(carry);
    const allFlags = flags.or(roundingFlags(r));
    const finalSignificand = r.significand.or(carry.extU().shl(63));
    fn.if(finalExponent.geS(EXPONENT_MAX), () => {
      fn.callVoid(
        module.get("x87Overflow"),
        sign,
        finalExponent,
        finalSignificand,
        allFlags,
        slot,
        pop,
        drop,
      );
      fn.return();
    });
    fn.callVoid(
      module.get("x87Store"),
      slot,
      sign.shl(15).or(finalExponent),
      finalSignificand,
      allFlags,
      pop,
    );
  });
}

function defineStore(module: ModuleBuilder): void {
  defineHelper(module, "x87Store", ["i32", "i32", "i64", "i32", "i32"], null, (p, fn) => {
    const [slot, se, sig, flags, pop] = parameters(fn);
    const before = p.get(S.FSW).and(~Fsw.C1).or(flags);
    const status = fn.variable("i32", before);
    const unmasked = flags.and(p.get(S.FCW).not()).and(Fsw.EXCEPTIONS);
    fn.if(unmasked, () => {
      const raised = before.or(Fsw.ES | Fsw.B);
      status.set(raised);
      fn.if(unmasked.and(Fsw.BEFORE), () => {
        p.set(S.FSW, raised);
        fn.return();
      });
    });
    setSlot(p, slot, se, sig);
    const tags = p.get(S.FTAG_EMPTY).and(tagBit(p, slot).not());
    p.set(S.FTAG_EMPTY, tags);
    const after = status.read();
    const oldTop = after.shrU(TOP_SHIFT).and(7);
    fn.if(pop, () => {
      fn.if(pop.eq(Pop.POP), () => p.set(S.FTAG_EMPTY, tags.or(p.i32(1).shl(oldTop))));
      status.set(after.and(~Fsw.TOP).or(oldTop.add(pop).and(7).shl(TOP_SHIFT)));
    });
    p.set(S.FSW, status.read());
  });
  // Status without a result: comparisons, and results that go to memory. Answers nonzero if the operation must stop here.
  defineHelper(module, "x87Raise", ["i32"], "i32", (p, fn) => {
    const flags = fn.param(0);
    const before = p.get(S.FSW).and(~Fsw.C1).or(flags);
    const unmasked = flags.and(p.get(S.FCW).not()).and(Fsw.EXCEPTIONS);
    p.set(S.FSW, before.or(unmasked.ne(0).select(p.i32(Fsw.ES | Fsw.B), p.i32(0))));
    fn.return(unmasked);
  });
  // ES and B by the flags and masks in force.
  defineHelper(module, "x87Summary", [], null, (p) => {
    const status = p.get(S.FSW);
    const unmasked = status.and(p.get(S.FCW).not()).and(Fsw.EXCEPTIONS);
    const summary = unmasked.ne(0).select(p.i32(Fsw.ES | Fsw.B), p.i32(0));
    p.set(S.FSW, status.and(~(Fsw.ES | Fsw.B)).or(summary));
  });
  defineHelper(module, "x87Pop", [], null, (p) => {
    const status = p.get(S.FSW);
    const oldTop = top(p);
    p.set(S.FTAG_EMPTY, p.get(S.FTAG_EMPTY).or(p.i32(1).shl(oldTop)));
    p.set(S.FSW, status.and(~Fsw.TOP).or(oldTop.add(1).and(7).shl(TOP_SHIFT)));
  });
}

function defineStackFaults(module: ModuleBuilder): void {
  const store = module.get("x87Store");
  defineHelper(module, "x87Underflow", ["i32", "i32"], null, (p, fn) => {
    fn.callVoid(store, fn.param(0), INDEFINITE_SE, p.i64(INDEFINITE), Fsw.IE | Fsw.SF, fn.param(1));
  });
  // FLD ST(i) of an empty register: a stack underflow, whether or not there is room for the result.
  defineHelper(module, "x87PushEmpty", [], null, (p, fn) => {
    fn.callVoid(
      store,
      stAddress(p, -1),
      INDEFINITE_SE,
      p.i64(INDEFINITE),
      Fsw.IE | Fsw.SF,
      Pop.PUSH,
    );
  });
  // FXTRACT, FPTAN, FSINCOS with ST(0) empty (underflow first) or no room: both results are the default NaN.
  defineHelper(module, "x87PushFault", ["i32", "i32"], null, (p, fn) => {
    const [slot, above] = parameters(fn);
    const overflow = isEmpty(p, slot).eqz().shl(9);
    const stop = fn.call(module.get("x87Raise"), overflow.or(Fsw.IE | Fsw.SF));
    fn.if(stop, () => fn.return());
    setSlot(p, slot, INDEFINITE_SE, INDEFINITE);
    p.set(S.FTAG_EMPTY, p.get(S.FTAG_EMPTY).and(tagBit(p, slot).not()));
    setSlot(p, above, INDEFINITE_SE, INDEFINITE);
    p.set(S.FTAG_EMPTY, p.get(S.FTAG_EMPTY).and(tagBit(p, above).not()));
    const status = p.get(S.FSW);
    p.set(S.FSW, status.and(~Fsw.TOP).or(status.sub(1 << TOP_SHIFT).and(Fsw.TOP)));
  });
  // FXCH with an empty register: the empty ones count as the default NaN.
  defineHelper(module, "x87ExchangeEmpty", ["i32", "i32"], null, (p, fn) => {
    const [a, b] = parameters(fn);
    const stop = fn.call(module.get("x87Raise"), Fsw.IE | Fsw.SF);
    fn.if(stop, () => fn.return());
    const value = (slot: Val): [Val, Val] => {
      const empty = isEmpty(p, slot);
      return [
        empty.select(p.i32(INDEFINITE_SE), signExponent(p, slot)),
        empty.select(p.i64(INDEFINITE), significand(p, slot)),
      ];
    };
    const [x, y] = [value(a), value(b)];
    setSlot(p, a, y[0], y[1]);
    setSlot(p, b, x[0], x[1]);
    p.set(S.FTAG_EMPTY, p.get(S.FTAG_EMPTY).and(tagBit(p, a).or(tagBit(p, b)).not()));
  });
  defineHelper(module, "x87Push", ["i32", "i64", "i32"], null, (p, fn) => {
    const slot = stAddress(p, -1);
    fn.if(
      isEmpty(p, slot),
      () => fn.callVoid(store, slot, fn.param(0), fn.param(1), fn.param(2), Pop.PUSH),
      () =>
        fn.callVoid(
          store,
          slot,
          INDEFINITE_SE,
          p.i64(INDEFINITE),
          Fsw.IE | Fsw.SF | Fsw.C1,
          Pop.PUSH,
        ),
    );
  });
}

/** A rounded result with an exponent too large. */
function defineOverflow(module: ModuleBuilder): void {
  defineHelper(
    module,
    "x87Overflow",
    ["i32", "i32", "i64", "i32", "i32", "i32", "i32"],
    null,
    (p, fn) => {
      const [sign, exponent, sig, flags, slot, pop, drop] = parameters(fn);
      const store = module.get("x87Store");
      fn.if(p.get(S.FCW).and(Fsw.OE).eqz(), () => {
        fn.if(exponent.sub(WRAP).geS(EXPONENT_MAX), () => {
          const infinity = sign.shl(15).or(EXPONENT_MAX);
          fn.callVoid(
            store,
            slot,
            infinity,
            p.i64(INTEGER_BIT),
            flags.or(Fsw.OE | Fsw.PE | Fsw.C1),
            pop,
          );
          fn.return();
        });
        const wrapped = sign.shl(15).or(exponent.sub(WRAP));
        fn.callVoid(store, slot, wrapped, sig, flags.or(Fsw.OE), pop);
        fn.return();
      });
      // Infinity unless the rounding goes towards zero here: nearest, down if negative, up if positive.
      const infinite = p.i32(0x1b).shrU(roundingControl(p).shl(1).or(sign)).and(1);
      const se = sign.shl(15).or(p.i32(EXPONENT_MAX - 1).add(infinite));
      const limit = infinite.select(p.i64(INTEGER_BIT), p.i64(-1).shl(drop.extU()));
      const outcome = flags
        .and(~Fsw.C1)
        .or(Fsw.OE | Fsw.PE)
        .or(infinite.shl(9));
      fn.callVoid(store, slot, se, limit, outcome, pop);
    },
  );
}

/** Shifts high:low right by count >= 1, keeping what is lost as the lowest bit. */
export function shiftRightSticky(
  fn: FunctionBuilder,
  high: Val,
  low: Val,
  count: Val,
): { high: Val; low: Val } {
  const h = fn.variable("i64", 0n);
  const l = fn.variable("i64", 1n);
  const n = count.extU();
  const back = fn.i64(64).sub(n);
  fn.if(
    count.ltU(64),
    () => {
      h.set(high.shrU(n));
      l.set(high.shl(back).or(low.shrU(n)).or(low.shl(back).ne(0).extU()));
    },
    () => {
      fn.if(count.eq(64), () => l.set(high.or(low.ne(0).extU())));
      fn.if(count.sub(65).ltU(63), () =>
        l.set(high.shrU(n).or(high.shl(back).or(low).ne(0).extU())),
      );
    },
  );
  return { high: h.read(), low: l.read() };
}

/** A result with an exponent below the smallest, before rounding. */
function defineUnderflow(module: ModuleBuilder): void {
  const params = ["i32", "i32", "i64", "i64", "i32", "i32", "i32", "i32"] as const;
  defineHelper(module, "x87RoundTiny", params, null, (p, fn) => {
    const [sign, exponent, high, low, flags, slot, pop, drop] = parameters(fn);
    const store = module.get("x87Store");
    const unbounded = roundSignificand(p, sign, high, low, drop);
    const carry = unbounded.significand.eqz();
    const tiny = exponent.ltS(0).or(carry.eqz());
    const masked = p.get(S.FCW).and(Fsw.UE);
    fn.if(tiny.and(masked.eqz()), () => {
      const wrapped = exponent.add(carry).add(WRAP);
      fn.if(wrapped.leS(0), () => {
        fn.callVoid(store, slot, sign.shl(15), p.i64(0), flags.or(Fsw.UE | Fsw.PE), pop);
        fn.return();
      });
      const sig = unbounded.significand.or(carry.extU().shl(63));
      const outcome = flags.or(roundingFlags(unbounded)).or(Fsw.UE);
      fn.callVoid(store, slot, sign.shl(15).or(wrapped), sig, outcome, pop);
      fn.return();
    });
    const shifted = shiftRightSticky(fn, high, low, p.i32(1).sub(exponent));
    const r = roundSignificand(p, sign, shifted.high, shifted.low, drop);
    const se = sign.shl(15).or(r.significand.shrU(63).wrap());
    // PE among the flags: the operation counts as inexact whatever the rounding does.
    const isInexact = r.inexact.or(flags.shrU(5).and(1));
    const outcome = flags.or(roundingFlags(r)).or(tiny.and(isInexact).shl(4));
    fn.callVoid(store, slot, se, r.significand, outcome, pop);
  });
}
