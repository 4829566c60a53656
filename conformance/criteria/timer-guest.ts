/** The guest of the timer's criteria: reads the TSC again and again, with work of changing length between, and stores what it reads. */

import type { Lab } from "../../guests/lab.ts";
import { type Assembler, imm, qword } from "../../src/processor/isa/assemble.ts";
import { ecx, r8, r9, rax, rbx, rdi, rdx } from "../../src/processor/isa/registers.ts";

/** Where the last time stamp is stored. */
const STAMP = 0x40_0000;
const RAX = 0;
const RDX = 2;

export function stampingGuest(a: Assembler): void {
  a.emit("mov", rdi, imm(STAMP));
  a.emit("mov", r8, imm(0x9e37_79b9_7f4a_7c15n));
  a.emit("mov", rbx, imm(1));
  a.label("again").emit("rdtsc");
  a.emit("shl", rdx, imm(32));
  a.emit("or", rax, rdx);
  a.emit("mov", qword(rdi), rax);
  a.emit("imul", rbx, r8);
  a.emit("mov", r9, rbx);
  a.emit("shr", r9, imm(60));
  a.emit("mov", ecx, imm(3));
  a.label("work").emit("add", r9, rbx);
  a.emit("dec", ecx);
  a.emit("jne", "work");
  a.emit("test", rbx, imm(0x1000));
  a.emit("je", "again");
  a.emit("nop");
  a.emit("xor", r9, rbx);
  a.emit("jmp", "again");
}

/** The largest time stamp the guest has seen: stored, or still in its registers. */
export function lastStamp(lab: Lab): bigint {
  const stored = lab.read(STAMP);
  // Between RDTSC and SHL, RDX:RAX is it; RAX holds the whole of it later.
  const rdx = lab.register(RDX);
  const rax = lab.register(RAX);
  const read =
    rdx < 0x1_0000_0000n && rdx !== 0n && rax < 0x1_0000_0000n ? (rdx << 32n) | rax : rax;
  return read > stored ? read : stored;
}
