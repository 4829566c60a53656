/**
 * The two guest clocks. TSC ticks are nanoseconds of virtual time.
 */
import type { TscClock } from "../processor/vmx/engine-port.ts";

export type MachineClock = TscClock;

/** Time is the number of retired instructions, one a nanosecond, plus what was skipped while idle. Runs are reproducible. */
export class DeterministicClock implements MachineClock {
  #skipped: number;

  /** `skipped`: of a machine that goes on. */
  constructor(skipped = 0) {
    this.#skipped = skipped;
  }

  tsc(retired: number): number {
    return retired + this.#skipped;
  }

  budgetUntil(deadline: number, retired: number): number {
    return deadline - this.tsc(retired);
  }

  idle(until: number, retired: number): number {
    if (until === Infinity) return Infinity;
    const gap = until - this.tsc(retired);
    if (gap > 0) this.#skipped += gap;
    return 0;
  }
}

/** First guess of the speed and its bounds, in instructions a nanosecond. */
const INITIAL_RATE = 0.05;
const SMOOTHING = 0.25;
const MIN_BUDGET = 2000;
/** Instructions, some hundred nanoseconds of them; and how many a nanosecond has at most, so that time never goes back. */
const RECENT = 1000;
const FASTEST = 8;

/** Time is real time. The budget towards a deadline comes from the speed measured so far. */
export class WallClock implements MachineClock {
  readonly #read: () => number;
  readonly #start: number;
  #rate = INITIAL_RATE;
  #lastTime = 0;
  #lastRetired = 0;
  /** Instructions retired at the last reading, and what it was. */
  #readAt = Infinity;
  #readTime = 0;

  /** `nowMs` is a monotonic clock in milliseconds, such as performance.now. `startNs`: what the time is now. */
  constructor(nowMs: () => number, startNs = 0) {
    this.#read = nowMs;
    this.#start = nowMs() - startNs / 1e6;
  }

  /** The clock is not read again for so few instructions that they cannot matter: kernels take a time stamp at every system call. */
  tsc(retired: number): number {
    const since = retired - this.#readAt;
    if (since < 0 || since >= RECENT) {
      this.#readAt = retired;
      this.#readTime = Math.round((this.#read() - this.#start) * 1e6);
      return this.#readTime;
    }
    return this.#readTime + Math.floor(since / FASTEST);
  }

  budgetUntil(deadline: number, retired: number): number {
    const now = this.#now(retired);
    const time = now - this.#lastTime;
    const count = retired - this.#lastRetired;
    if (time > 200_000 && count > 0) {
      this.#rate += (count / time - this.#rate) * SMOOTHING;
      this.#lastTime = now;
      this.#lastRetired = retired;
    }
    const left = deadline - now;
    return left <= 0 ? 0 : Math.max(MIN_BUDGET, Math.floor(left * this.#rate));
  }

  #now(retired: number): number {
    this.#readAt = Infinity;
    return this.tsc(retired);
  }

  idle(until: number, retired: number): number {
    const now = this.#now(retired);
    // What comes next comes after a wait.
    this.#readAt = Infinity;
    this.#lastTime = now;
    this.#lastRetired = retired;
    return Math.max(0, until - now);
  }
}
