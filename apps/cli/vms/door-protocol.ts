/**
 * What is said through a running machine's door: one JSON object a line, a request and its answer with the same id.
 */
import type { DrillName, ServicesReport } from "../../../src/control/protocol.ts";

export interface MachineInfo {
  readonly name: string;
  readonly pid: number;
  /** Milliseconds since 1970. */
  readonly started: number;
  /** The command, or what is booted. */
  readonly what: string;
  readonly memoryBytes: number;
}

export type DoorRequest =
  | { readonly verb: "info" }
  | { readonly verb: "services" }
  | { readonly verb: "drill"; readonly service: string; readonly drill: DrillName };

export interface DoorAnswers {
  readonly info: MachineInfo;
  readonly services: ServicesReport;
  readonly drill: null;
}

export type DoorReply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly code: string; readonly message: string } };

/** A line longer than this is no request. */
export const MAX_LINE = 1 << 16;

/** Splits what comes from a socket into lines; answers what is left over, or null if a line is too long. */
export function takeLines(text: string, line: (line: string) => void): string | null {
  let rest = text;
  for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
    line(rest.slice(0, end));
    rest = rest.slice(end + 1);
  }
  return rest.length > MAX_LINE ? null : rest;
}
