import assert from "node:assert/strict";
import { test } from "node:test";
import { wasmSupport } from "./wasm-features.ts";

test("this Node has every feature that is asked for, so every probe is a valid module", () => {
  assert.deepEqual(wasmSupport(), {
    supported: ["SIMD", "threads", "tail calls", "bulk memory"],
    missing: [],
  });
});
