import assert from "node:assert/strict";
import { test } from "node:test";
import { Cr0 } from "../../state/control-bits.ts";
import { S } from "../../state/layout.ts";
import { Vector } from "../cpu.ts";
import { MEMORY_OPERAND } from "./test-bench.ts";
import {
  c1,
  ES,
  flags,
  get,
  IE,
  INDEFINITE,
  INFINITY,
  isEmpty,
  mem,
  OE,
  ONE,
  PE,
  reset,
  run,
  SF,
  set,
  stack,
  THREE,
  TWO,
  ZE,
} from "./test-fpu.ts";

test("a pending exception is reported by the next waiting instruction, if CR0.NE is set", () => {
  reset(ONE, "0000:0000000000000000");
  set(S.FCW, 0x37f & ~ZE);
  run("fdiv", 0, 1);
  for (const name of ["fwait", "fld1", "fldcw", "fnop", "fsin"])
    assert.equal(run(name), Vector.MF, name);
  for (const name of ["fnstsw", "fnstcw"]) assert.equal(run(name), 0, name);
  set(S.CR0, Cr0.PE);
  assert.equal(run("fnop"), 0);
  set(S.CR0, Cr0.PE | Cr0.NE);
  assert.equal(run("fnclex"), 0);
  assert.equal(run("fwait"), 0);
});

test("EM and TS raise #NM, for WAIT only MP with TS (Vol. 3A, Control Registers)", () => {
  reset(ONE);
  for (const [cr0, fnop, wait] of [
    [Cr0.EM, 7, 0],
    [Cr0.TS, 7, 0],
    [Cr0.MP, 0, 0],
    [Cr0.TS | Cr0.MP, 7, 7],
    [Cr0.EM | Cr0.MP, 7, 0],
  ] as const) {
    set(S.CR0, Cr0.PE | cr0);
    for (const name of ["fnop", "fninit", "fnstsw", "fldcw", "fxam"]) assert.equal(run(name), fnop);
    assert.equal(run("fwait"), wait);
  }
  set(S.CR0, Cr0.PE);
});

test("stack overflow and underflow answer the default NaN, C1 tells which (Vol. 1, Stack Overflow or Underflow Exception)", () => {
  reset(ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE);
  run("fld1");
  assert.equal(stack(0), INDEFINITE);
  assert.equal(flags(), IE | SF);
  assert.equal(c1(), 1);
  reset();
  run("fsqrt");
  assert.equal(stack(0), INDEFINITE);
  assert.equal(flags(), IE | SF);
  assert.equal(c1(), 0);
  reset();
  set(S.FCW, 0x37e);
  run("fsqrt");
  assert.equal(isEmpty(0), true);
  assert.equal(flags(), IE | SF | ES);
});

test("packed BCD goes there and back; too many digits are the indefinite", () => {
  reset();
  mem.setBigUint64(MEMORY_OPERAND, 0x1234_5678_9012_3456n, true);
  mem.setUint16(MEMORY_OPERAND + 8, 0x8078, true);
  run("fbld");
  mem.setBigUint64(MEMORY_OPERAND, 0n, true);
  run("fbstp");
  assert.equal(mem.getBigUint64(MEMORY_OPERAND, true), 0x1234_5678_9012_3456n);
  assert.equal(mem.getUint16(MEMORY_OPERAND + 8, true), 0x8078);
  reset("403a:de0b6b3a76400000"); // 10^18
  run("fbstp");
  assert.equal(mem.getBigUint64(MEMORY_OPERAND, true), 0xc000_0000_0000_0000n);
  assert.equal(mem.getUint16(MEMORY_OPERAND + 8, true), 0xffff);
  assert.equal(flags(), IE);
});

test("integer stores: rounding, FISTTP truncation, the integer indefinite", () => {
  reset("4000:a000000000000000", "4000:f800000000000000", "400e:8000000000000000"); // 2.5, 3.875, 32768
  run("fistpM16");
  assert.equal(mem.getInt16(MEMORY_OPERAND, true), 2);
  run("fisttpM32");
  assert.equal(mem.getInt32(MEMORY_OPERAND, true), 3);
  assert.equal(flags(), PE);
  run("fistpM16");
  assert.equal(mem.getInt16(MEMORY_OPERAND, true), -32768);
  assert.equal(flags(), PE | IE);
});

test("an unmasked overflow of a store to memory stores and pops nothing", () => {
  reset("4fff:8000000000000000");
  set(S.FCW, 0x37f & ~OE);
  mem.setBigUint64(MEMORY_OPERAND, 0x1122_3344_5566_7788n, true);
  run("fstpM64");
  assert.equal(mem.getBigUint64(MEMORY_OPERAND, true), 0x1122_3344_5566_7788n);
  assert.equal(isEmpty(0), false);
  assert.equal(flags(), OE | ES);
});

test("FNSTENV masks exceptions after storing; FLDENV makes a pending one of an unmasked flag", () => {
  reset(ONE, INFINITY, "0000:0000000000000000");
  set(S.FCW, 0x340);
  mem.setBigUint64(S.RIP.at, 0x1_2345_6789n, true);
  run("fnop");
  run("fnstenv");
  const words = Array.from({ length: 4 }, (_, i) => mem.getUint32(MEMORY_OPERAND + 4 * i, true));
  // R7 zero, R6 infinity, R5 one: tags 1, 2, 0; the others are empty.
  assert.deepEqual(words, [0xffff_0340, 0xffff_2800, 0xffff_63ff, 0x2345_6789]);
  assert.equal(get(S.FCW), 0x37f);
  mem.setUint16(MEMORY_OPERAND + 4, 0x2804, true);
  run("fldenv");
  assert.equal(flags(), ES | ZE);
  assert.equal(run("fwait"), Vector.MF);
});

test("FNSAVE initializes, FRSTOR brings everything back", () => {
  reset(ONE, TWO, THREE);
  run("fnsave");
  assert.equal(get(S.FTAG_EMPTY), 0xff);
  assert.equal(get(S.FCW), 0x37f);
  run("frstor");
  assert.deepEqual([stack(0), stack(1), stack(2)], [ONE, TWO, THREE]);
  assert.deepEqual([isEmpty(0), isEmpty(2), isEmpty(3)], [false, false, true]);
});

test("the opcode of the last instruction is kept with its register number", () => {
  reset(ONE, TWO);
  run("fadd", 0, 1);
  assert.equal(get(S.FOP), 0x0c1);
  run("fsub", 1, 0);
  assert.equal(get(S.FOP), 0x4e9);
  run("fsin");
  assert.equal(get(S.FOP), 0x1fe);
});
