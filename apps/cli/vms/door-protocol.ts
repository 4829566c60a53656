/**
 * What is said through a running machine's door: one JSON object a line, a request and its answer with the same id. After the answer to `attach`
 * or `agent` the connection carries frames (guest/agent/agent-protocol.ts) and no more lines; after that to `trace`, traced events (TraceEvent),
 * one a line, until we end it.
 */
import type { DrillName, ServicesReport, TraceRequest } from "../../../src/control/protocol.ts";

export interface MachineInfo {
  readonly name: string;
  readonly pid: number;
  /** Milliseconds since 1970. */
  readonly started: number;
  /** The command, or what is booted. */
  readonly what: string;
  readonly memoryBytes: number;
  /** "booting" until our session in the guest is ready; a guest without one is "running" at once. */
  readonly state: "booting" | "running" | "paused";
  /** Whether its job has a terminal, and reads what those who are attached type. */
  readonly hasTerminal: boolean;
  readonly takesInput: boolean;
  /** Whether there may be an agent in the guest. */
  readonly hasAgent: boolean;
  /** What programs in the guest find, unless told otherwise. */
  readonly environment: Readonly<Record<string, string>>;
  readonly folder: string;
  /** As for --user; null: root. */
  readonly user: string | null;
}

export interface MachineStats {
  readonly name: string;
  readonly pid: number;
  /** Of the machine's process, since it began. */
  readonly cpuMs: number;
  readonly upMs: number;
  readonly residentBytes: number;
  readonly memoryBytes: number;
  /** Restarts of services. */
  readonly restarts: number;
  /** Threads' shares: of the guest's own instructions, of the micro-hypervisor, of services. */
  readonly guestMs: number;
  readonly kernelMs: number;
  readonly servicesMs: number;
}

export type DoorRequest =
  | { readonly verb: "info" }
  | { readonly verb: "services" }
  | { readonly verb: "stats" }
  /** Politely; after so many seconds not any more. Answered at once. */
  | { readonly verb: "stop"; readonly seconds: number }
  /** KILL ends the machine; others are for its job. */
  | { readonly verb: "kill"; readonly signal: string }
  | { readonly verb: "pause" }
  | { readonly verb: "unpause" }
  /** Answered when the machine has ended. */
  | { readonly verb: "wait" }
  | { readonly verb: "attach" }
  | { readonly verb: "agent" }
  /** Answered when the snapshot is whole. */
  | { readonly verb: "snapshot"; readonly folder: string }
  | { readonly verb: "trace"; readonly request: TraceRequest }
  | { readonly verb: "drill"; readonly service: string; readonly drill: DrillName };

export interface SnapshotTaken {
  readonly bytes: number;
  /** In which the guest stood still. */
  readonly ms: number;
}

export interface DoorAnswers {
  readonly info: MachineInfo;
  readonly services: ServicesReport;
  readonly stats: MachineStats;
  readonly stop: null;
  readonly kill: null;
  readonly pause: null;
  readonly unpause: null;
  readonly wait: { readonly exitCode: number };
  readonly attach: null;
  readonly agent: null;
  readonly trace: null;
  readonly drill: null;
  readonly snapshot: SnapshotTaken;
}

export type DoorReply =
  | { readonly id: number; readonly result: unknown }
  | {
      readonly id: number;
      readonly error: { readonly code: string; readonly message: string; readonly hint?: string };
    };

/** A line longer than this is no request. */
export const MAX_LINE = 1 << 16;

const NEWLINE = 0x0a;

/** Lines out of what comes from a socket. */
export class LineReader {
  #rest: Buffer = Buffer.alloc(0);

  /** The first line that is complete, undefined if there is none yet, or null if it is too long. */
  take(bytes: Uint8Array = new Uint8Array(0)): string | undefined | null {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const end = this.#rest.indexOf(NEWLINE);
    if (end > MAX_LINE || (end < 0 && this.#rest.length > MAX_LINE)) return null;
    if (end < 0) return undefined;
    const line = this.#rest.toString("utf8", 0, end);
    this.#rest = this.#rest.subarray(end + 1);
    return line;
  }

  /** What came behind the lines that were taken. */
  rest(): Buffer {
    return this.#rest;
  }
}
