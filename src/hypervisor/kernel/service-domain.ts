/**
 * The protection domain of one service: its program, its capabilities, its account.
 */
import type { Hypercalls, ServiceProgram } from "../abi/service.ts";

export interface Capabilities {
  /** May send interrupt messages to the VM's local APICs, and drive the 8259's INTR. */
  readonly interrupts: boolean;
  /** Embedder streams it may write to. */
  readonly streams: readonly number[];
  /** May end the VM. */
  readonly power: boolean;
}

export interface ServiceDomain {
  readonly name: string;
  readonly capabilities: Capabilities;
  program: ServiceProgram | null;
  hypercalls: Hypercalls | null;
  /** Due time of its timer in ns, Infinity if none. */
  deadline: number;
  /** Messages handled. */
  messages: number;
}
