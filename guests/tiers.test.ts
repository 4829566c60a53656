/**
 * The region tier against the interpreter: same instruction counts, same exits, same state. And the deterministic clock against itself.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Assembler,
  addr,
  asm64,
  byte,
  dword,
  imm,
  mem,
} from "../src/processor/isa/assemble.ts";
import {
  al,
  bl,
  eax,
  ebx,
  ecx,
  edi,
  edx,
  rax,
  rbx,
  rcx,
  rdx,
  rsi,
  xmm0,
  xmm1,
} from "../src/processor/isa/registers.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import { gprAt, RAM_BASE } from "../src/processor/state/layout.ts";
import type { Vmcs } from "../src/processor/vmx/vmcs.ts";
import { EXIT_PORT, runBareMetal } from "./bare-metal.ts";
import { runHosted } from "./hosted.ts";
import { chatter } from "./programs.ts";

const DATA = 0x20_0000;
const CR4_OSFXSR = 0x200;

/** Loops over memory, calls, flags in every use, vectors, code that rewrites itself: hot enough for regions. */
function workload(a: Assembler): void {
  a.emit("mov", rsi, imm(DATA));
  a.emit("mov", rcx, imm(60_000));
  a.emit("xor", eax, eax);
  a.label("outer");
  a.emit("mov", rdx, rcx);
  a.emit("and", edx, imm(0xff8));
  a.emit("add", rax, mem(8, rsi, rdx));
  a.emit("adc", rax, imm(3));
  a.emit("mov", mem(8, rsi, rdx), rax);
  a.emit("rol", rax, imm(7));
  a.emit("test", al, imm(0x10));
  a.emit("je", "even");
  a.emit("call", "mix");
  a.emit("jmp", "next");
  a.label("even");
  a.emit("movdqu", xmm0, mem(16, rsi));
  a.emit("paddq", xmm0, xmm0);
  a.emit("movq", xmm1, mem(8, rsi, 8));
  a.emit("pxor", xmm0, xmm1);
  a.emit("movdqu", mem(16, rsi, 0x800), xmm0);
  a.label("next");
  a.emit("inc", dword(rsi, 0xc00));
  a.emit("setc", bl);
  a.emit("cmp", rax, rdx);
  a.emit("cmova", rbx, rax);
  a.emit("dec", rcx);
  a.emit("jne", "outer");
  a.emit("out", imm(EXIT_PORT), al);
  a.label("mix");
  a.emit("push", rcx);
  a.emit("imul", rax, rax, imm(31));
  a.emit("bswap", rax);
  a.emit("bt", eax, imm(5));
  a.emit("sbb", ebx, ebx);
  a.emit("pop", rcx);
  a.emit("ret");
}

test("regions compute what the interpreter computes, in the same number of instructions", () => {
  const image = asm64(0x10_0000, workload);
  const prepare = (vmcs: Vmcs): void =>
    vmcs.set(Field.GUEST_CR4, vmcs.number(Field.GUEST_CR4) + CR4_OSFXSR);
  const runs = (["interpreter", "jit"] as const).map((engine) =>
    runBareMetal({ image, mode: "long64", engine, prepare }),
  );
  const [interpreted, compiled] = runs.map((r) => ({
    code: r.code,
    instructions: r.instructions,
    registers: Array.from({ length: 16 }, (_, n) => r.vmcs.state.getBigUint64(gprAt(n), true)),
    rflags: r.vmcs.number(Field.GUEST_RFLAGS),
    memory: Buffer.from(r.processor.view.buffer, RAM_BASE + DATA, 4096).toString("hex"),
  }));
  assert.equal(runs[0]!.reason, "exit port");
  assert.deepEqual(compiled, interpreted);
});

/** A loop that patches an immediate of itself after it has become hot. */
function selfModifying(a: Assembler): void {
  a.emit("xor", ebx, ebx);
  a.emit("mov", edi, imm(40));
  a.emit("mov", rsi, addr("patched"));
  a.label("round");
  a.emit("mov", ecx, imm(6000));
  a.label("again");
  a.label("patched");
  a.emit("add", ebx, imm(1));
  a.emit("dec", ecx);
  a.emit("jne", "again");
  a.emit("inc", byte(rsi, 2));
  a.emit("dec", edi);
  a.emit("jne", "round");
  a.emit("out", imm(EXIT_PORT), al);
}

test("regions made from rewritten code are forgotten", () => {
  const image = asm64(0x10_0000, selfModifying);
  for (const engine of ["interpreter", "jit"] as const) {
    const r = runBareMetal({ image, mode: "long64", engine });
    assert.equal(r.vmcs.state.getUint32(gprAt(3), true), 6000 * 820, "6000 x (1 + 2 + ... + 40)");
  }
});

test("two runs with the deterministic clock are equal to the bit", () => {
  const runs = [0, 1].map(() => {
    const r = runHosted(chatter);
    return {
      output: r.output,
      hash: r.machine.stateHash(),
      exits: r.machine.lastExits(),
      retired: r.machine.processor.retired,
    };
  });
  assert.equal(runs[0]!.output.length, 50);
  assert.deepEqual(runs[1], runs[0]);
});
