/** Effect records (abi/effects.ts) as x86 code writes them. R13 is where the next one goes; both use RAX only. */
import { EffectKind } from "../../hypervisor/abi/effects.ts";
import { type Assembler, dword, imm, qword } from "../../processor/isa/assemble.ts";
import type { Operand } from "../../processor/isa/instruction.ts";
import { eax, r13, rax } from "../../processor/isa/registers.ts";

const HEAD_BYTES = 8;
const TWO_WORDS = 8;

function head(a: Assembler, kind: number, bytes: number): void {
  a.emit("mov", dword(r13), imm(kind));
  a.emit("mov", dword(r13, 4), imm(bytes));
}

/** LINE: the line's number in EAX. `level` is a register or a number. */
export function emitLine(a: Assembler, level: Operand | number): void {
  head(a, EffectKind.LINE, TWO_WORDS);
  a.emit("mov", dword(r13, HEAD_BYTES), eax);
  a.emit("mov", dword(r13, HEAD_BYTES + 4), typeof level === "number" ? imm(level) : level);
  a.emit("add", r13, imm(HEAD_BYTES + TWO_WORDS));
}

/** TIMER: the deadline in RAX. */
export function emitTimer(a: Assembler): void {
  head(a, EffectKind.TIMER, TWO_WORDS);
  a.emit("mov", qword(r13, HEAD_BYTES), rax);
  a.emit("add", r13, imm(HEAD_BYTES + TWO_WORDS));
}
