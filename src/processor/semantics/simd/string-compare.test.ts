import assert from "node:assert/strict";
import { test } from "node:test";
import { Driver } from "./testing/driver.ts";
import { Rng, randomVector } from "./testing/values.ts";

const driver = new Driver(["PCMPESTRI", "PCMPESTRM", "PCMPISTRI", "PCMPISTRM"]);

interface Answer {
  readonly bits: number;
  readonly flags: number;
  readonly count: number;
}

/** SDM Vol. 1, "Comparison and Aggregation", as the comparison matrix it describes. */
function reference(
  a: number[],
  b: number[],
  lengthA: number,
  lengthB: number,
  imm: number,
): Answer {
  const count = a.length;
  const validA = (i: number): boolean => i < lengthA;
  const validB = (j: number): boolean => j < lengthB;
  const mode = (imm >> 2) & 3;
  let bits = 0;
  for (let j = 0; j < count; j++) {
    let r = false;
    if (mode === 0) for (let i = 0; i < count; i++) r ||= validA(i) && validB(j) && a[i] === b[j];
    if (mode === 1) {
      for (let i = 0; i + 1 < count; i += 2) {
        r ||= validA(i + 1) && validB(j) && b[j]! >= a[i]! && b[j]! <= a[i + 1]!;
      }
    }
    if (mode === 2) r = validA(j) === validB(j) && (!validA(j) || a[j] === b[j]);
    if (mode === 3) {
      r = true;
      for (let i = 0; i + j < count; i++) r &&= !validA(i) || (validB(i + j) && a[i] === b[i + j]);
    }
    if (imm & 0x10 && (!(imm & 0x20) || validB(j))) r = !r;
    if (r) bits |= 1 << j;
  }
  const flags =
    (bits ? 1 : 0) |
    (lengthB < count ? 0x40 : 0) |
    (lengthA < count ? 0x80 : 0) |
    (bits & 1 ? 0x800 : 0);
  return { bits, flags, count };
}

function elementsOf(v: Uint8Array, imm: number): number[] {
  const view = new DataView(v.buffer, v.byteOffset, 16);
  const read = [
    (i: number) => view.getUint8(i),
    (i: number) => view.getUint16(2 * i, true),
    (i: number) => view.getInt8(i),
    (i: number) => view.getInt16(2 * i, true),
  ][imm & 3]!;
  return Array.from({ length: imm & 1 ? 8 : 16 }, (_, i) => read(i));
}

function checkAnswer(name: string, imm: number, r: Answer): void {
  assert.equal(driver.bench.flags(), r.flags, `flags of ${name} ${imm}`);
  if (name.endsWith("I")) {
    const index =
      r.bits === 0
        ? r.count
        : imm & 0x40
          ? 31 - Math.clz32(r.bits)
          : 31 - Math.clz32(r.bits & -r.bits);
    assert.equal(driver.gpr(1), BigInt(index), `index of ${name} ${imm}`);
    return;
  }
  const expected = new Uint8Array(16);
  const width = 16 / r.count;
  if (imm & 0x40)
    for (let i = 0; i < 16; i++) expected[i] = (r.bits >> Math.floor(i / width)) & 1 ? 0xff : 0;
  else new DataView(expected.buffer).setUint16(0, r.bits, true);
  assert.deepEqual(driver.xmm(0), expected, `mask of ${name} ${imm}`);
}

test("all aggregations, polarities and outputs agree with the comparison matrix", () => {
  const rng = new Rng(9);
  for (let i = 0; i < 4000; i++) {
    const imm = rng.below(128);
    const explicit = rng.below(2) === 0;
    const name = `PCMP${explicit ? "E" : "I"}STR${rng.pick(["I", "M"])}`;
    const [x, y] = [randomVector(rng, null), randomVector(rng, null)];
    if (rng.below(2)) y.set(x.subarray(0, 4), rng.below(12));
    driver.reset();
    driver.bench.setFlags(0x8d5);
    driver.setXmm(1, x);
    driver.setXmm(2, y);
    const [lengthA, lengthB] = [rng.below(40) - 20, rng.below(40) - 20];
    driver.setGpr(0, BigInt.asUintN(32, BigInt(lengthA)));
    driver.setGpr(2, BigInt.asUintN(32, BigInt(lengthB)));
    driver.setGpr(1, -1n);
    const [a, b] = [elementsOf(x, imm), elementsOf(y, imm)];
    const implicit = (v: number[]): number => (v.includes(0) ? v.indexOf(0) : v.length);
    const lengths = explicit
      ? [lengthA, lengthB].map((n) => Math.min(Math.abs(n), a.length))
      : [implicit(a), implicit(b)];
    assert.equal(driver.run(name, { imm }), -1);
    checkAnswer(name, imm, reference(a, b, lengths[0]!, lengths[1]!, imm));
  }
});
