import assert from "node:assert/strict";
import { test } from "node:test";
import { disassemble } from "./disassemble.ts";
import type { Mode } from "./instruction.ts";

function text(hex: string, mode: Mode = 64): string {
  return disassemble(Uint8Array.from(Buffer.from(hex, "hex")), mode, 0x1000n)
    .map((l) => l.text)
    .join("; ");
}

test("Intel syntax, one instruction each", () => {
  assert.equal(text("f0480fb14cc310"), "lock cmpxchg qword ptr [rbx+rax*8+0x10], rcx");
  assert.equal(text("f3a4"), "rep movsb byte ptr es:[rdi], byte ptr [rsi]");
  assert.equal(text("f2ae"), "repne scasb al, byte ptr es:[rdi]");
  assert.equal(text("488d05f9ffffff"), "lea rax, [0x1000]");
  assert.equal(text("65488b04250000000080"), "mov rax, qword ptr gs:[0x0]; db 0x80");
  assert.equal(text("48b8efcdab8967452381"), "mov rax, 0x8123456789abcdef");
  assert.equal(text("9a78563412 0800".replace(" ", ""), 32), "call 0x8:0x12345678");
  assert.equal(text("8b40f0"), "mov eax, dword ptr [rax-0x10]");
  assert.equal(text("8b00", 16), "mov ax, word ptr [bx+si]");
  assert.equal(text("75fe"), "jne 0x1000");
  assert.equal(text("d9c1"), "fld st(1)");
  assert.equal(text("660f6fc1"), "movdqa xmm0, xmm1");
  assert.equal(text("0f20c0"), "mov rax, cr0");
  assert.equal(text("06"), "db 0x6");
});
