import assert from "node:assert/strict";
import { test } from "node:test";
import { SpinChoice } from "./spin-choice.ts";

/** Share of calls that looked for long, of `calls` whose cost is `cost(spins)`. */
function longShare(
  cost: (spins: number) => number,
  calls = 20_000,
  choice = new SpinChoice(),
): number {
  let long = 0;
  for (let i = 0; i < calls; i++) {
    if (choice.spins > 1000) long++;
    choice.took(cost(choice.spins));
  }
  return long / calls;
}

test("who has a processor to spare looks for long, who has none does not", () => {
  assert.ok(longShare((spins) => (spins > 1000 ? 0.002 : 0.02)) > 0.95);
  assert.ok(longShare((spins) => (spins > 1000 ? 0.9 : 0.05)) < 0.05);
});

test("a change of the times is noticed", () => {
  const choice = new SpinChoice();
  longShare((spins) => (spins > 1000 ? 0.002 : 0.02), 5000, choice);
  assert.ok(longShare((spins) => (spins > 1000 ? 0.9 : 0.05), 20_000, choice) < 0.15);
});

test("one slow call does not decide", () => {
  let n = 0;
  const share = longShare((spins) => (n++ % 500 === 20 ? 50 : spins > 1000 ? 0.002 : 0.08));
  assert.ok(share > 0.8, String(share));
});
