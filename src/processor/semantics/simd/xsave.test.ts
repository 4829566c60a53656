import assert from "node:assert/strict";
import { test } from "node:test";
import { FPR, S } from "../../state/layout.ts";
import { Driver } from "./testing/driver.ts";
import { DATA } from "./testing/harness.ts";

const driver = new Driver([
  "FXSAVE",
  "FXRSTOR",
  "FXSAVE64",
  "XSAVE",
  "XSAVEOPT",
  "XSAVEC",
  "XSAVES",
  "XRSTOR",
  "XRSTORS",
  "XGETBV",
]);
const GP = 13;
const UD = 6;
const XSTATE_BV = DATA + 512;
const XCOMP_BV = DATA + 520;
const u32 = (at: number): number => driver.bench.view.getUint32(at, true);
const setByte = (at: number, v: number): void => driver.bench.view.setUint8(at, v);

/** Registers with recognizable contents; TOP is 5. */
function fillState(): void {
  driver.reset();
  driver.bench.bytes.fill(0, DATA, DATA + 1024);
  driver.set(S.FSW, 5 << 11);
  driver.set(S.FTAG_EMPTY, 0x1f);
  for (let n = 0; n < 8; n++) driver.bench.bytes.fill(0x10 + n, FPR + 16 * n, FPR + 16 * n + 10);
  for (let n = 0; n < 16; n++) driver.setXmm(n, new Uint8Array(16).fill(0x80 + n));
  driver.set(S.MXCSR, 0x1fa0);
}

function request(components: number): void {
  driver.setGpr(0, BigInt(components));
  driver.setGpr(2, 0n);
}

test("FXSAVE writes the stack from its top, the tags by physical register, and FXRSTOR brings all of it back", () => {
  fillState();
  assert.equal(driver.run("FXSAVE mem"), -1);
  assert.equal(driver.memory(1, DATA + 4)[0], 0xe0);
  assert.equal(driver.memory(1, DATA + 32)[0], 0x15);
  assert.deepEqual(driver.memory(16, DATA + 32).subarray(10), new Uint8Array(6));
  assert.equal(driver.memory(1, DATA + 160 + 16 * 15)[0], 0x8f);
  assert.equal(u32(DATA + 28), 0xffff);
  const before = driver.bench.bytes.slice(0x400, 0x5b0);
  driver.reset();
  assert.equal(driver.run("FXRSTOR mem"), -1);
  assert.deepEqual(driver.bench.bytes.slice(0x400, 0x5b0), before);
});

test("FXRSTOR refuses reserved bits of MXCSR and a misaligned area, and then changes nothing", () => {
  fillState();
  driver.run("FXSAVE mem");
  setByte(DATA + 26, 1);
  driver.reset();
  const before = driver.bench.bytes.slice(0x400, 0x5b0);
  assert.equal(driver.run("FXRSTOR mem"), GP);
  assert.deepEqual(driver.bench.bytes.slice(0x400, 0x5b0), before);
  assert.equal(driver.run("FXSAVE mem", { at: DATA + 8 }), GP);
});

test("XSAVE marks what is in use, XSAVEOPT leaves initial components unwritten", () => {
  driver.reset();
  driver.bench.bytes.fill(0xcc, DATA, DATA + 1024);
  driver.bench.bytes.fill(0, DATA + 512, DATA + 576);
  driver.setXmm(3, new Uint8Array(16).fill(1));
  request(3);
  assert.equal(driver.run("XSAVEOPT mem"), -1);
  assert.equal(u32(XSTATE_BV), 2);
  assert.equal(driver.memory(1, DATA)[0], 0xcc, "x87 was not written");
  assert.equal(driver.memory(1, DATA + 160 + 48)[0], 1);
  assert.equal(driver.run("XSAVE mem"), -1);
  assert.equal(u32(DATA) & 0xffff, 0x37f);
  request(1);
  setByte(XSTATE_BV, 7);
  driver.run("XSAVE mem");
  assert.equal(u32(XSTATE_BV), 6, "bits that were not asked for stay");
});

test("XSAVEC and XSAVES write the compacted header, and MXCSR alone puts SSE in use", () => {
  for (const name of ["XSAVEC mem", "XSAVES mem"]) {
    driver.reset();
    driver.bench.bytes.fill(0, DATA, DATA + 1024);
    driver.set(S.MXCSR, 0x1fa0);
    request(3);
    assert.equal(driver.run(name), -1);
    assert.deepEqual([u32(XSTATE_BV), u32(XCOMP_BV), u32(XCOMP_BV + 4)], [2, 3, 0x8000_0000]);
    assert.equal(u32(DATA + 24), 0x1fa0);
  }
});

test("XRSTOR initializes what the header says is initial, and loads the rest", () => {
  fillState();
  request(3);
  driver.run("XSAVE mem");
  setByte(XSTATE_BV, 1);
  driver.set(S.FCW, 0);
  assert.equal(driver.run("XRSTOR mem"), -1);
  assert.equal(driver.get(S.FCW), 0x37f);
  assert.deepEqual(driver.xmm(7), new Uint8Array(16));
  assert.equal(
    driver.get(S.MXCSR),
    0x1fa0,
    "the standard form loads MXCSR whenever SSE is asked for",
  );
});

test("headers that no save writes are #GP(0); XRSTORS takes the compacted form only", () => {
  fillState();
  request(3);
  driver.run("XSAVE mem");
  assert.equal(driver.run("XRSTORS mem"), GP);
  for (const at of [XSTATE_BV + 7, XCOMP_BV, XCOMP_BV + 8, XCOMP_BV + 15]) {
    setByte(at, 0x10);
    assert.equal(driver.run("XRSTOR mem"), GP, `byte ${at - DATA}`);
    setByte(at, 0);
  }
  driver.run("XSAVEC mem");
  assert.equal(driver.run("XRSTORS mem"), -1);
  setByte(DATA + 575, 1);
  assert.equal(driver.run("XRSTOR mem"), GP);
  assert.equal(driver.run("XSAVE mem", { at: DATA + 32 }), GP);
});

test("XGETBV answers XCR0 and the components in use, and needs CR4.OSXSAVE", () => {
  driver.reset();
  assert.equal(driver.run("XGETBV"), -1);
  assert.equal(driver.gpr(0), 3n);
  driver.setXmm(15, new Uint8Array(16).fill(1));
  driver.setGpr(1, 1n);
  driver.run("XGETBV");
  assert.equal(driver.gpr(0), 2n);
  driver.setGpr(1, 2n);
  assert.equal(driver.run("XGETBV"), GP);
  driver.set(S.CR4, 0x620);
  assert.equal(driver.run("XGETBV"), UD);
});
