/** The public face of the library: docs/library.md. */
export { HypolithError } from "../../../src/base/errors.ts";
export type { StopReason } from "../../../src/control/protocol.ts";
export type { GuestFiles } from "./guest-files.ts";
export {
  type ExecOptions,
  type ExecResult,
  Machine,
  type MachineEnd,
  type MachineEvents,
} from "./machine.ts";
export type { MachineOptions } from "./options.ts";
