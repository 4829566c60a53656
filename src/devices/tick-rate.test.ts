import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { TickRate } from "./tick-rate.ts";

const rates = [1_193_182, 3_579_545, 32_768, 1, 9_000_000];

test("ticks are the exact floor of ns * hertz / 10^9 over three months", () => {
  for (const hertz of rates) {
    const rate = new TickRate(hertz);
    fc.assert(
      fc.property(fc.maxSafeNat(), (ns) => {
        assert.equal(BigInt(rate.ticks(ns)), (BigInt(ns) * BigInt(hertz)) / 1_000_000_000n);
      }),
    );
  }
});

test("ns(t) is the first nanosecond of tick t", () => {
  for (const hertz of rates) {
    const rate = new TickRate(hertz);
    fc.assert(
      fc.property(fc.nat(Math.min(2 ** 31 - 1, hertz * 5e6)), (tick) => {
        const ns = rate.ns(tick);
        assert.equal(rate.ticks(ns), tick);
        if (ns > 0) assert.equal(rate.ticks(ns - 1), tick - 1);
      }),
    );
  }
});
