import assert from "node:assert/strict";
import { test } from "node:test";
import { S } from "../../state/layout.ts";
import { Driver } from "./testing/driver.ts";
import { slot } from "./testing/harness.ts";
import { DOUBLES, Rng, randomVector } from "./testing/values.ts";

const driver = new Driver([
  "CVTSD2SI",
  "CVTTSD2SI",
  "CVTPS2DQ",
  "CVTTPD2DQ",
  "CVTSI2SS",
  "CVTSD2SS",
  "CVTSS2SD",
  "CVTPI2PS",
  "ROUNDSD",
  "ROUNDPS",
  "MINSD",
  "MAXPS",
  "CMPSD",
  "CMPPS",
  "COMISD",
  "UCOMISD",
  "RCPPS",
  "RSQRTPS",
]);
const { view } = driver.bench;
const DE = 2;
const IE = 1;
const PE = 0x20;
const MASKED = 0x1f80;

const singles = (...v: number[]): Uint8Array => new Uint8Array(new Float32Array(v).buffer);
const ROUNDERS = [
  (x: number) => {
    const down = Math.floor(x);
    const rest = x - down;
    const r = rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
    return r === 0 && 1 / x < 0 ? -0 : r;
  },
  Math.floor,
  Math.ceil,
  Math.trunc,
];

test("CVTSD2SI and CVTTSD2SI round, and answer the indefinite integer with IE for what does not fit", () => {
  for (const bits of DOUBLES) {
    for (const mode of [0, 1, 2, 3]) {
      for (const name of ["CVTSD2SI", "CVTTSD2SI"]) {
        driver.reset();
        driver.set(S.MXCSR, MASKED | (mode << 13));
        view.setBigUint64(slot.xmm(2), bits, true);
        const x = view.getFloat64(slot.xmm(2), true);
        const r = ROUNDERS[name === "CVTTSD2SI" ? 3 : mode]!(x);
        assert.equal(driver.run(name), -1);
        const fits = r >= -(2 ** 31) && r < 2 ** 31;
        assert.equal(driver.gpr(1), fits ? BigInt(r >>> 0) : 0x8000_0000n, `${name} ${x} ${mode}`);
        assert.equal(
          driver.get(S.MXCSR) & 0x3f,
          fits ? (r === x ? 0 : PE) : IE,
          `${name} ${x} flags`,
        );
      }
    }
  }
});

test("packed conversions to integers treat every element by itself", () => {
  driver.reset();
  driver.setXmm(2, singles(1.5, -2.5, 2 ** 31, Number.NaN));
  driver.run("CVTPS2DQ");
  assert.deepEqual(
    new Int32Array(driver.xmm(1).buffer),
    Int32Array.of(2, -2, -(2 ** 31), -(2 ** 31)),
  );
  assert.equal(driver.get(S.MXCSR), MASKED | IE | PE);
  driver.setXmm(2, new Uint8Array(new Float64Array([-7.9, 1e10]).buffer));
  driver.run("CVTTPD2DQ");
  assert.deepEqual(new Int32Array(driver.xmm(1).buffer), Int32Array.of(-7, -(2 ** 31), 0, 0));
});

test("conversions to binary32 round by MXCSR and set UE, OE, PE", () => {
  const narrow = (x: number, mxcsr: number): readonly [number, number] => {
    driver.reset();
    driver.set(S.MXCSR, mxcsr);
    view.setFloat64(slot.xmm(2), x, true);
    driver.run("CVTSD2SS");
    return [view.getUint32(slot.xmm(1), true), driver.get(S.MXCSR) & 0x3f];
  };
  assert.deepEqual(narrow(1 + 2 ** -24, MASKED), [0x3f80_0000, PE]);
  assert.deepEqual(narrow(1 + 2 ** -24, MASKED | 0x4000), [0x3f80_0001, PE]);
  assert.deepEqual(narrow(1e300, MASKED), [0x7f80_0000, 8 | PE]);
  assert.deepEqual(narrow(1e300, MASKED | 0x6000), [0x7f7f_ffff, 8 | PE]);
  assert.deepEqual(narrow(2 ** -149, MASKED), [1, 0]);
  assert.deepEqual(narrow(1.5 * 2 ** -149, MASKED), [2, 0x10 | PE]);
  assert.deepEqual(narrow(2 ** -149, MASKED | 0x8000), [0, 0x10 | PE]);
  driver.reset();
  driver.setGpr(2, 0x0100_0001n);
  driver.run("CVTSI2SS");
  assert.equal(view.getFloat32(slot.xmm(1), true), 0x0100_0000);
  assert.equal(driver.get(S.MXCSR), MASKED | PE);
});

test("CVTSS2SD keeps NaN payloads, quiets, and reports denormals", () => {
  driver.reset();
  view.setUint32(slot.xmm(2), 0xff81_2345, true);
  driver.run("CVTSS2SD");
  assert.equal(view.getBigUint64(slot.xmm(1), true), 0xfff8_2468_a000_0000n);
  assert.equal(driver.get(S.MXCSR), MASKED | IE);
  driver.reset();
  view.setUint32(slot.xmm(2), 1, true);
  driver.run("CVTSS2SD");
  assert.equal(view.getFloat64(slot.xmm(1), true), 2 ** -149);
  assert.equal(driver.get(S.MXCSR), MASKED | DE);
});

test("ROUNDSD rounds by its immediate or by MXCSR and can keep PE quiet", () => {
  for (const x of [2.5, -2.5, 0.3, -0.3, 7, 1e300, -0, 2251799813685249.5]) {
    for (let imm = 0; imm < 16; imm++) {
      driver.reset();
      driver.set(S.MXCSR, MASKED | 0x4000);
      view.setFloat64(slot.xmm(2), x, true);
      driver.run("ROUNDSD", { imm });
      const r = ROUNDERS[imm & 4 ? 2 : imm & 3]!(x);
      assert.equal(view.getFloat64(slot.xmm(1), true), r, `${x} ${imm}`);
      assert.equal(driver.get(S.MXCSR) & 0x3f, r === x || imm & 8 ? 0 : PE);
    }
  }
});

test("MIN and MAX answer the second operand for NaNs and equal zeros, and a NaN is IE", () => {
  const minimum = (a: number, b: number): readonly [number, number] => {
    driver.reset();
    view.setFloat64(slot.xmm(1), a, true);
    view.setFloat64(slot.xmm(2), b, true);
    driver.run("MINSD");
    return [view.getFloat64(slot.xmm(1), true), driver.get(S.MXCSR) & 0x3f];
  };
  assert.deepEqual(minimum(0, -0), [-0, 0]);
  assert.deepEqual(minimum(-0, 0), [0, 0]);
  assert.deepEqual(minimum(Number.NaN, 3), [3, IE]);
  assert.deepEqual(minimum(3, Number.NaN), [Number.NaN, IE]);
  assert.deepEqual(minimum(1, 5e-324), [5e-324, DE]);
});

test("comparisons: eight predicates, which of them signal on a quiet NaN, and the flags of COMISD and UCOMISD", () => {
  const less = [0, -1, -1, 0, -1, 0, 0, -1];
  const unordered = [0, 0, 0, -1, -1, -1, -1, 0];
  const signals = [0, IE, IE, 0, 0, IE, IE, 0];
  for (let imm = 0; imm < 8; imm++) {
    driver.reset();
    driver.setXmm(1, singles(1, Number.NaN, 1, 1));
    driver.setXmm(2, singles(2, 2, 2, 2));
    driver.run("CMPPS", { imm });
    const r = new Int32Array(driver.xmm(1).buffer);
    assert.deepEqual([...r], [less[imm], unordered[imm], less[imm], less[imm]], `predicate ${imm}`);
    assert.equal(driver.get(S.MXCSR) & 0x3f, signals[imm]);
  }
  for (const [a, b, image] of [
    [1, 2, 1],
    [2, 1, 0],
    [1, 1, 0x40],
    [1, Number.NaN, 0x45],
  ] as const) {
    for (const name of ["COMISD", "UCOMISD"]) {
      driver.reset();
      driver.bench.setFlags(0x8d5);
      view.setFloat64(slot.xmm(1), a, true);
      view.setFloat64(slot.xmm(2), b, true);
      driver.run(name);
      assert.equal(driver.bench.flags(), image);
      assert.equal(driver.get(S.MXCSR) & 0x3f, name === "COMISD" && image === 0x45 ? IE : 0);
    }
  }
});

test("RCPPS and RSQRTPS are within 1.5 * 2^-12, and special operands give what the SDM lists", () => {
  const rng = new Rng(4);
  for (let i = 0; i < 500; i++) {
    driver.reset();
    driver.setXmm(2, randomVector(rng, null));
    const x = new Float32Array(driver.xmm(2).buffer);
    for (const [name, exact] of [
      ["RCPPS", (v: number) => 1 / v],
      ["RSQRTPS", (v: number) => 1 / Math.sqrt(v)],
    ] as const) {
      driver.run(name);
      const r = new Float32Array(driver.xmm(1).buffer);
      x.forEach((v, k) => {
        const least = 2 ** -126;
        const operand = Math.abs(v) < least ? 0 * v : v;
        const e = exact(operand);
        if (Number.isNaN(e)) assert.ok(Number.isNaN(r[k]));
        else if (Math.abs(e) < 2 * least || !Number.isFinite(e))
          assert.ok(r[k] === e || Math.abs(r[k]! - e) < 2 * least);
        else assert.ok(Math.abs(r[k]! - e) <= Math.abs(e) * 1.5 * 2 ** -12, `${name} ${v}`);
      });
    }
    assert.equal(driver.get(S.MXCSR), MASKED);
  }
});
