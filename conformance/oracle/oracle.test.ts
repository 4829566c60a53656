import assert from "node:assert/strict";
import { test } from "node:test";
import { missingForNative, Native } from "./native.ts";
import { formatFinding } from "./report.ts";
import { Run } from "./run.ts";

const SEED = 20_26;
const COUNT = 6_000;

test("a few thousand ring-3 programs end on our processor as on this machine's", async (t) => {
  const missing = missingForNative();
  if (missing !== null) {
    t.skip(`silicon oracle: ${missing}`);
    return;
  }
  const native = await Native.start(1024);
  try {
    const findings: string[] = [];
    const run = new Run(native, {
      seed: SEED,
      count: COUNT,
      onFinding: (f) => findings.push(formatFinding(f, SEED)),
    });
    await run.run();
    assert.deepEqual(findings, []);
    assert.equal(run.tests, COUNT);
  } finally {
    native.close();
  }
});
