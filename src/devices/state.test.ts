import assert from "node:assert/strict";
import { test } from "node:test";
import { restoreState, saveState } from "./state.ts";

const fresh = () => ({ n: 1, on: false, big: 5n, bytes: new Uint8Array(2), nested: [{ m: 2 }] });

test("a saved state restores into the same objects and shares nothing with them", () => {
  const state = fresh();
  const saved = saveState(state);
  const { nested, bytes } = state;
  state.n = 9;
  state.big = 2n ** 64n - 1n;
  state.bytes[0] = 7;
  state.nested[0].m = 3;
  restoreState(state, saved);
  assert.deepEqual(state, fresh());
  assert.equal(state.nested, nested);
  assert.equal(state.bytes, bytes);
});

test("a state of another shape is refused whole", () => {
  const saved = saveState(fresh()) as Record<string, unknown>;
  const bad: unknown[] = [
    undefined,
    null,
    3,
    {},
    { ...saved, n: "1" },
    { ...saved, n: Number.NaN },
    { ...saved, big: "zz" },
    { ...saved, bytes: new Uint8Array(3) },
    { ...saved, nested: [] },
    { ...saved, nested: [null] },
    { ...saved, on: 1, n: 100 },
  ];
  for (const candidate of bad) {
    const state = fresh();
    assert.throws(() => restoreState(state, candidate), { code: "snapshot-shape" });
    assert.deepEqual(state, fresh());
  }
});
