/** Our machine as `hypo run` has it, a worker with its threads, in a process of its own (worker-process-entry.ts): measurable, and to be killed. */
import { fileURLToPath } from "node:url";
import type { StopReason } from "../../src/control/protocol.ts";
import { ChildMachine, type TextMessage } from "./child-machine.ts";
import type { WorkerProcessConfig, WorkerProcessMessage } from "./worker-process-entry.ts";

const ENTRY = fileURLToPath(new URL("worker-process-entry.ts", import.meta.url));

export class WorkerProcess extends ChildMachine<WorkerProcessMessage> {
  readonly stopped: Promise<StopReason>;
  #last: StopReason | undefined;

  /** `nodeOptions`: profiling, V8 flags. */
  constructor(config: WorkerProcessConfig, nodeOptions: readonly string[] = []) {
    super([...nodeOptions, ENTRY, JSON.stringify(config)]);
    const lost: StopReason = { kind: "error", message: "the machine's process ended" };
    this.stopped = new Promise((resolve) =>
      this.child.once("close", () => resolve(this.#last ?? lost)),
    );
  }

  protected textOf({ text, stopped }: WorkerProcessMessage): TextMessage | undefined {
    this.#last ??= stopped;
    return text === undefined ? undefined : { text, retired: undefined };
  }
}
