import assert from "node:assert/strict";
import { test } from "node:test";
import { Mode, S, Seg, Status } from "../state/layout.ts";
import { BRANCH } from "./branch.ts";
import { Vector } from "./cpu.ts";
import { Flag } from "./flags.ts";
import { Bench, type BenchEntry, LENGTH } from "./test-bench.ts";

const [RAX, RCX] = [0, 1];
const START = 0x1000n;
const NEXT = START + BigInt(LENGTH);

const entries: Record<string, BenchEntry> = {};
for (const op of ["loop", "loope", "loopne", "jcxz"]) {
  for (const addrSize of [2, 4, 8] as const) {
    entries[`${op}${addrSize}`] = {
      semantics: BRANCH[op]!,
      operands: [{ kind: "j", bytes: 8 }],
      opsize: 8,
      addrSize,
    };
  }
  entries[`${op} legacy`] = {
    semantics: BRANCH[op]!,
    operands: [{ kind: "j", bytes: 4 }],
    opsize: 4,
    addrSize: 4,
    mode: Mode.CODE32,
  };
}
for (const opsize of [2, 4, 8] as const) {
  const mode = opsize === 8 ? Mode.CODE64 : Mode.CODE32;
  const jump = { operands: [{ kind: "j", bytes: opsize }], opsize, mode } as const;
  entries[`jmp${opsize}`] = { semantics: BRANCH.jmp!, ...jump };
  entries[`jcc${opsize}`] = { semantics: BRANCH.jcc!, ...jump, cc: 4 };
  const operands = [{ kind: "r", bytes: opsize }] as const;
  entries[`jmp_ind${opsize}`] = { semantics: BRANCH.jmp_ind!, operands, opsize, mode };
}
for (const bytes of [2, 4] as const) {
  entries[`bound${bytes}`] = {
    semantics: BRANCH.bound!,
    operands: [
      { kind: "r", bytes },
      { kind: "m", bytes: 2 * bytes },
    ],
    mode: Mode.CODE32,
  };
}
const bench = new Bench(entries);

test("LOOP counts down a register of the address size and jumps while it is not zero", () => {
  const cases = [
    [8, 2n, 1n, true],
    [8, 1n, 0n, false],
    [8, 0n, (1n << 64n) - 1n, true],
    [4, 0xaaaa_0000_0001n, 0n, false],
    [4, 0xaaaa_0000_0000n, 0xffff_ffffn, true],
    [2, 0xbbbb_0001n, 0xbbbb_0000n, false],
    [2, 0xbbbb_0000n, 0xbbbb_ffffn, true],
  ] as const;
  for (const [addrSize, before, after, taken] of cases) {
    for (const [op, zf] of [
      ["loop", 0],
      ["loop", 1],
      ["loope", 1],
      ["loope", 0],
      ["loopne", 0],
      ["loopne", 1],
    ] as const) {
      bench.reset();
      bench.setGpr(RCX, before);
      bench.setFlags(zf ? Flag.ZF : 0);
      bench.setImmediate(0, -0x10);
      const holds = op === "loop" || (op === "loope") === (zf === 1);
      assert.equal(bench.run(`${op}${addrSize}`), taken && holds ? Status.JUMP : Status.NEXT);
      assert.equal(bench.gpr(RCX), after);
      assert.equal(bench.get(S.RIP), taken && holds ? NEXT - 0x10n : START);
      assert.equal(bench.flags(), zf ? Flag.ZF : 0);
    }
  }
});

test("JCXZ tests a register of the address size", () => {
  for (const [addrSize, rcx, taken] of [
    [8, 1n << 32n, false],
    [4, 1n << 32n, true],
    [2, 0x10000n, true],
    [4, 0x10000n, false],
  ] as const) {
    bench.reset();
    bench.setGpr(RCX, rcx);
    bench.setImmediate(0, 5);
    assert.equal(bench.run(`jcxz${addrSize}`), taken ? Status.JUMP : Status.NEXT);
  }
});

test("A LOOP out of the code segment is #GP(0) and does not count", () => {
  bench.reset();
  bench.enterLegacy(Mode.CODE32, true);
  bench.setSegment(Seg.CS, 0n, 0x1fff, 0x409b);
  bench.setGpr(RCX, 5n);
  bench.setImmediate(0, 0x1000);
  assert.equal(bench.run("loop legacy"), Status.FAULT);
  assert.equal(bench.get(S.PENDING_VECTOR), Vector.GP);
  assert.equal(bench.gpr(RCX), 5n);
  bench.setGpr(RCX, 1n);
  assert.equal(bench.run("loop legacy"), Status.NEXT, "not taken, not checked");
});

test("JMP and Jcc go to the truncated relative target", () => {
  bench.reset();
  bench.setImmediate(0, -0x2000);
  assert.equal(bench.run("jmp8"), Status.JUMP);
  assert.equal(bench.get(S.RIP), BigInt.asUintN(64, NEXT - 0x2000n));
  bench.set(S.RIP, START);
  bench.enterLegacy(Mode.CODE32, true);
  assert.equal(bench.run("jmp2"), Status.JUMP);
  assert.equal(bench.get(S.RIP), (NEXT - 0x2000n) & 0xffffn);
  bench.set(S.RIP, START);
  assert.equal(bench.run("jcc4"), Status.NEXT);
  bench.setFlags(Flag.ZF);
  assert.equal(bench.run("jcc4"), Status.JUMP);
  assert.equal(bench.get(S.RIP), (NEXT - 0x2000n) & 0xffff_ffffn);
});

test("An indirect jump checks its target: canonical, or within CS", () => {
  bench.reset();
  for (const [target, ok] of [
    [0x7fff_ffff_ffffn, true],
    [0x8000_0000_0000n, false],
    [0xffff_8000_0000_0000n, true],
    [0xffff_7fff_ffff_ffffn, false],
  ] as const) {
    bench.setGpr(RAX, target);
    assert.equal(bench.run("jmp_ind8"), ok ? Status.JUMP : Status.FAULT);
    if (ok) assert.equal(bench.get(S.RIP), target);
    else assert.equal(bench.get(S.PENDING_VECTOR), Vector.GP);
  }
  bench.enterLegacy(Mode.CODE32, true);
  bench.setSegment(Seg.CS, 0n, 0xffff, 0x409b);
  bench.setGpr(RAX, 0x1_2345n);
  assert.equal(bench.run("jmp_ind4"), Status.FAULT);
  assert.equal(bench.run("jmp_ind2"), Status.JUMP);
  assert.equal(bench.get(S.RIP), 0x2345n);
});

test("BOUND compares signed and raises #BR outside", () => {
  bench.reset();
  bench.enterLegacy(Mode.CODE32, true);
  bench.setOffset(0x200n);
  bench.ram(0x200, 4).set([0xf0, 0xff, 0x10, 0x00]);
  for (const [index, ok] of [
    [0xfff0, true],
    [0x10, true],
    [0x11, false],
    [0xffef, false],
    [0, true],
  ] as const) {
    bench.setGpr(RAX, BigInt(index));
    assert.equal(bench.run("bound2"), ok ? Status.NEXT : Status.FAULT);
    if (!ok) assert.equal(bench.get(S.PENDING_VECTOR), Vector.BR);
  }
  bench.ram(0x200, 8).set([0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff]);
  bench.setGpr(RAX, 0x8000_0000n);
  assert.equal(bench.run("bound4"), Status.NEXT);
  bench.setGpr(RAX, 0n);
  assert.equal(bench.run("bound4"), Status.FAULT);
});
