/** Segment registers, LDTR and TR: loads and their faults. SDM Vol. 2, "MOV", "POP", "LDS/LES/LFS/LGS/LSS", "LLDT", "LTR". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { mem } from "../isa/assemble.ts";
import { ax, ds, eax, es, fs, gs, rbx, ss } from "../isa/registers.ts";
import { S, Seg } from "../state/layout.ts";
import { At, descriptor, Sel, TestMachine } from "./test-machine.ts";

const m = new TestMachine();
const FREE = Sel.FREE;
const error = (): number => m.read32(m.gpr(4));

function load(
  mode: "long" | "protected",
  segment: typeof ds,
  selector: number,
  rights?: number,
  user = false,
): number {
  m.reset(mode);
  if (user) m.enterUser(mode === "long" ? Sel.CODE64_USER : Sel.CODE32_USER);
  if (rights !== undefined) m.setDescriptor(FREE, descriptor(rights, 0x1234_5678, 0x1_2345));
  m.setGpr(0, selector);
  m.step((a) => a.emit("mov", segment, ax));
  return m.vector;
}

test("a data segment takes base, limit and rights from its descriptor and marks it accessed", () => {
  for (const mode of ["long", "protected"] as const) {
    assert.equal(load(mode, es, FREE, 0xc092), -1);
    assert.deepEqual(m.segment(Seg.ES), {
      base: 0x1234_5678n,
      limit: 0x1234_5fff,
      rights: 0xc093,
      selector: FREE,
    });
    assert.equal(Number((m.read64(At.GDT + FREE) >> 40n) & 0xffn), 0x93);
    assert.equal(load(mode, gs, FREE | 3, 0x40f2), -1);
    assert.equal(m.segment(Seg.GS).limit, 0x1_2345);
  }
});

test("null selectors make data segments unusable and clear the base", () => {
  load("long", fs, 3);
  assert.deepEqual(m.segment(Seg.FS), { base: 0n, limit: 0, rights: 0x1_0000, selector: 3 });
});

test("data segment loads fault as the manual says", () => {
  const cases: [string, number, number | undefined, boolean, number, number][] = [
    ["beyond the table", 0x1ff8, undefined, false, 13, 0x1ff8],
    ["no LDT", 4 | FREE, undefined, false, 13, FREE | 4],
    ["execute-only code", FREE, 0xc098, false, 13, FREE],
    ["system descriptor", Sel.TSS, undefined, false, 13, Sel.TSS],
    ["inner ring", FREE, 0xc092, true, 13, FREE],
    ["RPL above DPL", FREE | 1, 0xc092, false, 13, FREE],
    ["not present", FREE, 0xc012, false, 11, FREE],
  ];
  for (const [name, selector, rights, user, vector, code] of cases) {
    for (const mode of ["long", "protected"] as const) {
      assert.equal(load(mode, ds, selector, rights, user), vector, name);
      assert.equal(error(), code, name);
      assert.notEqual(m.segment(Seg.DS).selector, selector, name);
    }
  }
  assert.equal(
    load("protected", ds, FREE | 3, 0xc09e, true),
    -1,
    "conforming code of an inner ring is readable",
  );
});

test("SS must be writable data of exactly this ring", () => {
  const cases: [number, number | undefined, boolean, number, number][] = [
    [0, undefined, true, 13, 0],
    [FREE, 0xc090, false, 13, FREE],
    [FREE, 0xc09a, false, 13, FREE],
    [FREE, 0xc0f2, false, 13, FREE],
    [FREE | 3, 0xc092, false, 13, FREE],
    [FREE, 0xc012, false, 12, FREE],
  ];
  for (const [selector, rights, user, vector, code] of cases) {
    assert.equal(load("long", ss, selector, rights, user), vector);
    assert.equal(error(), code);
  }
  assert.equal(load("long", ss, 0), -1, "null SS is allowed at ring 0 of 64-bit mode");
  assert.equal(load("protected", ss, 0), 13);
});

test("MOV SS and POP SS hold off events for one instruction", () => {
  load("protected", ss, Sel.DATA);
  assert.equal(m.num(S.INTERRUPTIBILITY), 2);
  m.step((a) => a.emit("nop"), 1);
  m.step((a) => a.emit("nop"), 1);
  assert.equal(m.num(S.INTERRUPTIBILITY), 0);
  m.reset("protected");
  m.setGpr(4, At.STACK0 - 4);
  m.write32(At.STACK0 - 4, Sel.DATA);
  m.step((a) => a.emit("pop", ss));
  assert.deepEqual([m.num(S.INTERRUPTIBILITY), m.gpr(4)], [2, At.STACK0]);
});

test("CS cannot be loaded with MOV, and segments 6 and 7 do not exist", () => {
  for (const modrm of [0xc8, 0xf0, 0xf8]) {
    m.reset("long");
    m.step((a) => a.bytes([0x8e, modrm]));
    assert.equal(m.vector, 6);
  }
});

test("a load that makes DS non-flat takes effect for the next access", () => {
  m.reset("protected");
  m.setDescriptor(FREE, descriptor(0x4092, 0x1000, 0xfff));
  m.write32(0x1000 + 0x20, 0xcafe);
  m.setGpr(0, FREE);
  m.setGpr(3, 0x20);
  m.step((a) => a.emit("mov", ds, ax).bytes([0x8b, 0x03]), 2);
  assert.equal(m.gpr(0), 0xcafe);
});

test("PUSH and POP of segment registers move the operand size", () => {
  m.reset("long");
  m.setSegment(Seg.FS, { selector: 0x1234 });
  m.step((a) => a.emit("push", fs));
  assert.deepEqual([m.gpr(4), m.read64(At.STACK0 - 8)], [At.STACK0 - 8, 0x1234n]);
  m.write64(At.STACK0 - 8, 0xffff_ffff_ffff_0000n | BigInt(Sel.DATA));
  m.step((a) => a.emit("pop", gs));
  assert.deepEqual([m.gpr(4), m.segment(Seg.GS).selector], [At.STACK0, Sel.DATA]);
});

test("LSS loads segment and register, or neither", () => {
  m.reset("protected");
  m.write32(At.SCRATCH, 0x7000);
  m.write16(At.SCRATCH + 4, Sel.DATA);
  m.setGpr(3, At.SCRATCH);
  m.step((a) => a.bytes([0x0f, 0xb2, 0x23])); // lss esp, [ebx]
  assert.deepEqual([m.gpr(4), m.segment(Seg.SS).selector], [0x7000, Sel.DATA]);
  m.reset("protected");
  m.write16(At.SCRATCH + 4, 0x1ff8);
  m.setGpr(3, At.SCRATCH);
  m.step((a) => a.bytes([0xc4, 0x13])); // les edx, [ebx]
  assert.deepEqual([m.vector, m.gpr(2), m.segment(Seg.ES).selector], [13, 0, Sel.DATA]);
});

test("MOV from a segment register zero-extends into a register and stores 16 bits", () => {
  m.reset("long");
  m.setGpr(0, -1n & 0xffff_ffff_ffff_ffffn);
  m.step((a) => a.emit("mov", eax, ds));
  assert.equal(m.gpr(0), Sel.DATA);
  m.setGpr(3, At.SCRATCH);
  m.write64(At.SCRATCH, 0xffff_ffffn);
  m.step((a) => a.emit("mov", mem(2, rbx), ds));
  assert.equal(m.read64(At.SCRATCH), 0xffff_0000n | BigInt(Sel.DATA));
});

test("real mode loads keep limit and rights", () => {
  m.reset("real");
  m.setSegment(Seg.DS, { limit: 0xffff_ffff, rights: 0x8093 });
  m.setGpr(0, 0x1234);
  m.step((a) => a.emit("mov", ds, ax));
  assert.deepEqual(m.segment(Seg.DS), {
    base: 0x1_2340n,
    limit: 0xffff_ffff,
    rights: 0x8093,
    selector: 0x1234,
  });
});

test("LTR marks its TSS busy; busy, missing and wrong descriptors fault", () => {
  const ltr = (mode: "long" | "protected", selector: number, rights: number): void => {
    m.reset(mode);
    m.setDescriptor(FREE, descriptor(rights, 0x3000, 0x67));
    m.write64(At.GDT + FREE + 8, mode === "long" ? 0xffff_8000n : 0n);
    m.setGpr(0, selector);
    m.step((a) => a.bytes([0x0f, 0x00, 0xd8]));
  };
  ltr("long", FREE, 0x89);
  assert.deepEqual(m.segment(Seg.TR), {
    base: 0xffff_8000_0000_3000n,
    limit: 0x67,
    rights: 0x8b,
    selector: FREE,
  });
  assert.equal(Number((m.read64(At.GDT + FREE) >> 40n) & 0xffn), 0x8b);
  ltr("protected", FREE, 0x81);
  assert.equal(m.segment(Seg.TR).rights, 0x83);
  for (const [mode, selector, rights, vector, code] of [
    ["long", 0, 0x89, 13, 0],
    ["long", FREE, 0x8b, 13, FREE],
    ["long", FREE, 0x81, 13, FREE],
    ["long", FREE, 0x09, 11, FREE],
    ["protected", FREE | 4, 0x89, 13, FREE | 4],
  ] as const) {
    ltr(mode, selector, rights);
    assert.deepEqual([m.vector, error()], [vector, code]);
  }
});

test("LLDT with a null selector leaves no LDT, with another one gives a usable table", () => {
  m.reset("protected");
  m.setDescriptor(FREE, descriptor(0x82, At.SCRATCH, 0xff));
  m.write64(At.SCRATCH + 8, descriptor(0xc093, 0x7000));
  m.setGpr(0, FREE);
  m.step((a) => a.bytes([0x0f, 0x00, 0xd0]));
  m.setGpr(0, 0x0c);
  m.step((a) => a.emit("mov", es, ax));
  assert.equal(m.segment(Seg.ES).base, 0x7000n);
  m.setGpr(0, 0);
  m.step((a) => a.bytes([0x0f, 0x00, 0xd0]));
  assert.equal(m.segment(Seg.LDTR).rights, 0x1_0000);
});
