import assert from "node:assert/strict";
import { test } from "node:test";
import { missingFeatures } from "./browser-support.ts";

const ALL = { Worker: 1, MessageChannel, BigInt, BigUint64Array, crypto, WebAssembly };

test("a browser that has everything misses nothing, without shared memory too", () => {
  assert.deepEqual(missingFeatures(ALL), []);
});

test("what is missing is named", (t) => {
  assert.deepEqual(missingFeatures({ ...ALL, Worker: undefined }), ["Worker"]);
  assert.deepEqual(missingFeatures({ ...ALL, WebAssembly: undefined }), ["WebAssembly"]);
  t.mock.method(WebAssembly, "validate", () => false);
  assert.ok(missingFeatures(ALL).includes("WebAssembly SIMD"));
});
