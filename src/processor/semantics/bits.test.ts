import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Mode, S, Seg, Status } from "../state/layout.ts";
import { BITS } from "./bits.ts";
import { Vector } from "./cpu.ts";
import { Flag } from "./flags.ts";
import { Bench, type BenchEntry } from "./test-bench.ts";

const SIZES = [2, 4, 8] as const;
const [RAX, RCX, RDX, RBX, RSI] = [0, 1, 2, 3, 6];
const ALL = 0x8d5;

const entries: Record<string, BenchEntry> = {};
for (const bytes of SIZES) {
  const r = { kind: "r", bytes } as const;
  const m = { kind: "m", bytes } as const;
  for (const op of ["bt", "bts", "btr", "btc"]) {
    const semantics = BITS[op]!;
    entries[`${op} r${bytes}`] = { semantics, operands: [r, r], registers: [RSI, RBX] };
    entries[`${op} m${bytes}`] = { semantics, operands: [m, r], registers: [0, RBX] };
    entries[`${op} i${bytes}`] = { semantics, operands: [m, { kind: "i", bytes: 1 }] };
  }
  for (const op of ["bsf", "bsr", "popcnt"]) {
    entries[`${op}${bytes}`] = { semantics: BITS[op]!, operands: [r, r], registers: [RSI, RBX] };
  }
}
entries["bt m4 legacy"] = {
  ...entries["bt m4"]!,
  addrSize: 4,
  mode: Mode.CODE32,
};
for (const bytes of [1, 2, 4, 8] as const) {
  const r = { kind: "r", bytes } as const;
  const operands = [r, r];
  entries[`cmpxchg r${bytes}`] = { semantics: BITS.cmpxchg!, operands, registers: [RSI, RBX] };
  entries[`cmpxchg m${bytes}`] = {
    semantics: BITS.cmpxchg!,
    operands: [{ kind: "m", bytes }, r],
    registers: [0, RBX],
  };
}
entries.cmpxchg8b = { semantics: BITS.cmpxchg8b!, operands: [{ kind: "m", bytes: 8 }] };
entries.cmpxchg16b = { semantics: BITS.cmpxchg16b!, operands: [{ kind: "m", bytes: 16 }] };
const bench = new Bench(entries);

const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const u = (v: bigint, bytes: number): bigint => BigInt.asUintN(8 * bytes, v);
const merged = (old: bigint, v: bigint, bytes: number): bigint =>
  bytes >= 4 ? u(v, bytes) : (old & ~((1n << BigInt(8 * bytes)) - 1n)) | u(v, bytes);

const CHANGE: Record<string, (v: bigint, mask: bigint) => bigint> = {
  bt: (v) => v,
  bts: (v, mask) => v | mask,
  btr: (v, mask) => v & ~mask,
  btc: (v, mask) => v ^ mask,
};

test("BT, BTS, BTR, BTC of a register take the offset modulo the width and change CF only", () => {
  fc.assert(
    fc.property(word, word, fc.boolean(), (v, offset, f) => {
      for (const bytes of SIZES) {
        for (const [op, change] of Object.entries(CHANGE)) {
          bench.setGpr(RSI, v);
          bench.setGpr(RBX, offset);
          bench.setFlags(f ? ALL : 0);
          assert.equal(bench.run(`${op} r${bytes}`), Status.NEXT);
          const mask = 1n << (offset % BigInt(8 * bytes));
          const result = op === "bt" ? v : merged(v, change(v, mask), bytes);
          assert.equal(bench.gpr(RSI), result);
          assert.equal(bench.flags(), (f ? ALL & ~Flag.CF : 0) | (v & mask ? Flag.CF : 0));
        }
      }
    }),
    { numRuns: 100 },
  );
});

test("A register offset reaches beyond a memory operand in both directions; an immediate does not", () => {
  fc.assert(
    fc.property(fc.integer({ min: -8192, max: 8191 }), fc.boolean(), (offset, isSet) => {
      for (const bytes of SIZES) {
        for (const [op, change] of Object.entries(CHANGE)) {
          bench.reset();
          if (isSet) bench.ram(0x3000, 0x2000).fill(0xff);
          bench.setOffset(0x4000n);
          bench.setGpr(RBX, BigInt.asUintN(8 * bytes, BigInt(offset)));
          bench.setImmediate(1, offset & 0xff);
          assert.equal(bench.run(`${op} m${bytes}`), Status.NEXT);
          assert.equal(bench.flags(), isSet ? Flag.CF : 0);
          const at = 0x4000 + (offset >> 3);
          const mask = 1n << BigInt(offset & 7);
          const before = isSet ? 0xffn : 0n;
          assert.equal(bench.ram(at, 1)[0], Number(change(before, mask)));
          bench.ram(at, 1)[0] = Number(before);
          assert.equal(bench.run(`${op} i${bytes}`), Status.NEXT);
          const bit = offset & 0xff & (8 * bytes - 1);
          const expected = Number(change(before, 1n << BigInt(bit & 7)));
          assert.equal(bench.ram(0x4000 + (bit >> 3), 1)[0], expected);
        }
      }
    }),
    { numRuns: 60 },
  );
});

test("A bit offset outside 64-bit mode wraps at 4 GiB", () => {
  bench.reset();
  bench.enterLegacy(Mode.CODE32, true);
  bench.setOffset(0x100n);
  bench.setGpr(RBX, 0x8000_0000n);
  bench.setSegment(Seg.DS, 0x1000_1000n, 0xffff_ffff, 0xc093);
  bench.ram(0x1100, 1)[0] = 1;
  assert.equal(bench.run("bt m4 legacy"), Status.NEXT);
  assert.equal(bench.flags(), Flag.CF);
});

test("BSF and BSR leave the destination alone and set ZF for a source of zero", () => {
  fc.assert(
    fc.property(word, word, fc.nat(63), (v, old, shift) => {
      for (const bytes of SIZES) {
        const source = u(v >> BigInt(shift), bytes);
        for (const op of ["bsf", "bsr"]) {
          bench.setGpr(RSI, old);
          bench.setGpr(RBX, source);
          assert.equal(bench.run(`${op}${bytes}`), Status.NEXT);
          assert.equal((bench.flags() & Flag.ZF) !== 0, source === 0n);
          const digits = source.toString(2);
          const index =
            op === "bsr" ? digits.length - 1 : digits.length - 1 - digits.lastIndexOf("1");
          assert.equal(bench.gpr(RSI), source === 0n ? old : merged(old, BigInt(index), bytes));
        }
      }
    }),
    { numRuns: 200 },
  );
});

test("POPCNT counts ones; of the flags only ZF can be set", () => {
  fc.assert(
    fc.property(word, word, fc.nat(64), (v, old, shift) => {
      for (const bytes of SIZES) {
        const source = u(v >> BigInt(shift), bytes);
        bench.setGpr(RSI, old);
        bench.setGpr(RBX, source);
        bench.setFlags(ALL);
        assert.equal(bench.run(`popcnt${bytes}`), Status.NEXT);
        const ones = [...source.toString(2)].filter((c) => c === "1").length;
        assert.equal(bench.gpr(RSI), merged(old, BigInt(ones), bytes));
        assert.equal(bench.flags(), ones === 0 ? Flag.ZF : 0);
      }
    }),
    { numRuns: 100 },
  );
});

/** CMP a, b as far as CMPXCHG needs it here. */
function compareFlags(a: bigint, b: bigint, bytes: number): number {
  const signed = (v: bigint): bigint => BigInt.asIntN(8 * bytes, v);
  const r = signed(u(a, bytes) - u(b, bytes));
  const of = r !== signed(a) - signed(b);
  return (
    (u(a, bytes) < u(b, bytes) ? Flag.CF : 0) |
    (r === 0n ? Flag.ZF : 0) |
    (r < 0n ? Flag.SF : 0) |
    (of ? Flag.OF : 0)
  );
}

test("CMPXCHG compares the accumulator, writes the destination or loads it, and flags as CMP", () => {
  const mask = Flag.CF | Flag.ZF | Flag.SF | Flag.OF;
  fc.assert(
    fc.property(word, word, word, fc.boolean(), (a, d, source, equal) => {
      for (const bytes of [1, 2, 4, 8] as const) {
        const old = equal ? merged(d, a, bytes) : d;
        const isEqual = u(old, bytes) === u(a, bytes);
        bench.reset();
        for (const form of ["r", "m"]) {
          bench.setGpr(RAX, a);
          bench.setGpr(RSI, old);
          bench.setGpr(RBX, source);
          bench.setOffset(0xffdn);
          const ram = bench.ram(0xffd, 8);
          const view = new DataView(ram.buffer, ram.byteOffset, 8);
          view.setBigUint64(0, old, true);
          assert.equal(bench.run(`cmpxchg ${form}${bytes}`), Status.NEXT);
          assert.equal(bench.flags() & mask, compareFlags(a, old, bytes));
          assert.equal(bench.gpr(RAX), isEqual ? a : merged(a, old, bytes));
          if (form === "r")
            assert.equal(bench.gpr(RSI), isEqual ? merged(old, source, bytes) : old);
          else {
            const kept = bytes === 4 ? (old >> 32n) << 32n : 0n;
            assert.equal(
              view.getBigUint64(0, true),
              isEqual ? kept | merged(old, source, bytes) : old,
            );
          }
        }
      }
    }),
    { numRuns: 60 },
  );
});

test("CMPXCHG8B and CMPXCHG16B exchange a pair of registers and change ZF only", () => {
  for (const [name, half] of [
    ["cmpxchg8b", 4],
    ["cmpxchg16b", 8],
  ] as const) {
    for (const isEqual of [true, false]) {
      bench.reset();
      bench.setOffset(0x500n);
      bench.ram(0x500, 2 * half).forEach((_, i, ram) => {
        ram[i] = i + 1;
      });
      const value = (from: number): bigint => {
        let v = 0n;
        for (let i = half; i > 0; i--) v = (v << 8n) | BigInt(from + i);
        return v;
      };
      const stray = half === 4 ? 0xdead_0000_0000n : 0n;
      bench.setGpr(RAX, value(0) | stray);
      bench.setGpr(RDX, value(half) ^ (isEqual ? 0n : 1n));
      bench.setGpr(RBX, 0x1111n | stray);
      bench.setGpr(RCX, 0x2222n);
      bench.setFlags(ALL & ~Flag.ZF);
      assert.equal(bench.run(name), Status.NEXT);
      assert.equal(bench.flags(), isEqual ? ALL : ALL & ~Flag.ZF);
      if (isEqual) {
        assert.deepEqual([...bench.ram(0x500, half)].slice(0, 3), [0x11, 0x11, 0]);
        assert.deepEqual([...bench.ram(0x500 + half, half)].slice(0, 3), [0x22, 0x22, 0]);
        assert.equal(bench.gpr(RAX), value(0) | stray);
      } else {
        assert.equal(bench.ram(0x500, 1)[0], 1);
        assert.deepEqual([bench.gpr(RAX), bench.gpr(RDX)], [value(0), value(half)]);
      }
    }
  }
});

test("CMPXCHG16B of an unaligned operand is #GP(0)", () => {
  bench.reset();
  bench.setOffset(0x508n);
  assert.equal(bench.run("cmpxchg16b"), Status.FAULT);
  assert.equal(bench.get(S.PENDING_VECTOR), Vector.GP);
});
