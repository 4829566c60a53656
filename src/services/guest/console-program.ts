/**
 * The console service as an x86 program: services/console/console.ts, message by message and effect by effect. The two give the same
 * replies to the same messages, which is what their common tests compare.
 */
import { SERIAL_PORTS } from "../../devices/platform/platform-map.ts";
import { ExitReasons } from "../../hypervisor/abi/exit-reasons.ts";
import {
  HEADER_BYTES,
  MessageOffset,
  SignalNumber,
  StateGroup,
} from "../../hypervisor/abi/message.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import { type Assembler, byte, dword, imm, qword, word } from "../../processor/isa/assemble.ts";
import {
  al,
  bl,
  bx,
  di,
  eax,
  ebp,
  ebx,
  ecx,
  edi,
  edx,
  esi,
  r12,
  r14,
  r15,
  rax,
  rbx,
  rdi,
  rsi,
} from "../../processor/isa/registers.ts";
import { emitTimer } from "./effect-records.ts";
import { type GuestProgram, serviceLoop } from "./service-program.ts";
import { uartRoutines } from "./uart-program.ts";
import { FLUSH_AT, initialData, TIMER_AT, Uart, uartAt } from "./uart-state.ts";

/** I/O qualification. SDM Vol. 3C, "Exit Qualification for I/O Instructions". */
const IoBits = { SIZE: 7, IN: 1 << 3, STRING: 1 << 4, PORT_SHIFT: 16 } as const;
const UART_PORTS = 8;
const RAX = MessageOffset.REGISTERS;
const UARTS = SERIAL_PORTS.map((_, n) => n);

export const consoleProgram: GuestProgram = { code, data: initialData() };

function code(a: Assembler): void {
  serviceLoop(a, { exit: "on_exit", timer: "on_timer", input: "on_input", signal: "on_signal" });
  onExit(a);
  wideAccess(a);
  ports(a);
  onTimer(a);
  onInput(a);
  onSignal(a);
  armTimer(a);
  uartRoutines(a);
}

function onExit(a: Assembler): void {
  a.label("on_exit");
  a.emit("cmp", dword(r15, MessageOffset.REASON), imm(ExitReasons.IO));
  a.emit("jne", "unhandled");
  a.emit("mov", edx, dword(r15, MessageOffset.QUALIFICATION));
  a.emit("test", edx, imm(IoBits.STRING));
  a.emit("jne", "unhandled");
  a.emit("mov", edi, edx);
  a.emit("shr", edi, imm(IoBits.PORT_SHIFT));
  a.emit("mov", eax, edx);
  // EDX = bytes - 1.
  a.emit("and", edx, imm(IoBits.SIZE));
  a.emit("jne", "wide_access");
  a.emit("test", eax, imm(IoBits.IN));
  a.emit("jne", "in_byte");
  a.emit("movzx", esi, byte(r15, RAX));
  a.emit("call", "write_port");
  a.label("out_done");
  a.emit("mov", ebx, imm(StateGroup.RIP));
  a.emit("jmp", "accessed");
  a.label("in_byte");
  a.emit("call", "read_port");
  a.emit("mov", byte(r15, RAX), al);
  a.label("in_done");
  a.emit("mov", ebx, imm(StateGroup.RIP | StateGroup.LOW_REGISTERS));
  a.label("accessed");
  a.emit("mov", eax, dword(r15, MessageOffset.LENGTH));
  a.emit("add", qword(r15, MessageOffset.RIP), rax);
  a.emit("call", "arm_timer");
  a.emit("mov", ecx, ebx);
  a.emit("xor", edx, edx);
  a.emit("jmp", "reply");

  a.label("unhandled");
  a.emit("call", "arm_timer");
  a.emit("xor", ecx, ecx);
  a.emit("mov", edx, imm(Status.UNHANDLED));
  a.emit("jmp", "reply");
}

/** UARTs are byte devices: words and doublewords arrive as bytes at consecutive ports, written from the lowest, read from the highest. */
function wideAccess(a: Assembler): void {
  a.label("wide_access");
  a.emit("mov", ebp, edx);
  a.emit("test", eax, imm(IoBits.IN));
  a.emit("jne", "in_wide");
  a.emit("mov", ebx, dword(r15, RAX));
  a.label("out_next");
  a.emit("movzx", esi, bl);
  a.emit("push", rdi);
  a.emit("call", "write_port");
  a.emit("pop", rdi);
  a.emit("inc", edi);
  a.emit("movzx", edi, di);
  a.emit("shr", ebx, imm(8));
  a.emit("dec", ebp);
  a.emit("jns", "out_next");
  a.emit("jmp", "out_done");

  a.label("in_wide");
  a.emit("xor", ebx, ebx);
  a.label("in_next");
  a.emit("push", rdi);
  a.emit("add", edi, ebp);
  a.emit("movzx", edi, di);
  a.emit("call", "read_port");
  a.emit("pop", rdi);
  a.emit("shl", ebx, imm(8));
  a.emit("movzx", eax, al);
  a.emit("or", ebx, eax);
  a.emit("dec", ebp);
  a.emit("jns", "in_next");
  a.emit("mov", eax, dword(r15, MessageOffset.QUALIFICATION));
  a.emit("and", eax, imm(IoBits.SIZE));
  a.emit("cmp", eax, imm(1));
  a.emit("jne", "in_doubleword");
  a.emit("mov", word(r15, RAX), bx);
  a.emit("jmp", "in_done");
  a.label("in_doubleword");
  a.emit("mov", qword(r15, RAX), rbx);
  a.emit("jmp", "in_done");
}

/** Port EDI to a UART in R14 and its register in EDI, then the register's routine. Nobody's port reads as ones. */
function ports(a: Assembler): void {
  const decode = (kind: "read" | "write"): void => {
    a.label(`${kind}_port`);
    a.emit("mov", eax, edi);
    a.emit("and", eax, imm(~(UART_PORTS - 1)));
    a.emit("and", edi, imm(UART_PORTS - 1));
    for (const [n, { base }] of SERIAL_PORTS.entries()) {
      a.emit("mov", r14, imm(uartAt(n)));
      a.emit("cmp", eax, imm(base));
      a.emit("je", `${kind}_register`);
    }
  };
  decode("read");
  a.emit("mov", eax, imm(0xff));
  a.emit("ret");
  decode("write");
  a.emit("ret");
}

function onTimer(a: Assembler): void {
  a.label("on_timer");
  a.emit("mov", qword(TIMER_AT), imm(-1));
  for (const n of UARTS) {
    a.emit("mov", r14, imm(uartAt(n)));
    a.emit("call", "update_interrupt");
  }
  a.emit("cmp", r12, qword(FLUSH_AT));
  a.emit("jb", "not_due");
  a.emit("call", "flush_all");
  a.label("not_due");
  a.emit("call", "arm_timer");
  a.emit("jmp", "reply_done");
}

function onInput(a: Assembler): void {
  a.label("on_input");
  a.emit("mov", edi, dword(r15, MessageOffset.DATA_BYTES));
  a.emit("mov", eax, dword(r15, MessageOffset.STREAM));
  a.emit("cmp", eax, imm(SERIAL_PORTS.length));
  a.emit("jae", "input_taken");
  a.emit("imul", r14, rax, imm(Uart.BYTES));
  a.emit("add", r14, imm(uartAt(0)));
  // The UART copies them before the first effect is written over them.
  a.emit("lea", rsi, qword(r15, HEADER_BYTES));
  a.emit("mov", ecx, edi);
  a.emit("call", "receive");
  a.label("input_taken");
  a.emit("mov", qword(r15, MessageOffset.ARGUMENT), rdi);
  a.emit("call", "arm_timer");
  a.emit("jmp", "reply_done");
}

function onSignal(a: Assembler): void {
  a.label("on_signal");
  a.emit("cmp", qword(r15, MessageOffset.ARGUMENT), imm(SignalNumber.STOPPING));
  a.emit("jne", "reply_done");
  a.emit("call", "flush_all");
  a.emit("jmp", "reply_done");

  a.label("flush_all");
  for (const n of UARTS) {
    a.emit("mov", r14, imm(uartAt(n)));
    a.emit("call", "flush");
  }
  a.emit("mov", qword(FLUSH_AT), imm(-1));
  a.emit("ret");
}

/** The earliest of what UARTs and gathered output wait for, if it is another time than before. Keeps RBX. */
function armTimer(a: Assembler): void {
  a.label("arm_timer");
  a.emit("mov", rax, qword(FLUSH_AT));
  for (const n of UARTS) {
    const uart = uartAt(n);
    const next = `armed_${n}`;
    a.emit("cmp", byte(uart + Uart.FIFO_COUNT), imm(0));
    a.emit("je", next);
    a.emit("mov", r14, imm(uart));
    a.emit("call", "timeout_armed");
    a.emit("je", next);
    a.emit("cmp", byte(uart + Uart.TIMEOUT_PENDING), imm(0));
    a.emit("jne", next);
    a.emit("cmp", rax, qword(uart + Uart.TIMEOUT_AT));
    a.emit("jbe", next);
    a.emit("mov", rax, qword(uart + Uart.TIMEOUT_AT));
    a.label(next);
  }
  a.emit("cmp", rax, qword(TIMER_AT));
  a.emit("je", "timer_set");
  a.emit("mov", qword(TIMER_AT), rax);
  emitTimer(a);
  a.label("timer_set");
  a.emit("ret");
}
