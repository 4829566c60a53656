/**
 * The smallest service in x86 that does something, to start a new one from: a register of one byte behind every port of its portal. OUT
 * keeps the byte and says it on stream 0, IN gives it back.
 */
import { EffectKind } from "../../hypervisor/abi/effects.ts";
import { MessageOffset, StateGroup } from "../../hypervisor/abi/message.ts";
import { type Assembler, byte, dword, imm, qword } from "../../processor/isa/assemble.ts";
import { al, eax, ebx, ecx, edx, r15, rax } from "../../processor/isa/registers.ts";
import { Layout } from "./memory-layout.ts";
import { type GuestProgram, serviceLoop } from "./service-program.ts";

const IN = 8;
const RAX = MessageOffset.REGISTERS;
/** Where the byte is kept: what is in memory is the service's state, nobody has to save it. */
const KEPT = Layout.DATA;

export const templateProgram: GuestProgram = { code, data: new Uint8Array(1) };

function code(a: Assembler): void {
  serviceLoop(a, { exit: "on_exit" });

  a.label("on_exit");
  a.emit("test", dword(r15, MessageOffset.QUALIFICATION), imm(IN));
  a.emit("jne", "on_in");
  a.emit("mov", al, byte(r15, RAX));
  a.emit("mov", byte(KEPT), al);
  // An effect by VMCALL. More than a few of them are faster as records: effect-records.ts.
  a.emit("mov", eax, imm(EffectKind.PUT));
  a.emit("xor", ebx, ebx);
  a.emit("mov", ecx, imm(KEPT));
  a.emit("mov", edx, imm(1));
  a.emit("vmcall");
  a.emit("mov", ecx, imm(StateGroup.RIP));
  a.emit("jmp", "answer");

  a.label("on_in");
  a.emit("mov", al, byte(KEPT));
  a.emit("mov", byte(r15, RAX), al);
  a.emit("mov", ecx, imm(StateGroup.RIP | StateGroup.LOW_REGISTERS));

  // RIP behind the instruction, status OK, groups in ECX.
  a.label("answer");
  a.emit("mov", eax, dword(r15, MessageOffset.LENGTH));
  a.emit("add", qword(r15, MessageOffset.RIP), rax);
  a.emit("xor", edx, edx);
  a.emit("jmp", "reply");
}
