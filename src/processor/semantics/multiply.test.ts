import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { S, Status } from "../state/layout.ts";
import { Vector } from "./cpu.ts";
import { Flag } from "./flags.ts";
import { MULTIPLY } from "./multiply.ts";
import { Bench, type BenchEntry } from "./test-bench.ts";

const SIZES = [1, 2, 4, 8] as const;
const [RAX, RDX, RBX, RSI] = [0, 2, 3, 6];

const entries: Record<string, BenchEntry> = {};
for (const bytes of SIZES) {
  const r = { kind: "r", bytes } as const;
  for (const op of ["mul", "imul1", "div", "idiv"]) {
    entries[`${op}${bytes}`] = { semantics: MULTIPLY[op]!, operands: [r], registers: [RBX] };
  }
  if (bytes === 1) continue;
  entries[`imul2${bytes}`] = {
    semantics: MULTIPLY.imul2!,
    operands: [r, r],
    registers: [RSI, RBX],
  };
  entries[`imul3${bytes}`] = {
    semantics: MULTIPLY.imul3!,
    operands: [r, r, { kind: "i", bytes }],
    registers: [RSI, RBX],
  };
}
const bench = new Bench(entries);

const u = (v: bigint, bytes: number): bigint => BigInt.asUintN(8 * bytes, v);
const s = (v: bigint, bytes: number): bigint => BigInt.asIntN(8 * bytes, v);
/** A register after a write of `bytes`. */
const merged = (old: bigint, v: bigint, bytes: number): bigint =>
  bytes >= 4 ? u(v, bytes) : (old & ~((1n << BigInt(8 * bytes)) - 1n)) | u(v, bytes);

/** Random words with many at the edges of the narrower types. */
const word = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  fc
    .tuple(
      fc.constantFrom(0n, 7n, 8n, 15n, 16n, 31n, 32n, 62n, 63n),
      fc.bigInt({ min: -2n, max: 2n }),
    )
    .map(([shift, d]) => u((1n << shift) + d, 8)),
  fc.bigInt({ min: -3n, max: 3n }).map((d) => u(d, 8)),
);

function overflowFlags(): number {
  return bench.flags() & (Flag.CF | Flag.OF);
}

test("MUL and one-operand IMUL give the exact double-width product; CF = OF = it needs the upper half", () => {
  fc.assert(
    fc.property(word, word, word, (a, b, d) => {
      for (const bytes of SIZES) {
        for (const [op, as] of [
          ["mul", u],
          ["imul1", s],
        ] as const) {
          bench.setGpr(RAX, a);
          bench.setGpr(RDX, d);
          bench.setGpr(RBX, b);
          assert.equal(bench.run(`${op}${bytes}`), 0);
          const product = as(a, bytes) * as(b, bytes);
          if (bytes === 1) {
            assert.equal(bench.gpr(RAX), merged(a, product, 2));
            assert.equal(bench.gpr(RDX), d);
          } else {
            assert.equal(bench.gpr(RAX), merged(a, product, bytes));
            assert.equal(bench.gpr(RDX), merged(d, product >> BigInt(8 * bytes), bytes));
          }
          assert.equal(overflowFlags(), as(product, bytes) === product ? 0 : Flag.CF | Flag.OF);
        }
      }
    }),
    { numRuns: 500 },
  );
});

test("Truncating IMUL: CF = OF = the product does not fit", () => {
  fc.assert(
    fc.property(word, word, word, (a, b, imm) => {
      for (const bytes of [2, 4, 8] as const) {
        for (const op of ["imul2", "imul3"]) {
          const other = op === "imul2" ? a : imm;
          bench.setGpr(RSI, a);
          bench.setGpr(RBX, b);
          bench.setImmediate(2, s(imm, bytes));
          assert.equal(bench.run(`${op}${bytes}`), 0);
          const product = s(b, bytes) * s(other, bytes);
          assert.equal(bench.gpr(RSI), merged(a, product, bytes));
          assert.equal(overflowFlags(), s(product, bytes) === product ? 0 : Flag.CF | Flag.OF);
        }
      }
    }),
    { numRuns: 500 },
  );
});

/** Runs a division and compares with exact arithmetic: quotient and remainder, or #DE with nothing changed. */
function checkDivision(
  signed: boolean,
  bytes: 1 | 2 | 4 | 8,
  a: bigint,
  d: bigint,
  b: bigint,
): void {
  const as = signed ? s : u;
  bench.set(S.PENDING_VECTOR, -1);
  bench.setGpr(RAX, a);
  bench.setGpr(RDX, d);
  bench.setGpr(RBX, b);
  bench.setFlags(Flag.CF | Flag.SF);
  const status = bench.run(`${signed ? "idiv" : "div"}${bytes}`);
  const joined = bytes === 1 ? u(a, 2) : (u(d, bytes) << BigInt(8 * bytes)) | u(a, bytes);
  const dividend = as(joined, 2 * bytes);
  const divisor = as(b, bytes);
  const quotient = divisor === 0n ? null : dividend / divisor;
  if (quotient === null || as(quotient, bytes) !== quotient) {
    assert.equal(status, Status.FAULT);
    assert.equal(bench.get(S.PENDING_VECTOR), Vector.DE);
    assert.deepEqual([bench.gpr(RAX), bench.gpr(RDX)], [a, d]);
    return;
  }
  assert.equal(status, Status.NEXT);
  const remainder = dividend % divisor;
  if (bytes === 1) {
    assert.equal(bench.gpr(RAX), merged(a, (u(remainder, 1) << 8n) | u(quotient, 1), 2));
  } else {
    assert.equal(bench.gpr(RAX), merged(a, quotient, bytes));
    assert.equal(bench.gpr(RDX), merged(d, remainder, bytes));
  }
  assert.equal(bench.flags(), Flag.CF | Flag.SF, "flags stay");
}

test("DIV and IDIV are exact up to 128 by 64 bits, and raise #DE when the quotient does not fit", () => {
  fc.assert(
    fc.property(word, word, word, fc.nat(63), (a, d, b, shift) => {
      for (const bytes of SIZES) {
        for (const signed of [false, true]) {
          checkDivision(signed, bytes, a, d, b);
          // Upper half made small or a sign extension, so that quotients often fit.
          checkDivision(signed, bytes, a, u(s(d, 8) >> BigInt(shift), 8), b);
          checkDivision(signed, bytes, a, u(s(a, bytes) >> 63n, 8), b);
        }
      }
    }),
    { numRuns: 1000 },
  );
});

test("The quotient digits of a wide division are corrected where the estimate is too large", () => {
  // Hacker's Delight, "Unsigned Doubleword Division": divisors with a small second digit under large dividends.
  const cases: [bigint, bigint, bigint][] = [
    [0x8000_0000_0000_0000n - 1n, 0xffff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n],
    [0x7fff_ffff_8000_0000n, 0n, 0x8000_0000_ffff_ffffn],
    [0xffff_ffff_ffff_fffen, 0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn],
    [1n, 0n, 0x1_ffff_ffffn],
    [0x1_0000_0000n, 0n, 0x1_0000_0001n],
    [0x8000_0000_ffff_fffen, 0xffff_ffff_0000_0000n, 0x8000_0000_ffff_ffffn],
  ];
  for (const [high, low, divisor] of cases) checkDivision(false, 8, low, high, divisor);
});
