/** Task switches by CALL, JMP, IRET and task gates. SDM Vol. 3A, "Task Switching"; Vol. 3C, "Treatment of Task Switches". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { far } from "../isa/assemble.ts";
import { S, Seg } from "../state/layout.ts";
import { At, descriptor, gateLow, Sel, TestMachine } from "./test-machine.ts";

const m = new TestMachine();
const NT = 0x4000;
const NEW = Sel.FREE;
const GATE = Sel.FREE + 8;
const TSS2 = 0x3800;
const EIP = 0x5000;
const STACK = 0xc000;

/** A second 32-bit TSS with a runnable ring-0 task. */
function prepare(): void {
  m.reset("protected");
  m.setDescriptor(NEW, descriptor(0x89, TSS2, 0x67));
  m.setDescriptor(GATE, gateLow({ selector: NEW, offset: 0, access: 0xe5 }));
  m.write32(TSS2 + 0x20, EIP);
  m.write32(TSS2 + 0x24, 2);
  for (let i = 0; i < 8; i++) m.write32(TSS2 + 0x28 + 4 * i, 0x100 + i);
  m.write32(TSS2 + 0x38, STACK);
  [Sel.DATA, Sel.CODE32, Sel.DATA, Sel.DATA, 0, 0].forEach((s, i) => {
    m.write32(TSS2 + 0x48 + 4 * i, s);
  });
  m.setGpr(0, 0xaaaa);
  m.write32(EIP, 0x9090_9090);
}

const access = (selector: number): number => Number((m.read64(At.GDT + selector) >> 40n) & 0xffn);

test("CALL to a TSS nests: link, NT, both busy, registers swapped", () => {
  prepare();
  m.step((a) => a.emit("call", far(NEW, 0)));
  assert.deepEqual([m.rip, m.gpr(0), m.gpr(4), m.flags()], [BigInt(EIP), 0x100, STACK, NT | 2]);
  assert.deepEqual(
    [m.segment(Seg.TR), m.num(S.CR0) & 8],
    [{ base: BigInt(TSS2), limit: 0x67, rights: 0x8b, selector: NEW }, 8],
  );
  assert.deepEqual([m.read16(TSS2), access(NEW), access(Sel.TSS)], [Sel.TSS, 0x8b, 0x8b]);
  assert.deepEqual(
    [m.read32(At.TSS + 0x20), m.read32(At.TSS + 0x28), m.read32(At.TSS + 0x4c)],
    [At.CODE + 7, 0xaaaa, Sel.CODE32],
  );
  m.step((a) => a.emit("iretd"));
  assert.deepEqual([m.rip, m.gpr(0), m.flags()], [BigInt(At.CODE + 7), 0xaaaa, 2]);
  assert.deepEqual([access(NEW), access(Sel.TSS), m.read32(TSS2 + 0x24)], [0x89, 0x8b, 2]);
});

test("JMP to a TSS frees the old task and does not nest", () => {
  prepare();
  m.step((a) => a.emit("jmp", far(NEW, 0)));
  assert.deepEqual([m.rip, m.flags(), access(Sel.TSS), access(NEW)], [BigInt(EIP), 2, 0x89, 0x8b]);
});

test("task gates work from code and from the IDT, with an error code on the new stack", () => {
  prepare();
  m.step((a) => a.emit("call", far(GATE, 0)));
  assert.equal(m.rip, BigInt(EIP));
  prepare();
  m.write64(At.IDT + 8 * 13, gateLow({ selector: NEW, offset: 0, access: 0x85 }));
  m.setGpr(3, 0);
  m.setSegment(Seg.DS, { rights: 0x1_0000 });
  m.engine.updateMode();
  m.step((a) => a.bytes([0x8b, 0x03])); // mov eax, [ebx]
  assert.equal(m.rip, BigInt(EIP + 1));
  assert.deepEqual(
    [m.gpr(4), m.read32(STACK - 4), m.read32(At.TSS + 0x20)],
    [STACK - 4, 0, At.CODE],
  );
  assert.equal(m.read32(At.TSS + 0x24) & 0x1_0000, 0x1_0000, "RF of a fault");
});

test("a 16-bit TSS holds 16-bit state", () => {
  prepare();
  m.setDescriptor(NEW, descriptor(0x81, TSS2, 0x2b));
  m.write16(TSS2 + 0x0e, EIP);
  m.write16(TSS2 + 0x10, 2);
  for (let i = 0; i < 8; i++) m.write16(TSS2 + 0x12 + 2 * i, 0x200 + i);
  m.write16(TSS2 + 0x1a, STACK);
  [Sel.DATA, Sel.CODE32, Sel.DATA, Sel.DATA, 0].forEach((s, i) => {
    m.write16(TSS2 + 0x22 + 2 * i, s);
  });
  m.step((a) => a.emit("jmp", far(NEW, 0)));
  assert.deepEqual(
    [m.rip, m.gpr(0) & 0xffff, m.gpr(4) & 0xffff, m.segment(Seg.TR).rights],
    [BigInt(EIP), 0x200, STACK, 0x83],
  );
});

test("faults before the switch belong to the old task", () => {
  const cases: [string, () => void, number, number][] = [
    ["busy", () => m.setDescriptor(NEW, descriptor(0x8b, TSS2, 0x67)), 13, NEW],
    ["not present", () => m.setDescriptor(NEW, descriptor(0x09, TSS2, 0x67)), 11, NEW],
    ["limit", () => m.setDescriptor(NEW, descriptor(0x89, TSS2, 0x66)), 10, NEW],
  ];
  for (const [name, change, vector, code] of cases) {
    prepare();
    change();
    m.step((a) => a.emit("call", far(NEW, 0)));
    assert.deepEqual(
      [m.vector, m.read32(m.gpr(4)), m.segment(Seg.TR).selector],
      [vector, code, Sel.TSS],
      name,
    );
  }
});

test("faults of the new segments belong to the new task", () => {
  const cases: [string, () => void, number, number][] = [
    ["SS of another ring", () => m.write32(TSS2 + 0x50, Sel.DATA_USER), 10, Sel.DATA_USER & ~3],
    ["CS is data", () => m.write32(TSS2 + 0x4c, Sel.DATA), 10, Sel.DATA],
    ["DS is beyond the table", () => m.write32(TSS2 + 0x54, 0x1ff8), 10, 0x1ff8],
    ["LDT is no LDT", () => m.write32(TSS2 + 0x60, Sel.DATA), 10, Sel.DATA],
    [
      "EIP beyond the limit",
      () => {
        m.setDescriptor(Sel.FREE + 16, descriptor(0x409b, 0, 0xfff));
        m.write32(TSS2 + 0x4c, Sel.FREE + 16);
      },
      13,
      0,
    ],
  ];
  for (const [name, change, vector, code] of cases) {
    prepare();
    // The handlers of such faults need a task of their own; a gate shows what arrives.
    const TASK3 = Sel.FREE + 24;
    m.setDescriptor(TASK3, descriptor(0x89, 0x3a00, 0x67));
    for (let i = 0; i < 0x68; i += 4) m.write32(0x3a00 + i, m.read32(TSS2 + i));
    m.write32(0x3a00 + 0x20, At.HANDLERS + 16 * vector);
    m.write64(At.IDT + 8 * vector, gateLow({ selector: TASK3, offset: 0, access: 0x85 }));
    change();
    m.step((a) => a.emit("jmp", far(NEW, 0)));
    assert.deepEqual([m.vector, m.read32(m.gpr(4)), m.read16(0x3a00)], [vector, code, NEW], name);
    assert.equal(m.read32(TSS2 + 0x20), EIP, name);
  }
});

test("the T flag of the new TSS raises #DB with BT after the switch", () => {
  prepare();
  m.write32(TSS2 + 0x64, 1);
  m.step((a) => a.emit("jmp", far(NEW, 0)));
  assert.deepEqual([m.vector, m.num(S.DR6), m.read32(m.gpr(4))], [1, 0xffff_8ff0, EIP]);
});

test("in VMX non-root operation a task switch exits with selector and source, after the checks on the TSS", () => {
  const qualification = (run: () => void): [number, number] => {
    prepare();
    m.set(S.NON_ROOT, 1);
    run();
    return [m.num(S.EXIT_REASON), m.num(S.EXIT_QUALIFICATION)];
  };
  assert.deepEqual(
    qualification(() => m.step((a) => a.emit("call", far(NEW, 0)))),
    [9, NEW],
  );
  assert.deepEqual(
    qualification(() => m.step((a) => a.emit("jmp", far(NEW, 0)))),
    [9, 0x8000_0000 + NEW],
  );
  assert.deepEqual(
    qualification(() => {
      m.setFlags(NT);
      m.write16(At.TSS, NEW);
      m.setDescriptor(NEW, descriptor(0x8b, TSS2, 0x67));
      m.step((a) => a.emit("iretd"));
    }),
    [9, 0x4000_0000 + NEW],
  );
  assert.deepEqual(
    qualification(() => {
      m.write64(At.IDT + 8 * 6, gateLow({ selector: NEW, offset: 0, access: 0x85 }));
      m.step((a) => a.emit("ud2"));
    }),
    [9, 0xc000_0000 + NEW],
  );
  assert.equal(m.num(S.VECTORING), 0x8000_0306);
  prepare();
  m.set(S.NON_ROOT, 1);
  m.setDescriptor(NEW, descriptor(0x8b, TSS2, 0x67));
  m.step((a) => a.emit("jmp", far(NEW, 0)));
  assert.equal(m.vector, 13);
});
