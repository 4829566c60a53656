/**
 * Exact conversion between VM nanoseconds and the ticks of an oscillator of `hertz`, without BigInt and without drift.
 *
 * A whole second is split off first: the rest is below 10^9, so the product stays below 2^53 for rates up to 9 MHz, and a
 * division of such integers that is rounded to a double never reaches the next integer before floor() sees it.
 * Galois: ticks(ns(t)) = t, and ns(t) is the first nanosecond of tick t.
 */
import { invariant } from "../base/invariant.ts";

const NS_PER_SECOND = 1_000_000_000;

export class TickRate {
  readonly hertz: number;

  constructor(hertz: number) {
    invariant(
      Number.isInteger(hertz) && hertz > 0 && hertz <= 9_000_000,
      "rate out of exact range",
    );
    this.hertz = hertz;
  }

  /** Ticks that have happened by `ns`. */
  ticks(ns: number): number {
    const seconds = Math.floor(ns / NS_PER_SECOND);
    const rest = ns - seconds * NS_PER_SECOND;
    return seconds * this.hertz + Math.floor((rest * this.hertz) / NS_PER_SECOND);
  }

  /** The first nanosecond at which `ticks` ticks have happened. */
  ns(ticks: number): number {
    const seconds = Math.floor(ticks / this.hertz);
    const rest = ticks - seconds * this.hertz;
    return seconds * NS_PER_SECOND + Math.ceil((rest * NS_PER_SECOND) / this.hertz);
  }
}
