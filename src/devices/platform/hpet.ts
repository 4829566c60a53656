/**
 * High precision event timer: a 64-bit counter at 100 MHz, three comparators, and the legacy replacement route.
 * Spec: IA-PC HPET Specification 1.0a, "Register Model" and "Theory Of Operation".
 *
 * The counter is the clock divided by 10 plus an offset. Comparators are 64 bits wide, periodic-capable, edge or level, routable to
 * IOAPIC pins 20..23. While LEG_RT_CNF is set, comparators 0 and 1 own IRQ0 and IRQ8, and this block cuts off the PIT and the
 * RTC: their lines run through `pitInput` and `rtcInput`.
 * An edge interrupt is a low-to-high transition that leaves the line high, so it survives until a PIC acknowledges it.
 * Not here: FSB (message) delivery, which no comparator claims.
 */
import { readCells, writeCells } from "../mmio-access.ts";
import type { Clock, IrqLine, MmioDevice, MmioSize, Snapshottable, TimedDevice } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import {
  ComparatorConfig,
  comparatorState,
  HpetComparator,
  readComparatorConfig,
} from "./hpet-comparator.ts";
import { HPET_PERIOD_FS } from "./platform-map.ts";

export const HPET_COMPARATORS = 3;
export const HPET_FIRST_PIN = 20;
export const HPET_PINS = 4;
/** IRQs of comparators 0 and 1 in legacy replacement mode. */
const LEGACY_ROUTES = 2;

const Register = { CAPABILITIES: 0x00, CONFIG: 0x10, STATUS: 0x20, COUNTER: 0xf0 } as const;
const COMPARATOR_BASE = 0x100;
const COMPARATOR_STRIDE = 0x20;
const Config = { ENABLE: 0x1, LEGACY: 0x2 } as const;

const NS_PER_TICK = HPET_PERIOD_FS / 1_000_000;
/** Vendor 0x8086, legacy route capable, 64-bit counter, three timers, revision 1; period in the high dword. */
const CAPABILITIES = (BigInt(HPET_PERIOD_FS) << 32n) | 0x8086_a201n;

export interface HpetWires {
  readonly clock: Clock;
  /** IRQ0 and IRQ8, each to PIC and IOAPIC */
  readonly irq0: IrqLine;
  readonly irq8: IrqLine;
  /** IOAPIC pins 20..23 */
  readonly pins: readonly IrqLine[];
}

export class Hpet implements MmioDevice, TimedDevice, Snapshottable {
  readonly #wires: HpetWires;
  readonly #comparators: readonly HpetComparator[];
  readonly #state = {
    config: 0,
    status: 0,
    /** counter value at clock 0 while running; the counter itself while halted */
    offset: 0n,
    comparators: Array.from({ length: HPET_COMPARATORS }, comparatorState),
    /** levels of PIT and RTC outputs, kept while they are cut off */
    legacyInputs: [false, false],
  };

  /** What the PIT and the RTC drive instead of IRQ0 and IRQ8. */
  readonly pitInput: IrqLine;
  readonly rtcInput: IrqLine;

  constructor(wires: HpetWires) {
    this.#wires = wires;
    this.#comparators = this.#state.comparators.map((state) => new HpetComparator(state));
    this.pitInput = this.#legacyInput(0, wires.irq0);
    this.rtcInput = this.#legacyInput(1, wires.irq8);
  }

  deadline(): number {
    let due = Number.POSITIVE_INFINITY;
    if (!this.#isEnabled()) return due;
    for (const comparator of this.#comparators) due = Math.min(due, comparator.nextInterrupt());
    return due * NS_PER_TICK;
  }

  advance(now: number): void {
    this.#sync(now);
  }

  readMmio(offset: number, size: MmioSize): number | bigint {
    const tick = this.#sync(this.#wires.clock.now());
    return readCells((cell) => this.#readCell(cell, tick), offset, size);
  }

  writeMmio(offset: number, size: MmioSize, value: number | bigint): void {
    const tick = this.#sync(this.#wires.clock.now());
    writeCells((cell, bits, mask) => this.#writeCell(cell, { bits, mask, tick }), {
      offset,
      size,
      value,
    });
    this.#fire(tick);
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #readCell(offset: number, tick: number): bigint {
    const state = this.#state;
    switch (offset) {
      case Register.CAPABILITIES:
        return CAPABILITIES;
      case Register.CONFIG:
        return BigInt(state.config);
      case Register.STATUS:
        return BigInt(state.status);
      case Register.COUNTER:
        return this.#counter(tick);
    }
    const timer = state.comparators[((offset - COMPARATOR_BASE) / COMPARATOR_STRIDE) | 0];
    if (offset < COMPARATOR_BASE || !timer) return 0n;
    const register = offset & (COMPARATOR_STRIDE - 1);
    if (register === 0) return readComparatorConfig(timer);
    return register === 8 ? timer.comparator : 0n;
  }

  #writeCell(offset: number, write: { bits: bigint; mask: bigint; tick: number }): void {
    const { bits, mask, tick } = write;
    switch (offset) {
      case Register.CONFIG:
        this.#writeConfig(merge(BigInt(this.#state.config), bits, mask), tick);
        return;
      case Register.STATUS:
        this.#clearStatus(Number(bits & mask & 7n));
        return;
      case Register.COUNTER:
        this.#setCounter(merge(this.#counter(tick), bits, mask), tick);
        return;
    }
    const index = ((offset - COMPARATOR_BASE) / COMPARATOR_STRIDE) | 0;
    const timer = this.#comparators[index];
    if (offset < COMPARATOR_BASE || !timer) return;
    const register = offset & (COMPARATOR_STRIDE - 1);
    if (register === 0) {
      this.#lineOf(index).set(false);
      timer.writeConfig(bits, mask);
      this.#driveLevel(index);
    } else if (register === 8) timer.writeComparator(bits, mask);
    this.#arm(index, tick);
  }

  #writeConfig(config: bigint, tick: number): void {
    const state = this.#state;
    const counter = this.#counter(tick);
    for (let i = 0; i < HPET_COMPARATORS; i++) this.#lineOf(i).set(false);
    state.config = Number(config & BigInt(Config.ENABLE | Config.LEGACY));
    this.#setCounter(counter, tick);
    const passed = (state.config & Config.LEGACY) === 0;
    this.#wires.irq0.set(passed && state.legacyInputs[0]);
    this.#wires.irq8.set(passed && state.legacyInputs[1]);
    for (let i = 0; i < HPET_COMPARATORS; i++) this.#driveLevel(i);
  }

  #clearStatus(bits: number): void {
    this.#state.status &= ~bits;
    for (let i = 0; i < HPET_COMPARATORS; i++) if (bits & (1 << i)) this.#driveLevel(i);
  }

  #isEnabled(): boolean {
    return (this.#state.config & Config.ENABLE) !== 0;
  }

  #counter(tick: number): bigint {
    const { offset } = this.#state;
    return this.#isEnabled() ? BigInt.asUintN(64, offset + BigInt(tick)) : offset;
  }

  #setCounter(counter: bigint, tick: number): void {
    const base = this.#isEnabled() ? counter - BigInt(tick) : counter;
    this.#state.offset = BigInt.asUintN(64, base);
    for (let i = 0; i < HPET_COMPARATORS; i++) this.#arm(i, tick);
  }

  #arm(index: number, tick: number): void {
    this.#comparators[index].arm(this.#counter(tick), tick);
  }

  /** Fires what is due and answers the present tick. */
  #sync(now: number): number {
    const tick = Math.floor(now / NS_PER_TICK);
    this.#fire(tick);
    return tick;
  }

  #fire(tick: number): void {
    if (!this.#isEnabled()) return;
    for (let i = 0; i < HPET_COMPARATORS; i++) {
      const timer = this.#comparators[i];
      if (!timer.pass(this.#counter(tick), tick)) continue;
      const { config } = this.#state.comparators[i];
      if (config & ComparatorConfig.LEVEL) {
        this.#state.status |= 1 << i;
        this.#driveLevel(i);
      } else if (config & ComparatorConfig.ENABLE) {
        this.#lineOf(i).set(false);
        this.#lineOf(i).set(true);
      }
    }
  }

  /** A level line follows the status bit; an edge line is left alone. */
  #driveLevel(index: number): void {
    const { config } = this.#state.comparators[index];
    if (!(config & ComparatorConfig.LEVEL)) return;
    const enabled = this.#isEnabled() && (config & ComparatorConfig.ENABLE) !== 0;
    this.#lineOf(index).set(enabled && (this.#state.status & (1 << index)) !== 0);
  }

  /** Where the comparator's interrupt goes at present. */
  #lineOf(index: number): IrqLine {
    const { irq0, irq8, pins } = this.#wires;
    if (this.#state.config & Config.LEGACY && index < LEGACY_ROUTES) {
      return index === 0 ? irq0 : irq8;
    }
    const route = (this.#state.comparators[index].config >> ComparatorConfig.ROUTE_SHIFT) & 0x1f;
    return pins[route - HPET_FIRST_PIN] ?? NOWHERE;
  }

  #legacyInput(index: 0 | 1, line: IrqLine): IrqLine {
    return {
      set: (level) => {
        this.#state.legacyInputs[index] = level;
        if (!(this.#state.config & Config.LEGACY)) line.set(level);
      },
    };
  }
}

const NOWHERE: IrqLine = { set() {} };

function merge(old: bigint, bits: bigint, mask: bigint): bigint {
  return BigInt.asUintN(64, (old & ~mask) | (bits & mask));
}
