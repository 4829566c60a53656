/** The page's scripts as they are published: what is in them, and that the machine's runs where there is no Node. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { starKernel } from "../guests/programs.ts";
import type { FromMachine } from "../src/control/protocol.ts";
import { smallConfig } from "../src/machine/testing/fake-scope.ts";
import { bundleWeb } from "./bundle-web.ts";

const bundle = await bundleWeb();
const text = (name: string): string => {
  const file = bundle.files.find((f) => f.name === name);
  assert.ok(file, name);
  return new TextDecoder().decode(file.content);
};

test("the page comes with everything that it names, and with the terms of what is in it", () => {
  const page = text("index.html");
  for (const name of ["page.js", "style.css"]) assert.ok(page.includes(`"${name}"`), name);
  for (const name of ["page.js", "style.css", "machine-worker.js"])
    assert.ok(text(name).length > 1000);
  assert.match(text("page.js"), /new URL\("\.\/machine-worker\.js",\s*import\.meta\.url\)/);
  assert.match(text("style.css"), /\.xterm/);
  assert.match(
    text("LICENSES.txt"),
    /@xterm\/xterm[\s\S]*Permission is hereby granted[\s\S]*Apache License/,
  );
});

test("the machine is in the worker alone, and nothing of the command line is in either script", () => {
  const { "page.js": page, "machine-worker.js": worker } = bundle.sources;
  assert.ok(worker.includes("src/machine/machine.ts"));
  assert.ok(!page.some((path) => /^src\/(?!base|control)/.test(path)), page.join("\n"));
  for (const path of [...page, ...worker])
    assert.doesNotMatch(path, /^apps\/cli|\.test\.ts|testing/);
});

/** A worker's global scope without anything of Node's or of shared memory. */
function workerScope(heard: (message: FromMachine) => void): object {
  class MessageChannel {
    readonly port1 = {
      listener: (): void => {},
      addEventListener: (_: string, f: () => void) => {
        this.port1.listener = f;
      },
      start: () => {},
    };
    readonly port2 = { postMessage: () => setImmediate(() => this.port1.listener()) };
  }
  const scope: Record<string, unknown> = {
    performance: { now: () => performance.now() },
    crypto: { getRandomValues: (array: Uint8Array) => crypto.getRandomValues(array) },
    setTimeout,
    clearTimeout,
    MessageChannel,
    TextEncoder,
    TextDecoder,
    addEventListener: (_: string, listener: (event: object) => void) => {
      scope.listener = listener;
    },
    postMessage: heard,
  };
  return scope;
}

for (const engine of ["interpreter", "jit"] as const) {
  test(`the worker's script runs a guest where there is neither Node nor shared memory: ${engine}`, async () => {
    const output: number[] = [];
    const end = await new Promise<FromMachine>((resolve) => {
      const scope = workerScope((message) => {
        if (message.type === "output") output.push(...message.data);
        if (message.type === "stopped") resolve(structuredClone(message));
      });
      const context = createContext(scope);
      runInContext("delete globalThis.SharedArrayBuffer; delete globalThis.Atomics;", context);
      const absent = "[typeof process, typeof Buffer, typeof SharedArrayBuffer].join()";
      assert.equal(runInContext(absent, context), "undefined,undefined,undefined");
      runInContext(text("machine-worker.js"), context);
      const { listener } = scope as { listener: (event: object) => void };
      listener({ data: { type: "start", config: smallConfig(starKernel(), { engine }) } });
    });
    const reason = { kind: "poweroff", message: "the guest turned the power off" };
    assert.deepEqual(end, { type: "stopped", reason });
    assert.deepEqual(output, [0x2a]);
  });
}
