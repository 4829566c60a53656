/**
 * One comparator of the HPET, armed as the tick at which it matches next.
 * Spec: IA-PC HPET Specification 1.0a, "Timer N Configuration and Capabilities Register", "Timer N Comparator Register".
 *
 * A match is equality: a comparator set behind the counter waits for the wrap, as in hardware. Ticks are of the machine (clock / 10 ns),
 * not counter values, so halting or moving the counter means arming again.
 */

/** Bits of the low dword of the configuration register. */
export const ComparatorConfig = {
  LEVEL: 0x02,
  ENABLE: 0x04,
  PERIODIC: 0x08,
  SET_VALUE: 0x40,
  MODE_32: 0x100,
  ROUTE_SHIFT: 9,
} as const;

const PERIODIC_CAPABLE = 0x10n;
const SIZE_64 = 0x20n;
const ROUTE_CAPABILITY = 0x00f0_0000n << 32n;
const WRITABLE = 0x3f4en;

/** Ticks further away than this are never reached; the sentinel must stay a JSON number. */
const NEVER = Number.MAX_SAFE_INTEGER;

export interface ComparatorState {
  config: number;
  comparator: bigint;
  period: bigint;
  /** tick of the next match, or NEVER */
  due: number;
}

export function comparatorState(): ComparatorState {
  return { config: 0, comparator: 0xffff_ffff_ffff_ffffn, period: 0n, due: NEVER };
}

export function readComparatorConfig(state: ComparatorState): bigint {
  return ROUTE_CAPABILITY | PERIODIC_CAPABLE | SIZE_64 | BigInt(state.config);
}

export class HpetComparator {
  readonly #state: ComparatorState;

  constructor(state: ComparatorState) {
    this.#state = state;
  }

  /** The tick of the next match that somebody would see; Infinity if none. */
  nextInterrupt(): number {
    const { config, due } = this.#state;
    const seen = config & (ComparatorConfig.ENABLE | ComparatorConfig.LEVEL);
    return seen && due !== NEVER ? due : Number.POSITIVE_INFINITY;
  }

  writeConfig(bits: bigint, mask: bigint): void {
    const state = this.#state;
    const writable = mask & WRITABLE;
    state.config = Number((BigInt(state.config) & ~writable) | (bits & writable));
    if (state.config & ComparatorConfig.MODE_32) {
      state.comparator &= 0xffff_ffffn;
      state.period &= 0xffff_ffffn;
    }
  }

  /** In periodic mode the register is the period, and the accumulator too if SET_VALUE was written just before. */
  writeComparator(bits: bigint, mask: bigint): void {
    const state = this.#state;
    const merge = (old: bigint) => this.#truncate((old & ~mask) | (bits & mask));
    const { config } = state;
    if (!(config & ComparatorConfig.PERIODIC) || config & ComparatorConfig.SET_VALUE) {
      state.comparator = merge(state.comparator);
    }
    if (config & ComparatorConfig.PERIODIC) state.period = merge(state.period);
    state.config &= ~ComparatorConfig.SET_VALUE;
  }

  /** Finds the next match from the counter's present value. */
  arm(counter: bigint, tick: number): void {
    const state = this.#state;
    const distance = this.#truncate(state.comparator - counter);
    state.due = Math.min(tick + Number(distance), NEVER);
  }

  /** Whether the comparator has matched by `tick`; if so it is set up for its next match. */
  pass(counter: bigint, tick: number): boolean {
    const state = this.#state;
    if (state.due === NEVER || state.due > tick) return false;
    const { PERIODIC } = ComparatorConfig;
    if (state.config & PERIODIC && state.period > 0n) {
      const periods = BigInt(tick - state.due) / state.period + 1n;
      state.comparator = this.#truncate(state.comparator + periods * state.period);
      this.arm(counter, tick);
      return true;
    }
    // The next match is a whole turn of the counter later.
    const turn = state.config & ComparatorConfig.MODE_32 ? 2 ** 32 : NEVER;
    const turns = Math.floor((tick - state.due) / turn) + 1;
    state.due = Math.min(state.due + turns * turn, NEVER);
    return true;
  }

  #truncate(value: bigint): bigint {
    return BigInt.asUintN(this.#state.config & ComparatorConfig.MODE_32 ? 32 : 64, value);
  }
}
