/**
 * The two chipset ports that reset a PC: the reset control register 0xCF9 and system control port A 0x92 (fast reset, A20 gate).
 * Spec: 82371SB (PIIX3) datasheet, "Reset Control Register"; I/O Controller Hub datasheets, "PORT92".
 *
 * A reset is the rising edge of the bit, so a guest that writes the same value twice resets once. A20 is always on in this
 * machine: the bit reads as 1 and does nothing.
 */
import type { PortDevice, Snapshottable } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import { Port } from "./platform-map.ts";

const Rcr = { RESET_CPU: 0x04, KEPT: 0x0e } as const;
const Port92 = { FAST_RESET: 0x01, A20: 0x02 } as const;

export class ResetControl implements PortDevice, Snapshottable {
  readonly #reset: () => void;
  readonly #state = { rcr: 0, port92: 0 };

  constructor(wires: { reset: () => void }) {
    this.#reset = wires.reset;
  }

  readPort(port: number): number {
    if (port === Port.RESET_CONTROL) return this.#state.rcr;
    return this.#state.port92 | Port92.A20;
  }

  writePort(port: number, _size: number, value: number): void {
    const state = this.#state;
    if (port === Port.RESET_CONTROL) {
      const rising = value & ~state.rcr & Rcr.RESET_CPU;
      state.rcr = value & Rcr.KEPT;
      if (rising) this.#reset();
    } else if (port === Port.SYSTEM_CONTROL_A) {
      const rising = value & ~state.port92 & Port92.FAST_RESET;
      state.port92 = value & Port92.FAST_RESET;
      if (rising) this.#reset();
    }
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }
}
