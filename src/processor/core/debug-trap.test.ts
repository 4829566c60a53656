/**
 * Debug exceptions as traps, data and I/O breakpoints, RFLAGS.RF, and single steps. SDM Vol. 3B, "Debug Exceptions"; Vol. 3A, "Masking Exceptions
 * and Interrupts When Switching Stacks".
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Assembler, byte, dword, imm, qword, word, xmmword } from "../isa/assemble.ts";
import { al, ax, dr7, ds, dx, eax, rax, rdi, ss, xmm0 } from "../isa/registers.ts";
import { Cr0, Cr4 } from "../state/control-bits.ts";
import { CONTEXT_NONE, type Field, RAM_BASE, S, Seg } from "../state/layout.ts";
import { At, Sel, TestMachine } from "./test-machine.ts";

const m = new TestMachine();
const [RAX, RCX, RDX, RSP, RSI, RDI, R11] = [0, 1, 2, 4, 6, 7, 11];
const RF = 0x1_0000;
const TF = 0x100;
const AC = 0x4_0000;
const DR6_BASE = 0xffff_0ff0n;
const BS = 0x4000n;
const { SCRATCH } = At;
const WATCHED = SCRATCH + 0x100;
const ADDRESSES: readonly Field[] = [S.DR0, S.DR1, S.DR2, S.DR3];
const On = { EXECUTE: 0, WRITE: 1, IO: 2, ACCESS: 3 } as const;
/** Codes of LEN. */
const LEN = { 1: 0, 2: 1, 4: 3, 8: 2 } as const;

/** Enables a breakpoint by its local bit. */
function arm(i: number, address: number, on: number, bytes: 1 | 2 | 4 | 8 = 1): void {
  m.set(ADDRESSES[i]!, BigInt(address));
  const bits = (1 << (2 * i)) | ((on | (LEN[bytes] << 2)) << (16 + 4 * i));
  m.set(S.DR7, BigInt((m.num(S.DR7) | bits) >>> 0));
  m.engine.updateMode();
}

/** Vector and DR6 after one instruction (and the trap after it), in 64-bit mode at ring 0 with breakpoint 0 on WATCHED. */
function one(on: number, bytes: 1 | 2 | 4 | 8, build: (a: Assembler) => void): [number, bigint] {
  m.reset("long");
  m.set(S.CR4, BigInt(m.num(S.CR4) | Cr4.OSFXSR));
  arm(0, WATCHED, on, bytes);
  m.setGpr(RDI, WATCHED);
  m.setGpr(RSI, SCRATCH);
  m.step(build);
  return [m.vector, m.get(S.DR6) as bigint];
}

const TRAP: [number, bigint] = [1, DR6_BASE | 1n];
const NONE: [number, bigint] = [-1, DR6_BASE];

/** The 64-bit frame of an exception without error code: RIP, CS, RFLAGS. */
function frame(): [number, number, number] {
  const sp = m.gpr(RSP);
  return [0, 8, 16].map((at) => Number(m.read64(sp + at))) as [number, number, number];
}

/** Executes what has been assembled before, at `rip`. */
function runAt(rip: number | bigint, count = 1): void {
  m.set(S.RIP, BigInt(rip));
  m.engine.run(count);
}

// ---- data breakpoints ----

test("a write to a watched address is done, then #DB is delivered with RIP after it", () => {
  assert.deepEqual(
    one(On.WRITE, 4, (a) => a.emit("mov", dword(rdi), imm(0x1234))),
    TRAP,
  );
  assert.equal(m.read32(WATCHED), 0x1234);
  assert.deepEqual(frame(), [At.CODE + 6, Sel.CODE64, 2]);
});

test("every kind of access to memory is seen: loads, stores, stack, strings, vectors, x87", () => {
  const load = (build: (a: Assembler) => void): void => {
    assert.deepEqual(one(On.ACCESS, 1, build), TRAP);
    assert.deepEqual(one(On.WRITE, 1, build), NONE);
  };
  const store = (build: (a: Assembler) => void): void => {
    assert.deepEqual(one(On.ACCESS, 1, build), TRAP);
    assert.deepEqual(one(On.WRITE, 1, build), TRAP);
    assert.deepEqual(one(On.EXECUTE, 1, build), NONE);
  };
  load((a) => a.emit("mov", eax, dword(rdi)));
  load((a) => a.emit("cmp", byte(rdi), imm(1)));
  load((a) => a.emit("push", qword(rdi)));
  load((a) => a.emit("scasb"));
  load((a) => a.emit("movups", xmm0, xmmword(rdi, -15)));
  load((a) => a.emit("fld", dword(rdi)));
  load((a) => a.emit("bt", dword(rdi, -3), imm(31)));
  store((a) => a.emit("add", dword(rdi, -3), eax));
  store((a) => a.emit("xchg", qword(rdi, -7), rax));
  store((a) => a.emit("pop", qword(rdi)));
  store((a) => a.emit("stosb"));
  store((a) => a.emit("movsb"));
  store((a) => a.emit("movups", xmmword(rdi, -15), xmm0));
  store((a) => a.emit("fstp", qword(rdi)));
});

test("an access of the bytes beside, an address that is only computed, and an instruction fetch are not", () => {
  for (const build of [
    (a: Assembler) => a.emit("mov", dword(rdi, 4), eax),
    (a: Assembler) => a.emit("mov", dword(rdi, -4), eax),
    (a: Assembler) => a.emit("lea", rax, qword(rdi)),
    (a: Assembler) => a.emit("nop", dword(rdi)),
  ])
    assert.deepEqual(one(On.ACCESS, 4, build), NONE);
  m.reset("long");
  arm(0, At.CODE, On.ACCESS, 8);
  m.step((a) => a.emit("nop"));
  assert.equal(m.vector, -1);
});

test("an access across a page is seen on either side", () => {
  for (const watched of [SCRATCH + 0xffe, SCRATCH + 0x1001]) {
    m.reset("long");
    arm(2, watched, On.WRITE);
    m.setGpr(RDI, SCRATCH + 0xffe);
    m.step((a) => a.emit("mov", dword(rdi), eax));
    assert.deepEqual([m.vector, m.get(S.DR6)], [1, DR6_BASE | 4n]);
  }
});

test("an instruction that meets several breakpoints under TF reports all of them at once", () => {
  m.reset("long");
  arm(1, WATCHED, On.WRITE);
  arm(3, SCRATCH, On.ACCESS);
  m.setGpr(RDI, WATCHED);
  m.setGpr(RSI, SCRATCH);
  m.setFlags(TF);
  m.engine.updateMode();
  m.step((a) => a.emit("movsb"));
  assert.deepEqual([m.vector, m.get(S.DR6)], [1, DR6_BASE | 0xan | BS]);
});

test("an instruction that faults has met no breakpoint", () => {
  m.reset("long");
  arm(0, WATCHED, On.ACCESS);
  m.setGpr(RSI, WATCHED);
  m.setGpr(RDI, 0x1e_f000);
  m.unmap(0x1e_f000);
  m.step((a) => a.emit("movsb"), 3);
  assert.deepEqual([m.vector, m.get(S.DR6)], [14, DR6_BASE]);
});

test("a breakpoint on a descriptor or a stack that the processor itself uses is met", () => {
  m.reset("long");
  arm(0, At.GDT + Sel.DATA, On.ACCESS, 8);
  m.setGpr(RAX, Sel.DATA);
  m.step((a) => a.emit("mov", ds, ax));
  assert.deepEqual([m.vector, m.get(S.DR6)], [1, DR6_BASE | 1n]);
  // The frame of INT n: the trap comes before the handler's first instruction.
  m.reset("long");
  arm(0, At.STACK0 - 8, On.WRITE, 8);
  m.step((a) => a.emit("int", imm(0x40)));
  assert.deepEqual([m.vector, m.get(S.DR6)], [1, DR6_BASE | 1n]);
  assert.equal(frame()[0], At.HANDLERS + 16 * 0x40);
});

test("data breakpoints leave SMAP and alignment checking as they are", () => {
  m.reset("long");
  arm(0, WATCHED, On.WRITE);
  m.set(S.CR4, BigInt(m.num(S.CR4) | Cr4.SMAP));
  // A supervisor stack and tables beside the user page.
  for (const at of [At.STACK0 - 0x1000, At.IDT, At.GDT, At.HANDLERS, At.CODE, At.TSS])
    m.write64(At.PAGE_TABLE + 8 * (at >> 12), BigInt(at - (at & 0xfff) + 3));
  m.engine.flushTlb();
  m.setFlags(AC);
  m.engine.updateMode();
  m.setGpr(RDI, SCRATCH + 1);
  m.step((a) => a.emit("mov", eax, dword(rdi)));
  assert.equal(m.vector, -1, "AC suspends SMAP, and is no alignment check at ring 0");
  m.setFlags(0);
  m.engine.updateMode();
  m.step((a) => a.emit("mov", eax, dword(rdi)));
  assert.equal(m.vector, 14);
});

test("only data breakpoints keep the TLB from being used", () => {
  m.reset("long");
  arm(0, WATCHED, On.EXECUTE);
  arm(1, 0x60, On.IO);
  assert.notEqual(m.num(S.CONTEXT), CONTEXT_NONE);
  arm(2, WATCHED, On.WRITE);
  assert.equal(m.num(S.CONTEXT), CONTEXT_NONE);
  m.setGpr(RAX, 0x400);
  m.step((a) => a.emit("mov", dr7, rax));
  assert.notEqual(m.num(S.CONTEXT), CONTEXT_NONE);
});

// ---- repeated strings ----

/** REP MOVSB of eight bytes to SCRATCH + 0x200 with a breakpoint on byte `at`. Answers the number of bytes done. */
function repMove(at: number): number {
  m.reset("long");
  m.setGpr(RSI, SCRATCH);
  m.setGpr(RDI, SCRATCH + 0x200);
  m.setGpr(RCX, 8);
  arm(0, SCRATCH + 0x200 + at, On.WRITE);
  m.step((a) => a.bytes([0xf3, 0xa4, ...Array<number>(32).fill(0x90)]));
  return 8 - m.gpr(RCX);
}

test("in a repeated string instruction #DB comes after the iteration, with RF pushed as 1 unless it was the last", () => {
  assert.equal(repMove(2), 3);
  assert.deepEqual([m.vector, ...frame()], [1, At.CODE, Sel.CODE64, RF | 2]);
  runAt(At.CODE, 16);
  assert.deepEqual([m.gpr(RCX), m.vector], [0, -1], "it goes on");
  assert.equal(repMove(7), 8);
  assert.deepEqual([m.vector, ...frame()], [1, At.CODE + 2, Sel.CODE64, 2]);
});

test("a single step in a repeated string instruction pushes RF as 1 until the last iteration", () => {
  m.reset("long");
  m.setGpr(RDI, SCRATCH);
  m.setGpr(RCX, 2);
  m.setFlags(TF);
  m.engine.updateMode();
  m.step((a) => a.bytes([0xf3, 0xaa]));
  assert.deepEqual([m.vector, m.gpr(RCX), ...frame()], [1, 1, At.CODE, Sel.CODE64, TF | RF | 2]);
  m.setFlags(TF | RF);
  m.engine.updateMode();
  runAt(At.CODE);
  assert.deepEqual([m.gpr(RCX), ...frame()], [0, At.CODE + 2, Sel.CODE64, TF | 2]);
});

test("a long repeated string instruction meets the breakpoint on itself once, however often it gives way", () => {
  m.reset("long");
  arm(0, At.CODE, On.EXECUTE);
  m.setGpr(RDI, 0x2_0000);
  m.setGpr(RCX, 0x1_0000);
  m.step((a) => a.bytes([0xf3, 0xaa]));
  assert.deepEqual([m.vector, m.gpr(RCX)], [1, 0x1_0000]);
  m.setFlags(RF);
  runAt(At.CODE);
  assert.ok(m.gpr(RCX) > 0 && m.gpr(RCX) < 0x1_0000, "it has given way");
  runAt(m.rip, 100);
  assert.deepEqual([m.vector, m.gpr(RCX)], [-1, 0]);
});

// ---- MOV SS ----

test("what MOV SS meets waits for the instruction after it, even if that is INT n; its own single step is lost", () => {
  const start = (flags: number): void => {
    m.reset("long");
    m.write16(WATCHED, Sel.DATA);
    m.setGpr(RDI, WATCHED);
    arm(0, WATCHED, On.ACCESS, 2);
    m.setFlags(flags);
    m.engine.updateMode();
  };
  start(0);
  m.step((a) => a.emit("mov", ss, word(rdi)).emit("nop"));
  assert.equal(m.vector, -1);
  runAt(m.rip);
  assert.deepEqual([m.vector, m.get(S.DR6), frame()[0]], [1, DR6_BASE | 1n, At.CODE + 3]);
  start(0);
  m.step((a) => a.emit("mov", ss, word(rdi)).emit("int", imm(0x40)), 2);
  assert.deepEqual([m.vector, frame()[0]], [1, At.HANDLERS + 16 * 0x40]);
  start(TF);
  m.step((a) => a.emit("mov", ss, word(rdi)).emit("nop"));
  assert.equal(m.vector, -1);
  runAt(m.rip);
  assert.deepEqual([m.vector, m.get(S.DR6)], [1, DR6_BASE | BS | 1n]);
});

test("an instruction breakpoint right after MOV SS is not met", () => {
  m.reset("long");
  m.setGpr(RAX, Sel.DATA);
  arm(0, At.CODE + 2, On.EXECUTE);
  m.step((a) => a.emit("mov", ss, ax).emit("nop"), 2);
  assert.deepEqual([m.vector, m.rip], [-1, BigInt(At.CODE + 3)]);
});

// ---- I/O ----

test("I/O breakpoints need CR4.DE and trap after the access", () => {
  const input = (cr4: number, port: number): number => {
    m.reset("long");
    m.set(S.CR4, BigInt(m.num(S.CR4) | cr4));
    arm(1, 0x60, On.IO, 2);
    m.step((a) => a.emit("in", al, imm(port)));
    return m.vector;
  };
  assert.equal(input(Cr4.DE, 0x61), 1);
  assert.deepEqual([m.get(S.DR6), m.gpr(RAX), frame()[0]], [DR6_BASE | 2n, 0xff, At.CODE + 2]);
  assert.equal(input(Cr4.DE, 0x62), -1);
  assert.equal(input(0, 0x61), -1);
  for (const build of [
    (a: Assembler) => a.emit("out", dx, al),
    (a: Assembler) => a.emit("out", dx, eax),
    (a: Assembler) => a.emit("outsb"),
  ]) {
    m.reset("long");
    m.set(S.CR4, BigInt(m.num(S.CR4) | Cr4.DE));
    arm(0, 0x63, On.IO);
    m.setGpr(RDX, 0x60);
    m.setGpr(RSI, SCRATCH);
    m.step(build);
    const reaches = m.read16(At.CODE) === 0xef || m.view.getUint8(RAM_BASE + At.CODE) === 0xef;
    assert.equal(m.vector, reaches ? 1 : -1);
  }
});

test("a port that the program may not use is not accessed", () => {
  m.reset("long");
  m.set(S.CR4, BigInt(m.num(S.CR4) | Cr4.DE));
  m.enterUser();
  m.write16(At.TSS + 0x66, 0x68);
  arm(0, 0x60, On.IO);
  m.step((a) => a.emit("in", al, imm(0x60)), 2);
  assert.deepEqual([m.vector, m.get(S.DR6)], [13, DR6_BASE]);
});

test("REP INSB traps after its first iteration", () => {
  m.reset("long");
  m.set(S.CR4, BigInt(m.num(S.CR4) | Cr4.DE));
  arm(0, 0x60, On.IO);
  m.setGpr(RDX, 0x60);
  m.setGpr(RDI, SCRATCH);
  m.setGpr(RCX, 3);
  m.step((a) => a.bytes([0xf3, 0x6c]));
  assert.deepEqual([m.vector, m.gpr(RCX), ...frame()], [1, 2, At.CODE, Sel.CODE64, RF | 2]);
});

// ---- instruction breakpoints and RF ----

test("an instruction breakpoint faults before the instruction with RF as it was, and RF holds it back once", () => {
  m.reset("long");
  arm(0, At.CODE, On.EXECUTE);
  m.step((a) => a.emit("inc", eax));
  assert.deepEqual([m.vector, m.get(S.DR6), m.gpr(RAX)], [1, DR6_BASE | 1n, 0]);
  assert.deepEqual(frame(), [At.CODE, Sel.CODE64, 2]);
  m.setFlags(RF);
  runAt(At.CODE);
  assert.deepEqual([m.rip, m.gpr(RAX), m.flags() & RF], [BigInt(At.CODE + 2), 1, 0]);
  runAt(At.CODE);
  assert.deepEqual([m.vector, m.gpr(RAX)], [1, 1], "once only");
});

test("RF outlives a run that could not begin", () => {
  m.reset("long");
  arm(0, At.CODE, On.EXECUTE);
  m.setFlags(RF);
  m.step((a) => a.emit("inc", eax), 0);
  runAt(At.CODE);
  assert.deepEqual([m.vector, m.gpr(RAX)], [-1, 1]);
});

test("a fault of the instruction pushes RF as 1, so that it is resumed without meeting its breakpoint again", () => {
  m.reset("long");
  arm(0, At.CODE, On.EXECUTE);
  m.unmap(0x1e_f000);
  m.setGpr(RDI, 0x1e_f000);
  m.setFlags(RF);
  m.step((a) => a.emit("mov", eax, dword(rdi)));
  assert.equal(m.vector, 14);
  assert.equal(m.read64(m.gpr(RSP) + 24), BigInt(RF | 2));
  // The handler repairs and returns.
  m.write64(At.PAGE_TABLE + 8 * 0x1ef, 0x1e_f007n);
  m.engine.flushTlb();
  m.setGpr(RSP, m.gpr(RSP) + 8);
  m.step((a) => a.emit("iretq"), 2);
  assert.deepEqual([m.rip, m.get(S.DR6)], [BigInt(At.CODE + 2), DR6_BASE]);
});

test("IRETQ and IRETD take RF from the stack, IRET and POPF do not", () => {
  for (const [name, width, held] of [
    ["iretq", 8, true],
    ["iretd", 4, true],
    ["iret", 2, false],
  ] as const) {
    m.reset("long");
    arm(0, At.CODE + 0x100, On.EXECUTE);
    const sp = At.STACK0 - 0x100;
    m.setGpr(RSP, sp);
    const items = [At.CODE + 0x100, Sel.CODE64, RF | 2, sp, Sel.DATA];
    items.forEach((v, i) => {
      if (width === 8) m.write64(sp + 8 * i, BigInt(v));
      else if (width === 4) m.write32(sp + 4 * i, v);
      else m.write16(sp + 2 * i, v & 0xffff);
    });
    m.view.setUint8(RAM_BASE + At.CODE + 0x100, 0x90);
    m.step((a) => a.emit(name), 2);
    assert.equal(m.vector, held ? -1 : 1, name);
  }
  m.reset("long");
  arm(0, At.CODE + 1, On.EXECUTE);
  m.write64(At.STACK0, BigInt(RF | 2));
  m.step((a) => a.emit("popfq").emit("nop"), 2);
  assert.equal(m.vector, 1);
});

test("the image that INT n, SYSCALL and a trap leave has RF clear, whatever IRET had loaded before", () => {
  m.reset("long");
  m.setFlags(RF);
  m.step((a) => a.emit("nop").emit("int", imm(0x40)), 2);
  assert.deepEqual([m.vector, frame()[2]], [0x40, 2]);
  m.reset("long");
  m.set(S.LSTAR, BigInt(At.HANDLERS));
  m.set(S.STAR, 0x8_0000_0000n);
  m.setFlags(RF);
  m.step((a) => a.emit("syscall"));
  assert.deepEqual([m.vector, m.gpr(R11)], [0, 2]);
});

test("MOV DR7 that enables a breakpoint on the next instruction is followed by it", () => {
  m.reset("long");
  m.set(S.DR0, BigInt(At.CODE + 3));
  m.setGpr(RAX, 1);
  m.setFlags(RF);
  m.step((a) => a.emit("mov", dr7, rax).emit("nop"), 2);
  assert.equal(m.vector, 1);
});

// ---- single steps over system calls ----

test("no single-step trap comes after INT n, whose handler has TF clear", () => {
  m.reset("long");
  m.setFlags(TF);
  m.engine.updateMode();
  m.step((a) => a.emit("int", imm(0x40)), 3);
  assert.deepEqual([m.vector, m.get(S.DR6), frame()[2]], [0x40, DR6_BASE, TF | 2]);
});

test("SYSCALL and SYSRET are followed by a single-step trap if they leave TF set", () => {
  const prepare = (mask: number): void => {
    m.reset("long");
    m.set(S.LSTAR, BigInt(At.HANDLERS + 0x800));
    m.set(S.STAR, 0x0018_0008_0000_0000n);
    m.set(S.SFMASK, BigInt(mask));
    m.setFlags(TF);
    m.engine.updateMode();
    m.step((a) => a.emit("syscall"), 2);
  };
  prepare(TF);
  assert.equal(m.vector, 0x80);
  prepare(0);
  assert.deepEqual([m.vector, m.get(S.DR6), frame()[0]], [1, DR6_BASE | BS, At.HANDLERS + 0x800]);
  m.reset("long");
  m.set(S.STAR, 0x0018_0008_0000_0000n);
  m.setGpr(RCX, SCRATCH);
  m.setGpr(R11, TF | 2);
  m.step((a) => a.bytes([0x48, 0x0f, 0x07]), 1);
  assert.deepEqual([m.vector, m.get(S.DR6), frame()[0]], [1, DR6_BASE | BS, SCRATCH]);
});

// ---- VMX non-root operation ----

test("monitor trap flag exits after every instruction and every iteration, and keeps what is pending", () => {
  m.reset("long");
  m.set(S.NON_ROOT, 1);
  m.set(S.CTL_PRIMARY, 1 << 27);
  m.setGpr(RDI, WATCHED);
  m.setGpr(RCX, 2);
  arm(0, WATCHED, On.WRITE);
  m.setFlags(TF);
  m.engine.updateMode();
  assert.equal(
    m.step((a) => a.bytes([0xf3, 0xaa]), 5),
    1,
  );
  assert.deepEqual([m.num(S.EXIT_REASON), m.gpr(RCX), m.num(S.PENDING_DEBUG)], [37, 1, 0x5001]);
  m.set(S.CTL_PRIMARY, 0);
  m.engine.updateMode();
  m.engine.run(1);
  assert.deepEqual(
    [m.vector, m.get(S.DR6)],
    [1, DR6_BASE | BS | 1n],
    "delivered at the next entry",
  );
});

test("pending debug exceptions of VM entry are delivered before the first instruction, after the one that MOV SS covers", () => {
  for (const [blocking, rip] of [
    [0, At.CODE],
    [2, At.CODE + 1],
  ] as const) {
    m.reset("long");
    m.set(S.INTERRUPTIBILITY, blocking);
    m.set(S.PENDING_DEBUG, 0x1004n);
    m.engine.updateMode();
    m.step((a) => a.emit("nop"));
    assert.deepEqual([m.vector, m.get(S.DR6), frame()[0]], [1, DR6_BASE | 4n, rip]);
  }
});

test("a segment violation under alignment checking is still the segment's fault", () => {
  m.reset("protected");
  m.set(S.CR0, BigInt(m.num(S.CR0) | Cr0.AM));
  m.enterUser(Sel.CODE32_USER);
  m.setSegment(Seg.DS, { base: 0n, limit: 0xff, rights: 0x40f3 });
  m.setFlags(AC);
  m.engine.updateMode();
  m.setGpr(RDI, 0x1001);
  m.step((a) => a.bytes([0x8b, 0x07]));
  assert.equal(m.vector, 13);
});
