/**
 * What the suite measures: a shell command, the same words natively and in every guest, and what it costs.
 *
 * A workload leaves its results on standard output or, told by `result`, in files. Results are compared, so they depend on nothing but
 * the work: no times, no process numbers, no machine.
 */
import type { CommandResult } from "../conformance/harness/guest-session.ts";

export const GROUPS = ["micro", "system", "real"] as const;
export type Group = (typeof GROUPS)[number];

export interface Workload {
  /** One word, unique in the suite. */
  readonly name: string;
  readonly group: Group;
  readonly description: string;
  readonly command: string;
  /** A command that makes what the measured one reads. Not measured. */
  readonly prepare?: string;
  /** A command that prints what the measured one made. Not measured. */
  readonly result?: string;
}

/** The same after `first`, a shell command. */
export function after(first: string, workload: Workload): Workload {
  const { command, prepare, result } = workload;
  return {
    ...workload,
    command: `${first} ${command}`,
    ...(prepare === undefined ? {} : { prepare: `${first} ${prepare}` }),
    ...(result === undefined ? {} : { result: `${first} ${result}` }),
  };
}

/** Who runs workloads: this machine itself, or a guest on some machine. */
export interface Contestant {
  run(command: string, timeoutSeconds: number): Promise<CommandResult>;
  kill(): void;
}

/** Contestants by name: NATIVE, the peers, and our engines. Whose turn it is follows this order. */
export type Contestants = Record<string, Contestant>;
export const NATIVE = "native";

export interface Sample {
  /** CPU seconds: natively of the command and its children, otherwise of the machine's whole process. */
  readonly cpu: number;
  readonly wall: number;
  /** CPU seconds by the program's own account, if it gives one. */
  readonly own: number | undefined;
  /** Guest instructions, where the machine counts them. */
  readonly retired: number | undefined;
}

export interface RowResult {
  readonly name: string;
  readonly group: Group;
  readonly description: string;
  /** What all contestants agree on. */
  readonly checksum: string;
  readonly samples: Record<string, Sample[]>;
  /** By contestant: why it has no sample, or not all. */
  readonly failures: Record<string, string>;
}
