/**
 * The UARTs of the x86 console, routine by routine what devices/platform/uart-16550a.ts does.
 * Spec: PC16550D datasheet, "Registers", "FIFO Interrupt Mode Operation".
 *
 * R12 time of the message, R13 next effect record, R14 the UART, R15 message window. Routines keep these and RBX RBP; all else is lost.
 * The far end of the line never sends a break and never moves a modem pin, so nothing here does that.
 */

import { FIFO_SIZE, Ier, Iir, Lcr, Lsr, Mcr, Msr } from "../../devices/platform/uart-registers.ts";
import { EffectKind } from "../../hypervisor/abi/effects.ts";
import {
  type Assembler,
  byte,
  dword,
  imm,
  qword,
  times,
  word,
} from "../../processor/isa/assemble.ts";
import {
  al,
  cl,
  cx,
  dl,
  eax,
  ecx,
  edi,
  edx,
  esi,
  r8d,
  r9d,
  r12,
  r13,
  r14,
  rax,
  rcx,
  rdi,
  rdx,
  rsi,
  sil,
} from "../../processor/isa/registers.ts";
import { emitLine } from "./effect-records.ts";
import { BACKLOG_BYTES, CHUNK_BYTES, FLUSH_AT, FLUSH_NS, Uart } from "./uart-state.ts";

const LINE_FEED = 10;
const RING = FIFO_SIZE - 1;
/** Stream and a zero before a PUT record's bytes. */
const PUT_WORDS = 8;

/** Length of a character in ns = bits x divisor x 78125 / 9, rounded: 16 / 1.8432 MHz in lowest terms. */
const NS_NUMERATOR = 78_125;
const NS_DENOMINATOR = 9;
const TIMEOUT_CHARACTERS = 4;

const at = (field: number) => byte(r14, field);

export function uartRoutines(a: Assembler): void {
  readRegister(a);
  writeRegister(a);
  updateInterrupt(a);
  interruptId(a);
  timeoutArmed(a);
  receiver(a);
  transmitter(a);
  modemLines(a);
}

// ---- registers ----

function readRegister(a: Assembler): void {
  // EDI = register; answers the byte in EAX. Ends in update_interrupt, which keeps EAX.
  a.label("read_register");
  a.emit("jmp", qword(times(rdi, 8), "read_table"));
  a.label("read_table");
  a.dq("read_data", "read_ier", "read_iir", "read_lcr", "read_mcr", "read_lsr", "read_msr");
  a.dq("read_scratch");

  a.label("read_data");
  a.emit("test", at(Uart.LCR), imm(Lcr.DLAB));
  a.emit("je", "read_receiver");
  a.emit("movzx", eax, at(Uart.DIVISOR));
  a.emit("jmp", "update_interrupt");

  a.label("read_ier");
  a.emit("movzx", eax, at(Uart.DIVISOR + 1));
  a.emit("test", at(Uart.LCR), imm(Lcr.DLAB));
  a.emit("jne", "update_interrupt");
  a.emit("movzx", eax, at(Uart.IER));
  a.emit("jmp", "update_interrupt");

  // Reading IIR withdraws the THRE request if that is what it reports.
  a.label("read_iir");
  a.emit("call", "interrupt_id");
  a.emit("cmp", eax, imm(Iir.THRE));
  a.emit("jne", "read_iir_other");
  a.emit("mov", at(Uart.THRE_PENDING), imm(0));
  a.label("read_iir_other");
  a.emit("cmp", at(Uart.FIFO_ENABLED), imm(0));
  a.emit("je", "update_interrupt");
  a.emit("or", eax, imm(Iir.FIFO_ENABLED));
  a.emit("jmp", "update_interrupt");

  a.label("read_lcr");
  a.emit("movzx", eax, at(Uart.LCR));
  a.emit("jmp", "update_interrupt");
  a.label("read_mcr");
  a.emit("movzx", eax, at(Uart.MCR));
  a.emit("jmp", "update_interrupt");
  a.label("read_scratch");
  a.emit("movzx", eax, at(Uart.SCRATCH));
  a.emit("jmp", "update_interrupt");

  a.label("read_msr");
  a.emit("call", "modem_lines");
  a.emit("or", al, at(Uart.DELTAS));
  a.emit("mov", at(Uart.DELTAS), imm(0));
  a.emit("jmp", "update_interrupt");

  readLineStatus(a);
}

function readLineStatus(a: Assembler): void {
  a.label("read_lsr");
  a.emit("movzx", eax, at(Uart.LINE_ERRORS));
  a.emit("or", eax, imm(Lsr.THRE | Lsr.TEMT));
  a.emit("mov", at(Uart.LINE_ERRORS), imm(0));
  a.emit("movzx", ecx, at(Uart.FIFO_COUNT));
  a.emit("test", ecx, ecx);
  a.emit("je", "update_interrupt");
  a.emit("or", eax, imm(Lsr.DR));
  a.emit("movzx", edx, at(Uart.FIFO_HEAD));
  a.emit("mov", edi, edx);
  a.emit("xor", esi, esi);
  a.label("lsr_errors");
  a.emit("or", sil, byte(r14, rdx, Uart.ERRORS));
  a.emit("inc", edx);
  a.emit("and", edx, imm(RING));
  a.emit("dec", ecx);
  a.emit("jne", "lsr_errors");
  a.emit("mov", byte(r14, rdi, Uart.ERRORS), imm(0));
  a.emit("test", esi, esi);
  a.emit("je", "update_interrupt");
  a.emit("cmp", at(Uart.FIFO_ENABLED), imm(0));
  a.emit("je", "update_interrupt");
  a.emit("or", eax, imm(Lsr.FIFO_ERROR));
  a.emit("jmp", "update_interrupt");
}

function writeRegister(a: Assembler): void {
  // EDI = register, ESI = byte. LSR and MSR are for reading only.
  a.label("write_register");
  a.emit("jmp", qword(times(rdi, 8), "write_table"));
  a.label("write_table");
  a.dq("write_data", "write_ier", "write_fcr", "write_lcr", "write_mcr", "update_interrupt");
  a.dq("update_interrupt", "write_scratch");

  a.label("write_data");
  a.emit("test", at(Uart.LCR), imm(Lcr.DLAB));
  a.emit("je", "transmit");
  a.emit("mov", at(Uart.DIVISOR), sil);
  a.emit("jmp", "update_interrupt");

  // Enabling the THRE interrupt while the transmitter is empty requests it.
  a.label("write_ier");
  a.emit("test", at(Uart.LCR), imm(Lcr.DLAB));
  a.emit("jne", "write_divisor_high");
  a.emit("movzx", eax, at(Uart.IER));
  a.emit("not", eax);
  a.emit("and", eax, esi);
  a.emit("and", esi, imm(0x0f));
  a.emit("mov", at(Uart.IER), sil);
  a.emit("test", eax, imm(Ier.THRI));
  a.emit("je", "refill_and_update");
  a.emit("mov", at(Uart.THRE_PENDING), imm(1));
  a.label("refill_and_update");
  a.emit("call", "refill");
  a.emit("jmp", "update_interrupt");
  a.label("write_divisor_high");
  a.emit("mov", at(Uart.DIVISOR + 1), sil);
  a.emit("jmp", "update_interrupt");

  writeFifoControl(a);

  // A break sent in loopback arrives at the own receiver.
  a.label("write_lcr");
  a.emit("movzx", eax, at(Uart.LCR));
  a.emit("not", eax);
  a.emit("and", eax, esi);
  a.emit("test", eax, imm(Lcr.BREAK));
  a.emit("je", "lcr_set");
  a.emit("test", at(Uart.MCR), imm(Mcr.LOOP));
  a.emit("je", "lcr_set");
  a.emit("push", rsi);
  a.emit("xor", esi, esi);
  a.emit("mov", edx, imm(Lsr.BI));
  a.emit("call", "arrive");
  a.emit("pop", rsi);
  a.label("lcr_set");
  a.emit("mov", at(Uart.LCR), sil);
  a.emit("jmp", "update_interrupt");

  // Each delta bit is 4 below its line; RI counts only its trailing edge.
  a.label("write_mcr");
  a.emit("call", "modem_lines");
  a.emit("mov", r8d, eax);
  a.emit("and", esi, imm(0x1f));
  a.emit("mov", at(Uart.MCR), sil);
  a.emit("call", "modem_lines");
  a.emit("mov", ecx, eax);
  a.emit("and", ecx, imm(Msr.RI));
  a.emit("not", ecx);
  a.emit("xor", eax, r8d);
  a.emit("and", eax, ecx);
  a.emit("shr", eax, imm(4));
  a.emit("and", eax, imm(0x0f));
  a.emit("or", at(Uart.DELTAS), al);
  a.emit("jmp", "refill_and_update");

  a.label("write_scratch");
  a.emit("mov", at(Uart.SCRATCH), sil);
  a.emit("jmp", "update_interrupt");
}

function writeFifoControl(a: Assembler): void {
  a.label("write_fcr");
  a.emit("mov", eax, esi);
  a.emit("and", eax, imm(1));
  a.emit("cmp", al, at(Uart.FIFO_ENABLED));
  a.emit("jne", "fcr_clear");
  a.emit("test", eax, eax);
  a.emit("je", "refill_and_update");
  a.emit("test", esi, imm(2));
  a.emit("je", "fcr_trigger");
  a.label("fcr_clear");
  a.emit("mov", at(Uart.FIFO_COUNT), imm(0));
  a.emit("mov", at(Uart.TIMEOUT_PENDING), imm(0));
  a.emit("mov", qword(r14, Uart.TIMEOUT_AT), imm(-1));
  a.label("fcr_trigger");
  a.emit("mov", at(Uart.FIFO_ENABLED), al);
  a.emit("test", eax, eax);
  a.emit("je", "refill_and_update");
  a.emit("shr", esi, imm(6));
  a.emit("mov", al, byte(rsi, "trigger_levels"));
  a.emit("mov", at(Uart.TRIGGER), al);
  a.emit("jmp", "refill_and_update");
  a.label("trigger_levels");
  a.db(1, 4, 8, 14);
}

// ---- interrupt ----

/** Keeps EAX: it is the last thing that an access does. */
function updateInterrupt(a: Assembler): void {
  a.label("update_interrupt");
  a.emit("mov", r9d, eax);
  a.emit("call", "timeout_armed");
  a.emit("je", "timeout_seen");
  a.emit("cmp", r12, qword(r14, Uart.TIMEOUT_AT));
  a.emit("jb", "timeout_seen");
  a.emit("mov", at(Uart.TIMEOUT_PENDING), imm(1));
  a.label("timeout_seen");
  // INTR reaches the bus through the OUT2 gate; in loopback OUT2 is forced off.
  a.emit("xor", ecx, ecx);
  a.emit("movzx", edx, at(Uart.MCR));
  a.emit("and", edx, imm(Mcr.OUT2 | Mcr.LOOP));
  a.emit("cmp", edx, imm(Mcr.OUT2));
  a.emit("jne", "level_known");
  a.emit("call", "interrupt_id");
  a.emit("xor", ecx, ecx);
  a.emit("cmp", eax, imm(Iir.NONE));
  a.emit("setne", cl);
  a.label("level_known");
  a.emit("cmp", cl, at(Uart.INTR));
  a.emit("je", "updated");
  a.emit("mov", at(Uart.INTR), cl);
  a.emit("movzx", eax, at(Uart.IRQ));
  emitLine(a, ecx);
  a.label("updated");
  a.emit("mov", eax, r9d);
  a.emit("ret");
}

/** EAX: the highest of the pending and enabled requests, in the order of the datasheet's interrupt control table. */
function interruptId(a: Assembler): void {
  const request = (enable: number, next: string, isPending: () => void, id: number): void => {
    a.emit("test", dl, imm(enable));
    a.emit("je", next);
    isPending();
    a.emit("mov", eax, imm(id));
    a.emit("ret");
    a.label(next);
  };
  const flag = (field: number, next: string) => (): void => {
    a.emit("cmp", at(field), imm(0));
    a.emit("je", next);
  };
  a.label("interrupt_id");
  a.emit("movzx", edx, at(Uart.IER));
  request(Ier.RLSI, "id_data", flag(Uart.LINE_ERRORS, "id_data"), Iir.LINE_STATUS);
  const isFull = (): void => {
    a.emit("mov", ecx, imm(1));
    a.emit("cmp", at(Uart.FIFO_ENABLED), imm(0));
    a.emit("je", "id_level");
    a.emit("mov", cl, at(Uart.TRIGGER));
    a.label("id_level");
    a.emit("cmp", at(Uart.FIFO_COUNT), cl);
    a.emit("jb", "id_timeout");
  };
  request(Ier.RDI, "id_timeout", isFull, Iir.DATA);
  request(Ier.RDI, "id_thre", flag(Uart.TIMEOUT_PENDING, "id_thre"), Iir.TIMEOUT);
  request(Ier.THRI, "id_modem", flag(Uart.THRE_PENDING, "id_modem"), Iir.THRE);
  request(Ier.MSI, "id_none", flag(Uart.DELTAS, "id_none"), Iir.MODEM_STATUS);
  a.emit("mov", eax, imm(Iir.NONE));
  a.emit("ret");
}

/** ZF clear: fewer bytes than the trigger level wait, and somebody wants to know. Loses RCX only. */
function timeoutArmed(a: Assembler): void {
  a.label("timeout_armed");
  a.emit("movzx", ecx, at(Uart.FIFO_COUNT));
  a.emit("test", ecx, ecx);
  a.emit("je", "not_armed");
  a.emit("cmp", at(Uart.FIFO_ENABLED), imm(0));
  a.emit("je", "not_armed");
  a.emit("cmp", cl, at(Uart.TRIGGER));
  a.emit("jae", "not_below");
  a.emit("test", at(Uart.IER), imm(Ier.RDI));
  a.emit("ret");
  a.label("not_below");
  a.emit("cmp", eax, eax);
  a.label("not_armed");
  a.emit("ret");
}

// ---- receiver ----

function receiver(a: Assembler): void {
  a.label("read_receiver");
  a.emit("xor", eax, eax);
  a.emit("cmp", at(Uart.FIFO_COUNT), imm(0));
  a.emit("je", "update_interrupt");
  a.emit("movzx", edx, at(Uart.FIFO_HEAD));
  a.emit("movzx", edi, byte(r14, rdx, Uart.FIFO));
  a.emit("inc", edx);
  a.emit("and", edx, imm(RING));
  a.emit("mov", at(Uart.FIFO_HEAD), dl);
  a.emit("mov", at(Uart.TIMEOUT_PENDING), imm(0));
  a.emit("dec", at(Uart.FIFO_COUNT));
  a.emit("je", "read_last");
  a.emit("mov", al, byte(r14, rdx, Uart.ERRORS));
  a.emit("or", at(Uart.LINE_ERRORS), al);
  a.label("read_last");
  a.emit("push", rdi);
  a.emit("call", "restart_timeout");
  a.emit("call", "refill");
  a.emit("pop", rax);
  a.emit("jmp", "update_interrupt");

  arrive(a);
  restartTimeout(a);
  refill(a);
  receive(a);
}

/** A character ESI with errors EDX has been shifted in. A full FIFO keeps its bytes; the holding register is overwritten. */
function arrive(a: Assembler): void {
  a.label("arrive");
  a.emit("movzx", ecx, at(Uart.FIFO_COUNT));
  a.emit("mov", eax, imm(1));
  a.emit("cmp", at(Uart.FIFO_ENABLED), imm(0));
  a.emit("je", "arrive_capacity");
  a.emit("mov", eax, imm(FIFO_SIZE));
  a.label("arrive_capacity");
  a.emit("cmp", ecx, eax);
  a.emit("jb", "arrive_room");
  a.emit("or", at(Uart.LINE_ERRORS), imm(Lsr.OE));
  a.emit("cmp", at(Uart.FIFO_ENABLED), imm(0));
  a.emit("jne", "arrive_lost");
  a.emit("xor", ecx, ecx);
  a.label("arrive_room");
  a.emit("test", ecx, ecx);
  a.emit("jne", "arrive_behind");
  a.emit("or", at(Uart.LINE_ERRORS), dl);
  a.label("arrive_behind");
  a.emit("movzx", eax, at(Uart.FIFO_HEAD));
  a.emit("add", eax, ecx);
  a.emit("and", eax, imm(RING));
  a.emit("mov", byte(r14, rax, Uart.FIFO), sil);
  a.emit("mov", byte(r14, rax, Uart.ERRORS), dl);
  a.emit("inc", ecx);
  a.emit("mov", at(Uart.FIFO_COUNT), cl);
  a.emit("jmp", "restart_timeout");
  a.label("arrive_lost");
  a.emit("ret");
}

/** Four characters of start bit, data bits, parity, stop bits from now. */
function restartTimeout(a: Assembler): void {
  a.label("restart_timeout");
  a.emit("mov", rax, imm(-1));
  a.emit("cmp", at(Uart.FIFO_COUNT), imm(0));
  a.emit("je", "timeout_known");
  a.emit("movzx", ecx, at(Uart.LCR));
  a.emit("mov", eax, ecx);
  a.emit("and", eax, imm(3));
  a.emit("add", eax, imm(7));
  a.emit("test", ecx, imm(Lcr.PARITY));
  a.emit("je", "no_parity");
  a.emit("inc", eax);
  a.label("no_parity");
  a.emit("test", ecx, imm(Lcr.STOP));
  a.emit("je", "one_stop");
  a.emit("inc", eax);
  a.label("one_stop");
  a.emit("movzx", ecx, word(r14, Uart.DIVISOR));
  a.emit("test", ecx, ecx);
  a.emit("jne", "divisor_known");
  a.emit("mov", ecx, imm(0x1_0000));
  a.label("divisor_known");
  a.emit("imul", rax, rcx);
  // Rounded: (2 n x 78125 + 9) / 18.
  a.emit("imul", rax, rax, imm(2 * NS_NUMERATOR));
  a.emit("add", rax, imm(NS_DENOMINATOR));
  a.emit("xor", edx, edx);
  a.emit("mov", ecx, imm(2 * NS_DENOMINATOR));
  a.emit("div", rcx);
  a.emit("imul", rax, rax, imm(TIMEOUT_CHARACTERS));
  a.emit("add", rax, r12);
  a.label("timeout_known");
  a.emit("mov", qword(r14, Uart.TIMEOUT_AT), rax);
  a.emit("ret");
}

/** From the backlog into the FIFO, while the guest says by RTS or the receive interrupt that somebody reads. */
function refill(a: Assembler): void {
  a.label("refill");
  a.emit("cmp", dword(r14, Uart.BACKLOG_COUNT), imm(0));
  a.emit("je", "refilled");
  a.emit("movzx", eax, at(Uart.MCR));
  a.emit("test", eax, imm(Mcr.LOOP));
  a.emit("jne", "refilled");
  a.emit("test", eax, imm(Mcr.RTS));
  a.emit("jne", "refill_open");
  a.emit("test", at(Uart.IER), imm(Ier.RDI));
  a.emit("je", "refilled");
  a.label("refill_open");
  a.emit("mov", eax, imm(1));
  a.emit("cmp", at(Uart.FIFO_ENABLED), imm(0));
  a.emit("je", "refill_capacity");
  a.emit("mov", eax, imm(FIFO_SIZE));
  a.label("refill_capacity");
  a.emit("cmp", at(Uart.FIFO_COUNT), al);
  a.emit("jae", "refilled");
  a.emit("mov", eax, dword(r14, Uart.BACKLOG_HEAD));
  a.emit("movzx", esi, byte(r14, rax, Uart.BACKLOG));
  a.emit("inc", eax);
  a.emit("and", eax, imm(BACKLOG_BYTES - 1));
  a.emit("mov", dword(r14, Uart.BACKLOG_HEAD), eax);
  a.emit("dec", dword(r14, Uart.BACKLOG_COUNT));
  a.emit("xor", edx, edx);
  a.emit("call", "arrive");
  a.emit("jmp", "refill");
  a.label("refilled");
  a.emit("ret");
}

/** RSI bytes, ECX of them, from the far end. Answers in EDI how many were taken. */
function receive(a: Assembler): void {
  a.label("receive");
  a.emit("xor", edi, edi);
  a.emit("call", "take");
  a.emit("push", rsi);
  a.emit("push", rcx);
  a.emit("push", rdi);
  a.emit("call", "refill");
  a.emit("pop", rdi);
  a.emit("pop", rcx);
  a.emit("pop", rsi);
  a.emit("call", "take");
  a.emit("jmp", "update_interrupt");

  // RSI, ECX on, EDI up by as many as the backlog has room for.
  a.label("take");
  a.emit("test", ecx, ecx);
  a.emit("je", "taken");
  a.emit("mov", eax, dword(r14, Uart.BACKLOG_COUNT));
  a.emit("cmp", eax, imm(BACKLOG_BYTES));
  a.emit("jae", "taken");
  a.emit("mov", edx, dword(r14, Uart.BACKLOG_HEAD));
  a.emit("add", edx, eax);
  a.emit("and", edx, imm(BACKLOG_BYTES - 1));
  a.emit("mov", al, byte(rsi));
  a.emit("mov", byte(r14, rdx, Uart.BACKLOG), al);
  a.emit("inc", dword(r14, Uart.BACKLOG_COUNT));
  a.emit("inc", rsi);
  a.emit("inc", edi);
  a.emit("dec", ecx);
  a.emit("jmp", "take");
  a.label("taken");
  a.emit("ret");
}

// ---- transmitter ----

function transmitter(a: Assembler): void {
  // ESI = byte. The request drops while the holding register is full, then rises anew: an edge for the PIC.
  a.label("transmit");
  a.emit("mov", at(Uart.THRE_PENDING), imm(0));
  a.emit("call", "update_interrupt");
  a.emit("test", at(Uart.MCR), imm(Mcr.LOOP));
  a.emit("jne", "transmit_loop");
  a.emit("call", "gather");
  a.emit("jmp", "transmitted");
  a.label("transmit_loop");
  a.emit("movzx", ecx, at(Uart.LCR));
  a.emit("not", ecx);
  a.emit("and", ecx, imm(3));
  a.emit("mov", eax, imm(0xff));
  a.emit("shr", eax, cl);
  a.emit("and", esi, eax);
  a.emit("xor", edx, edx);
  a.emit("call", "arrive");
  a.label("transmitted");
  a.emit("mov", at(Uart.THRE_PENDING), imm(1));
  a.emit("jmp", "update_interrupt");

  gather(a);
  flush(a);
}

/** ESI = byte: a line end or a full chunk leaves at once, anything else within FLUSH_NS. */
function gather(a: Assembler): void {
  a.label("gather");
  a.emit("movzx", ecx, word(r14, Uart.OUTPUT_BYTES));
  a.emit("mov", byte(r14, rcx, Uart.OUTPUT), sil);
  a.emit("inc", ecx);
  a.emit("mov", word(r14, Uart.OUTPUT_BYTES), cx);
  a.emit("cmp", sil, imm(LINE_FEED));
  a.emit("je", "flush");
  a.emit("cmp", ecx, imm(CHUNK_BYTES));
  a.emit("je", "flush");
  a.emit("cmp", qword(FLUSH_AT), imm(-1));
  a.emit("jne", "gathered");
  a.emit("lea", rax, qword(r12, FLUSH_NS));
  a.emit("mov", qword(FLUSH_AT), rax);
  a.label("gathered");
  a.emit("ret");
}

/** What has been gathered becomes a PUT record. */
function flush(a: Assembler): void {
  a.label("flush");
  a.emit("movzx", ecx, word(r14, Uart.OUTPUT_BYTES));
  a.emit("test", ecx, ecx);
  a.emit("je", "gathered");
  a.emit("mov", dword(r13), imm(EffectKind.PUT));
  a.emit("lea", eax, dword(rcx, PUT_WORDS));
  a.emit("mov", dword(r13, 4), eax);
  a.emit("mov", eax, dword(r14, Uart.STREAM));
  a.emit("mov", qword(r13, 8), rax);
  a.emit("lea", rdi, qword(r13, 8 + PUT_WORDS));
  a.emit("lea", rsi, qword(r14, Uart.OUTPUT));
  a.emit("rep movsb");
  a.emit("lea", r13, qword(rdi, 7));
  a.emit("and", r13, imm(-8));
  a.emit("mov", word(r14, Uart.OUTPUT_BYTES), imm(0));
  a.emit("ret");
}

/** EAX: MSR bits 7:4, the pins, or in loopback this UART's own outputs. Loses RCX only. */
function modemLines(a: Assembler): void {
  a.label("modem_lines");
  a.emit("movzx", ecx, at(Uart.MCR));
  a.emit("movzx", eax, at(Uart.PINS));
  a.emit("test", ecx, imm(Mcr.LOOP));
  a.emit("je", "gathered");
  a.emit("xor", eax, eax);
  const outputs = [
    [Mcr.RTS, Msr.CTS],
    [Mcr.DTR, Msr.DSR],
    [Mcr.OUT1, Msr.RI],
    [Mcr.OUT2, Msr.DCD],
  ] as const;
  for (const [output, line] of outputs) {
    a.emit("test", ecx, imm(output));
    a.emit("je", `no_${line}`);
    a.emit("or", eax, imm(line));
    a.label(`no_${line}`);
  }
  a.emit("ret");
}
