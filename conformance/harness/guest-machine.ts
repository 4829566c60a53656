/**
 * A booted machine as the conformance runs and the benchmarks see it: text in and out on the second serial port, the console kept for
 * when something goes wrong, and an end.
 *
 * Three kinds: worker-machine.ts (ours behind the control protocol, as the command line runs it), process-machine.ts (ours alone in a
 * process, with its instruction count) and qemu-machine.ts (the peer).
 */
import type { StopReason } from "../../src/control/protocol.ts";

export interface BootFiles {
  readonly kernelPath: string;
  readonly initrdPath: string;
  /** Kernel command line. */
  readonly append: string;
  readonly memoryMib: number;
}

/** Text that the guest sent, and what the machine had executed by then if it counts. */
export type TextListener = (text: string, retired: number | undefined) => void;

export interface GuestMachine {
  /** The process to measure; undefined if it is not the machine's alone. */
  readonly pid: number | undefined;
  readonly stopped: Promise<StopReason>;
  write(text: string): void;
  onText(listener: TextListener): void;
  /** All that the console said so far. */
  consoleText(): string;
  kill(): void;
}
