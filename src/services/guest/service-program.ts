/**
 * The frame of a service in x86: the loop around VMCALL, and what answers each kind of message.
 *
 * The VM is entered at `main` with the first message in its window, R15 at the window, RSP at the top of the stack. A handler is jumped to
 * with R12 = time and R13 = where effect records go, and jumps to `reply` with ECX = state groups and EDX = Status, or to `reply_done`:
 * OK and no groups. Nothing is kept in registers from one message to the next but R15 and RSP.
 */

import { GuestCall } from "../../hypervisor/abi/guest-call.ts";
import { EventKind, HEADER_BYTES, MessageOffset } from "../../hypervisor/abi/message.ts";
import { type Assembler, dword, imm, qword, times, word } from "../../processor/isa/assemble.ts";
import {
  eax,
  ebx,
  ecx,
  edx,
  r12,
  r13,
  r13d,
  r15,
  r15d,
  rax,
} from "../../processor/isa/registers.ts";

/** A service as x86 code: position-fixed, see memory-layout.ts. */
export interface GuestProgram {
  /** 64-bit code with its entry at the label `main`. */
  readonly code: (a: Assembler) => void;
  /** The data section at start. */
  readonly data: Uint8Array;
}

/** Labels of handlers. What has none is answered with OK. */
export interface Handlers {
  readonly exit: string;
  readonly timer?: string;
  readonly input?: string;
  readonly signal?: string;
  readonly start?: string;
}

export function serviceLoop(a: Assembler, handlers: Handlers): void {
  const { exit, timer, input, signal, start } = handlers;
  const table = [exit, timer, input, signal, start];
  a.label("reply_done");
  a.emit("xor", ecx, ecx);
  a.emit("xor", edx, edx);
  a.label("reply");
  a.emit("mov", dword(r15, MessageOffset.STATUS), edx);
  a.emit("mov", eax, r13d);
  a.emit("sub", eax, r15d);
  a.emit("sub", eax, imm(HEADER_BYTES));
  a.emit("mov", dword(r15, MessageOffset.DATA_BYTES), eax);
  a.emit("mov", ebx, dword(r15, MessageOffset.SEQ));
  a.emit("mov", eax, imm(GuestCall.REPLY));
  a.emit("vmcall");
  a.label("main");
  a.emit("mov", r12, qword(r15, MessageOffset.TIME));
  a.emit("lea", r13, qword(r15, HEADER_BYTES));
  a.emit("movzx", eax, word(r15, MessageOffset.KIND));
  a.emit("cmp", eax, imm(table.length));
  a.emit("jae", "rare_message");
  a.emit("jmp", qword(times(rax, 8), "message_table"));
  a.label("rare_message");
  a.emit("cmp", eax, imm(EventKind.HANG));
  a.emit("jne", "reply_done");
  a.label("hang");
  a.emit("jmp", "hang");
  a.align(8);
  a.label("message_table");
  a.dq(...table.map((label) => label ?? "reply_done"));
}
