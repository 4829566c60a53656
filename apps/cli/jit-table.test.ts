import assert from "node:assert/strict";
import { test } from "node:test";
import type { JitReport } from "../../src/control/protocol.ts";
import { formatJitReport } from "./jit-table.ts";

const REPORT: JitReport = {
  regions: 1,
  instructions: 22,
  modules: 3,
  refused: 4,
  dropped: 5,
  stale: 6,
  flushes: 7,
  ownMs: 8.04,
  entries: 9999,
  links: 10,
  bails: 11,
  retired: 750_000,
};

test("every figure has its line, and the share of instructions in regions is shown", () => {
  const lines = formatJitReport(REPORT, 1_000_000);
  const cells = lines.slice(1).map((line) => line.trim().split(/ {2,}/));
  assert.deepEqual(cells.slice(0, 2), [
    ["instructions retired", "1,000,000"],
    ["in regions", "750,000", "75.0 %"],
  ]);
  assert.deepEqual(
    cells.slice(2).map(([, value]) => value),
    ["1", "22", "3", "4", "5", "6", "7", "9,999", "10", "11", "8.0"],
  );
});

test("a run of no instructions has no share", () => {
  assert.doesNotMatch(formatJitReport({ ...REPORT, retired: 0 }, 0).join("\n"), /NaN|%/);
});

test("without a region tier that is what is said", () => {
  assert.deepEqual(formatJitReport(null, 1234), [
    "region tier: none, this engine only interprets",
    "  instructions retired  1,234",
  ]);
});
