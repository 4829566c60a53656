/** One machine in a worker, seen from the page. */
import { MachineClient, type MachineEvents } from "../../src/control/machine-client.ts";
import type { FromMachine, StopReason } from "../../src/control/protocol.ts";

export class VmClient extends MachineClient {
  readonly #worker: Worker;

  constructor(events: MachineEvents) {
    const url = new URL("./machine-worker.js", import.meta.url);
    const worker = new Worker(url, { type: "module", name: "machine" });
    super((message, transfer) => worker.postMessage(message, transfer), events);
    this.#worker = worker;
    worker.addEventListener("message", ({ data }) => this.receive(data as FromMachine));
    worker.addEventListener("messageerror", () => this.lost(failure("a message was damaged")));
    worker.addEventListener("error", (event) => {
      // A script that cannot be loaded has no message; one that fails has.
      this.lost(event.message ? failure(event.message) : NOT_LOADED);
    });
  }

  /** Ends the machine now, whatever it is doing, and gives its memory back. */
  kill(): void {
    this.#worker.terminate();
    this.lost({ kind: "killed" });
  }
}

const NOT_LOADED: StopReason = {
  kind: "error",
  code: "worker-unavailable",
  message: "the machine's program (machine-worker.js) cannot be loaded",
  hint: "it has to lie beside the page; reload the page, or copy it there again",
};

function failure(what: string): StopReason {
  return { kind: "error", message: `the machine's thread failed: ${what}` };
}
