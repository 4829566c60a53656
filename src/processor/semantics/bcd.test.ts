import assert from "node:assert/strict";
import { test } from "node:test";
import { Mode, S, Status } from "../state/layout.ts";
import { BCD } from "./bcd.ts";
import { Vector } from "./cpu.ts";
import { Flag } from "./flags.ts";
import { Bench, type BenchEntry } from "./test-bench.ts";

const entries: Record<string, BenchEntry> = {};
for (const [key, semantics] of Object.entries(BCD)) {
  const operands = key === "aam" || key === "aad" ? [{ kind: "i", bytes: 1 } as const] : [];
  entries[key] = { semantics, operands, mode: Mode.CODE32 };
}
const bench = new Bench(entries);
bench.enterLegacy(Mode.CODE32, true);

interface Expected {
  ax: number;
  cf: boolean;
  af: boolean;
}

/** The manual's pseudocode. */
const PSEUDOCODE: Record<string, (ax: number, cf: boolean, af: boolean) => Expected> = {
  aaa: (ax, _, af) => {
    const off = (ax & 15) > 9 || af;
    return { ax: (off ? ax + 0x106 : ax) & 0xff0f, cf: off, af: off };
  },
  aas: (ax, _, af) => {
    const off = (ax & 15) > 9 || af;
    return { ax: (off ? ax - 6 - 0x100 : ax) & 0xff0f, cf: off, af: off };
  },
  daa: (ax, oldCf, af) => {
    const old = ax & 0xff;
    const low = (old & 15) > 9 || af;
    const high = old > 0x99 || oldCf;
    const al = (old + (low ? 6 : 0) + (high ? 0x60 : 0)) & 0xff;
    return { ax: (ax & 0xff00) | al, cf: high, af: low };
  },
  das: (ax, oldCf, af) => {
    const old = ax & 0xff;
    let al = old;
    let cf = false;
    const low = (old & 15) > 9 || af;
    if (low) {
      cf = oldCf || al < 6;
      al = (al - 6) & 0xff;
    }
    if (old > 0x99 || oldCf) {
      al = (al - 0x60) & 0xff;
      cf = true;
    }
    return { ax: (ax & 0xff00) | al, cf, af: low };
  },
};

function resultFlags(al: number): number {
  const parity = [...al.toString(2)].filter((c) => c === "1").length & 1;
  return (al === 0 ? Flag.ZF : 0) | (al & 0x80 ? Flag.SF : 0) | (parity ? 0 : Flag.PF);
}

for (const [key, reference] of Object.entries(PSEUDOCODE)) {
  test(`${key.toUpperCase()} follows its pseudocode for every AL, CF and AF`, () => {
    for (let i = 0; i < 1024; i++) {
      const ax = 0x1200 | (i & 0xff);
      const [cf, af] = [(i & 0x100) !== 0, (i & 0x200) !== 0];
      bench.setGpr(0, BigInt(ax));
      bench.setFlags((cf ? Flag.CF : 0) | (af ? Flag.AF : 0) | Flag.OF);
      assert.equal(bench.run(key), Status.NEXT);
      const e = reference(ax, cf, af);
      assert.equal(bench.gpr(0), BigInt(e.ax));
      const flags = resultFlags(e.ax & 0xff) | (e.cf ? Flag.CF : 0) | (e.af ? Flag.AF : 0);
      assert.equal(bench.flags(), flags);
    }
  });
}

test("AAM divides by any base but 0, AAD multiplies by it", () => {
  for (const base of [1, 7, 10, 16, 255]) {
    for (let al = 0; al < 256; al += 3) {
      bench.setImmediate(0, base);
      bench.setGpr(0, BigInt(0x7700 | al));
      assert.equal(bench.run("aam"), Status.NEXT);
      const digits = (Math.floor(al / base) << 8) | (al % base);
      assert.equal(bench.gpr(0), BigInt(digits));
      assert.equal(bench.flags(), resultFlags(digits & 0xff));
      assert.equal(bench.run("aad"), Status.NEXT);
      assert.equal(bench.gpr(0), BigInt(al));
      assert.equal(bench.flags(), resultFlags(al));
    }
  }
  bench.setImmediate(0, 0);
  assert.equal(bench.run("aam"), Status.FAULT);
  assert.equal(bench.get(S.PENDING_VECTOR), Vector.DE);
});
