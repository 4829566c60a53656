/**
 * Programmable interval timer 8254 and the system control port B (0x61) that gates its counter 2.
 * Spec: Intel 82C54 datasheet, "Programming the 82C54"; port 0x61: 82371SB (PIIX3) datasheet, "NMI Status and Control".
 *
 * Time comes from the clock by exact division to ticks of 1.193182 MHz; counters compute, nothing ticks. Only rising edges of
 * counter 0 are events. If several have passed at once (a late embedder), the line shows one: low, then high.
 * Not here: the speaker.
 */
import type { Clock, IrqLine, PortDevice, Snapshottable, TimedDevice } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import { TickRate } from "../tick-rate.ts";
import { counterState, PitCounter } from "./pit-counter.ts";
import { PIT_HERTZ, Port } from "./platform-map.ts";

const READ_BACK = 3;
/** Read-back command: bits are active low. */
const ReadBack = { NO_COUNT: 0x20, NO_STATUS: 0x10 } as const;
const ControlB = { GATE2: 0x01, WRITABLE: 0x0f, REFRESH: 0x10, OUT2: 0x20 } as const;
/** Memory refresh toggles about every 15 us, as it did when counter 1 drove it. */
const REFRESH_TICKS = 18;

export class Pit8254 implements PortDevice, TimedDevice, Snapshottable {
  readonly #irq: IrqLine;
  readonly #clock: Clock;
  readonly #rate = new TickRate(PIT_HERTZ);
  readonly #counters: readonly PitCounter[];
  readonly #state = {
    counters: [counterState(), counterState(), counterState()],
    /** system control port B, bits 3:0 */
    controlB: 0,
    /** tick up to which edges of counter 0 have been driven */
    seen: 0,
  };

  constructor(wires: { irq: IrqLine; clock: Clock }) {
    this.#irq = wires.irq;
    this.#clock = wires.clock;
    this.#counters = this.#state.counters.map((state) => new PitCounter(state));
    this.#counters[2].setGate(false, 0);
  }

  deadline(): number {
    const rise = this.#counters[0].nextRise(this.#state.seen);
    return Number.isFinite(rise) ? this.#rate.ns(rise) : rise;
  }

  advance(now: number): void {
    this.#sync(now);
  }

  readPort(port: number): number {
    const tick = this.#sync(this.#clock.now());
    if (port === Port.SYSTEM_CONTROL_B) return this.#readControlB(tick);
    const counter = this.#counters[port & 3];
    return counter ? counter.readByte(tick) : 0xff;
  }

  writePort(port: number, _size: number, value: number): void {
    const tick = this.#sync(this.#clock.now());
    if (port === Port.SYSTEM_CONTROL_B) {
      this.#state.controlB = value & ControlB.WRITABLE;
      this.#counters[2].setGate((value & ControlB.GATE2) !== 0, tick);
      return;
    }
    if ((port & 3) === 3) this.#writeControl(value & 0xff, tick);
    else this.#counters[port & 3].writeByte(value & 0xff, tick);
    this.#irq.set(this.#counters[0].output(tick));
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #writeControl(word: number, tick: number): void {
    const select = word >> 6;
    if (select !== READ_BACK) {
      this.#counters[select].control(word & 0x3f, tick);
      return;
    }
    for (let i = 0; i < 3; i++) {
      if (!(word & (2 << i))) continue;
      if (!(word & ReadBack.NO_COUNT)) this.#counters[i].latchCount(tick);
      if (!(word & ReadBack.NO_STATUS)) this.#counters[i].latchStatus(tick);
    }
  }

  #readControlB(tick: number): number {
    const refresh = Math.floor(tick / REFRESH_TICKS) & 1 ? ControlB.REFRESH : 0;
    const out2 = this.#counters[2].output(tick) ? ControlB.OUT2 : 0;
    return this.#state.controlB | refresh | out2;
  }

  /** Drives the edges of counter 0 up to `now` and answers the present tick. */
  #sync(now: number): number {
    const state = this.#state;
    const tick = Math.max(state.seen, this.#rate.ticks(now));
    const counter = this.#counters[0];
    const rose = counter.nextRise(state.seen) <= tick;
    const level = counter.output(tick);
    state.seen = tick;
    if (rose) this.#irq.set(false);
    // An edge just made is left standing, or it would be withdrawn before a PIC could see it.
    this.#irq.set(rose || level);
    return tick;
  }
}
