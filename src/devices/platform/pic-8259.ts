/**
 * The pair of 8259A interrupt controllers of a PC, slave on the master's IR2, with the chipset's edge/level registers (ELCR).
 * Spec: Intel 8259A datasheet, "Programming the 8259A" and "Operation Command Words"; ELCR: 82371SB (PIIX3) datasheet, "Edge/Level
 * Control Register". ICW1's LTIM bit is ignored: in a PC the ELCR decides each line.
 *
 * An edge request is the AND of its latch and its line, so a source that withdraws before acknowledge leaves the spurious
 * IR7 (vector base + 7, no ISR bit) that the datasheet describes. acknowledge() is the two INTA cycles.
 *
 * State after construction: as a firmware leaves it, vectors 0x08 and 0x70, all lines masked.
 */
import { invariant } from "../../base/invariant.ts";
import type { IrqLine, PortDevice, Snapshottable } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import { Pic, type PicState, picState } from "./pic-chip.ts";
import { Irq, Port } from "./platform-map.ts";

/** Lines that the chipset wires as edge, whatever the guest writes: PIT, keyboard, cascade; RTC and FPU. */
const ELCR_WRITABLE = [0xf8, 0xde] as const;

export class PicPair implements PortDevice, Snapshottable {
  readonly #state: { master: PicState; slave: PicState };
  readonly #master: Pic;
  readonly #slave: Pic;

  constructor(wires: { intr: IrqLine }) {
    this.#state = { master: picState(0x08), slave: picState(0x70) };
    this.#master = new Pic(this.#state.master, wires.intr, 1 << Irq.CASCADE);
    this.#slave = new Pic(this.#state.slave, this.#master.input(Irq.CASCADE), 0);
  }

  /** Interrupt input 0..15; input 2 is the cascade and not to be had. */
  line(irq: number): IrqLine {
    invariant(irq >= 0 && irq < 16 && irq !== Irq.CASCADE, "no such PIC input");
    return irq < 8 ? this.#master.input(irq) : this.#slave.input(irq - 8);
  }

  /** The INTA cycles: the vector of the highest request, now in service; the spurious vector if it went away. */
  acknowledge(): number {
    const irq = this.#master.acknowledge();
    if (irq !== Irq.CASCADE) return this.#master.vector(irq);
    return this.#slave.vector(this.#slave.acknowledge());
  }

  /** The level of INTR, for whoever has lost track of the wire (after a restore). */
  isRequesting(): boolean {
    return this.#state.master.output;
  }

  readPort(port: number): number {
    switch (port) {
      case Port.PIC_MASTER:
      case Port.PIC_MASTER + 1:
        return this.#master.read(port & 1);
      case Port.PIC_SLAVE:
      case Port.PIC_SLAVE + 1:
        return this.#slave.read(port & 1);
      case Port.ELCR:
        return this.#state.master.levelLines;
      case Port.ELCR + 1:
        return this.#state.slave.levelLines;
      default:
        return 0xff;
    }
  }

  writePort(port: number, _size: number, value: number): void {
    switch (port) {
      case Port.PIC_MASTER:
      case Port.PIC_MASTER + 1:
        this.#master.write(port & 1, value & 0xff);
        break;
      case Port.PIC_SLAVE:
      case Port.PIC_SLAVE + 1:
        this.#slave.write(port & 1, value & 0xff);
        break;
      case Port.ELCR:
        this.#master.setLevelLines(value & ELCR_WRITABLE[0]);
        break;
      case Port.ELCR + 1:
        this.#slave.setLevelLines(value & ELCR_WRITABLE[1]);
        break;
    }
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }
}
