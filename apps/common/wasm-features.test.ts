import assert from "node:assert/strict";
import { test } from "node:test";
import { wasmSupport } from "./wasm-features.ts";

test("this Node has every feature that is asked for, so every probe is a valid module", () => {
  const supported = ["SIMD", "threads", "tail calls", "bulk memory"];
  supported.push("sign extension", "saturating conversion");
  assert.deepEqual(wasmSupport(), { supported, missing: [], missingRequired: [] });
});

test("features that the machine does not use may be missing", (t) => {
  t.mock.method(WebAssembly, "validate", () => false);
  assert.deepEqual(wasmSupport().missingRequired, [
    ...["SIMD", "bulk memory", "sign extension", "saturating conversion"],
  ]);
});
