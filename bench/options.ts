/** What a person may choose for all benchmarks alike. */
import type { EngineName } from "../src/control/protocol.ts";

export interface BenchOptions {
  readonly rounds: number;
  /** More or less work in each program of bench/programs. */
  readonly scale: number;
  /** Another processor model for QEMU than even-terms.ts has. */
  readonly qemuCpu: string | undefined;
  readonly memoryMib: number;
  readonly withQemu: boolean;
  readonly engines: readonly EngineName[];
  /** For our machine's node. */
  readonly nodeOptions: readonly string[];
  readonly progress: (text: string) => void;
}
