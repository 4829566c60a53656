/** Stock kernels, where the cache has some: put vmlinuz files of distributions into .cache/kernels to have them tried. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { type BootMode, loadKernel } from "./load-kernel.ts";
import { machineOptions } from "./testing/synthetic-kernels.ts";

const CACHE = new URL("../../../.cache/kernels/", import.meta.url);
const files = existsSync(CACHE) ? readdirSync(CACHE).filter((f) => f.startsWith("vmlinuz")) : [];

for (const file of files) {
  for (const mode of ["auto", "bzimage"] satisfies BootMode[]) {
    test(`${file} loads in mode ${mode}`, () => {
      const kernel = new Uint8Array(readFileSync(new URL(file, CACHE)));
      const options = machineOptions(kernel, 256, { mode, initrd: new Uint8Array(4096) });
      const state = loadKernel(options);
      const code = options.ram.bytes.subarray(state.rip, state.rip + 64);
      assert.ok(code.some((byte) => byte !== 0));
      assert.equal(state.protocol.startsWith("linux"), mode === "bzimage");
    });
  }
}

test("the kernel cache is looked at", { skip: files.length === 0 && "no kernels there" }, () => {
  assert.ok(files.length > 0);
});
