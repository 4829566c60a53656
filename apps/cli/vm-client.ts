/**
 * One machine in a worker thread, seen from the main thread.
 *
 * The only file of the command line that names the machine, so what others need of snapshots is here, too.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { MachineClient, type MachineEvents } from "../../src/control/machine-client.ts";
import type { FromMachine, SnapshotOutcome, StopReason } from "../../src/control/protocol.ts";
import { publishSnapshot } from "../../src/machine/embedder-node-snapshots.ts";

export {
  hasSnapshot,
  type OpenSnapshot,
  openSnapshot,
  resumedConfig,
} from "../../src/machine/embedder-node-snapshots.ts";

/** The same file from a checkout (TypeScript) and from a package (JavaScript). */
export function machineWorkerUrl(env: NodeJS.ProcessEnv = process.env): URL {
  // Tests put another implementation of the protocol in the machine's place.
  const substitute = env.HYPO_MACHINE_WORKER;
  if (substitute) return new URL(substitute, "file:///");
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new URL(`../../src/machine/embedder-node-worker.${extension}`, import.meta.url);
}

export class VmClient extends MachineClient {
  readonly #worker: Worker;
  /** Why the worker is about to be gone, if we know. */
  #failure: StopReason | undefined;

  constructor(url: URL, events: MachineEvents) {
    // Counts what was sent: the worker blocks on it, since it does not use its event loop while the guest runs.
    const doorbell = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(fileURLToPath(url), { name: "machine", workerData: { doorbell } });
    super((message, transfer) => {
      worker.postMessage(message, transfer);
      Atomics.add(doorbell, 0, 1);
      Atomics.notify(doorbell, 0);
    }, events);
    this.#worker = worker;
    worker.on("message", (message: FromMachine) => this.receive(message));
    worker.on("error", (error: Error) => {
      this.#failure = {
        kind: "error",
        message: `the machine's thread failed: ${error.message}`,
        ...(error.stack === undefined ? {} : { dump: error.stack }),
      };
    });
    worker.on("exit", () => {
      const unexpected: StopReason = { kind: "error", message: "the machine's thread ended" };
      this.lost(this.#failure ?? unexpected);
    });
  }

  /** Answered when the snapshot is whole and safe; the guest stands still only while it is written. */
  override async snapshot(folder: string, about: string): Promise<SnapshotOutcome | undefined> {
    const outcome = await super.snapshot(folder, about);
    if (outcome && "draft" in outcome) await publishSnapshot(folder, outcome.draft);
    return outcome;
  }

  /** Ends the machine now, whatever it is doing. */
  async kill(): Promise<void> {
    this.#failure ??= { kind: "killed" };
    await this.#worker.terminate();
  }
}
