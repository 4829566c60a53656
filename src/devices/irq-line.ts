/** Small wiring: a line that feeds several inputs, and several sources that share one level-triggered line. */
import type { IrqLine, Snapshottable } from "./model.ts";
import { restoreState, saveState } from "./state.ts";

export const unconnected: IrqLine = { set() {} };

/** One output soldered to several inputs: an ISA interrupt reaches the PIC and the IOAPIC. */
export function fanOut(...lines: readonly IrqLine[]): IrqLine {
  return {
    set(level) {
      for (const line of lines) line.set(level);
    },
  };
}

/**
 * A wired-OR line, as PCI INTx# and ACPI SCI are shared: asserted while any source asserts it.
 * It remembers each source's level, so it is saved beside them.
 */
export class SharedLine implements Snapshottable {
  readonly #line: IrqLine;
  readonly #asserted: boolean[] = [];

  constructor(line: IrqLine) {
    this.#line = line;
  }

  source(): IrqLine {
    const index = this.#asserted.push(false) - 1;
    return {
      set: (level) => {
        if (this.#asserted[index] === level) return;
        this.#asserted[index] = level;
        this.#line.set(this.#asserted.includes(true));
      },
    };
  }

  save(): unknown {
    return saveState(this.#asserted);
  }

  restore(state: unknown): void {
    restoreState(this.#asserted, state);
  }
}
