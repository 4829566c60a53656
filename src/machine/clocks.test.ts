import assert from "node:assert/strict";
import { test } from "node:test";
import { DeterministicClock, WallClock } from "./clocks.ts";

test("deterministic time is instructions plus what was skipped", () => {
  const clock = new DeterministicClock();
  assert.equal(clock.tsc(1000), 1000);
  assert.equal(clock.budgetUntil(1500, 1000), 500);
  assert.equal(clock.idle(4000, 1000), 0);
  assert.equal(clock.tsc(1000), 4000);
  assert.equal(clock.idle(Infinity, 1000), Infinity, "nothing to skip to: wait for the world");
});

test("the wall clock's budget follows the measured speed and never passes a due deadline", () => {
  let ms = 0;
  const clock = new WallClock(() => ms);
  for (let i = 1; i <= 50; i++) {
    ms = i;
    clock.budgetUntil(1e9, i * 200_000); // 200 MIPS
  }
  const budget = clock.budgetUntil(ms * 1e6 + 1_000_000, 50 * 200_000);
  assert.ok(budget > 150_000 && budget < 250_000, `${budget} instructions for 1 ms`);
  assert.equal(clock.budgetUntil(ms * 1e6, 0), 0);
});
