/**
 * One counter of the 8254, as a function of time.
 * Spec: Intel 82C54 datasheet, "Programming the 82C54" and "Mode Definitions".
 *
 * Nothing counts: `start` is the tick at which the counting element took `count`, and count and OUT at any tick follow from the
 * distance. A count written to a running counter of modes 2 and 3 waits in `next` until the end of the (half) cycle. All methods
 * take the present tick of the 1.193182 MHz input, which never goes back.
 * Not here: the ports and the interrupt that OUT of counter 0 means (pit-8254.ts).
 */

export interface CounterState {
  mode: number;
  bcd: boolean;
  /** 1 low byte, 2 high byte, 3 low then high */
  access: number;
  gate: boolean;
  /** initial count in effect, 1..65536 (1..10000 in BCD); 0 = none written since the control word */
  count: number;
  start: number;
  /** OUT until `start` comes */
  outBefore: boolean;
  /** ticks counted when GATE stopped the counter, or -1 while it runs */
  stoppedAt: number;
  /** modes 1 and 5 wait for GATE */
  triggered: boolean;
  /** count that replaces `count` at tick `nextAt`, or 0 */
  next: number;
  nextAt: number;
  /** count register as last written, for a trigger of modes 1 and 5 */
  register: number;
  lowByte: number;
  writeHigh: boolean;
  readHigh: boolean;
  /** latched count and how many of its bytes are still to be read */
  latch: number;
  latchedBytes: number;
  status: number;
  statusLatched: boolean;
}

/** Mode 0 without a count: OUT is low and stays so until somebody programs the counter. */
export function counterState(): CounterState {
  return {
    mode: 0,
    bcd: false,
    access: 3,
    gate: true,
    count: 0,
    start: 0,
    outBefore: true,
    stoppedAt: -1,
    triggered: false,
    next: 0,
    nextAt: 0,
    register: 0,
    lowByte: 0,
    writeHigh: false,
    readHigh: false,
    latch: 0,
    latchedBytes: 0,
    status: 0,
    statusLatched: false,
  };
}

const NEVER = Number.POSITIVE_INFINITY;
const Control = { ACCESS_SHIFT: 4, MODE_SHIFT: 1, BCD: 1 } as const;
const Status = { OUT: 0x80, NULL_COUNT: 0x40 } as const;

export class PitCounter {
  readonly #state: CounterState;

  constructor(state: CounterState) {
    this.#state = state;
  }

  /** Control word for this counter; `word` without the select bits. Access 0 is the latch command. */
  control(word: number, tick: number): void {
    const state = this.#state;
    const access = (word >> Control.ACCESS_SHIFT) & 3;
    if (access === 0) {
      this.latchCount(tick);
      return;
    }
    const mode = (word >> Control.MODE_SHIFT) & 7;
    Object.assign(state, counterState(), {
      gate: state.gate,
      access,
      // 110 and 111 are 2 and 3: the high bit is "don't care".
      mode: mode > 5 ? mode - 4 : mode,
      bcd: (word & Control.BCD) !== 0,
    });
  }

  latchCount(tick: number): void {
    const state = this.#state;
    if (state.latchedBytes > 0) return;
    state.latch = this.#readableCount(tick);
    state.latchedBytes = state.access === 3 ? 2 : 1;
    if (state.access === 3) state.readHigh = false;
  }

  latchStatus(tick: number): void {
    const state = this.#state;
    if (state.statusLatched) return;
    this.#settle(tick);
    const isNull = state.count === 0 || state.next > 0 || tick < state.start;
    state.status =
      (this.output(tick) ? Status.OUT : 0) |
      (isNull ? Status.NULL_COUNT : 0) |
      (state.access << Control.ACCESS_SHIFT) |
      (state.mode << Control.MODE_SHIFT) |
      (state.bcd ? Control.BCD : 0);
    state.statusLatched = true;
  }

  readByte(tick: number): number {
    const state = this.#state;
    if (state.statusLatched) {
      state.statusLatched = false;
      return state.status;
    }
    const value = state.latchedBytes > 0 ? state.latch : this.#readableCount(tick);
    if (state.latchedBytes > 0) state.latchedBytes--;
    const high = state.access === 3 ? state.readHigh : state.access === 2;
    if (state.access === 3) state.readHigh = !state.readHigh;
    return high ? value >> 8 : value & 0xff;
  }

  writeByte(byte: number, tick: number): void {
    const state = this.#state;
    if (state.access === 1) this.#load(byte, tick);
    else if (state.access === 2) this.#load(byte << 8, tick);
    else if (state.writeHigh) {
      state.writeHigh = false;
      this.#load(state.lowByte | (byte << 8), tick);
    } else {
      state.lowByte = byte;
      state.writeHigh = true;
      // Mode 0: the first byte stops the counter and pulls OUT low.
      if (state.mode === 0) state.count = 0;
    }
  }

  setGate(gate: boolean, tick: number): void {
    const state = this.#state;
    if (gate === state.gate) return;
    state.outBefore = this.output(tick);
    state.gate = gate;
    const { mode } = state;
    if (mode === 1 || mode === 5) {
      if (gate && state.register > 0) this.#trigger(tick);
    } else if (mode === 2 || mode === 3) {
      // A low gate forces OUT high; the rising edge starts a new cycle with the last count written.
      if (gate) this.#start(state.next || state.count, tick);
      else this.#stop(tick);
    } else if (gate) {
      if (state.stoppedAt >= 0) state.start = tick - state.stoppedAt;
      state.stoppedAt = -1;
    } else {
      this.#stop(tick);
    }
  }

  /** OUT at `tick`. */
  output(tick: number): boolean {
    this.#settle(tick);
    const { mode, count, gate, triggered, outBefore } = this.#state;
    if (count === 0) return mode !== 0;
    const elapsed = this.#elapsed(tick);
    if (elapsed < 0) return mode !== 0 && outBefore;
    switch (mode) {
      case 0:
        return elapsed >= count;
      case 1:
        return !triggered || elapsed >= count;
      case 2:
        return !gate || elapsed % count !== count - 1;
      case 3:
        return !gate || elapsed % count < Math.ceil(count / 2);
      case 4:
        return elapsed !== count;
      default:
        return !triggered || elapsed !== count;
    }
  }

  /** The first tick after `tick` at which OUT rises by itself, Infinity if it does not. Call output(tick) first. */
  nextRise(tick: number): number {
    const { mode, count, gate, triggered, start, outBefore, next, nextAt } = this.#state;
    const shot = mode === 1 || mode === 5;
    if (count === 0 || (shot ? !triggered : !gate)) return NEVER;
    // A strobe cut short by a new count ends when that is loaded.
    if (tick < start && !outBefore && mode >= 2) return start;
    if (mode === 2 || mode === 3) {
      const cycles = Math.max(1, Math.floor((tick - start) / count) + 1);
      const rise = start + cycles * count;
      // In mode 3 a new count may shorten the low half.
      return next > 0 && nextAt < rise ? nextAt + Math.floor(next / 2) : rise;
    }
    const rise = start + count + (mode >= 4 ? 1 : 0);
    return rise > tick ? rise : NEVER;
  }

  /** A complete count has been written. It reaches the counting element at the next clock. */
  #load(value: number, tick: number): void {
    const state = this.#state;
    state.outBefore = this.output(tick);
    const written = state.bcd ? bcdToCount(value) : value || 0x1_0000;
    // A count of 1 is illegal in the periodic modes; 2 is the nearest that means something.
    const count = state.mode === 2 || state.mode === 3 ? Math.max(2, written) : written;
    state.register = count;
    if (state.mode === 1 || state.mode === 5) {
      if (state.count === 0) state.count = count;
      return;
    }
    const running = state.count > 0 && state.gate && (state.mode === 2 || state.mode === 3);
    if (!running) {
      this.#start(count, tick);
      return;
    }
    state.next = count;
    const half = state.mode === 3 ? Math.ceil(state.count / 2) : state.count;
    const elapsed = Math.max(0, tick - state.start);
    const cycle = state.start + Math.floor(elapsed / state.count) * state.count;
    state.nextAt = tick < cycle + half ? cycle + half : cycle + state.count;
  }

  #start(count: number, tick: number): void {
    const state = this.#state;
    state.count = count;
    state.start = tick + 1;
    state.next = 0;
    state.stoppedAt = state.gate ? -1 : 0;
  }

  /** A count that waits for the end of the cycle now waits for the next start. */
  #stop(tick: number): void {
    const state = this.#state;
    state.stoppedAt = Math.max(0, tick - state.start);
    state.nextAt = Number.MAX_SAFE_INTEGER;
  }

  #trigger(tick: number): void {
    const state = this.#state;
    state.triggered = true;
    state.count = state.register;
    state.start = tick + 1;
  }

  /** Applies a count whose time has come. */
  #settle(tick: number): void {
    const state = this.#state;
    if (state.next === 0 || tick < state.nextAt) return;
    const low = state.mode === 3 && (state.nextAt - state.start) % state.count !== 0;
    // In the low half of mode 3 the new cycle is dated back so that its low half begins now.
    state.start = low ? state.nextAt - Math.ceil(state.next / 2) : state.nextAt;
    state.count = state.next;
    state.next = 0;
  }

  #elapsed(tick: number): number {
    const { stoppedAt, start } = this.#state;
    return stoppedAt >= 0 ? stoppedAt : tick - start;
  }

  #readableCount(tick: number): number {
    this.#settle(tick);
    const state = this.#state;
    if (state.count === 0) return 0;
    const elapsed = Math.max(0, this.#elapsed(tick));
    const modulus = state.bcd ? 10_000 : 0x1_0000;
    const waiting = (state.mode === 1 || state.mode === 5) && !state.triggered;
    const value = waiting ? state.count : countAfter(state.mode, state.count, elapsed, modulus);
    return state.bcd ? countToBcd(value % modulus) : value % modulus;
  }
}

/** The counting element `elapsed` ticks after it took `count`. */
function countAfter(mode: number, count: number, elapsed: number, modulus: number): number {
  if (mode === 2) return count - (elapsed % count);
  if (mode !== 3) return (((count - elapsed) % modulus) + modulus) % modulus;
  // Counts down by two in each half; an odd count loses its one at the first clock of the high half, three in the low half.
  const half = Math.ceil(count / 2);
  const position = elapsed % count;
  const inHalf = position < half ? position : position - half;
  const odd = count % 2;
  if (inHalf === 0 || odd === 0) return count - 2 * inHalf;
  return position < half ? count + 1 - 2 * inHalf : count - 1 - 2 * inHalf;
}

function bcdToCount(value: number): number {
  let count = 0;
  for (let shift = 12; shift >= 0; shift -= 4) count = count * 10 + ((value >> shift) & 0xf);
  // Digits above 9 are outside the datasheet; keep them inside the counter's range.
  return count % 10_000 || 10_000;
}

function countToBcd(count: number): number {
  return (
    (Math.floor(count / 1000) << 12) |
    ((Math.floor(count / 100) % 10) << 8) |
    ((Math.floor(count / 10) % 10) << 4) |
    (count % 10)
  );
}
