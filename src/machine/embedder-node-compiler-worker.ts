/**
 * Node worker thread that compiles regions: takes a CompilerSetup first, then batches of requests, each answered by a module and what is in it.
 */

import type { MessagePort } from "node:worker_threads";
import { workerData } from "node:worker_threads";
import {
  BatchCompiler,
  type CompilerSetup,
  type RegionRequest,
} from "../processor/jit/compile-batch.ts";
import { compileModule } from "../processor/jit/own-thread.ts";

export interface CompilerWorkerData {
  readonly setup: CompilerSetup;
  readonly port: MessagePort;
}

const { setup, port } = workerData as CompilerWorkerData;
const compiler = new BatchCompiler(setup);
port.on("message", (requests: readonly RegionRequest[]) => {
  port.postMessage(compileModule(compiler, requests));
});
