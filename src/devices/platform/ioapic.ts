/**
 * I/O APIC, 24 pins.
 * Spec: Intel 82093AA datasheet, "Register Description"; EOI register: I/O Controller Hub datasheets, "EOIR" (version 0x20).
 *
 * A level entry delivers when its line is asserted, its mask and its remote IRR are clear; the message sets remote IRR, an EOI
 * of its vector clears it and looks at the line again. An edge on a masked pin is lost, as the manual says. A pin's polarity bit
 * is stored and has no effect: wires here mean "asserted".
 *
 * `deliver` takes the message as a local APIC would see it on the bus; for delivery mode EXTINT the vector comes from the PIC.
 */
import { invariant } from "../../base/invariant.ts";
import { toDword } from "../mmio-access.ts";
import type { InterruptMessage, IrqLine, MmioDevice, Snapshottable } from "../model.ts";
import { allOnes, DeliveryMode } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import { IOAPIC_ID } from "./platform-map.ts";

export const IOAPIC_PINS = 24;

const VERSION = 0x20;
const Window = { INDEX: 0x00, DATA: 0x10, EOI: 0x40 } as const;
const Register = { ID: 0x00, VERSION: 0x01, ARBITRATION: 0x02, REDIRECTION: 0x10 } as const;

/** Low dword of a redirection entry. */
const Entry = {
  VECTOR: 0xff,
  DELIVERY_MODE_SHIFT: 8,
  LOGICAL: 1 << 11,
  DELIVERY_STATUS: 1 << 12,
  REMOTE_IRR: 1 << 14,
  LEVEL: 1 << 15,
  MASKED: 1 << 16,
} as const;
const WRITABLE_LOW = 0x1_ffff & ~(Entry.DELIVERY_STATUS | Entry.REMOTE_IRR);
const WRITABLE_HIGH = 0xff00_0000;

export class Ioapic implements MmioDevice, Snapshottable {
  readonly #deliver: (message: InterruptMessage) => void;
  readonly #state = {
    index: 0,
    id: IOAPIC_ID,
    lines: 0,
    low: Array.from({ length: IOAPIC_PINS }, (): number => Entry.MASKED),
    high: Array.from({ length: IOAPIC_PINS }, () => 0),
  };

  constructor(wires: { deliver: (message: InterruptMessage) => void }) {
    this.#deliver = wires.deliver;
  }

  line(pin: number): IrqLine {
    invariant(pin >= 0 && pin < IOAPIC_PINS, "no such IOAPIC pin");
    return { set: (level) => this.#setLine(pin, level) };
  }

  /** EOI message of a local APIC, or a write to the EOI register. */
  eoi(vector: number): void {
    const { low } = this.#state;
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const ours = Entry.REMOTE_IRR | Entry.LEVEL;
      if ((low[pin] & (ours | Entry.VECTOR)) >>> 0 !== (ours | (vector & 0xff))) continue;
      low[pin] &= ~Entry.REMOTE_IRR;
      this.#service(pin);
    }
  }

  /** Only the three 16-byte aligned registers exist; they are 32 bits wide, narrower reads get the low part. */
  readMmio(offset: number, size: 1 | 2 | 4 | 8): number | bigint {
    if (size === 8) return allOnes(size);
    if (offset === Window.INDEX) return this.#state.index;
    if (offset !== Window.DATA) return 0;
    return size === 4 ? this.#readRegister() : this.#readRegister() % 2 ** (8 * size);
  }

  writeMmio(offset: number, _size: number, value: number | bigint): void {
    const dword = toDword(value);
    if (offset === Window.INDEX) this.#state.index = dword & 0xff;
    else if (offset === Window.DATA) this.#writeRegister(dword);
    else if (offset === Window.EOI) this.eoi(dword & 0xff);
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #readRegister(): number {
    const { index, id, low, high } = this.#state;
    if (index === Register.ID || index === Register.ARBITRATION) return id * 2 ** 24;
    if (index === Register.VERSION) return ((IOAPIC_PINS - 1) << 16) | VERSION;
    const pin = (index - Register.REDIRECTION) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return 0;
    return (index & 1 ? high[pin] : low[pin]) >>> 0;
  }

  #writeRegister(value: number): void {
    const { index, low, high } = this.#state;
    if (index === Register.ID) this.#state.id = (value >>> 24) & 0xf;
    const pin = (index - Register.REDIRECTION) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return;
    if (index & 1) {
      high[pin] = (value & WRITABLE_HIGH) >>> 0;
      return;
    }
    low[pin] = (value & WRITABLE_LOW) | (low[pin] & Entry.REMOTE_IRR);
    // Drivers without an EOI register clear a stuck remote IRR by a detour through edge mode.
    if (!(value & Entry.LEVEL)) low[pin] &= ~Entry.REMOTE_IRR;
    else this.#service(pin);
  }

  #setLine(pin: number, level: boolean): void {
    const state = this.#state;
    const bit = 1 << pin;
    const rising = level && !(state.lines & bit);
    state.lines = level ? state.lines | bit : state.lines & ~bit;
    if (!rising) return;
    if (this.#isLevel(pin)) this.#service(pin);
    else if (!(state.low[pin] & Entry.MASKED)) this.#send(pin);
  }

  /** NMI, INIT and the like are edges whatever the entry says: nobody would ever send their EOI. */
  #isLevel(pin: number): boolean {
    const entry = this.#state.low[pin];
    return (entry & Entry.LEVEL) !== 0 && this.#deliveryMode(entry) <= DeliveryMode.LOWEST_PRIORITY;
  }

  #deliveryMode(entry: number): number {
    return (entry >> Entry.DELIVERY_MODE_SHIFT) & 7;
  }

  #service(pin: number): void {
    const { lines, low } = this.#state;
    if (!(lines & (1 << pin)) || low[pin] & (Entry.MASKED | Entry.REMOTE_IRR)) return;
    if (!this.#isLevel(pin)) return;
    low[pin] |= Entry.REMOTE_IRR;
    this.#send(pin);
  }

  #send(pin: number): void {
    const entry = this.#state.low[pin];
    this.#deliver({
      vector: entry & Entry.VECTOR,
      deliveryMode: this.#deliveryMode(entry),
      destMode: entry & Entry.LOGICAL ? 1 : 0,
      dest: this.#state.high[pin] >>> 24,
      level: true,
      trigger: this.#isLevel(pin) ? 1 : 0,
    });
  }
}
