/**
 * ACPI fixed hardware: PM1 event and control blocks, the power management timer and a block of general purpose events; SCI.
 * Spec: ACPI Specification 6.x, "ACPI Hardware Specification", "Fixed Hardware Registers".
 *
 * The machine is in ACPI mode from the start (no SMI_CMD; SCI_EN reads as 1). Writing SLP_EN with the SLP_TYP of S5 pulls the
 * powerOff wire; other sleep types are not offered in \_Sx and do nothing. The timer is 32 bits wide at 3.579545 MHz; TMR_STS
 * is set when its top bit changes. Enable bits without a source are kept, because ACPICA reads back what it wrote.
 * Not here: what general purpose events mean (dsdt.ts) and the reset register (reset-control.ts).
 */
import type { Clock, IrqLine, PortDevice, PortSize, Snapshottable, TimedDevice } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import { TickRate } from "../tick-rate.ts";
import { PM_TIMER_HERTZ, Port, SLEEP_TYPE_S5 } from "./platform-map.ts";

export const Pm1Status = {
  TIMER: 1 << 0,
  BUS_MASTER: 1 << 4,
  GLOBAL: 1 << 5,
  POWER_BUTTON: 1 << 8,
  SLEEP_BUTTON: 1 << 9,
  RTC: 1 << 10,
  WAKE: 1 << 15,
} as const;

/** General purpose events. */
export const Gpe = {
  /** The virtual machine generation ID is another one. */
  GENERATION: 0,
} as const;

/** PM1 enable bits sit at their status bits' positions. */
const ENABLE_WRITABLE =
  Pm1Status.TIMER |
  Pm1Status.GLOBAL |
  Pm1Status.POWER_BUTTON |
  Pm1Status.SLEEP_BUTTON |
  Pm1Status.RTC;

const Control = {
  SCI_EN: 1,
  BM_RLD: 2,
  SLP_TYP_SHIFT: 10,
  SLP_TYP: 7 << 10,
  SLP_EN: 1 << 13,
} as const;
const TURN = 2 ** 32;
const HALF_TURN = 2 ** 31;

export class AcpiPm implements PortDevice, TimedDevice, Snapshottable {
  readonly #wires: { sci: IrqLine; clock: Clock; powerOff: () => void };
  readonly #rate = new TickRate(PM_TIMER_HERTZ);
  readonly #state = {
    status: 0,
    enable: 0,
    control: Control.SCI_EN as number,
    /** half turns of the timer that TMR_STS has taken note of */
    halfTurns: 0,
    gpeStatus: 0,
    gpeEnable: 0,
  };

  constructor(wires: { sci: IrqLine; clock: Clock; powerOff: () => void }) {
    this.#wires = wires;
  }

  pressPowerButton(): void {
    this.#state.status |= Pm1Status.POWER_BUTTON;
    this.#updateSci();
  }

  /** `gpe`: a number of Gpe. */
  raiseEvent(gpe: number): void {
    this.#state.gpeStatus |= 1 << gpe;
    this.#updateSci();
  }

  deadline(): number {
    const { enable, status, halfTurns } = this.#state;
    if (!(enable & Pm1Status.TIMER) || status & Pm1Status.TIMER) return Number.POSITIVE_INFINITY;
    return this.#rate.ns((halfTurns + 1) * HALF_TURN);
  }

  advance(now: number): void {
    this.#sync(now);
  }

  readPort(port: number, size: PortSize): number {
    const tick = this.#sync(this.#wires.clock.now());
    // The whole block as bytes: any width at any offset is what the bytes say.
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.#readByte(port + i, tick);
    return value;
  }

  writePort(port: number, size: PortSize, value: number): void {
    this.#sync(this.#wires.clock.now());
    const state = this.#state;
    const write = (register: number) => mergeBytes({ register, port, size, value });
    const cleared = write(Port.PM1_EVENT);
    state.status &= ~(cleared.bits & cleared.mask);
    const enable = write(Port.PM1_EVENT + 2);
    state.enable = ((state.enable & ~enable.mask) | enable.bits) & ENABLE_WRITABLE;
    const control = write(Port.PM1_CONTROL);
    if (control.mask) this.#writeControl((state.control & ~control.mask) | control.bits);
    const gpe = write(Port.GPE0);
    state.gpeStatus &= ~(gpe.bits & gpe.mask & 0xff);
    state.gpeEnable = ((state.gpeEnable & ~(gpe.mask >> 8)) | (gpe.bits >> 8)) & 0xff;
    this.#updateSci();
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #readByte(port: number, tick: number): number {
    const { status, enable, control } = this.#state;
    const offset = port - Port.PM1_EVENT;
    if (offset < 0 || port >= Port.PM_END) return 0xff;
    if (port === Port.GPE0) return this.#state.gpeStatus;
    if (port === Port.GPE0 + 1) return this.#state.gpeEnable;
    const registers = [status, enable, control, 0];
    if (port < Port.PM_TIMER) return (registers[offset >> 1] >> (8 * (offset & 1))) & 0xff;
    return Math.floor((tick % TURN) / 2 ** (8 * (port - Port.PM_TIMER))) & 0xff;
  }

  #writeControl(value: number): void {
    const kept = Control.BM_RLD | Control.SLP_TYP;
    this.#state.control = (value & kept) | Control.SCI_EN;
    const sleepType = (value & Control.SLP_TYP) >> Control.SLP_TYP_SHIFT;
    if (value & Control.SLP_EN && sleepType === SLEEP_TYPE_S5) this.#wires.powerOff();
  }

  #sync(now: number): number {
    const state = this.#state;
    const tick = this.#rate.ticks(now);
    const halfTurns = Math.floor(tick / HALF_TURN);
    if (halfTurns > state.halfTurns) {
      state.halfTurns = halfTurns;
      state.status |= Pm1Status.TIMER;
      this.#updateSci();
    }
    return tick;
  }

  #updateSci(): void {
    const { status, enable, gpeStatus, gpeEnable } = this.#state;
    this.#wires.sci.set((status & enable) !== 0 || (gpeStatus & gpeEnable) !== 0);
  }
}

/** The part of an access that falls on the 16-bit register at port `register`. */
function mergeBytes(access: { register: number; port: number; size: PortSize; value: number }): {
  bits: number;
  mask: number;
} {
  let bits = 0;
  let mask = 0;
  for (let i = 0; i < access.size; i++) {
    const byte = access.port + i - access.register;
    if (byte !== 0 && byte !== 1) continue;
    bits |= ((access.value >>> (8 * i)) & 0xff) << (8 * byte);
    mask |= 0xff << (8 * byte);
  }
  return { bits, mask };
}
