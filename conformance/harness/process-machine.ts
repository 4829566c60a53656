/** Our machine alone in a process (process-entry.ts): measurable, counts instructions, can be deterministic and traced. */
import { fileURLToPath } from "node:url";
import type { StopReason } from "../../src/control/protocol.ts";
import { ChildMachine, type TextMessage } from "./child-machine.ts";
import type { EndReport, ProcessConfig, ProcessMessage } from "./process-entry.ts";

const ENTRY = fileURLToPath(new URL("process-entry.ts", import.meta.url));

export interface ProcessOptions extends ProcessConfig {
  /** For node: profiling, V8 flags. */
  readonly nodeOptions?: readonly string[];
}

export class ProcessMachine extends ChildMachine<ProcessMessage> {
  readonly stopped: Promise<StopReason>;
  /** Undefined if the process ended without one. */
  readonly report: Promise<EndReport | undefined>;
  #last: (ProcessMessage & { type: "stopped" }) | undefined;

  constructor({ nodeOptions = [], ...config }: ProcessOptions) {
    super([...nodeOptions, ENTRY, JSON.stringify(config)]);
    const closed = new Promise<void>((resolve) => this.child.once("close", () => resolve()));
    const lost: StopReason = { kind: "error", message: "the machine's process ended" };
    this.stopped = closed.then(() => this.#last?.reason ?? lost);
    this.report = closed.then(() => this.#last?.report);
  }

  protected textOf(message: ProcessMessage): TextMessage | undefined {
    if (message.type !== "stopped") return message;
    this.#last = message;
    return undefined;
  }
}
