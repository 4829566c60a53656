import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuOf, summarize } from "./summary.ts";
import type { RowResult } from "./workload.ts";

function row(name: string, cpu: Readonly<Record<string, readonly number[]>>): RowResult {
  const samples = Object.fromEntries(
    Object.entries(cpu).map(([contestant, values]) => [
      contestant,
      values.map((value) => ({ cpu: value, wall: value, own: undefined, retired: undefined })),
    ]),
  );
  return { name, group: "micro", description: "", checksum: "", samples, failures: {} };
}

test("speed is the peer's time by ours, of the best samples; the lowest row is named", () => {
  const rows = [
    row("fast", { QEMU: [9, 8], jit: [2, 3] }),
    row("slow", { QEMU: [1], jit: [4, 5] }),
  ];
  const summary = summarize(rows, "jit", "QEMU")!;
  assert.equal(summary.rows, 2);
  assert.equal(summary.meanSpeed, 1);
  assert.deepEqual(summary.lowest, { name: "slow", speed: 0.25 });
});

test("a row that one of the two has no sample of does not count", () => {
  const rows = [row("both", { QEMU: [2], jit: [4] }), row("one", { QEMU: [2] })];
  assert.equal(summarize(rows, "jit", "QEMU")!.rows, 1);
  assert.equal(summarize(rows.slice(1), "jit", "QEMU"), undefined);
  assert.ok(Number.isNaN(cpuOf(rows[1]!, "jit")));
});
