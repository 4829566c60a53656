import assert from "node:assert/strict";
import { test } from "node:test";
import { FPR, S } from "../../state/layout.ts";
import { Driver } from "./testing/driver.ts";
import { DATA } from "./testing/harness.ts";

const driver = new Driver([
  "PADDB",
  "ADDPS",
  "MOVAPS",
  "MOVUPS",
  "MOVSS",
  "MOVQ",
  "MOVDQ2Q",
  "EMMS",
  "LDMXCSR",
  "STMXCSR",
  "FXSAVE",
  "MASKMOVDQU",
  "CVTPS2PI",
  "CLFLUSH",
  "MOVNTI",
  "PCMPISTRI",
  "ROUNDPS",
]);
const UD = 6;
const NM = 7;
const GP = 13;
const PF = 14;
const MF = 16;
const CR0 = 0x8000_0033;
const EM = 4;
const TS = 8;
const CR4 = 0x620;
const OSFXSR = 0x200;

test("SSE instructions are #UD with CR0.EM or without CR4.OSFXSR, and #NM with CR0.TS", () => {
  const run = (cr0: number, cr4: number): number => {
    driver.reset();
    driver.set(S.CR0, cr0);
    driver.set(S.CR4, cr4);
    return driver.run("ADDPS");
  };
  assert.equal(run(CR0, CR4), -1);
  assert.equal(run(CR0 | EM, CR4), UD);
  assert.equal(run(CR0, CR4 & ~OSFXSR), UD);
  assert.equal(run(CR0 | TS, CR4), NM);
  assert.equal(run(CR0 | TS | EM, CR4), UD);
});

test("MMX instructions need no OSFXSR, and wait for x87 exceptions", () => {
  const run = (name: string, cr0: number, fcw = 0x37f, fsw = 0): number => {
    driver.reset();
    driver.set(S.CR0, cr0);
    driver.set(S.CR4, CR4 & ~OSFXSR);
    driver.set(S.FCW, fcw);
    driver.set(S.FSW, fsw);
    return driver.run(name);
  };
  for (const name of ["mmx PADDB", "EMMS"]) {
    assert.equal(run(name, CR0), -1);
    assert.equal(run(name, CR0 | EM), UD);
    assert.equal(run(name, CR0 | TS), NM);
    assert.equal(run(name, CR0, 0x37e, 0x8081), MF);
    assert.equal(run(name, CR0, 0x37f, 1), -1);
  }
  assert.equal(run("mmx MOVDQ2Q", CR0), UD);
});

test("an MMX instruction sets TOP to 0 and all tags valid, a write sets sign and exponent to ones; EMMS empties all", () => {
  driver.reset();
  driver.set(S.FSW, 0x2800);
  assert.equal(driver.run("mmx PADDB"), -1);
  assert.equal(driver.get(S.FSW), 0);
  assert.equal(driver.get(S.FTAG_EMPTY), 0);
  assert.equal(driver.bench.view.getUint16(FPR + 16 + 8, true), 0xffff);
  assert.equal(driver.run("EMMS"), -1);
  assert.equal(driver.get(S.FTAG_EMPTY), 0xff);
});

test("a faulting MMX load leaves the x87 state alone", () => {
  driver.reset();
  driver.set(S.FSW, 0x2800);
  assert.equal(driver.run("mmx PADDB mem", { at: 16 }), PF);
  assert.equal(driver.get(S.FSW), 0x2800);
  assert.equal(driver.get(S.FTAG_EMPTY), 0xff);
});

test("aligned forms are #GP(0) on a misaligned operand before any page fault, unaligned and scalar forms are not", () => {
  driver.reset();
  assert.equal(driver.run("MOVAPS mem", { at: DATA + 8 }), GP);
  assert.equal(driver.run("MOVAPS mem", { at: 24 }), GP);
  assert.equal(driver.run("MOVAPS mem", { at: 32 }), PF);
  for (const name of ["MOVUPS mem", "MOVSS mem", "PCMPISTRI mem"]) {
    assert.equal(driver.run(name, { at: DATA + 1 }), -1, name);
  }
  assert.equal(driver.run("ROUNDPS mem", { at: DATA + 4 }), GP);
});

test("scalar loads clear the rest of the register, scalar moves keep it", () => {
  driver.reset();
  const ones = new Uint8Array(16).fill(0xff);
  driver.setXmm(1, ones);
  driver.setXmm(2, new Uint8Array(16).fill(0x11));
  driver.run("MOVSS");
  assert.deepEqual(driver.xmm(1).subarray(0, 5), Uint8Array.of(0x11, 0x11, 0x11, 0x11, 0xff));
  driver.setMemory(Uint8Array.of(1, 2, 3, 4, 5));
  driver.run("MOVSS mem");
  assert.deepEqual(
    driver.xmm(1),
    Uint8Array.from({ length: 16 }, (_, i) => (i < 4 ? i + 1 : 0)),
  );
});

test("LDMXCSR refuses reserved bits and STMXCSR stores what was loaded", () => {
  driver.reset();
  driver.setMemory(Uint8Array.of(0x80, 0x1f, 1, 0));
  assert.equal(driver.run("LDMXCSR mem"), GP);
  driver.setMemory(Uint8Array.of(0xff, 0xff, 0, 0));
  assert.equal(driver.run("LDMXCSR mem"), -1);
  assert.equal(driver.run("STMXCSR mem", { at: DATA + 8 }), -1);
  assert.deepEqual(driver.memory(4, DATA + 8), Uint8Array.of(0xff, 0xff, 0, 0));
});

test("MASKMOVDQU writes the selected bytes and touches nothing before or after them", () => {
  driver.reset();
  const end = DATA + 0x1_0000;
  driver.setXmm(
    1,
    Uint8Array.from({ length: 16 }, (_, i) => i + 1),
  );
  driver.setXmm(
    2,
    Uint8Array.from({ length: 16 }, (_, i) => (i === 1 || i === 3 ? 0x80 : 0x7f)),
  );
  driver.bench.bytes.fill(0xaa, end - 8, end);
  // The operand reaches beyond the mapped memory, the selected bytes do not.
  assert.equal(driver.run("MASKMOVDQU", { at: end - 8 }), -1);
  assert.deepEqual(
    driver.memory(8, end - 8),
    Uint8Array.of(0xaa, 2, 0xaa, 4, 0xaa, 0xaa, 0xaa, 0xaa),
  );
  assert.equal(driver.run("MASKMOVDQU", { at: end - 2 }), PF);
  assert.deepEqual(driver.memory(2, end - 2), Uint8Array.of(0xaa, 0xaa));
});
