/**
 * One 8259A. Spec: Intel 8259A datasheet; register and command names are its own.
 * All masks have bit n for IRn. The pair and its ports are in pic-8259.ts.
 */
import type { IrqLine } from "../model.ts";

/** Which command word the chip expects at A0 = 1. */
const Expect = { OCW1: 0, ICW2: 1, ICW3: 2, ICW4: 3 } as const;

const ICW1 = { SELECT: 0x10, SINGLE: 0x02, NEEDS_ICW4: 0x01 } as const;
const ICW4 = { AUTO_EOI: 0x02, FULLY_NESTED: 0x10 } as const;
const OCW3 = {
  SELECT: 0x08,
  POLL: 0x04,
  READ: 0x02,
  READ_ISR: 0x01,
  SET_SMM: 0x40,
  SMM: 0x20,
} as const;

export interface PicState {
  lines: number;
  /** edges seen and not yet acknowledged */
  latches: number;
  /** ELCR: lines that are level triggered */
  levelLines: number;
  imr: number;
  isr: number;
  vectorBase: number;
  /** the IR with the lowest priority at present */
  lowest: number;
  expect: number;
  single: boolean;
  needsIcw4: boolean;
  autoEoi: boolean;
  rotateInAutoEoi: boolean;
  fullyNested: boolean;
  specialMask: boolean;
  readIsr: boolean;
  poll: boolean;
  output: boolean;
}

export function picState(vectorBase: number): PicState {
  return {
    lines: 0,
    latches: 0,
    levelLines: 0,
    imr: 0xff,
    isr: 0,
    vectorBase,
    lowest: 7,
    expect: Expect.OCW1,
    single: false,
    needsIcw4: false,
    autoEoi: false,
    rotateInAutoEoi: false,
    fullyNested: false,
    specialMask: false,
    readIsr: false,
    poll: false,
    output: false,
  };
}

export class Pic {
  readonly #state: PicState;
  readonly #intr: IrqLine;
  readonly #slaves: number;

  /** `slaves`: inputs that another chip's INTR drives. */
  constructor(state: PicState, intr: IrqLine, slaves: number) {
    this.#state = state;
    this.#intr = intr;
    this.#slaves = slaves;
  }

  input(ir: number): IrqLine {
    const bit = 1 << ir;
    return {
      set: (level) => {
        const state = this.#state;
        if (level && !(state.lines & bit)) state.latches |= bit;
        state.lines = level ? state.lines | bit : state.lines & ~bit;
        if (!level) state.latches &= ~bit;
        this.#updateOutput();
      },
    };
  }

  vector(ir: number): number {
    return this.#state.vectorBase + ir;
  }

  /** Puts the highest request in service and answers its IR; 7 without an ISR bit if there is none. */
  acknowledge(): number {
    const state = this.#state;
    const ir = this.#highestRequest();
    if (ir < 0) return 7;
    state.latches &= ~(1 << ir);
    if (!state.autoEoi) state.isr |= 1 << ir;
    else if (state.rotateInAutoEoi) state.lowest = ir;
    // INTR drops during INTA: the next request is a new edge for the master.
    this.#setOutput(false);
    this.#updateOutput();
    return ir;
  }

  setLevelLines(mask: number): void {
    this.#state.levelLines = mask;
    this.#updateOutput();
  }

  read(a0: number): number {
    const state = this.#state;
    if (state.poll) {
      state.poll = false;
      const ir = this.#highestRequest();
      if (ir < 0) return 0;
      return 0x80 | this.acknowledge();
    }
    if (a0) return state.imr;
    return state.readIsr ? state.isr : this.#requests();
  }

  write(a0: number, value: number): void {
    if (a0) this.#writeData(value);
    else if (value & ICW1.SELECT) this.#initialize(value);
    else if (value & OCW3.SELECT) this.#writeOcw3(value);
    else this.#writeOcw2(value >> 5, value & 7);
    this.#updateOutput();
  }

  #initialize(icw1: number): void {
    const state = this.#state;
    state.latches = 0;
    state.imr = 0;
    state.isr = 0;
    state.lowest = 7;
    state.single = (icw1 & ICW1.SINGLE) !== 0;
    state.needsIcw4 = (icw1 & ICW1.NEEDS_ICW4) !== 0;
    state.autoEoi = false;
    state.fullyNested = false;
    state.rotateInAutoEoi = false;
    state.specialMask = false;
    state.readIsr = false;
    state.poll = false;
    state.expect = Expect.ICW2;
  }

  #writeData(value: number): void {
    const state = this.#state;
    switch (state.expect) {
      case Expect.ICW2:
        state.vectorBase = value & 0xf8;
        if (!state.single) state.expect = Expect.ICW3;
        else state.expect = state.needsIcw4 ? Expect.ICW4 : Expect.OCW1;
        break;
      case Expect.ICW3:
        // The cascade is soldered; what the guest says of it changes nothing.
        state.expect = state.needsIcw4 ? Expect.ICW4 : Expect.OCW1;
        break;
      case Expect.ICW4:
        state.autoEoi = (value & ICW4.AUTO_EOI) !== 0;
        state.fullyNested = (value & ICW4.FULLY_NESTED) !== 0;
        state.expect = Expect.OCW1;
        break;
      default:
        state.imr = value;
    }
  }

  /** `command` is R, SL, EOI: the datasheet's table of rotate and end-of-interrupt combinations. */
  #writeOcw2(command: number, level: number): void {
    const state = this.#state;
    switch (command) {
      case 0b000:
      case 0b100:
        state.rotateInAutoEoi = command === 0b100;
        break;
      case 0b001:
      case 0b101: {
        const ir = this.#highestInService();
        if (ir < 0) break;
        state.isr &= ~(1 << ir);
        if (command === 0b101) state.lowest = ir;
        break;
      }
      case 0b011:
      case 0b111:
        state.isr &= ~(1 << level);
        if (command === 0b111) state.lowest = level;
        break;
      case 0b110:
        state.lowest = level;
        break;
    }
  }

  #writeOcw3(value: number): void {
    const state = this.#state;
    if (value & OCW3.POLL) state.poll = true;
    if (value & OCW3.READ) state.readIsr = (value & OCW3.READ_ISR) !== 0;
    if (value & OCW3.SET_SMM) state.specialMask = (value & OCW3.SMM) !== 0;
  }

  /** IRR: level lines as they are, edge lines as latched while still asserted. */
  #requests(): number {
    const { lines, latches, levelLines } = this.#state;
    return lines & (latches | levelLines);
  }

  /** In special mask mode a masked in-service bit neither blocks nor answers a non-specific EOI. */
  #inService(): number {
    const { isr, imr, specialMask } = this.#state;
    return specialMask ? isr & ~imr : isr;
  }

  #highestInService(): number {
    const isr = this.#inService();
    for (let i = 1; i <= 8; i++) {
      const ir = (this.#state.lowest + i) & 7;
      if (isr & (1 << ir)) return ir;
    }
    return -1;
  }

  /** The request that INTR stands for, or -1. */
  #highestRequest(): number {
    const state = this.#state;
    if (state.expect !== Expect.OCW1) return -1;
    const requests = this.#requests() & ~state.imr;
    // A slave may interrupt itself with a higher request of its own in special fully nested mode.
    const blocking = this.#inService() & ~(state.fullyNested ? this.#slaves : 0);
    for (let i = 1; i <= 8; i++) {
      const ir = (state.lowest + i) & 7;
      if (blocking & (1 << ir)) return -1;
      if (requests & (1 << ir)) return ir;
    }
    return -1;
  }

  #updateOutput(): void {
    this.#setOutput(this.#highestRequest() >= 0);
  }

  #setOutput(level: boolean): void {
    if (this.#state.output === level) return;
    this.#state.output = level;
    this.#intr.set(level);
  }
}
