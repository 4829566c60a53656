import assert from "node:assert/strict";
import { test } from "node:test";
import { compareRandom } from "../../../conformance/decoder-vs-iced.ts";

for (const mode of [16, 32, 64] as const) {
  test(`${mode}-bit mode: 20,000 random byte strings decode as iced-x86 decodes them`, () => {
    const { total, kinds } = compareRandom(mode, 20_000, 7);
    assert.equal(total, 0, JSON.stringify([...kinds].slice(0, 5)));
  });
}
