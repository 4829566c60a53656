import assert from "node:assert/strict";
import { test } from "node:test";
import { At, TestMachine } from "../../core/test-machine.ts";
import { Cr0 } from "../../state/control-bits.ts";
import { GPR, S, Seg } from "../../state/layout.ts";
import { Vector } from "../cpu.ts";

/** Instructions with a memory operand have it at [rbx] ([bx+si] with SI = 0 in 16-bit code). */
const FLD_M64 = [0xdd, 0x03];
const FSTP_M64 = [0xdd, 0x1b];
const FSTP_M80 = [0xdb, 0x3b];
const FLD1 = [0xd9, 0xe8];
const FLDPI = [0xd9, 0xeb];
const FADDP = [0xde, 0xc1];
const FNINIT = [0xdb, 0xe3];
const FNSAVE = [0xdd, 0x33];
const FDIVP = [0xde, 0xf9];
const FLDZ = [0xd9, 0xee];

const m = new TestMachine();

function start(mode: "long" | "protected" | "real", operand: number = At.SCRATCH): void {
  m.reset(mode);
  m.set(S.MXCSR, 0x1f80);
  run(FNINIT);
  m.setGpr(3, operand);
}

function run(...instructions: number[][]): void {
  m.step((a) => a.db(...instructions.flat()), instructions.length);
}

const isEmpty = (): boolean => m.num(S.FTAG_EMPTY) === 0xff;

test("values go from memory through the stack to memory", () => {
  start("long");
  m.write64(At.SCRATCH, 0x3ff8_0000_0000_0000n); // 1.5
  run(FLD_M64, FLD1, FADDP, FSTP_M64);
  assert.equal(m.read64(At.SCRATCH), 0x4004_0000_0000_0000n);
  assert.equal(isEmpty(), true);
  assert.equal(m.get(S.FDP), BigInt(At.SCRATCH));
  assert.equal(m.get(S.FIP), BigInt(At.CODE + FNINIT.length + 6));
});

test("an 80-bit store may cross pages", () => {
  start("long", At.SCRATCH + 0x1000 - 3);
  run(FLDPI, FSTP_M80);
  assert.equal(m.read64(At.SCRATCH + 0x1000 - 3), 0xc90f_daa2_2168_c235n);
  assert.equal(m.read16(At.SCRATCH + 0x1000 + 5), 0x4000);
});

test("a store that faults in its second page leaves stack, status and memory alone", () => {
  start("long", At.SCRATCH + 0x1000 - 3);
  run(FLDPI);
  m.unmap(At.SCRATCH + 0x1000);
  const before = m.num(S.FSW);
  run(FSTP_M80);
  assert.equal(m.vector, Vector.PF);
  assert.equal(m.num(S.FSW), before);
  assert.equal(isEmpty(), false);
  assert.equal(m.read16(At.SCRATCH + 0x1000 - 3), 0);
});

test("FNSAVE that faults does not initialize", () => {
  start("long", At.SCRATCH + 0x1000 - 50);
  run(FLDPI);
  m.unmap(At.SCRATCH + 0x1000);
  run(FNSAVE);
  assert.equal(m.vector, Vector.PF);
  assert.equal(isEmpty(), false);
});

test("a pending exception is #MF at the next instruction, before its page fault; #NM comes before both", () => {
  const divideByZero = (): void => {
    start("long");
    m.set(S.FCW, 0x37b);
    run(FLD1, FLDZ, FDIVP);
    m.unmap(At.SCRATCH);
  };
  divideByZero();
  run(FLD_M64);
  assert.equal(m.vector, Vector.MF);
  divideByZero();
  m.set(S.CR0, BigInt(m.get(S.CR0)) | BigInt(Cr0.TS));
  run(FLD_M64);
  assert.equal(m.vector, Vector.NM);
});

test("environment images in the real-address form hold linear addresses (Vol. 1, Real Mode x87 FPU State Image)", () => {
  start("real");
  const dword = (i: number): number => m.read32(At.SCRATCH + 4 * i);
  run(FLDPI);
  m.set(S.FIP, 0x12_3456n);
  m.set(S.FDP, 0xa_bcden);
  m.view.setBigUint64(GPR + 48, 0n, true);
  // FNSTENV [bx+si] with an operand size prefix: 28 bytes; FOP of FLDPI is 1EB.
  run([0x66, 0xd9, 0x30]);
  assert.deepEqual([3, 4, 5, 6].map(dword), [0xffff_3456, 0x0001_21eb, 0xffff_bcde, 0xa000]);
  // 14 bytes: pointer bits 19:16 in bits 15:12.
  m.set(S.FIP, 0x2_3456n);
  run([0xd9, 0x30]);
  assert.deepEqual(
    [6, 8, 10, 12].map((o) => m.read16(At.SCRATCH + o)),
    [0x3456, 0x21eb, 0xbcde, 0xa000],
  );
  // And back.
  run(FNINIT, [0xd9, 0x20]);
  assert.equal(m.get(S.FIP), 0x2_3456n);
  assert.equal(m.get(S.FDP), 0xa_bcden);
  assert.equal(m.num(S.FOP), 0x1eb);
});

test("the pointers have the selectors of code and data", () => {
  start("protected");
  m.setSegment(Seg.CS, { selector: 0x18 });
  m.setSegment(Seg.DS, { selector: 0x10 });
  run(FLD_M64);
  assert.equal(m.num(S.FCS), 0x18);
  assert.equal(m.num(S.FDS), 0x10);
});
