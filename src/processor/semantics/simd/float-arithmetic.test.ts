import assert from "node:assert/strict";
import { test } from "node:test";
import { S } from "../../state/layout.ts";
import { F32, F64, type Format } from "./float-format.ts";
import { Driver } from "./testing/driver.ts";
import { slot } from "./testing/harness.ts";
import { reference } from "./testing/reference-float.ts";
import { Rng, randomVector } from "./testing/values.ts";

const NAMES = ["add", "sub", "mul", "div", "sqrt"] as const;
const SUFFIXES = ["SS", "SD", "PS", "PD"] as const;
const driver = new Driver([
  ...NAMES.flatMap((n) => SUFFIXES.map((s) => n.toUpperCase() + s)),
  "ADDSUBPS",
  "HADDPD",
  "DPPS",
]);

function read(f: Format, at: number): bigint {
  const { view } = driver.bench;
  return f.bits === 64 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
}

/** All exceptions masked; rounding, DAZ, FTZ and sticky flags vary. */
function mxcsrOf(rng: Rng): number {
  return (
    0x1f80 |
    (rng.below(4) << 13) |
    rng.pick([0, 0, 0x40, 0x8000, 0x8040]) |
    rng.pick([0, 0x20, 0x3f])
  );
}

test("arithmetic rounds, flags and propagates NaNs as IEEE 754 and the SDM say, in every rounding mode", () => {
  const rng = new Rng(7);
  for (let i = 0; i < 3000; i++) {
    const name = rng.pick(NAMES);
    const suffix = rng.pick(SUFFIXES);
    const f = suffix.endsWith("S") ? F32 : F64;
    const lanes = suffix.startsWith("S") ? 1 : 128 / f.bits;
    driver.reset();
    const a = randomVector(rng, null);
    const b = randomVector(rng, a);
    driver.setXmm(1, a);
    driver.setXmm(2, b);
    const mxcsr = mxcsrOf(rng);
    driver.set(S.MXCSR, mxcsr);
    const expected = Array.from({ length: lanes }, (_, k) => {
      const at = k * f.bytes;
      const [x, y] = [read(f, slot.xmm(1) + at), read(f, slot.xmm(2) + at)];
      return name === "sqrt" ? reference(f, name, y, y, mxcsr) : reference(f, name, x, y, mxcsr);
    });
    assert.equal(driver.run(name.toUpperCase() + suffix), -1);
    const text = `${name}${suffix} ${Buffer.from(a).toString("hex")} ${Buffer.from(b).toString("hex")} ${mxcsr.toString(16)}`;
    const actual = expected.map((_, k) => read(f, slot.xmm(1) + k * f.bytes));
    assert.deepEqual(
      actual,
      expected.map((e) => e.bits),
      text,
    );
    const flags = expected.reduce((all, e) => all | e.flags, mxcsr);
    assert.equal(driver.get(S.MXCSR).toString(16), flags.toString(16), text);
    const rest = lanes * f.bytes;
    assert.deepEqual(
      driver.xmm(1).subarray(rest),
      a.subarray(rest),
      "the rest of the register stays",
    );
  }
});

test("an unmasked exception is #XM, or #UD without CR4.OSXMMEXCPT, and writes nothing", () => {
  const ones = new Uint8Array(new Float32Array([1, 1, 1, 1]).buffer);
  const divisors = new Uint8Array(new Float32Array([3, 0, 1, 1]).buffer);
  for (const [cr4, vector] of [
    [0x620, 19],
    [0x220, 6],
  ] as const) {
    driver.reset();
    driver.set(S.CR4, cr4);
    driver.set(S.MXCSR, 0x1d80);
    driver.setXmm(1, ones);
    driver.setXmm(2, divisors);
    assert.equal(driver.run("DIVPS"), vector);
    assert.deepEqual(driver.xmm(1), ones);
    // An exception before the computation hides those after it: no PE of the first element.
    assert.equal(driver.get(S.MXCSR), 0x1d84);
  }
});

test("horizontal sums, alternating sums and dot products take their elements from the right places", () => {
  const doubles = (...v: number[]) => new Uint8Array(new Float64Array(v).buffer);
  const singles = (...v: number[]) => new Uint8Array(new Float32Array(v).buffer);
  driver.reset();
  driver.setXmm(1, doubles(1, 2));
  driver.setXmm(2, doubles(10, 20));
  driver.run("HADDPD");
  assert.deepEqual(driver.xmm(1), doubles(3, 30));
  driver.setXmm(1, singles(1, 2, 3, 4));
  driver.setXmm(2, singles(10, 20, 30, 40));
  driver.run("ADDSUBPS");
  assert.deepEqual(driver.xmm(1), singles(-9, 22, -27, 44));
  driver.setXmm(1, singles(1, 2, 3, 4));
  driver.run("DPPS", { imm: 0xb5 });
  assert.deepEqual(driver.xmm(1), singles(210, 0, 210, 0));
});
