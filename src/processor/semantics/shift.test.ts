import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Flag } from "./flags.ts";
import { SHIFT } from "./shift.ts";
import { Bench, type BenchEntry } from "./test-bench.ts";

const SIZES = [1, 2, 4, 8] as const;
const [RAX, RCX, RDX] = [0, 1, 2];

/**
 * State of a shift in the manual's one-step-at-a-time pseudocode. The second operand of a double shift follows itself, which
 * matters for 16-bit counts above 16 only.
 */
interface Step {
  a: bigint;
  b: bigint;
  cf: bigint;
  of: bigint;
  readonly bits: bigint;
}

const top = (s: Step, v: bigint, below = 0n): bigint => (v >> (s.bits - 1n - below)) & 1n;
const trim = (s: Step, v: bigint): bigint => BigInt.asUintN(Number(s.bits), v);

const STEPS: Record<string, (s: Step) => void> = {
  shl(s) {
    s.cf = top(s, s.a);
    s.a = trim(s, s.a << 1n);
    s.of = top(s, s.a) ^ s.cf;
  },
  shr(s) {
    s.of = top(s, s.a);
    s.cf = s.a & 1n;
    s.a >>= 1n;
  },
  sar(s) {
    s.cf = s.a & 1n;
    s.a = trim(s, BigInt.asIntN(Number(s.bits), s.a) >> 1n);
    s.of = 0n;
  },
  rol(s) {
    s.cf = top(s, s.a);
    s.a = trim(s, s.a << 1n) | s.cf;
    s.of = top(s, s.a) ^ s.cf;
  },
  ror(s) {
    s.cf = s.a & 1n;
    s.a = (s.a >> 1n) | (s.cf << (s.bits - 1n));
    s.of = top(s, s.a) ^ top(s, s.a, 1n);
  },
  rcl(s) {
    const out = top(s, s.a);
    s.a = trim(s, s.a << 1n) | s.cf;
    s.cf = out;
    s.of = top(s, s.a) ^ s.cf;
  },
  rcr(s) {
    const out = s.a & 1n;
    s.a = (s.a >> 1n) | (s.cf << (s.bits - 1n));
    s.cf = out;
    s.of = top(s, s.a) ^ top(s, s.a, 1n);
  },
  shld(s) {
    s.cf = top(s, s.a);
    s.a = trim(s, s.a << 1n) | top(s, s.b);
    s.b = trim(s, s.b << 1n) | top(s, s.b);
    s.of = top(s, s.a) ^ s.cf;
  },
  shrd(s) {
    s.cf = s.a & 1n;
    s.a = (s.a >> 1n) | ((s.b & 1n) << (s.bits - 1n));
    s.b = (s.b >> 1n) | ((s.b & 1n) << (s.bits - 1n));
    s.of = top(s, s.a) ^ top(s, s.a, 1n);
  },
};

const isRotate = (op: string): boolean => op.startsWith("r");
const isDouble = (op: string): boolean => op.endsWith("d");

const entries: Record<string, BenchEntry> = {};
for (const op of Object.keys(SHIFT)) {
  for (const bytes of SIZES) {
    if (isDouble(op) && bytes === 1) continue;
    const r = { kind: "r", bytes } as const;
    const operands = isDouble(op) ? [r, r] : [r];
    entries[`${op}${bytes}`] = {
      semantics: SHIFT[op]!,
      operands: [...operands, { kind: "r", bytes: 1 }],
      registers: isDouble(op) ? [RAX, RDX, RCX] : [RAX, RCX],
    };
  }
}
entries["shl memory"] = {
  semantics: SHIFT.shl!,
  operands: [
    { kind: "m", bytes: 2 },
    { kind: "i", bytes: 1 },
  ],
};
const bench = new Bench(entries);

const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

function check(
  op: string,
  bytes: number,
  a: bigint,
  b: bigint,
  count: number,
  image: number,
): void {
  const bits = BigInt(8 * bytes);
  const of = BigInt((image & Flag.OF) >> 11);
  const s: Step = { a: BigInt.asUintN(8 * bytes, a), b, cf: BigInt(image & Flag.CF), of, bits };
  s.b = trim(s, b);
  const masked = count & (bytes === 8 ? 63 : 31);
  for (let i = 0; i < masked; i++) STEPS[op]!(s);
  bench.setGpr(RAX, a);
  bench.setGpr(RDX, b);
  bench.setGpr(RCX, BigInt(count));
  bench.setFlags(image);
  assert.equal(bench.run(`${op}${bytes}`), 0);
  const kept = bytes < 4 ? a & ~((1n << bits) - 1n) : 0n;
  assert.equal(bench.gpr(RAX), kept | s.a, "result");

  let expected = image & ~(Flag.CF | Flag.OF);
  expected |= Number(s.cf) | (Number(s.of) << 11);
  if (masked !== 0 && !isRotate(op)) {
    const parity = [...(s.a & 0xffn).toString(2)].filter((c) => c === "1").length & 1;
    expected &= Flag.CF | Flag.OF;
    expected |= (s.a === 0n ? Flag.ZF : 0) | (top(s, s.a) ? Flag.SF : 0) | (parity ? 0 : Flag.PF);
  }
  assert.equal(bench.flags(), masked === 0 ? image : expected, "flags");
}

for (const op of Object.keys(SHIFT)) {
  test(`${op.toUpperCase()} does what its one-bit steps do, in all sizes and counts`, () => {
    fc.assert(
      fc.property(word, word, fc.nat(255), fc.nat(0x3f), (a, b, count, f) => {
        const image = [1, 4, 16, 64, 128, 2048].reduce(
          (sum, bit, i) => sum | (f & (1 << i) ? bit : 0),
          0,
        );
        for (const bytes of SIZES) {
          if (entries[`${op}${bytes}`]) check(op, bytes, a, b, count, image);
        }
      }),
      { numRuns: 300 },
    );
  });
}

test("A shift of memory writes only its operand", () => {
  bench.reset();
  bench.ram(0x100, 4).set([0x11, 0x81, 0x80, 0x44]);
  bench.setOffset(0x101n);
  bench.setImmediate(1, 1);
  assert.equal(bench.run("shl memory"), 0);
  assert.deepEqual([...bench.ram(0x100, 4)], [0x11, 0x02, 0x01, 0x44]);
  assert.equal(bench.flags() & Flag.CF, Flag.CF);
});
