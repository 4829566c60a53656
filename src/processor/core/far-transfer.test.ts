/** Far JMP, CALL and RET: code segments, call gates, privilege changes. SDM Vol. 2, "JMP", "CALL", "RET". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { far, imm } from "../isa/assemble.ts";
import { S, Seg } from "../state/layout.ts";
import { At, descriptor, gateLow, Sel, TestMachine } from "./test-machine.ts";

const m = new TestMachine();
const TARGET = 0x5000;
const GATE = Sel.FREE;
/** FF /3 and FF /5 on [POINTER], with the operand size of the mode. */
const POINTER = At.SCRATCH;

const error = (): number => m.read32(m.gpr(4));
const words = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => m.read32(m.gpr(4) + 4 * i));
const quads = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => Number(m.read64(m.gpr(4) + 8 * i)));
const cs = (): number => m.segment(Seg.CS).selector;

/** An indirect far transfer through memory in 64-bit mode: m16:32. */
function indirect(extension: 3 | 5, selector: number, offset: number): void {
  m.write32(POINTER, offset);
  m.write16(POINTER + 4, selector);
  m.step((a) => a.bytes([0xff, (extension << 3) | 4, 0x25, POINTER & 0xff, POINTER >> 8, 0, 0]));
}

test("real mode: far JMP, CALL and RET are arithmetic on selectors", () => {
  m.reset("real");
  m.step((a) => a.emit("jmp", far(0x500, 0x20)));
  assert.deepEqual(
    [m.rip, m.segment(Seg.CS)],
    [0x20n, { base: 0x5000n, limit: 0xffff, rights: 0x9b, selector: 0x500 }],
  );
  m.step((a) => a.emit("call", far(0x600, 0x30)));
  assert.deepEqual([m.rip, cs(), m.gpr(4)], [0x30n, 0x600, At.STACK0 - 4]);
  m.step((a) => a.emit("retf", imm(2)));
  assert.deepEqual([m.rip, cs(), m.gpr(4)], [0x25n, 0x500, At.STACK0 + 2]);
});

test("far JMP to code sets RPL to CPL and the accessed bit", () => {
  m.reset("protected");
  m.setDescriptor(GATE, descriptor(0xc09a));
  m.step((a) => a.emit("jmp", far(GATE, TARGET)));
  assert.deepEqual(
    [m.rip, cs(), (m.read64(At.GDT + GATE) >> 40n) & 0xffn],
    [BigInt(TARGET), GATE, 0x9bn],
  );
  m.reset("protected");
  m.enterUser(Sel.CODE32_USER);
  m.setDescriptor(GATE, descriptor(0xc09e));
  m.step((a) => a.emit("jmp", far(GATE, TARGET)));
  assert.deepEqual([m.rip, cs(), m.num(S.CPL)], [BigInt(TARGET), GATE | 3, 3], "conforming");
});

test("far JMP and CALL to code check in the order of the manual", () => {
  const cases: [string, number, number, number, number, number?][] = [
    // name, rights of the target, selector, vector, error, limit
    ["null", 0, 3, 13, 0],
    ["beyond the table", 0, 0x1ff8, 13, 0x1ff8],
    ["data", 0xc093, GATE, 13, GATE],
    ["outer ring", 0xc0fb, GATE, 13, GATE],
    ["conforming of an outer ring", 0xc0ff, GATE, 13, GATE],
    ["RPL above CPL", 0xc09b, GATE | 1, 13, GATE],
    ["not present", 0xc01b, GATE, 11, GATE],
    ["offset beyond the limit", 0x409b, GATE, 13, 0, 0xfff],
    ["interrupt gate", 0x8e, GATE, 13, GATE],
    ["LDT", 0x82, GATE, 13, GATE],
    ["busy TSS", 0x8b, GATE, 13, GATE],
    ["TSS not present", 0x09, GATE, 11, GATE],
  ];
  for (const name of ["jmp", "call"]) {
    for (const [what, rights, selector, vector, code, limit] of cases) {
      m.reset("protected");
      m.setDescriptor(GATE, descriptor(rights, 0, limit ?? 0xf_ffff));
      m.step((a) => a.emit(name, far(selector, TARGET)));
      assert.deepEqual([m.vector, error()], [vector, code], `${name} ${what}`);
      assert.equal(m.gpr(4), At.STACK0 - 16, `${name} ${what}`);
    }
  }
});

test("far CALL and RETF in protected mode push and pop CS:EIP", () => {
  m.reset("protected");
  m.setDescriptor(GATE, descriptor(0xc09b));
  m.step((a) => a.emit("call", far(GATE, TARGET)));
  assert.deepEqual([m.rip, cs(), words(2)], [BigInt(TARGET), GATE, [At.CODE + 7, Sel.CODE32]]);
  m.step((a) => a.emit("retf", imm(8)));
  assert.deepEqual([m.rip, cs(), m.gpr(4)], [BigInt(At.CODE + 7), Sel.CODE32, At.STACK0 + 8]);
});

test("a call whose stack is too small is #SS before #GP for the target", () => {
  m.reset("protected");
  m.setDescriptor(GATE, descriptor(0x409b, 0, 0xfff));
  m.setSegment(Seg.SS, { rights: 0xc097, limit: At.STACK0 - 5 });
  m.setGate(12, { selector: Sel.CODE32, offset: At.HANDLERS + 192, access: 0x8e });
  m.step((a) => a.emit("call", far(GATE, TARGET)));
  // #SS cannot be delivered on the same stack: #DF, then shutdown of the bare processor.
  assert.deepEqual([m.num(S.EXIT_REASON), m.num(S.ACTIVITY)], [2, 2]);
});

test("RETF to an outer ring takes the outer stack and releases parameters on both", () => {
  m.reset("protected");
  const sp = At.STACK0 - 28;
  m.setGpr(4, sp);
  [TARGET, Sel.CODE32_USER, 1, 2, At.STACK3, Sel.DATA_USER].forEach((v, i) => {
    m.write32(sp + 4 * i, v);
  });
  m.step((a) => a.emit("retf", imm(8)));
  assert.deepEqual(
    [m.rip, cs(), m.num(S.CPL), m.gpr(4)],
    [BigInt(TARGET), Sel.CODE32_USER, 3, At.STACK3 + 8],
  );
  assert.deepEqual(
    [m.segment(Seg.SS).selector, m.segment(Seg.DS).rights >> 16],
    [Sel.DATA_USER, 1],
  );
});

test("RETF cannot go to an inner ring", () => {
  m.reset("protected");
  m.enterUser(Sel.CODE32_USER);
  m.write32(At.STACK3, TARGET);
  m.write32(At.STACK3 + 4, Sel.CODE32);
  m.step((a) => a.emit("retf"));
  assert.deepEqual([m.vector, error()], [13, Sel.CODE32]);
});

test("64-bit RETF pops 8, 4 or 2 bytes each", () => {
  for (const [code, size] of [
    [[0x48, 0xcb], 8],
    [[0xcb], 4],
    [[0x66, 0xcb], 2],
  ] as const) {
    m.reset("long");
    const sp = At.STACK0 - 2 * size;
    m.setGpr(4, sp);
    m.write64(sp, BigInt(TARGET));
    m.write16(sp + size, Sel.CODE64);
    m.step((a) => a.bytes(code));
    assert.deepEqual([m.rip, m.gpr(4)], [BigInt(TARGET), At.STACK0]);
  }
});

test("64-bit far JMP and CALL through memory reach 64-bit and compatibility code", () => {
  m.reset("long");
  indirect(5, Sel.CODE32, TARGET);
  assert.deepEqual([m.rip, cs(), m.mode & 3], [BigInt(TARGET), Sel.CODE32, 1]);
  m.reset("long");
  indirect(3, Sel.CODE64, TARGET);
  assert.deepEqual([m.rip, words(2)], [BigInt(TARGET), [At.CODE + 7, Sel.CODE64]]);
  m.reset("long");
  indirect(5, Sel.TSS, TARGET);
  assert.deepEqual([m.vector, error()], [13, Sel.TSS], "no tasks in IA-32e mode");
});

// ---- call gates ----

function gate(type: number, selector: number, dpl: number, parameters = 0): void {
  m.setDescriptor(
    GATE,
    gateLow({ selector, offset: TARGET, access: 0x80 | (dpl << 5) | type, extra: parameters }),
  );
}

test("a 32-bit call gate to ring 0 switches stacks and copies parameters", () => {
  m.reset("protected");
  m.enterUser(Sel.CODE32_USER);
  gate(0xc, Sel.CODE32, 3, 2);
  m.write32(At.STACK3, 0x1111);
  m.write32(At.STACK3 + 4, 0x2222);
  m.step((a) => a.emit("call", far(GATE, 0xdead)));
  assert.deepEqual(
    [m.rip, cs(), m.num(S.CPL), m.gpr(4)],
    [BigInt(TARGET), Sel.CODE32, 0, At.RSP0 - 24],
  );
  assert.deepEqual(words(6), [
    At.CODE + 7,
    Sel.CODE32_USER,
    0x1111,
    0x2222,
    At.STACK3,
    Sel.DATA_USER,
  ]);
  m.step((a) => a.emit("retf", imm(8)));
  assert.deepEqual([m.rip, m.num(S.CPL), m.gpr(4)], [BigInt(At.CODE + 7), 3, At.STACK3 + 8]);
});

test("a 16-bit call gate pushes words and cuts the offset", () => {
  m.reset("protected");
  m.enterUser(Sel.CODE32_USER);
  m.setDescriptor(
    GATE,
    gateLow({ selector: Sel.CODE32, offset: 0x1_5000, access: 0xe4, extra: 1 }),
  );
  m.write16(At.STACK3, 0x1111);
  m.step((a) => a.emit("call", far(GATE, 0)));
  assert.deepEqual([m.rip, m.gpr(4)], [0x5000n, At.RSP0 - 10]);
  const items = Array.from({ length: 5 }, (_, i) => m.read16(m.gpr(4) + 2 * i));
  assert.deepEqual(items, [At.CODE + 7, Sel.CODE32_USER, 0x1111, At.STACK3, Sel.DATA_USER]);
});

test("a gate to the same ring changes no stack; JMP through it cannot gain privilege", () => {
  m.reset("protected");
  gate(0xc, Sel.CODE32, 0);
  m.step((a) => a.emit("call", far(GATE, 0)));
  assert.deepEqual([m.rip, words(2)], [BigInt(TARGET), [At.CODE + 7, Sel.CODE32]]);
  m.reset("protected");
  gate(0xc, Sel.CODE32, 0);
  m.step((a) => a.emit("jmp", far(GATE, 0)));
  assert.deepEqual([m.rip, m.gpr(4)], [BigInt(TARGET), At.STACK0]);
  m.reset("protected");
  m.enterUser(Sel.CODE32_USER);
  gate(0xc, Sel.CODE32, 3);
  m.step((a) => a.emit("jmp", far(GATE, 0)));
  assert.deepEqual([m.vector, error()], [13, Sel.CODE32]);
});

test("call gates fault by their own DPL and presence, then by their target", () => {
  const user = (prepare: () => void, selector = GATE | 3): [number, number] => {
    m.reset("protected");
    m.enterUser(Sel.CODE32_USER);
    prepare();
    m.step((a) => a.emit("call", far(selector, 0)));
    return [m.vector, error()];
  };
  assert.deepEqual(
    user(() => gate(0xc, Sel.CODE32, 2)),
    [13, GATE],
  );
  assert.deepEqual(
    user(() => m.setDescriptor(GATE, gateLow({ selector: 8, offset: 0, access: 0x6c }))),
    [11, GATE],
  );
  assert.deepEqual(
    user(() => gate(0xc, 0, 3)),
    [13, 0],
  );
  assert.deepEqual(
    user(() => gate(0xc, Sel.DATA, 3)),
    [13, Sel.DATA],
  );
  assert.deepEqual(
    user(() => gate(0xc, 0x1ff8, 3)),
    [13, 0x1ff8],
  );
  user(() => {
    gate(0xc, Sel.CODE32, 3);
    m.write32(At.TSS + 8, 0);
  });
  assert.equal(m.num(S.EXIT_REASON), 2, "null inner SS: #TS, #DF and shutdown, since all need it");
});

test("a 64-bit call gate pushes SS, RSP, CS, RIP and loads a null SS", () => {
  m.reset("long");
  m.enterUser();
  gate(0xc, Sel.CODE64, 3);
  m.write64(At.GDT + GATE + 8, 0n);
  indirect(3, GATE, 0);
  assert.deepEqual([m.rip, m.num(S.CPL), m.segment(Seg.SS).selector], [BigInt(TARGET), 0, 0]);
  assert.deepEqual(
    [m.gpr(4), quads(4)],
    [At.RSP0 - 32, [At.CODE + 7, Sel.CODE64_USER, At.STACK3, Sel.DATA_USER]],
  );
  m.reset("long");
  gate(0xc, Sel.CODE32, 0);
  m.write64(At.GDT + GATE + 8, 0n);
  indirect(3, GATE, 0);
  assert.deepEqual([m.vector, error()], [13, Sel.CODE32], "target is not 64-bit code");
  m.reset("long");
  gate(0x4, Sel.CODE64, 0);
  indirect(3, GATE, 0);
  assert.deepEqual([m.vector, error()], [13, GATE], "no 16-bit gates");
});
