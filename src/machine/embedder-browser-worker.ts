/**
 * Browser embedder of a machine: a dedicated worker that runs the guest and speaks the control protocol with its page.
 *
 * Needs nothing that a page must ask for: no shared memory, no cross-origin isolation. So it can only hear what is said to it by going
 * back to its event loop: the guest runs in slices, each followed by a message to itself, which lets everything that has come meanwhile
 * go first. When the guest is idle a timer waits for its next deadline, or nothing does.
 *
 * Timers of pages in the background come late, by minutes even. Guest time is the embedder's monotonic clock, not a count of timers: a
 * guest that was woken late sees the time that it is.
 */
import { HypolithError } from "../base/errors.ts";
import type { FromMachine, MachineConfig, StopReason, ToMachine } from "../control/protocol.ts";
import type { CompilerSetup } from "../processor/jit/compile-batch.ts";
import type { Decompressors } from "./boot/payload.ts";
import { BrowserCompiler, type CompilerWorker } from "./embedder-browser-compiler.ts";
import { unpackAhead } from "./embedder-browser-gzip.ts";
import { Machine, type MachinePorts } from "./machine.ts";

/** What a machine needs of the worker's global scope (DedicatedWorkerGlobalScope). */
export interface WorkerScope {
  postMessage(message: FromMachine): void;
  addEventListener(type: "message", listener: (event: { data: ToMachine }) => void): void;
}

/** Longest stretch of guest work between two looks at the event loop; the guest's own runs end some milliseconds late. */
const SLICE_MS = 10;
/** A guest that sleeps this long is idle. */
const REST_MS = 1000;
/** Longest timer, far below the 2^31 ms at which timers overflow. */
const MAX_SLEEP_MS = 60_000;

/** Makes a function that has `task` called soon, after everything that waits in the event loop now. */
export type Deferrer = (task: () => void) => () => void;

export interface ServeOptions {
  readonly deferrer?: Deferrer;
  /** Starts a worker that runs serveCompiler(); without it regions are compiled here. */
  readonly spawnCompiler?: (() => CompilerWorker) | undefined;
}

export function serve(scope: WorkerScope, options: ServeOptions = {}): void {
  const server = new MachineServer(scope, options);
  scope.addEventListener("message", ({ data }) => server.receive(data));
}

/** By a message to ourselves: unlike timers, messages are never held back. */
function byMessage(task: () => void): () => void {
  const { port1, port2 } = new MessageChannel();
  port1.addEventListener("message", task);
  port1.start();
  return () => port2.postMessage(null);
}

type ServerState = "empty" | "building" | "running" | "sleeping" | "ended";

class MachineServer {
  readonly #scope: WorkerScope;
  #state: ServerState = "empty";
  #machine: Machine | undefined;
  /** What was said while the machine was being built. */
  #early: ToMachine[] = [];
  #sliceEnd = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #ping: () => void;
  readonly #spawnCompiler: (() => CompilerWorker) | undefined;

  constructor(scope: WorkerScope, { deferrer = byMessage, spawnCompiler }: ServeOptions) {
    this.#scope = scope;
    this.#spawnCompiler = spawnCompiler;
    this.#ping = deferrer(() => this.#runSlice());
  }

  receive(message: ToMachine): void {
    if (message.type === "start" && this.#state === "empty") void this.#start(message.config);
    else if (this.#machine) this.#apply(this.#machine, message);
    else if (message.type === "stop") this.#end({ kind: "killed" });
    else if (this.#state === "building") this.#early.push(message);
  }

  async #start(config: MachineConfig): Promise<void> {
    this.#state = "building";
    try {
      const decompressors = await unpackAhead(config.kernel, config.memoryBytes);
      // Somebody may have stopped it meanwhile.
      if ((this.#state as ServerState) === "ended") return;
      const machine = new Machine(config, this.#ports(decompressors));
      this.#machine = machine;
      this.#scope.postMessage({ type: "started" });
      for (const message of this.#early) this.#apply(machine, message);
      this.#early = [];
      this.#wake();
    } catch (error) {
      this.#end(toReason(error));
    }
  }

  /** All that the machine gets from the browser. */
  #ports(decompressors: Decompressors): MachinePorts {
    const spawn = this.#spawnCompiler;
    return {
      ...(spawn && { compiler: (setup: CompilerSetup) => new BrowserCompiler(setup, spawn) }),
      nowMs: () => performance.now(),
      entropy: () => crypto.getRandomValues(new BigUint64Array(1))[0]!,
      doorbell: () => performance.now() >= this.#sliceEnd,
      send: (message) => this.#scope.postMessage(message),
      decompressors,
    };
  }

  #apply(machine: Machine, message: ToMachine): void {
    if (this.#state === "ended") return;
    if (message.type === "input") machine.input(message.port, message.data);
    else if (message.type === "powerButton") machine.powerButton();
    else if (message.type === "stop") machine.stop();
    else machine.serve(message);
    if (this.#state === "sleeping") this.#wake();
  }

  #wake(): void {
    clearTimeout(this.#timer);
    this.#state = "running";
    this.#ping();
  }

  #runSlice(): void {
    if (this.#state !== "running") return;
    try {
      this.#sliceEnd = performance.now() + SLICE_MS;
      const state = this.#machine!.runUntilBlocked();
      if (state.kind === "ended") this.#end(state.reason);
      else if (state.kind === "idle") this.#sleep(state.waitMs);
      else this.#ping();
    } catch (error) {
      this.#end(toReason(error));
    }
  }

  #sleep(waitMs: number): void {
    this.#state = "sleeping";
    if (waitMs > REST_MS) this.#machine!.rest();
    if (waitMs === Infinity) return;
    // Browsers count in whole milliseconds and round down, which would wake us too early. The timer only pings: a timer that is set by a
    // timer is held back to 4 ms.
    const ms = Math.min(Math.ceil(waitMs), MAX_SLEEP_MS);
    this.#timer = setTimeout(() => this.#wake(), ms);
  }

  #end(reason: StopReason): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    clearTimeout(this.#timer);
    this.#machine = undefined;
    this.#scope.postMessage({ type: "stopped", reason });
  }
}

function toReason(error: unknown): StopReason {
  if (error instanceof HypolithError) {
    const { message, code, hint } = error;
    return { kind: "error", message, code, ...(hint === undefined ? {} : { hint }) };
  }
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { kind: "error", message, ...(stack === undefined ? {} : { dump: stack }) };
}
