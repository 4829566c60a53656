/**
 * Regions compiled in a second worker of the browser's. A module can be posted to another worker without shared memory. Answers come by
 * events between two slices of the guest.
 */
import {
  BatchCompiler,
  type CompilerSetup,
  type RegionRequest,
} from "../processor/jit/compile-batch.ts";
import type { BackendResult } from "../processor/jit/jit.ts";
import { OtherThread } from "../processor/jit/other-thread.ts";
import { compileModule } from "../processor/jit/own-thread.ts";

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

export class BrowserCompiler extends OtherThread {
  readonly #spawn: () => CompilerWorker;
  readonly #answers: BackendResult[] = [];
  #worker: CompilerWorker | undefined;

  constructor(setup: CompilerSetup, spawn: () => CompilerWorker) {
    super(setup);
    this.#spawn = spawn;
  }

  protected start(setup: CompilerSetup): void {
    this.#worker = this.#spawn();
    this.#worker.addEventListener("message", ({ data }) => this.#answers.push(data));
    this.#worker.addEventListener("error", () => this.fail());
    this.#worker.postMessage({ setup });
  }

  protected post(requests: readonly RegionRequest[]): void {
    this.#worker?.postMessage({ requests });
  }

  protected take(): BackendResult | undefined {
    return this.#answers.shift();
  }

  protected end(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
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
