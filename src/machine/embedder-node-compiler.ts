/**
 * Regions compiled in a Node worker thread. The processor's thread does not use its event loop while the guest runs, so answers are fetched
 * by poll(). The thread starts with the first batch, and does not keep the process alive.
 */
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import type { CompilerSetup, RegionRequest } from "../processor/jit/compile-batch.ts";
import type { BackendResult, RegionBackend } from "../processor/jit/jit.ts";
import { OwnThread } from "../processor/jit/own-thread.ts";
import type { CompilerWorkerData } from "./embedder-node-compiler-worker.ts";

/** One batch is compiled while the next waits. */
const DEPTH = 2;

export class NodeCompiler implements RegionBackend {
  readonly depth = DEPTH;
  readonly #setup: CompilerSetup;
  readonly #underWay: {
    requests: readonly RegionRequest[];
    done: (result: BackendResult) => void;
  }[] = [];
  #port: MessagePort | null = null;
  #worker: Worker | null = null;
  #hasFailed = false;

  constructor(setup: CompilerSetup) {
    this.#setup = setup;
  }

  submit(requests: readonly RegionRequest[], done: (result: BackendResult) => void): void {
    if (this.#hasFailed) {
      new OwnThread(this.#setup).submit(requests, done);
      return;
    }
    this.#port ??= this.#start();
    this.#underWay.push({ requests, done });
    this.#port.postMessage(requests);
  }

  poll(): void {
    if (!this.#port || this.#underWay.length === 0) return;
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: BackendResult } | undefined;
      if (!received) return;
      this.#underWay.shift()!.done(received.message);
    }
  }

  /** Ends the thread, which holds some 25 MB, unless it is at work. The next batch starts another. */
  rest(): boolean {
    if (!this.#port || this.#underWay.length > 0) return false;
    this.#port.close();
    void this.#worker?.terminate();
    this.#port = null;
    this.#worker = null;
    return true;
  }

  #start(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    const data: CompilerWorkerData = { setup: this.#setup, port: port2 };
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    this.#worker = new Worker(
      new URL(`./embedder-node-compiler-worker.${extension}`, import.meta.url),
      {
        workerData: data,
        transferList: [port2],
      },
    );
    // Without it the guest goes on: what is under way is not compiled, later batches are compiled here.
    this.#worker.on("error", () => {
      this.#hasFailed = true;
      this.#underWay.length = 0;
    });
    this.#worker.unref();
    port1.unref();
    return port1;
  }
}
