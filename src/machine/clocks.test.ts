import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { WallClock } from "./clocks.ts";

test("the time stamp of the wall clock never goes back and is never far behind", () => {
  // Instructions and nanoseconds that pass between readings: never more than four of the first in one of the second.
  const step = fc.record({
    instructions: fc.integer({ min: 0, max: 3000 }),
    slowness: fc.integer({ min: 0, max: 100_000 }),
    isIdle: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      let ns = 0;
      let reads = 0;
      const clock = new WallClock(() => {
        reads++;
        return ns / 1e6;
      });
      let retired = 0;
      let last = 0;
      for (const { instructions, slowness, isIdle } of steps) {
        retired += instructions;
        ns += Math.ceil(instructions / 4) + slowness;
        if (isIdle) clock.idle(ns, retired);
        const before = reads;
        const tsc = clock.tsc(retired);
        assert.ok(tsc >= last, `${tsc} after ${last}`);
        assert.ok(tsc <= ns + 1);
        if (isIdle || instructions >= 1000) assert.equal(reads, before + 1);
        last = tsc;
      }
    }),
  );
});
