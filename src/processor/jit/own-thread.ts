/** Where regions are compiled: in the processor's own thread. */
import { BatchCompiler, type CompilerSetup, type RegionRequest } from "./compile-batch.ts";
import type { BackendResult, RegionBackend } from "./jit.ts";

export class OwnThread implements RegionBackend {
  readonly depth = 0;
  readonly #compiler: BatchCompiler;

  constructor(setup: CompilerSetup) {
    this.#compiler = new BatchCompiler(setup);
  }

  submit(requests: readonly RegionRequest[], done: (result: BackendResult) => void): void {
    const batch = this.#compiler.compile(requests);
    const { bytes } = batch;
    const module = bytes ? new WebAssembly.Module(bytes as Uint8Array<ArrayBuffer>) : null;
    done({ ...batch, module });
  }
}
