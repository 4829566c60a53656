/**
 * Regions compiled in another thread; how one is had and spoken to is the embedder's. It starts with the first batch. When it cannot be made, or
 * fails, batches are compiled in the processor's own thread, between the guest's instructions, with those that were under way.
 */
import type { CompilerSetup, RegionRequest } from "./compile-batch.ts";
import type { BackendResult, RegionBackend } from "./jit.ts";
import { OwnThread } from "./own-thread.ts";

/** One batch is compiled while the next waits. */
const DEPTH = 2;

interface Batch {
  readonly requests: readonly RegionRequest[];
  readonly done: (result: BackendResult) => void;
}

export abstract class OtherThread implements RegionBackend {
  readonly depth = DEPTH;
  readonly #setup: CompilerSetup;
  readonly #underWay: Batch[] = [];
  #isRunning = false;
  /** Takes the other thread's place when it has failed. */
  #ownThread: OwnThread | undefined;

  constructor(setup: CompilerSetup) {
    this.#setup = setup;
  }

  /** Starts the thread, with what it needs to know. */
  protected abstract start(setup: CompilerSetup): void;
  protected abstract post(requests: readonly RegionRequest[]): void;
  /** The next answer that has come, in the order of the batches. */
  protected abstract take(): BackendResult | undefined;
  protected abstract end(): void;

  submit(requests: readonly RegionRequest[], done: (result: BackendResult) => void): void {
    this.#underWay.push({ requests, done });
    if (this.#ownThread) return;
    try {
      if (!this.#isRunning) this.start(this.#setup);
      this.#isRunning = true;
      this.post(requests);
    } catch {
      this.fail();
    }
  }

  poll(): void {
    if (this.#isRunning)
      for (let answer = this.take(); answer; answer = this.take())
        this.#underWay.shift()!.done(answer);
    if (!this.#ownThread) return;
    for (let batch = this.#underWay.shift(); batch; batch = this.#underWay.shift())
      this.#ownThread.submit(batch.requests, batch.done);
  }

  /** Ends the thread, which holds some 25 MB, unless it is at work. The next batch starts another. */
  rest(): boolean {
    if (!this.#isRunning || this.#underWay.length > 0) return false;
    this.#stop();
    return true;
  }

  protected fail(): void {
    this.#stop();
    this.#ownThread ??= new OwnThread(this.#setup);
  }

  #stop(): void {
    this.#isRunning = false;
    this.end();
  }
}
