/**
 * Regions compiled in a Node worker thread. The processor's thread does not use its event loop while the guest runs, so answers are fetched from a
 * port. The thread does not keep the process alive.
 */
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import type { CompilerSetup, RegionRequest } from "../processor/jit/compile-batch.ts";
import type { BackendResult } from "../processor/jit/jit.ts";
import { OtherThread } from "../processor/jit/other-thread.ts";
import type { CompilerWorkerData } from "./embedder-node-compiler-worker.ts";

export class NodeCompiler extends OtherThread {
  #port: MessagePort | undefined;
  #worker: Worker | undefined;

  protected start(setup: CompilerSetup): void {
    const { port1, port2 } = new MessageChannel();
    const data: CompilerWorkerData = { setup, port: port2 };
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    this.#port = port1;
    this.#worker = new Worker(
      new URL(`./embedder-node-compiler-worker.${extension}`, import.meta.url),
      { workerData: data, transferList: [port2] },
    );
    this.#worker.on("error", () => this.fail());
    this.#worker.unref();
    port1.unref();
  }

  protected post(requests: readonly RegionRequest[]): void {
    this.#port?.postMessage(requests);
  }

  protected take(): BackendResult | undefined {
    const received = this.#port && receiveMessageOnPort(this.#port);
    return (received as { message: BackendResult } | undefined)?.message;
  }

  protected end(): void {
    this.#port?.close();
    void this.#worker?.terminate();
    this.#port = undefined;
    this.#worker = undefined;
  }
}
