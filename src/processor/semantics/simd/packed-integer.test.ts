import assert from "node:assert/strict";
import { test } from "node:test";
import { ROWS } from "../../isa/table.ts";
import { SIMD } from "./index.ts";
import { Driver } from "./testing/driver.ts";
import { DATA } from "./testing/harness.ts";
import { Rng, randomVector } from "./testing/values.ts";

/** Elements of `bits` as numbers, and back. */
function unpack(v: Uint8Array, bits: number, signed: boolean): bigint[] {
  const out: bigint[] = [];
  for (let at = 0; at < v.length; at += bits / 8) {
    let n = 0n;
    for (let k = bits / 8 - 1; k >= 0; k--) n = (n << 8n) | BigInt(v[at + k]!);
    out.push(signed ? BigInt.asIntN(bits, n) : n);
  }
  return out;
}

function pack(elements: readonly bigint[], bits: number): Uint8Array {
  const out = new Uint8Array((elements.length * bits) / 8);
  elements.forEach((n, i) => {
    for (let k = 0; k < bits / 8; k++)
      out[(i * bits) / 8 + k] = Number((n >> BigInt(8 * k)) & 0xffn);
  });
  return out;
}

const clamp = (n: bigint, low: bigint, high: bigint): bigint =>
  n < low ? low : n > high ? high : n;
const signedRange = (n: bigint, bits: bigint): bigint =>
  clamp(n, -(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n);
const unsignedRange = (n: bigint, bits: bigint): bigint => clamp(n, 0n, (1n << bits) - 1n);
const least = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const most = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const mask = (b: boolean): bigint => (b ? -1n : 0n);

type Element = (a: bigint, b: bigint, bits: bigint) => bigint;

/** Mnemonic -> element width, signedness, meaning of one element. */
const ELEMENTWISE: Readonly<Record<string, readonly [number, boolean, Element]>> = {
  PADDB: [8, false, (a, b) => a + b],
  PADDW: [16, false, (a, b) => a + b],
  PADDD: [32, false, (a, b) => a + b],
  PADDQ: [64, false, (a, b) => a + b],
  PSUBB: [8, false, (a, b) => a - b],
  PSUBQ: [64, false, (a, b) => a - b],
  PADDSB: [8, true, (a, b, n) => signedRange(a + b, n)],
  PADDSW: [16, true, (a, b, n) => signedRange(a + b, n)],
  PSUBSW: [16, true, (a, b, n) => signedRange(a - b, n)],
  PADDUSB: [8, false, (a, b, n) => unsignedRange(a + b, n)],
  PSUBUSW: [16, false, (a, b, n) => unsignedRange(a - b, n)],
  PAVGB: [8, false, (a, b) => (a + b + 1n) >> 1n],
  PAVGW: [16, false, (a, b) => (a + b + 1n) >> 1n],
  PMINUB: [8, false, least],
  PMAXSW: [16, true, most],
  PMINSD: [32, true, least],
  PMAXUD: [32, false, most],
  PCMPEQB: [8, false, (a, b) => mask(a === b)],
  PCMPGTW: [16, true, (a, b) => mask(a > b)],
  PCMPGTQ: [64, true, (a, b) => mask(a > b)],
  PMULLW: [16, true, (a, b) => a * b],
  PMULLD: [32, true, (a, b) => a * b],
  PMULHW: [16, true, (a, b) => (a * b) >> 16n],
  PMULHUW: [16, false, (a, b) => (a * b) >> 16n],
  PMULHRSW: [16, true, (a, b) => (((a * b) >> 14n) + 1n) >> 1n],
  PSIGNW: [16, true, (a, b) => (b < 0n ? -a : b === 0n ? 0n : a)],
  PABSD: [32, true, (_, b) => (b < 0n ? -b : b)],
  PAND: [64, false, (a, b) => a & b],
  PANDN: [64, false, (a, b) => ~a & b],
  PXOR: [64, false, (a, b) => a ^ b],
};

/** Pairs of elements of the first width make one of twice that width. */
const PAIRWISE: Readonly<
  Record<string, readonly [number, boolean, boolean, (a: bigint[], b: bigint[]) => bigint]>
> = {
  PMADDWD: [16, true, true, ([a, c], [b, d]) => a! * b! + c! * d!],
  PMADDUBSW: [8, false, true, ([a, c], [b, d]) => signedRange(a! * b! + c! * d!, 16n)],
  PMULUDQ: [32, false, false, ([a], [b]) => a! * b!],
};

const driver = new Driver([
  ...Object.keys(ELEMENTWISE),
  ...Object.keys(PAIRWISE),
  "PSADBW",
  "PACKUSWB",
  "PSHUFB",
  "PSRLW",
  "PSRAD",
  "PSLLDQ",
  "PSHUFD",
  "PALIGNR",
  "PTEST",
  "PHMINPOSUW",
]);

function inputs(rng: Rng, isMmx: boolean): readonly [Uint8Array, Uint8Array] {
  const a = randomVector(rng, null);
  const b = randomVector(rng, a);
  return isMmx ? [a.subarray(0, 8), b.subarray(0, 8)] : [a, b];
}

function check(mnemonic: string, expected: (a: Uint8Array, b: Uint8Array) => Uint8Array): void {
  const rng = new Rng(3);
  for (let i = 0; i < 60; i++) {
    const isMmx =
      i % 3 === 0 && ROWS.some((r) => r.mnemonic === mnemonic && r.operands[0] === "Pq");
    const inMemory = i % 2 === 0;
    const [a, b] = inputs(rng, isMmx);
    driver.reset();
    const set = (n: number, v: Uint8Array): void =>
      isMmx ? driver.setMmx(n, v) : driver.setXmm(n, v);
    set(1, a);
    if (inMemory) driver.setMemory(b);
    else set(2, b);
    assert.equal(driver.run(`${isMmx ? "mmx " : ""}${mnemonic}${inMemory ? " mem" : ""}`), -1);
    const r = isMmx ? driver.mmx(1).subarray(0, 8) : driver.xmm(1);
    assert.deepEqual(r, expected(a, b), `${mnemonic} of ${a} and ${b}`);
  }
}

test("element by element, packed arithmetic is what the SDM's pseudocode says, on XMM and MMX registers", () => {
  for (const [mnemonic, [bits, signed, element]] of Object.entries(ELEMENTWISE)) {
    check(mnemonic, (a, b) => {
      const [x, y] = [unpack(a, bits, signed), unpack(b, bits, signed)];
      return pack(
        x.map((v, i) => element(v, y[i]!, BigInt(bits))),
        bits,
      );
    });
  }
});

test("products of neighbours are added at twice the width", () => {
  for (const [mnemonic, [bits, signedA, signedB, pair]] of Object.entries(PAIRWISE)) {
    check(mnemonic, (a, b) => {
      const [x, y] = [unpack(a, bits, signedA), unpack(b, bits, signedB)];
      const out = [];
      for (let i = 0; i < x.length; i += 2) out.push(pair(x.slice(i, i + 2), y.slice(i, i + 2)));
      return pack(out, 2 * bits);
    });
  }
});

test("PSADBW sums eight differences, PACKUSWB saturates, PSHUFB zeroes by the top bit", () => {
  check("PSADBW", (a, b) => {
    const sums = [];
    for (let i = 0; i < a.length; i += 8) {
      let sum = 0;
      for (let k = i; k < i + 8; k++) sum += Math.abs(a[k]! - b[k]!);
      sums.push(BigInt(sum));
    }
    return pack(sums, 64);
  });
  check("PACKUSWB", (a, b) =>
    pack(
      [...unpack(a, 16, true), ...unpack(b, 16, true)].map((n) => unsignedRange(n, 8n)),
      8,
    ),
  );
  check("PSHUFB", (a, b) => b.map((n) => (n & 0x80 ? 0 : a[n & (a.length - 1)]!)));
});

test("shift counts beyond the element give zeros or signs, byte shifts and shuffles follow the immediate", () => {
  const rng = new Rng(5);
  for (const count of [0, 1, 7, 15, 16, 17, 31, 32, 255, 256]) {
    const [a] = inputs(rng, false);
    const by = pack([BigInt(count), 0x1234n], 64);
    const run = (mnemonic: string, options = {}): Uint8Array => {
      driver.setXmm(1, a);
      driver.setXmm(2, by);
      assert.equal(driver.run(mnemonic, options), -1);
      return driver.xmm(1);
    };
    driver.reset();
    assert.deepEqual(
      run("PSRLW"),
      pack(
        unpack(a, 16, false).map((n) => n >> BigInt(count)),
        16,
      ),
    );
    assert.deepEqual(
      run("PSRAD"),
      pack(
        unpack(a, 32, true).map((n) => n >> BigInt(count)),
        32,
      ),
    );
    const imm = count & 0xff;
    // The byte shifts have their register in ModRM.rm.
    driver.setXmm(2, a);
    driver.run("PSLLDQ", { imm });
    assert.deepEqual(
      driver.xmm(2),
      a.map((_, k) => (k >= imm ? a[k - imm]! : 0)),
    );
    const joined = [...by, ...a];
    assert.deepEqual(
      run("PALIGNR", { imm }),
      a.map((_, i) => joined[i + imm] ?? 0),
    );
    driver.setXmm(2, a);
    driver.run("PSHUFD", { imm });
    const dwords = unpack(a, 32, false);
    assert.deepEqual(
      driver.xmm(1),
      pack(
        [0, 1, 2, 3].map((i) => dwords[(imm >> (2 * i)) & 3]!),
        32,
      ),
    );
  }
});

test("PHMINPOSUW finds the first of the least words, PTEST sets ZF and CF only", () => {
  driver.reset();
  driver.setXmm(2, pack([9n, 5n, 0xffffn, 5n, 7n, 5n, 8n, 6n], 16));
  driver.run("PHMINPOSUW");
  assert.deepEqual(driver.xmm(1), pack([5n, 1n, 0n, 0n, 0n, 0n, 0n, 0n], 16));
  const flagsOf = (a: bigint, b: bigint): number => {
    driver.bench.setFlags(0x8d5);
    driver.setXmm(1, pack([a, 0n], 64));
    driver.setXmm(2, pack([b, 0n], 64));
    driver.run("PTEST");
    return driver.bench.flags();
  };
  assert.deepEqual(
    [flagsOf(1n, 2n), flagsOf(3n, 2n), flagsOf(3n, 6n), flagsOf(0n, 0n)],
    [0x40, 1, 0, 0x41],
  );
});

test("every row of the SIMD features has a meaning", () => {
  const features = new Set([
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "ssse3",
    "sse4_1",
    "sse4_2",
    "aes",
    "pclmulqdq",
  ]);
  const missing = ROWS.filter((r) => features.has(r.feature) && !SIMD[r.sem]).map(
    (r) => r.mnemonic,
  );
  assert.deepEqual(missing, []);
});

test("a 16-byte operand of PADDB must be aligned", () => {
  driver.reset();
  assert.equal(driver.run("PADDB mem", { at: DATA + 1 }), 13);
  assert.equal(driver.run("mmx PADDB mem", { at: DATA + 1 }), -1);
});
