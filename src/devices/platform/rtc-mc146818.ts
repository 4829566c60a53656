/**
 * Real-time clock MC146818A with 128 bytes of CMOS RAM.
 * Spec: Motorola MC146818A datasheet, "Time, Calendar, and Alarm Locations", "Interrupts", "Registers"; century in byte 0x32.
 *
 * The registers are the time: each passed second is added to what they hold, in the format that register B names, as the chip
 * does. Nothing runs between accesses; flags and registers are brought up to date when somebody looks or an enabled
 * interrupt is due. A second begins when (now + phase) passes a multiple of 10^9 ns; UIP is seen for 2.2 ms before that.
 * Periodic interrupts come from the same divider chain, so they are in step with the second.
 */
import type { Clock, IrqLine, PortDevice, Snapshottable, TimedDevice } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import {
  decodeTime,
  encodeTime,
  matchesAlarm,
  RegA,
  RegB,
  RegC,
  RegD,
  Register,
} from "./rtc-registers.ts";

export const CMOS_SIZE = 128;
const NS_PER_SECOND = 1_000_000_000;
/** t_BUC + t_UC of a 32.768 kHz time base */
const UPDATE_NS = 244_000 + 1_984_000;
/** The first update after the divider leaves reset comes half a second later. */
const RESTART_PHASE_NS = NS_PER_SECOND / 2;
const SECONDS_PER_DAY = 86_400;
const DIVIDER_32KHZ = 0x20;
const RATE_1024HZ = 6;
const NEVER = Number.POSITIVE_INFINITY;

export class RtcMc146818 implements PortDevice, TimedDevice, Snapshottable {
  readonly #irq: IrqLine;
  readonly #clock: Clock;
  readonly #state = {
    index: 0,
    ram: new Uint8Array(CMOS_SIZE),
    phase: 0,
    /** ns up to which registers and flags are right */
    seen: 0,
  };

  /** `epochMs`: UTC at clock 0. `cmos` presets bytes of the RAM, such as memory sizes. */
  constructor(
    wires: { irq: IrqLine; clock: Clock },
    options: { epochMs: number; cmos?: Readonly<Record<number, number>> },
  ) {
    this.#irq = wires.irq;
    this.#clock = wires.clock;
    const { ram } = this.#state;
    for (const [index, byte] of Object.entries(options.cmos ?? {})) ram[Number(index)] = byte;
    ram[Register.A] = DIVIDER_32KHZ | RATE_1024HZ;
    ram[Register.B] = RegB.HOUR_24;
    ram[Register.D] = RegD.VALID_RAM_AND_TIME;
    const seconds = Math.floor(options.epochMs / 1000);
    this.#state.phase = Math.round((options.epochMs - seconds * 1000) * 1e6) % NS_PER_SECOND;
    encodeTime(ram, seconds);
  }

  deadline(): number {
    const { ram, seen } = this.#state;
    const enabled = ram[Register.B];
    if (!this.#dividerRuns()) return NEVER;
    const everySecond = this.#timeRuns() && enabled & (RegB.UPDATE_IE | RegB.ALARM_IE);
    const second = everySecond ? this.#nextBoundary(NS_PER_SECOND, seen) : NEVER;
    const period = this.#periodNs();
    const tick =
      enabled & RegB.PERIODIC_IE && period > 0 ? this.#nextBoundary(period, seen) : NEVER;
    return Math.min(second, tick);
  }

  advance(now: number): void {
    this.#sync(now);
  }

  readPort(port: number): number {
    // The index register is write-only.
    if (!(port & 1)) return 0xff;
    const state = this.#state;
    const now = this.#sync(this.#clock.now());
    const { index, ram } = state;
    if (index === Register.A) return ram[index] | (this.#isUpdating(now) ? RegA.UIP : 0);
    if (index !== Register.C) return ram[index];
    const flags = ram[index];
    ram[index] = 0;
    this.#updateInterrupt();
    return flags;
  }

  writePort(port: number, _size: number, value: number): void {
    const state = this.#state;
    if (!(port & 1)) {
      // Bit 7 gates NMI on a PC and is not part of the index.
      state.index = value & (CMOS_SIZE - 1);
      return;
    }
    const now = this.#sync(this.#clock.now());
    this.#writeRegister(state.index, value & 0xff, now);
    this.#updateInterrupt();
  }

  /** The world is `ms` ahead of this clock: it has stood still, as in a snapshot. */
  skip(ms: number): void {
    const state = this.#state;
    const now = this.#sync(this.#clock.now());
    const seconds = Math.floor(ms / 1000);
    const phase = state.phase + Math.round((ms - seconds * 1000) * 1e6);
    const more = Math.floor((now + phase) / NS_PER_SECOND);
    const passed = seconds + more - Math.floor((now + state.phase) / NS_PER_SECOND);
    state.phase = phase % NS_PER_SECOND;
    if (passed > 0 && this.#timeRuns()) this.#addSeconds(passed);
    this.#updateInterrupt();
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #writeRegister(index: number, value: number, now: number): void {
    const { ram } = this.#state;
    if (index === Register.A) this.#writeA(value & ~RegA.UIP, now);
    else if (index === Register.B) {
      // Setting SET clears the update-ended interrupt enable.
      ram[index] = value & RegB.SET ? value & ~RegB.UPDATE_IE : value;
    } else if (index !== Register.C && index !== Register.D) ram[index] = value;
  }

  #writeA(value: number, now: number): void {
    const state = this.#state;
    const ran = this.#dividerRuns();
    state.ram[Register.A] = value;
    if (ran || !this.#dividerRuns()) return;
    const position = now % NS_PER_SECOND;
    state.phase = (NS_PER_SECOND + RESTART_PHASE_NS - position) % NS_PER_SECOND;
  }

  #dividerRuns(): boolean {
    return (this.#state.ram[Register.A] & RegA.DIVIDER_RESET) !== RegA.DIVIDER_RESET;
  }

  #timeRuns(): boolean {
    return this.#dividerRuns() && !(this.#state.ram[Register.B] & RegB.SET);
  }

  #isUpdating(now: number): boolean {
    return this.#timeRuns() && this.#nextBoundary(NS_PER_SECOND, now) - now <= UPDATE_NS;
  }

  /** Length of the periodic interrupt in ns as a rational of the second's divider chain; 0 = off. */
  #periodNs(): number {
    const rate = this.#state.ram[Register.A] & RegA.RATE;
    if (rate === 0) return 0;
    // Rates 1 and 2 repeat 8 and 9 on the 32.768 kHz time base.
    const shift = rate < 3 ? rate + 6 : rate - 1;
    return (NS_PER_SECOND * 2 ** shift) / 32_768;
  }

  /** The first integer ns after `now` at which a period of the divider chain ends. */
  #nextBoundary(period: number, now: number): number {
    const { phase } = this.#state;
    const cycles = Math.floor((now + phase) / period) + 1;
    const boundary = Math.ceil(cycles * period) - phase;
    return boundary > now ? boundary : Math.ceil((cycles + 1) * period) - phase;
  }

  /** Brings registers and flags up to `now`. */
  #sync(now: number): number {
    const state = this.#state;
    const { ram, seen, phase } = state;
    if (now <= seen) return seen;
    if (this.#dividerRuns()) {
      const period = this.#periodNs();
      if (period > 0 && this.#nextBoundary(period, seen) <= now) ram[Register.C] |= RegC.PERIODIC;
      const boundaries =
        Math.floor((now + phase) / NS_PER_SECOND) - Math.floor((seen + phase) / NS_PER_SECOND);
      if (boundaries > 0 && this.#timeRuns()) this.#addSeconds(boundaries);
    }
    state.seen = now;
    this.#updateInterrupt();
    return now;
  }

  #addSeconds(count: number): void {
    const { ram } = this.#state;
    ram[Register.C] |= RegC.UPDATE_ENDED;
    const time = decodeTime(ram);
    // Every alarm matches within a day; the loop is over seconds that nobody looked at.
    for (let i = Math.min(count, SECONDS_PER_DAY) - 1; i > 0; i--) {
      if (ram[Register.C] & RegC.ALARM) break;
      if (matchesAlarm(ram, time + count - i)) ram[Register.C] |= RegC.ALARM;
    }
    encodeTime(ram, time + count);
    if (matchesAlarm(ram, time + count)) ram[Register.C] |= RegC.ALARM;
  }

  #updateInterrupt(): void {
    const { ram } = this.#state;
    const pending = ram[Register.C] & ram[Register.B] & RegC.SOURCES;
    if (pending) ram[Register.C] |= RegC.IRQ;
    else ram[Register.C] &= ~RegC.IRQ;
    this.#irq.set(pending !== 0);
  }
}
