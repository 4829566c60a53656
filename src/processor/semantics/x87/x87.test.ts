import assert from "node:assert/strict";
import { test } from "node:test";
import { x87Rows, x87UndocumentedRows } from "../../isa/rows/x87.ts";
import { X87 } from "./index.ts";
import { createBench } from "./test-bench.ts";
import { CASES } from "./test-cases.ts";
import { benchShape, digest } from "./test-records.ts";
import { DIGESTS } from "./x87.digests.ts";

test("every row of the family has semantics, and every entry a row", () => {
  const sems = new Set([...x87Rows, ...x87UndocumentedRows].map((row) => row.sem));
  for (const sem of sems) assert.ok(X87[sem], sem);
  for (const sem of Object.keys(X87)) assert.ok(sems.has(sem), sem);
});

test("outcomes are those that were compared with silicon, for every instruction and form", () => {
  const all = createBench(CASES.map(benchShape));
  assert.equal(new Set(CASES.map((c) => c.name)).size, CASES.length);
  CASES.forEach((c, i) => {
    assert.equal(digest(all, i, c), DIGESTS[c.name], c.name);
  });
});
