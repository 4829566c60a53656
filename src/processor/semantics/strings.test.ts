import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Mode, S, Seg, Status } from "../state/layout.ts";
import { Flag } from "./flags.ts";
import { STRINGS } from "./strings.ts";
import { Bench, type BenchEntry, DEVICE_PAGE } from "./test-bench.ts";

const SIZES = [1, 2, 4, 8] as const;
const [RAX, RCX, RSI, RDI] = [0, 1, 6, 7];
const REP = 0xf3;
const REPNE = 0xf2;
/** One byte past the RAM of the bench. */
const END = 0x1_0000;

const entries: Record<string, BenchEntry> = {};
for (const [key, semantics] of Object.entries(STRINGS)) {
  for (const bytes of SIZES) {
    for (const rep of [0, REP, REPNE]) {
      const m = { kind: "m", bytes } as const;
      const r = { kind: "r", bytes } as const;
      const operands = key === "stos" ? [m, r] : key === "lods" || key === "scas" ? [r, m] : [m, m];
      const common = { semantics, operands, rep };
      for (const addrSize of [4, 8] as const) {
        entries[`${key}${bytes} ${rep} ${addrSize}`] = { ...common, addrSize };
      }
      for (const addrSize of [2, 4] as const) {
        const legacy = { ...common, addrSize, mode: Mode.CODE32 };
        entries[`${key}${bytes} ${rep} ${addrSize} legacy`] = legacy;
      }
    }
  }
}
const bench = new Bench(entries);

interface Case {
  readonly key: string;
  readonly bytes: 1 | 2 | 4 | 8;
  readonly rep: number;
  readonly down: boolean;
  readonly source: number;
  readonly destination: number;
  readonly count: number;
  readonly accumulator: bigint;
}

/** The manual's loop, an element at a time, over a copy of RAM. */
function reference(c: Case, ram: Uint8Array) {
  const view = new DataView(ram.buffer, ram.byteOffset, ram.length);
  const read = (at: number): bigint => {
    let v = 0n;
    for (let i = c.bytes - 1; i >= 0; i--) v = (v << 8n) | BigInt(view.getUint8(at + i));
    return v;
  };
  const write = (at: number, v: bigint): void => {
    for (let i = 0; i < c.bytes; i++) view.setUint8(at + i, Number((v >> BigInt(8 * i)) & 0xffn));
  };
  const mask = (1n << BigInt(8 * c.bytes)) - 1n;
  const step = c.down ? -c.bytes : c.bytes;
  let [si, di, left, acc] = [c.source, c.destination, c.rep === 0 ? 1 : c.count, c.accumulator];
  let flags: number | null = null;
  while (left > 0) {
    if (c.key === "movs") write(di, read(si));
    if (c.key === "stos") write(di, acc & mask);
    if (c.key === "lods") acc = c.bytes >= 4 ? read(si) : (acc & ~mask) | read(si);
    if (c.key === "cmps" || c.key === "scas") {
      const a = c.key === "cmps" ? read(si) : acc & mask;
      const b = read(di);
      flags = (a === b ? Flag.ZF : 0) | (a < b ? Flag.CF : 0);
    }
    if (c.key !== "stos" && c.key !== "scas") si += step;
    if (c.key !== "lods") di += step;
    left--;
    if (flags !== null && c.rep !== 0 && ((flags & Flag.ZF) !== 0) !== (c.rep === REP)) break;
  }
  return { si, di, left: c.rep === 0 ? c.count : left, acc, flags };
}

function load(c: Case): void {
  bench.setGpr(RAX, c.accumulator);
  bench.setGpr(RCX, BigInt(c.count));
  bench.setGpr(RSI, BigInt(c.source));
  bench.setGpr(RDI, BigInt(c.destination));
  bench.set(S.RFLAGS_REST, c.down ? 2 | Flag.DF : 2);
}

function check(c: Case, suffix: string): void {
  const before = bench.ram(0, END).slice();
  load(c);
  const expected = reference(c, before);
  assert.equal(bench.runThrough(`${c.key}${c.bytes} ${c.rep} ${suffix}`), Status.NEXT);
  assert.equal(bench.gpr(RSI), BigInt(expected.si), "RSI");
  assert.equal(bench.gpr(RDI), BigInt(expected.di), "RDI");
  assert.equal(bench.gpr(RCX), BigInt(expected.left), "RCX");
  assert.equal(bench.gpr(RAX), expected.acc, "RAX");
  if (expected.flags !== null) assert.equal(bench.flags() & (Flag.ZF | Flag.CF), expected.flags);
  assert.ok(Buffer.compare(bench.ram(0, END), before) === 0, "memory");
}

const MIDDLE = 0x8000;
const cases = fc.record({
  bytes: fc.constantFrom(...SIZES),
  rep: fc.constantFrom(0, REP, REPNE),
  down: fc.boolean(),
  source: fc.integer({ min: MIDDLE - 0x900, max: MIDDLE + 0x900 }),
  distance: fc.oneof(fc.integer({ min: -40, max: 40 }), fc.integer({ min: -0x1800, max: 0x1800 })),
  count: fc.oneof(fc.nat(20), fc.nat(0x600)),
  accumulator: fc.constantFrom(0n, 0x0101_0101_0101_0101n, 0x8877_6655_4433_2211n),
  pattern: fc.constantFrom("random", "equal", "nearly equal"),
});

function fillRam(pattern: string): void {
  const ram = bench.ram(0, END);
  for (let i = 0; i < END; i++) ram[i] = pattern === "random" ? (i * 73) ^ (i >> 5) : 1;
  if (pattern === "nearly equal") ram[0x8123] = 2;
}

for (const key of Object.keys(STRINGS)) {
  test(`${key.toUpperCase()} is its loop of elements, whatever overlaps, direction and address size`, () => {
    fc.assert(
      fc.property(cases, ({ pattern, distance, ...c }) => {
        for (const suffix of ["8", "4", "4 legacy", "2 legacy"]) {
          bench.reset();
          if (suffix.endsWith("legacy")) bench.enterLegacy(Mode.CODE32, true);
          fillRam(pattern);
          check({ ...c, key, destination: c.source + distance }, suffix);
        }
      }),
      { numRuns: 60 },
    );
  });
}

test("A repeat count of zero does nothing, not even zero-extend the index registers", () => {
  bench.reset();
  bench.setGpr(RCX, 0x5_0000_0000n);
  bench.setGpr(RSI, 0x7_0000_1234n);
  assert.equal(bench.run("movs1 243 4"), Status.NEXT);
  assert.equal(bench.gpr(RCX), 0x5_0000_0000n);
  assert.equal(bench.gpr(RSI), 0x7_0000_1234n);
});

test("Index registers wrap at the address size: 32 bits clear the upper half, 16 bits keep the rest", () => {
  bench.reset();
  bench.setGpr(RSI, 0x7_0000_1234n);
  bench.setGpr(RDI, 0x9_0000_2000n);
  bench.setGpr(RCX, 0x5_0000_0003n);
  bench.runThrough("movs1 243 4");
  assert.deepEqual([bench.gpr(RCX), bench.gpr(RSI), bench.gpr(RDI)], [0n, 0x1237n, 0x2003n]);
  bench.enterLegacy(Mode.CODE32, true);
  bench.setGpr(RSI, 0xabcd_0000n);
  bench.setGpr(RDI, 0xabcd_fffen);
  bench.setGpr(RCX, 0xabcd_0004n);
  bench.runThrough("movs1 243 2 legacy");
  assert.deepEqual(
    [bench.gpr(RCX), bench.gpr(RSI), bench.gpr(RDI)],
    [0xabcd_0000n, 0xabcd_0004n, 0xabcd_0002n],
  );
});

test("A long copy gives way to interrupts every few pages, at an element", () => {
  bench.reset();
  fillRam("random");
  bench.setGpr(RSI, 1n);
  bench.setGpr(RDI, 0x8002n);
  bench.setGpr(RCX, 0x7000n);
  assert.equal(bench.run("movs1 243 8"), Status.REPEAT);
  const done = 0x7000 - Number(bench.gpr(RCX));
  assert.ok(done > 0 && done <= 3 * 4096, `${done} bytes in one call`);
  assert.equal(bench.gpr(RSI), BigInt(1 + done));
  assert.equal(bench.gpr(RDI), BigInt(0x8002 + done));
});

test("A fault in the middle leaves the registers at the element that faulted", () => {
  for (const [key, rest] of [
    ["movs", 3],
    ["stos", 3],
  ] as const) {
    bench.reset();
    fillRam("random");
    bench.setGpr(RSI, 0x100n);
    bench.setGpr(RDI, BigInt(END - 4 * 100 - 2));
    bench.setGpr(RCX, BigInt(100 + rest));
    assert.equal(bench.runThrough(`${key}4 243 8`), Status.FAULT);
    assert.equal(bench.gpr(RCX), BigInt(rest));
    assert.equal(bench.gpr(RDI), BigInt(END - 2));
    assert.deepEqual(
      [...bench.ram(END - 2, 2)],
      [((END - 2) * 73) ^ ((END - 2) >> 5), ((END - 1) * 73) ^ ((END - 1) >> 5)].map(
        (v) => v & 0xff,
      ),
    );
  }
});

test("CMPS over a source that faults keeps the elements before it", () => {
  bench.reset();
  bench.setGpr(RSI, BigInt(END - 16));
  bench.setGpr(RDI, 0x100n);
  bench.setGpr(RCX, 100n);
  assert.equal(bench.runThrough("cmps4 243 8"), Status.FAULT);
  assert.deepEqual([bench.gpr(RCX), bench.gpr(RSI), bench.gpr(RDI)], [96n, BigInt(END), 0x110n]);
});

test("Each element written to a device ends the handler, so that the write is carried out", () => {
  bench.reset();
  bench.setGpr(RAX, 0x1234_5678n);
  bench.setGpr(RDI, BigInt(DEVICE_PAGE + 0x10));
  bench.setGpr(RCX, 3n);
  for (let i = 1; i <= 3; i++) {
    assert.equal(bench.run("stos4 243 8"), Status.REPEAT);
    assert.equal(bench.get(S.DEVICE_WRITE_COUNT), 1);
    assert.equal(bench.gpr(RCX), BigInt(3 - i));
    assert.equal(bench.gpr(RDI), BigInt(DEVICE_PAGE + 0x10 + 4 * i));
    assert.notEqual(bench.get(S.SLOW), 0);
    bench.set(S.DEVICE_WRITE_COUNT, 0);
  }
  assert.equal(bench.run("stos4 243 8"), Status.NEXT);
});

test("Elements read from a device exit one by one and use up their answers", () => {
  bench.reset();
  bench.setGpr(RSI, BigInt(DEVICE_PAGE));
  bench.setGpr(RDI, 0x200n);
  bench.setGpr(RCX, 2n);
  for (let i = 0; i < 2; i++) {
    assert.equal(bench.run("movs2 243 8"), Status.FAULT, "a VM exit is pending");
    assert.equal(bench.gpr(RSI), BigInt(DEVICE_PAGE + 2 * i));
    bench.view.setBigUint64(0x2000, BigInt(0x1111 * (i + 1)), true);
    bench.set(S.DEVICE_REPLY_COUNT, 1);
    bench.set(S.DEVICE_REPLY_NEXT, 0);
  }
  assert.equal(bench.run("movs2 243 8"), Status.NEXT);
  assert.deepEqual([...bench.ram(0x200, 4)], [0x11, 0x11, 0x22, 0x22]);
  assert.equal(bench.get(S.DEVICE_REPLY_COUNT), 0);
});

test("A segment limit stops a repeated string at the first element outside", () => {
  bench.reset();
  bench.enterLegacy(Mode.CODE32, true);
  bench.set(S.MODE, Mode.CODE32 | Mode.STACK32);
  bench.setSegment(Seg.ES, 0x1000n, 0x7f, 0xc093);
  bench.setGpr(RAX, 0xeen);
  bench.setGpr(RCX, 0x100n);
  bench.setGpr(RDI, 0x10n);
  assert.equal(bench.runThrough("stos1 243 4 legacy"), Status.FAULT);
  assert.equal(bench.gpr(RDI), 0x80n);
  assert.equal(bench.ram(0x107f, 1)[0], 0xee);
  assert.equal(bench.ram(0x1080, 1)[0], 0);
});

test("A source segment with a base is followed across the wrap of a 32-bit address", () => {
  bench.reset();
  bench.setGpr(RDI, 0x4000n);
  bench.setGpr(RCX, 4n);
  // After the wrap the base alone is the address, and that is not canonical.
  bench.setGpr(RSI, 0xffff_fffcn);
  bench.setSourceBase(0xffff_7fff_0000_0800n);
  bench.ram(0x7fc, 4).set([1, 2, 3, 4]);
  assert.equal(bench.run("movs2 243 4"), Status.FAULT);
  assert.deepEqual([...bench.ram(0x4000, 6)], [1, 2, 3, 4, 0, 0]);
  assert.deepEqual([bench.gpr(RCX), bench.gpr(RSI)], [2n, 0n]);
});
