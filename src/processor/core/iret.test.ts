/** IRET in every mode, and the fast system calls. SDM Vol. 2, "IRET/IRETD/IRETQ", "SYSCALL", "SYSRET", "SYSENTER", "SYSEXIT". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { S, Seg } from "../state/layout.ts";
import { At, descriptor, Sel, TestMachine } from "./test-machine.ts";

const m = new TestMachine();
const IF = 0x200;
const TF = 0x100;
const NT = 0x4000;
const VM = 0x2_0000;
const TARGET = 0x5000;
const NON_CANONICAL = 0x8000_0000_0000n;

function push64(...items: (number | bigint)[]): void {
  const sp = At.STACK0 - 8 * items.length;
  items.forEach((v, i) => {
    m.write64(sp + 8 * i, BigInt(v));
  });
  m.setGpr(4, sp);
}

function push32(...items: number[]): void {
  const sp = m.gpr(4) - 4 * items.length;
  items.forEach((v, i) => {
    m.write32(sp + 4 * i, v);
  });
  m.setGpr(4, sp);
}

const iretq = (): number => m.step((a) => a.emit("iretq"));
const error = (): number => Number(m.read64(m.gpr(4)));

test("IRETQ to the same ring loads RIP, RFLAGS and SS:RSP", () => {
  m.reset("long");
  push64(TARGET, Sel.CODE64, IF | NT | 0x3000 | 1, 0x7777, Sel.DATA);
  iretq();
  assert.deepEqual([m.rip, m.flags(), m.gpr(4)], [BigInt(TARGET), IF | NT | 0x3003, 0x7777]);
  assert.equal(m.segment(Seg.SS).selector, Sel.DATA);
});

test("IRETQ at ring 0 accepts a null SS", () => {
  m.reset("long");
  push64(TARGET, Sel.CODE64, 2, At.STACK0, 0);
  iretq();
  assert.deepEqual([m.rip, m.segment(Seg.SS).rights], [BigInt(TARGET), 0x1_0000]);
});

test("IRETQ to ring 3 changes CPL and drops data segments of inner rings, but not bases", () => {
  m.reset("long");
  m.setSegment(Seg.FS, { base: 0x1234n });
  m.setSegment(Seg.GS, { base: 0x5678n, rights: 0x1_0000, selector: 0 });
  m.setSegment(Seg.DS, { rights: 0xc0f3, selector: Sel.DATA_USER });
  push64(TARGET, Sel.CODE64_USER, IF, At.STACK3, Sel.DATA_USER);
  iretq();
  assert.deepEqual([m.rip, m.num(S.CPL), m.gpr(4)], [BigInt(TARGET), 3, At.STACK3]);
  const [ds, es, fs, gs] = [Seg.DS, Seg.ES, Seg.FS, Seg.GS].map((s) => m.segment(s));
  assert.deepEqual([ds!.selector, es!.selector, fs!.selector], [Sel.DATA_USER, 0, 0]);
  assert.deepEqual(
    [es!.rights >> 16, fs!.rights >> 16, fs!.base, gs!.base],
    [1, 1, 0x1234n, 0x5678n],
  );
});

test("IRETQ to compatibility mode enters 32-bit code", () => {
  m.reset("long");
  push64(TARGET, Sel.CODE32_USER, 2, 0x1_0000_7000n, Sel.DATA_USER);
  iretq();
  assert.deepEqual([m.mode & 3, m.num(S.CPL), m.rip, m.gpr(4)], [1, 3, BigInt(TARGET), 0x7000]);
});

test("IRETQ from ring 3 cannot change IOPL, nor IF above IOPL", () => {
  m.reset("long");
  m.enterUser();
  m.setFlags(IF);
  push64(TARGET, Sel.CODE64_USER, 0x3000 | 0x8d5, At.STACK3, Sel.DATA_USER);
  iretq();
  assert.equal(m.flags(), IF | 0x8d7);
});

test("IRETQ lifts blocking by NMI", () => {
  m.reset("long");
  m.set(S.INTERRUPTIBILITY, 8);
  push64(TARGET, Sel.CODE64, 2, At.STACK0, Sel.DATA);
  iretq();
  assert.equal(m.num(S.INTERRUPTIBILITY), 0);
  m.reset("long");
  m.set(S.NON_ROOT, 1);
  m.set(S.CTL_PIN, 8);
  m.set(S.INTERRUPTIBILITY, 8);
  push64(TARGET, Sel.CODE64, 2, At.STACK0, Sel.DATA);
  iretq();
  assert.equal(m.num(S.INTERRUPTIBILITY), 8, "with NMI exiting alone the VMM owns it");
});

test("IRETQ faults leave the state alone and have the right error code", () => {
  const bad: [string, (number | bigint)[], number, number][] = [
    ["null CS", [TARGET, 0, 2, 0, 0], 13, 0],
    ["data CS", [TARGET, Sel.DATA, 2, 0, 0], 13, Sel.DATA],
    ["CS beyond the table", [TARGET, 0x2008, 2, 0, 0], 13, 0x2008],
    ["RPL does not match DPL", [TARGET, Sel.CODE64_USER & ~3, 2, 0, 0], 13, Sel.CODE64_USER & ~3],
    ["null SS for ring 3", [TARGET, Sel.CODE64_USER, 2, 0, 3], 13, 0],
    ["SS with another RPL", [TARGET, Sel.CODE64_USER, 2, 0, Sel.DATA], 13, Sel.DATA],
    ["SS with another DPL", [TARGET, Sel.CODE64_USER, 2, 0, Sel.DATA | 3], 13, Sel.DATA],
    ["SS is code", [TARGET, Sel.CODE64, 2, 0, Sel.CODE64], 13, Sel.CODE64],
    ["RIP is not canonical", [NON_CANONICAL, Sel.CODE64, 2, 0, Sel.DATA], 13, 0],
    ["CS not present", [TARGET, Sel.FREE, 2, 0, Sel.DATA], 11, Sel.FREE],
    ["SS not present", [TARGET, Sel.CODE64, 2, 0, Sel.FREE + 8], 12, Sel.FREE + 8],
    ["both L and D", [TARGET, Sel.FREE + 16, 2, 0, Sel.DATA], 13, Sel.FREE + 16],
  ];
  for (const [name, items, vector, code] of bad) {
    m.reset("long");
    m.setDescriptor(Sel.FREE, descriptor(0xa01b));
    m.setDescriptor(Sel.FREE + 8, descriptor(0xc013));
    m.setDescriptor(Sel.FREE + 16, descriptor(0xe09b));
    push64(...items);
    const sp = m.gpr(4);
    iretq();
    assert.deepEqual([m.vector, error()], [vector, code], name);
    assert.deepEqual(
      [m.read64(m.gpr(4) + 8), m.read64(m.gpr(4) + 32)],
      [BigInt(At.CODE), BigInt(sp)],
      name,
    );
  }
  m.reset("long");
  m.setFlags(NT);
  push64(TARGET, Sel.CODE64, 2, 0, Sel.DATA);
  iretq();
  assert.equal(m.vector, 13, "nested task in IA-32e mode");
  m.reset("long");
  m.setGate(12, { selector: Sel.CODE64, offset: At.HANDLERS + 192, access: 0x8e, extra: 1 });
  m.setGpr(4, NON_CANONICAL);
  iretq();
  assert.deepEqual([m.vector, error()], [12, 0], "stack is not canonical");
});

test("IRETD in 64-bit mode pops five 32-bit items", () => {
  m.reset("long");
  push32(TARGET, Sel.CODE64, 3, 0x7000, Sel.DATA);
  m.step((a) => a.emit("iretd"));
  assert.deepEqual([m.rip, m.flags(), m.gpr(4)], [BigInt(TARGET), 3, 0x7000]);
});

test("protected mode: IRETD to the same ring pops three items", () => {
  m.reset("protected");
  push32(TARGET, Sel.CODE32, 0x3047);
  m.step((a) => a.emit("iretd"));
  assert.deepEqual([m.rip, m.flags(), m.gpr(4)], [BigInt(TARGET), 0x3047, At.STACK0]);
});

test("protected mode: IRETD to an outer ring pops SS:ESP", () => {
  m.reset("protected");
  push32(TARGET, Sel.CODE32_USER, 2, At.STACK3, Sel.DATA_USER);
  m.step((a) => a.emit("iretd"));
  assert.deepEqual([m.rip, m.num(S.CPL), m.gpr(4)], [BigInt(TARGET), 3, At.STACK3]);
  assert.deepEqual([m.segment(Seg.DS).selector, m.segment(Seg.DS).rights >> 16], [0, 1]);
});

test("protected mode: EIP beyond the limit and a short stack fault", () => {
  m.reset("protected");
  m.setDescriptor(Sel.FREE, descriptor(0x409b, 0, 0x4fff));
  push32(TARGET, Sel.FREE, 2);
  m.step((a) => a.emit("iretd"));
  assert.deepEqual([m.vector, m.read32(m.gpr(4))], [13, 0]);
  m.reset("protected");
  m.setSegment(Seg.SS, { limit: At.STACK0 - 1 });
  m.setGate(12, { selector: Sel.CODE32, offset: At.HANDLERS + 192, access: 0x8e });
  m.setGpr(4, At.STACK0 - 8);
  m.step((a) => a.emit("iretd"));
  assert.deepEqual([m.vector, m.read32(m.gpr(4))], [12, 0]);
});

test("IRETD enters virtual-8086 mode with nine items, and #GP brings it back to ring 0", () => {
  m.reset("protected");
  m.set(S.RFLAGS_REST, 2);
  push32(0x10, 0x400, VM | IF | 2, 0xfff0, 0x900, 0x11, 0x22, 0x33, 0x44);
  m.step((a) => a.emit("iretd"));
  assert.deepEqual([m.rip, m.num(S.CPL), m.gpr(4), m.flags()], [0x10n, 3, 0xfff0, VM | IF | 2]);
  assert.deepEqual(m.segment(Seg.CS), {
    base: 0x4000n,
    limit: 0xffff,
    rights: 0xf3,
    selector: 0x400,
  });
  assert.deepEqual(
    [Seg.ES, Seg.DS, Seg.FS, Seg.GS].map((s) => m.segment(s).selector),
    [0x11, 0x22, 0x33, 0x44],
  );
  m.step((a) => a.emit("cli"));
  assert.deepEqual([m.vector, m.num(S.CPL), m.mode & 0x10], [13, 0, 0]);
  const sp = m.gpr(4);
  const items = Array.from({ length: 10 }, (_, i) => m.read32(sp + 4 * i));
  assert.deepEqual(items, [
    0,
    0x10,
    0x400,
    VM | IF | 0x1_0002,
    0xfff0,
    0x900,
    0x11,
    0x22,
    0x33,
    0x44,
  ]);
  assert.deepEqual(
    [sp, m.segment(Seg.DS).rights >> 16, m.segment(Seg.SS).selector],
    [At.RSP0 - 40, 1, Sel.DATA],
  );
});

test("virtual-8086 mode: INT n needs IOPL 3, IRET changes neither IOPL nor VM", () => {
  const enter = (iopl: number): void => {
    m.reset("protected");
    m.setGate(0x21, { selector: Sel.CODE32, offset: At.HANDLERS + 0x210, access: 0xee });
    push32(0x10, 0x400, VM | 2 | (iopl << 12), 0xff00, 0x900, 0, 0, 0, 0);
    m.step((a) => a.emit("iretd"));
  };
  enter(0);
  m.step((a) => a.bytes([0xcd, 0x21]));
  assert.deepEqual([m.vector, m.read32(m.gpr(4))], [13, 0]);
  enter(3);
  m.step((a) => a.bytes([0xcd, 0x21]));
  assert.deepEqual([m.vector, m.read32(m.gpr(4))], [0x21, 0x12]);
  enter(3);
  m.write16(0x9000 + 0xff00, 0x20);
  m.write16(0x9000 + 0xff02, 0x500);
  m.write16(0x9000 + 0xff04, 0x0fd7);
  m.step((a) => a.emit("iret"));
  assert.deepEqual(
    [m.rip, m.segment(Seg.CS).selector, m.flags(), m.gpr(4)],
    [0x20n, 0x500, VM | 0x3fd7, 0xff06],
  );
});

test("virtual-8086 mode with CR4.VME redirects vectors whose bit is clear", () => {
  m.reset("protected");
  m.set(S.CR4, 1n);
  m.setSegment(Seg.TR, { limit: 0x200 });
  m.write16(At.TSS + 0x66, 0xa0);
  m.write32(0x21 * 4, 0x1234_0056);
  push32(0x10, 0x400, VM | 0x8_0002, 0xff00, 0x900, 0, 0, 0, 0);
  m.step((a) => a.emit("iretd"));
  m.step((a) => a.bytes([0xcd, 0x21]));
  assert.deepEqual([m.segment(Seg.CS).selector, m.gpr(4), m.flags()], [0x1234, 0xfefa, VM | 2]);
  assert.deepEqual([m.read16(0x9000 + 0xfefa), m.read16(0x9000 + 0xfefe)], [0x12, 0x3202]);
});

test("real mode: INT and IRET go through the vector table", () => {
  m.reset("real");
  m.setFlags(IF | TF | 0x8d5);
  m.set(S.RFLAGS_REST, IF | 2);
  m.step((a) => a.bytes([0xcd, 0x21]));
  assert.deepEqual([m.vector, m.flags(), m.gpr(4)], [0x21, 0x8d7, At.STACK0 - 6]);
  assert.deepEqual(
    [m.read16(At.STACK0 - 6), m.read16(At.STACK0 - 4), m.read16(At.STACK0 - 2)],
    [At.CODE + 2, 0, IF | 0x8d7],
  );
  m.step((a) => a.emit("iret"));
  assert.deepEqual([m.rip, m.flags(), m.gpr(4)], [BigInt(At.CODE + 2), IF | 0x8d7, At.STACK0]);
});

test("real mode pushes no error codes", () => {
  m.reset("real");
  m.setGpr(3, 0xffff);
  m.step((a) => a.bytes([0x8b, 0x07])); // mov ax, [bx]
  assert.deepEqual([m.vector, m.gpr(4), m.read16(At.STACK0 - 6)], [13, At.STACK0 - 6, At.CODE]);
});

// ---- SYSCALL and SYSENTER ----

function prepareSyscall(): void {
  m.reset("long");
  m.set(S.STAR, (0x23n << 48n) | (0x08n << 32n));
  m.set(S.LSTAR, BigInt(TARGET));
  m.set(S.SFMASK, 0x4_7700n);
}

test("SYSCALL saves RIP and RFLAGS, masks RFLAGS, loads flat ring-0 segments", () => {
  prepareSyscall();
  m.enterUser();
  m.setFlags(IF | 0x8d5);
  m.step((a) => a.emit("syscall"));
  assert.deepEqual(
    [m.rip, m.gpr(1), m.gpr(11), m.flags(), m.num(S.CPL)],
    [BigInt(TARGET), At.CODE + 2, IF | 0x8d7, 0x8d7, 0],
  );
  assert.deepEqual(m.segment(Seg.CS), {
    base: 0n,
    limit: 0xffff_ffff,
    rights: 0xa09b,
    selector: 8,
  });
  assert.deepEqual(m.segment(Seg.SS), {
    base: 0n,
    limit: 0xffff_ffff,
    rights: 0xc093,
    selector: 16,
  });
});

test("SYSCALL is undefined without EFER.SCE and outside 64-bit mode", () => {
  prepareSyscall();
  m.set(S.EFER, 0xd00n);
  m.step((a) => a.emit("syscall"));
  assert.equal(m.vector, 6);
  prepareSyscall();
  m.enterUser(Sel.CODE32_USER);
  m.step((a) => a.bytes([0x0f, 0x05]));
  assert.equal(m.vector, 6);
});

test("SYSRET goes to 64-bit or compatibility code by operand size", () => {
  for (const [code, selector, rights] of [
    [[0x48, 0x0f, 0x07], 0x33, 0xa0fb],
    [[0x0f, 0x07], 0x23, 0xc0fb],
  ] as const) {
    prepareSyscall();
    m.setGpr(1, TARGET);
    m.setGpr(11, IF | 0x1_0000 | VM | 0xd7);
    m.step((a) => a.bytes(code));
    assert.deepEqual([m.rip, m.flags(), m.num(S.CPL)], [BigInt(TARGET), IF | 0xd7, 3]);
    assert.deepEqual([m.segment(Seg.CS).selector, m.segment(Seg.CS).rights], [selector, rights]);
    assert.deepEqual([m.segment(Seg.SS).selector, m.segment(Seg.SS).rights], [0x2b, 0xc0f3]);
  }
});

test("SYSRET to a non-canonical RCX faults at ring 0, as Intel processors do", () => {
  prepareSyscall();
  m.setGpr(1, NON_CANONICAL);
  m.step((a) => a.bytes([0x48, 0x0f, 0x07]));
  assert.deepEqual([m.vector, error(), Number(m.read64(m.gpr(4) + 16))], [13, 0, Sel.CODE64]);
  prepareSyscall();
  m.enterUser();
  m.step((a) => a.bytes([0x48, 0x0f, 0x07]));
  assert.deepEqual([m.vector, error()], [13, 0], "and at ring 3 by CPL");
});

test("SYSENTER and SYSEXIT use the SYSENTER MSRs in 32-bit and 64-bit modes", () => {
  for (const mode of ["protected", "long"] as const) {
    m.reset(mode);
    const isLong = mode === "long";
    m.set(S.SYSENTER_CS, 8n);
    m.set(S.SYSENTER_ESP, 0x7000n);
    m.set(S.SYSENTER_EIP, BigInt(TARGET));
    m.enterUser(isLong ? Sel.CODE64_USER : Sel.CODE32_USER);
    m.setFlags(IF);
    m.step((a) => a.emit("sysenter"));
    assert.deepEqual([m.rip, m.gpr(4), m.flags(), m.num(S.CPL)], [BigInt(TARGET), 0x7000, 2, 0]);
    assert.deepEqual(
      [m.segment(Seg.CS).selector, m.segment(Seg.CS).rights],
      [8, isLong ? 0xa09b : 0xc09b],
    );
    m.setGpr(1, At.STACK3);
    m.setGpr(2, 0x5100);
    m.step((a) => a.bytes(isLong ? [0x48, 0x0f, 0x35] : [0x0f, 0x35]));
    assert.deepEqual([m.rip, m.gpr(4), m.num(S.CPL)], [0x5100n, At.STACK3, 3]);
    const [cs, ss] = isLong ? [0x2b, 0x33] : [0x1b, 0x23];
    assert.deepEqual([m.segment(Seg.CS).selector, m.segment(Seg.SS).selector], [cs, ss]);
  }
  m.reset("protected");
  m.step((a) => a.emit("sysenter"));
  assert.equal(m.vector, 13, "SYSENTER_CS is null");
});
