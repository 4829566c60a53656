/** Regions compiled in the processor's own thread: where there are no others, or waiting would change what a test sees. */
import type { RegionHost } from "../interpreter/interpreter.ts";
import { BatchCompiler, type CompilerSetup, type RegionRequest } from "./compile-batch.ts";
import { type BackendResult, Jit, type RegionBackend } from "./jit.ts";

/** Compiles a batch to the end. */
export function compileModule(
  compiler: BatchCompiler,
  requests: readonly RegionRequest[],
): BackendResult {
  const { bytes, regions } = compiler.compile(requests);
  return { module: bytes ? new WebAssembly.Module(bytes) : null, regions };
}

/** A region tier that compiles every block when it is first entered. */
export function compileAtOnce(host: RegionHost): Jit {
  return new Jit(host, { backend: (setup) => new OwnThread(setup), threshold: 0, nowMs: () => 0 });
}

export class OwnThread implements RegionBackend {
  readonly depth = 0;
  readonly #compiler: BatchCompiler;

  constructor(setup: CompilerSetup) {
    this.#compiler = new BatchCompiler(setup);
  }

  submit(requests: readonly RegionRequest[], done: (result: BackendResult) => void): void {
    done(compileModule(this.#compiler, requests));
  }

  poll(): void {}

  rest(): boolean {
    return false;
  }
}
