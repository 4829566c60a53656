/** The criteria that take seconds hold at every test run. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Criterion } from "./criterion.ts";
import { levelAtEntry } from "./p6-a2-at-entry.ts";
import { injectedIncrease } from "./p6-a3-injection.ts";
import { transitionCollisions } from "./p6-a4-collisions.ts";
import { timerRates } from "./p7-a2-rates.ts";
import { wedgedGuests } from "./p7-a3-wedged.ts";
import { savedQuantum } from "./p7-a4-quantum.ts";
import { noInterrupt } from "./p7-a5-no-interrupt.ts";

const QUICK: readonly Criterion[] = [
  levelAtEntry,
  injectedIncrease,
  transitionCollisions,
  timerRates,
  wedgedGuests,
  savedQuantum,
  noInterrupt,
];

for (const { id, title, run } of QUICK) {
  test(`${id}: ${title}`, async () => {
    const { passed, measured, details } = await run({ seed: 7, progress: () => {} });
    assert.ok(passed, [measured, ...(details ?? [])].join("\n"));
  });
}
