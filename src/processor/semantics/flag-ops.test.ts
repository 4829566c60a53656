import assert from "node:assert/strict";
import { test } from "node:test";
import { S, Status } from "../state/layout.ts";
import { FLAG_OPS } from "./flag-ops.ts";
import { Flag } from "./flags.ts";
import { Bench, type BenchEntry } from "./test-bench.ts";

const ALL = 0x8d5;
const [RAX, RBX] = [0, 3];

const entries: Record<string, BenchEntry> = {};
for (const [key, semantics] of Object.entries(FLAG_OPS)) entries[key] = { semantics };
for (const addrSize of [2, 4, 8] as const) {
  entries[`xlat${addrSize}`] = {
    semantics: FLAG_OPS.xlat!,
    operands: [{ kind: "m", bytes: 1 }],
    base: RBX,
    addrSize,
  };
}
const bench = new Bench(entries);

/** All 64 combinations of the arithmetic flags. */
function* images(): Generator<number> {
  for (let i = 0; i < 64; i++) {
    yield [1, 4, 16, 64, 128, 2048].reduce((sum, bit, n) => sum | (i & (1 << n) ? bit : 0), 0);
  }
}

test("CLC, STC and CMC change CF only", () => {
  for (const image of images()) {
    for (const [key, expected] of [
      ["clc", image & ~Flag.CF],
      ["stc", image | Flag.CF],
      ["cmc", image ^ Flag.CF],
    ] as const) {
      bench.setFlags(image);
      assert.equal(bench.run(key), Status.NEXT);
      assert.equal(bench.flags(), expected);
    }
  }
});

test("CLD and STD change DF only", () => {
  bench.set(S.RFLAGS_REST, 0x202);
  bench.run("std");
  assert.equal(bench.get(S.RFLAGS_REST), 0x602);
  bench.run("cld");
  assert.equal(bench.get(S.RFLAGS_REST), 0x202);
});

test("LAHF and SAHF move SF ZF AF PF CF through AH and leave OF alone", () => {
  for (const image of images()) {
    bench.setFlags(image);
    bench.setGpr(RAX, 0x1122_3344_5566_7788n);
    bench.run("lahf");
    const ah = BigInt((image & 0xd5) | 2);
    assert.equal(bench.gpr(RAX), 0x1122_3344_5566_0088n | (ah << 8n));
    bench.setGpr(RAX, BigInt(~image & 0xff) << 8n);
    bench.run("sahf");
    assert.equal(bench.flags(), (image & Flag.OF) | (~image & 0xd5));
  }
});

test("SALC spreads CF over AL", () => {
  for (const [image, al] of [
    [Flag.CF, 0xffn],
    [ALL & ~Flag.CF, 0n],
  ] as const) {
    bench.setFlags(image);
    bench.setGpr(RAX, 0x1234n);
    bench.run("salc");
    assert.equal(bench.gpr(RAX), 0x1200n | al);
    assert.equal(bench.flags(), image);
  }
});

test("XLAT loads AL from [RBX + AL], wrapped at the address size", () => {
  for (const [addrSize, rbx, at] of [
    [8, 0x300n, 0x3f0],
    [4, 0xffff_ffff_0000_0300n, 0x3f0],
    [4, 0xffff_ff20n, 0x10],
    [2, 0x1_2345_ff20n, 0x10],
  ] as const) {
    bench.reset();
    bench.ram(at, 1)[0] = 0x5a;
    bench.setGpr(RAX, 0xaa_bbf0n);
    bench.setGpr(RBX, rbx);
    assert.equal(bench.run(`xlat${addrSize}`), Status.NEXT);
    assert.equal(bench.gpr(RAX), 0xaa_bb5an);
    assert.equal(bench.gpr(RBX), rbx);
  }
});

test("XLAT leaves RBX alone when it faults", () => {
  bench.reset();
  bench.setGpr(RBX, 0x9000_0000n);
  assert.equal(bench.run("xlat8"), Status.FAULT);
  assert.equal(bench.gpr(RBX), 0x9000_0000n);
});
