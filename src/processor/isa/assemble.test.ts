import assert from "node:assert/strict";
import { test } from "node:test";
import { HypolithError } from "../../base/errors.ts";
import {
  type Argument,
  Assembler,
  addr,
  asm16,
  asm32,
  asm64,
  byte,
  dword,
  far,
  imm,
  mem,
  qword,
  short,
  tbyte,
  times,
  word,
  xmmword,
} from "./assemble.ts";
import { disassemble } from "./disassemble.ts";
import type { Mode } from "./instruction.ts";
import * as r from "./registers.ts";

function hex(mode: Mode, text: string, ...args: Argument[]): string {
  return Buffer.from(new Assembler(mode).emit(text, ...args).assemble()).toString("hex");
}

test("the shortest encoding is chosen", () => {
  const { rax, rbx, rcx, r12, r13, eax, ebx, ecx, al, ah, cl, dx } = r;
  assert.equal(hex(64, "mov", rax, 5), "48c7c005000000");
  assert.equal(hex(64, "mov", eax, 5), "b805000000");
  assert.equal(hex(64, "mov", rax, 0x8000_0000), "48b80000008000000000");
  assert.equal(hex(64, "mov", rax, -1), "48c7c0ffffffff");
  assert.equal(hex(64, "mov", rax, 0xffff_ffff_ffff_ffffn), "48c7c0ffffffff");
  assert.equal(hex(64, "add", rbx, 1), "4883c301");
  assert.equal(hex(64, "add", eax, 0x1234), "0534120000");
  assert.equal(hex(64, "add", r.cx, 0xffff), "6683c1ff");
  assert.equal(hex(64, "add", byte(rbx), 0xff), "8003ff");
  assert.equal(hex(64, "shl", rax, 1), "48d1e0");
  assert.equal(hex(64, "shl", rax, cl), "48d3e0");
  assert.equal(hex(64, "mov", ah, al), "88c4");
  assert.equal(hex(64, "mov", qword(r12), rax), "49890424");
  assert.equal(hex(64, "mov", qword(r13), rax), "49894500");
  assert.equal(hex(64, "mov", eax, mem(0, rbx, times(rcx, 8), 0x10)), "8b44cb10");
  assert.equal(hex(64, "mov", eax, dword(r.fs, 0x28)), "648b042528000000");
  assert.equal(hex(32, "mov", eax, dword(0x1234)), "a134120000");
  assert.equal(hex(64, "mov", al, byte(0x1122334455667788n)), "a08877665544332211");
  assert.equal(hex(64, "mov", eax, dword(ebx, ecx)), "678b040b");
  assert.equal(hex(64, "mov", eax, dword(rax, r.rsp)), "8b0404");
  assert.equal(hex(64, "xchg", rbx, rax), "4893");
  assert.equal(hex(16, "in", al, dx), "ec");
});

test("system, x87 and SIMD forms", () => {
  const { rax, rdi, eax, xmm0, xmm1, xmm9, mm1, st0, st1, cr0, cr8 } = r;
  assert.equal(hex(64, "mov", cr0, rax), "0f22c0");
  assert.equal(hex(32, "mov", cr0, eax), "0f22c0");
  assert.equal(hex(64, "mov", cr8, rax), "440f22c0");
  assert.equal(hex(64, "mov", r.ds, r.ax), "8ed8");
  assert.equal(hex(64, "lgdt", mem(0, rax)), "0f0110");
  assert.equal(hex(64, "movsd", xmm0, qword(rax)), "f20f1000");
  assert.equal(hex(64, "rep movsd"), "f3a5");
  assert.equal(hex(64, "rep stosq"), "f348ab");
  assert.equal(hex(64, "movq", xmm9, rax), "664c0f6ec8");
  assert.equal(hex(64, "movq", rax, mm1), "480f7ec8");
  assert.equal(hex(64, "movdqa", xmm1, xmmword(rdi)), "660f6f0f");
  assert.equal(hex(64, "popcnt", rax, rdi), "f3480fb8c7");
  assert.equal(hex(64, "fld", tbyte(rax)), "db28");
  assert.equal(hex(64, "faddp", st1, st0), "dec1");
  assert.equal(hex(64, "fnstsw", r.ax), "dfe0");
  assert.equal(hex(64, "lock cmpxchg16b", mem(0, rdi)), "f0480fc70f");
  assert.equal(hex(64, "vmread", rax, rdi), "0f78f8");
  assert.equal(hex(64, "xsave64", mem(0, rdi)), "480fae27");
  assert.equal(hex(64, "iretq"), "48cf");
  assert.equal(hex(64, "push", r.fs), "0fa0");
  assert.equal(hex(64, "crc32", eax, r.bl), "f20f38f0c3");
});

test("labels: back short, forward near, short on demand, data and RIP-relative", () => {
  const code = asm64(0x1000, (a) => {
    a.label("top").emit("nop").emit("jmp", "top").emit("jnz", "end").emit("jz", short("end"));
    a.emit("mov", r.rax, qword("data")).emit("lea", r.rcx, mem(0, "data")).emit("call", "top");
    a.emit("mov", r.rdx, addr("data", 4)).emit("loop", "top");
    a.label("end").emit("ret");
    a.align(16, 0).label("data").dq("end", 1n);
  });
  const lines = disassemble(code.subarray(0, 0x2b), 64, 0x1000n).map((l) => l.text);
  assert.deepEqual(lines, [
    "nop",
    "jmp 0x1000",
    "jne 0x102a",
    "je 0x102a",
    "mov rax, qword ptr [0x1030]",
    "lea rcx, [0x1030]",
    "call 0x1000",
    "mov rdx, 0x1034",
    "loop 0x1000",
    "ret",
  ]);
  assert.equal(new DataView(code.buffer).getBigUint64(0x30, true), 0x102an);
});

test("a program can change modes with far jumps", () => {
  const code = asm16(0x7c00, (a) => {
    a.emit("jmp", far(0x08, "protected", 4));
    a.bits(32).label("protected").emit("mov", r.esp, imm(0x7000)).emit("jmp", far(0x10, "long"));
    a.bits(64).label("long").emit("hlt");
  });
  assert.equal(Buffer.from(code).toString("hex"), "66ea087c00000800bc00700000ea147c00001000f4");
});

test("16-bit and 32-bit label operands are absolute", () => {
  const code16 = asm16(0x100, (a) => a.emit("mov", r.bx, word("x")).label("x").dw(0));
  assert.equal(Buffer.from(code16).toString("hex"), "8b1e04010000");
  const code32 = asm32(0x100, (a) => a.emit("mov", r.ebx, dword(r.esi, "x")).label("x").dd("x"));
  assert.equal(Buffer.from(code32).toString("hex"), "8b9e0601000006010000");
});

test("aliases of conditions and mnemonics", () => {
  for (const [a, b] of [
    ["jz", "je"],
    ["jc", "jb"],
    ["jnle", "jg"],
  ] as const) {
    assert.equal(new Assembler(64).label("x").emit(a, "x").assemble().length, 2);
    assert.deepEqual(
      new Assembler(64).label("x").emit(a, "x").assemble(),
      new Assembler(64).label("x").emit(b, "x").assemble(),
    );
  }
  assert.equal(hex(64, "setz", r.al), "0f94c0");
  assert.equal(hex(64, "callf", mem(6, r.rax)), "ff18");
});

test("mistakes are refused", () => {
  const refused = (mode: Mode, text: string, ...args: Argument[]): void => {
    assert.throws(() => hex(mode, text, ...args), HypolithError, text);
  };
  refused(64, "mov", mem(0, r.rax), 5);
  refused(64, "movzx", r.eax, mem(0, r.rax));
  refused(64, "mov", r.rax, r.eax);
  refused(64, "mov", r.al, 256);
  refused(64, "mov", r.ah, r.r8b);
  refused(32, "mov", r.rax, 1);
  refused(64, "pusha");
  refused(64, "lock mov", qword(r.rax), r.rax);
  refused(64, "mov", r.cs, r.ax);
  refused(64, "frobnicate");
  refused(64, "jmp", "nowhere");
  assert.throws(
    () => asm64(0, (a) => a.emit("jmp", short("x")).space(200).label("x")),
    HypolithError,
  );
});
