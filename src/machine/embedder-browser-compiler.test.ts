import assert from "node:assert/strict";
import { test } from "node:test";
import { hostedKernel, powerOff } from "../../guests/hosted.ts";
import type { JitReport } from "../control/protocol.ts";
import { imm } from "../processor/isa/assemble.ts";
import { ecx } from "../processor/isa/registers.ts";
import type { BackendResult } from "../processor/jit/jit.ts";
import {
  type CompilerScope,
  type CompilerWorker,
  serveCompiler,
} from "./embedder-browser-compiler.ts";
import { serve } from "./embedder-browser-worker.ts";
import { FakeScope, smallConfig } from "./testing/fake-scope.ts";

const ROUNDS = 30_000_000;

/** Counts down, long enough to be worth compiling. */
const LOOP = hostedKernel((a) => {
  a.emit("mov", ecx, imm(ROUNDS));
  a.label("loop");
  a.emit("dec", ecx);
  a.emit("jnz", "loop");
  powerOff(a);
});

/** A worker that runs serveCompiler() between the machine's slices, or breaks at its first batch. */
class FakeWorker implements CompilerWorker {
  static made = 0;
  readonly #isBroken: boolean;
  #toCompiler: (event: { data: never }) => void = () => {};
  #toMachine: (event: { data: BackendResult }) => void = () => {};
  #failed = (): void => {};

  constructor(isBroken = false) {
    FakeWorker.made++;
    this.#isBroken = isBroken;
    const scope: CompilerScope = {
      postMessage: (data) => setImmediate(() => this.#toMachine({ data })),
      addEventListener: (_type, listener) => {
        this.#toCompiler = listener;
      },
    };
    serveCompiler(scope);
  }

  postMessage(message: unknown): void {
    const data = structuredClone(message) as never;
    setImmediate(() => (this.#isBroken ? this.#failed() : this.#toCompiler({ data })));
  }

  addEventListener(type: string, listener: (event: never) => void): void {
    if (type === "error") this.#failed = listener as () => void;
    else this.#toMachine = listener as (event: { data: BackendResult }) => void;
  }

  terminate(): void {}
}

async function report(spawnCompiler: (() => CompilerWorker) | undefined): Promise<JitReport> {
  const scope = new FakeScope();
  serve(scope, { deferrer: (task) => () => setImmediate(task), spawnCompiler });
  const config = smallConfig(LOOP, { engine: "auto", reportJit: true });
  scope.say({ type: "start", config });
  assert.equal((await scope.stopped()).kind, "poweroff");
  const [found] = scope.heard.flatMap((m) => (m.type === "jitStats" ? [m.report] : []));
  assert.ok(found);
  return found;
}

test("hot code is compiled in a worker of its own, and runs", async () => {
  const before = FakeWorker.made;
  const { regions, retired } = await report(() => new FakeWorker());
  assert.ok(regions >= 1, `${regions} regions`);
  assert.ok(retired > ROUNDS, `${retired} instructions in regions`);
  assert.equal(FakeWorker.made - before, 1);
});

for (const [what, spawn] of [
  ["where workers have no workers", undefined],
  [
    "where the worker cannot be made",
    () => {
      throw new Error("refused");
    },
  ],
  ["where the worker fails", () => new FakeWorker(true)],
] as const) {
  test(`hot code is compiled in the machine's own worker ${what}`, async () => {
    const { regions, retired } = await report(spawn);
    assert.ok(regions >= 1, `${regions} regions`);
    assert.ok(retired > ROUNDS, `${retired} instructions in regions`);
  });
}
