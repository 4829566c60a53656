/**
 * Regions compiled in a second worker of the browser's. A module can be posted to another worker without shared memory. Answers come by
 * events between two slices of the guest and are handed over by poll(). The worker starts with the first batch; without one that works,
 * regions are compiled between the guest's instructions.
 */
import {
  BatchCompiler,
  type CompilerSetup,
  type RegionRequest,
} from "../processor/jit/compile-batch.ts";
import type { BackendResult, RegionBackend } from "../processor/jit/jit.ts";
import { compileModule, OwnThread } from "../processor/jit/own-thread.ts";

type ToCompiler =
  | { readonly setup: CompilerSetup }
  | { readonly requests: readonly RegionRequest[] };

/** What is used of a Worker. */
export interface CompilerWorker {
  postMessage(message: ToCompiler): void;
  addEventListener(type: "message", listener: (event: { data: BackendResult }) => void): void;
  addEventListener(type: "error", listener: () => void): void;
  terminate(): void;
}

/** What is used of its global scope. */
export interface CompilerScope {
  postMessage(message: BackendResult): void;
  addEventListener(type: "message", listener: (event: { data: ToCompiler }) => void): void;
}

/** One batch is compiled while the next waits. */
const DEPTH = 2;

interface Batch {
  readonly requests: readonly RegionRequest[];
  readonly done: (result: BackendResult) => void;
}

export class BrowserCompiler implements RegionBackend {
  readonly depth = DEPTH;
  readonly #setup: CompilerSetup;
  readonly #spawn: () => CompilerWorker;
  readonly #underWay: Batch[] = [];
  readonly #answers: BackendResult[] = [];
  #worker: CompilerWorker | undefined;
  /** Takes the worker's place when it has failed. */
  #ownThread: OwnThread | undefined;

  constructor(setup: CompilerSetup, spawn: () => CompilerWorker) {
    this.#setup = setup;
    this.#spawn = spawn;
  }

  submit(requests: readonly RegionRequest[], done: (result: BackendResult) => void): void {
    this.#underWay.push({ requests, done });
    if (this.#ownThread) return;
    try {
      this.#worker ??= this.#start();
      this.#worker.postMessage({ requests });
    } catch {
      this.#fail();
    }
  }

  poll(): void {
    for (let answer = this.#answers.shift(); answer; answer = this.#answers.shift()) {
      this.#underWay.shift()!.done(answer);
    }
    if (!this.#ownThread) return;
    for (let batch = this.#underWay.shift(); batch; batch = this.#underWay.shift()) {
      this.#ownThread.submit(batch.requests, batch.done);
    }
  }

  /** Ends the worker, which holds some memory, unless it is at work. The next batch starts another. */
  rest(): boolean {
    if (this.#underWay.length > 0 || !this.#worker) return false;
    this.#end();
    return true;
  }

  #end(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  #start(): CompilerWorker {
    const worker = this.#spawn();
    worker.addEventListener("message", ({ data }) => this.#answers.push(data));
    worker.addEventListener("error", () => this.#fail());
    worker.postMessage({ setup: this.#setup });
    return worker;
  }

  #fail(): void {
    this.#end();
    this.#ownThread ??= new OwnThread(this.#setup);
  }
}

/** The other worker's side. */
export function serveCompiler(scope: CompilerScope): void {
  let compiler: BatchCompiler;
  scope.addEventListener("message", ({ data }) => {
    if ("setup" in data) compiler = new BatchCompiler(data.setup);
    else scope.postMessage(compileModule(compiler, data.requests));
  });
}
