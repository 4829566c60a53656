/**
 * State of the system procedures (event delivery, far transfers, task switches) at 0x800..0x8ff of the state block, and the few
 * predicates on processor state that all of them ask.
 *
 * Every field but NMI_UNBLOCKED is meaningless between two calls. EXT is zero then, so that error codes of ordinary instructions
 * have their EXT bit clear.
 */

import type { Operand, Val } from "../../ir/value.ts";
import { Cr0, Efer } from "../../state/control-bits.ts";
import { type Field, Mode, Pending, S, Seg, Status } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";
import { Flag } from "../flags.ts";
import { Rights } from "./rights.ts";

const f = (at: number, type: Field["type"]): Field => ({ at, type });

export const SYS = {
  /** 1 while an event that is not a software interrupt is being delivered: bit 0 of every error code. */
  EXT: f(0x800, "i32"),
  /**
   * The IRET that has just faulted (or left as a VM exit) had lifted blocking by NMI: bit 12 of the exit's interruption information or
   * EPT-violation qualification. Whoever reports it clears it.
   */
  NMI_UNBLOCKED: f(0x804, "i32"),
  /** Linear address of the descriptor that descriptorHost answered last. */
  DESCRIPTOR_LINEAR: f(0x808, "i64"),
  /** Answer of innerStack: selector, descriptor (not in IA-32e mode) and stack pointer for the new privilege level. */
  STACK_SELECTOR: f(0x810, "i32"),
  STACK_DESCRIPTOR: f(0x818, "i64"),
  STACK_POINTER: f(0x820, "i64"),
  /** The task switch in progress: state of the new task on its way from its TSS to the registers. Segment selectors follow at TASK_SEGMENTS. */
  TASK_CR3: f(0x828, "i32"),
  TASK_EIP: f(0x82c, "i32"),
  TASK_EFLAGS: f(0x830, "i32"),
  TASK_TRAP: f(0x834, "i32"),
  /** Descriptor that VERR, VERW, LAR or LSL looks at, 0 if there is none. */
  INSPECTED: f(0x838, "i64"),
} as const satisfies Record<string, Field>;

/** Eight general registers (i32), then ES CS SS DS FS GS LDTR (i32 each) of the new task. */
export const TASK_GPRS = 0x840;
export const TASK_SEGMENTS = 0x860;

/** Answer of a procedure that has switched tasks and then met a fault: the event is pending in the new task, S.RIP is set. */
export const TASK_FAULT = 8;

/** Interruption types. SDM Vol. 3C, "Format of the VM-Entry Interruption-Information Field". */
export const EventType = {
  EXTERNAL: 0,
  NMI: 2,
  HARDWARE: 3,
  SOFTWARE_INTERRUPT: 4,
  PRIVILEGED_SOFTWARE: 5,
  SOFTWARE_EXCEPTION: 6,
} as const;
export const INFO_VALID = 0x8000_0000 | 0;
export const INFO_ERROR_CODE = 0x800;
export const INFO_NMI_UNBLOCKED = 0x1000;

/** Offset in the TSS of the I/O map base, which the redirection bitmap ends at, and the limit a TSS must have to hold it. */
export const TSS_IO_BASE = 0x66;
export const TSS_MINIMUM_LIMIT = 0x67;

/** DR6: access to debug registers detected, bits that are always one. DR7: general detect. SDM Vol. 3B, "Debug Registers". */
export const DR6_BD = 0x2000;
export const DR6_FIXED = 0xffff_0ff0;
export const DR7_GD = 0x2000;

/** Blocking bits of S.INTERRUPTIBILITY. */
export const Blocking = { STI: 1, MOV_SS: 2, NMI: 8 } as const;

/** IA32_EFER.LMA as an i64 that is nonzero in IA-32e mode. */
export const longMode = (p: Cpu): Val => p.get(S.EFER).and(Efer.LMA).ne(0);
export const in64 = (p: Cpu): Val => p.get(S.MODE).and(Mode.CODE_MASK).eq(Mode.CODE64);
/** Real-address or virtual-8086 mode. */
export const inReal = (p: Cpu): Val => p.get(S.MODE).and(Mode.REAL);
export const inV86 = (p: Cpu): Val => p.get(S.RFLAGS_REST).and(Flag.VM);
export const isProtected = (p: Cpu): Val => p.get(S.CR0).and(Cr0.PE).ne(0);
export const ioplOf = (p: Cpu): Val => p.get(S.RFLAGS_REST).shrU(12).and(3);
export const nonCanonical = (address: Val): Val => address.shl(16).shrS(16).ne(address);
/** Linear addresses are 32 bits wide outside IA-32e mode. */
export const wrapLinear = (p: Cpu, linear: Val): Val =>
  longMode(p).select(linear, linear.and(0xffff_ffffn));
/** TR holds a 32-bit (or 64-bit) TSS. */
export const hasWideTss = (p: Cpu): Val => p.segRights(Seg.TR).and(Rights.CODE);

/** Puts a hardware exception into PENDING and goes on. */
export function recordFault(p: Cpu, vector: Operand, error: Operand): void {
  p.set(S.PENDING, Pending.EVENT);
  p.set(S.PENDING_VECTOR, vector);
  p.set(S.PENDING_ERROR, error);
  p.set(S.PENDING_TYPE, EventType.HARDWARE);
}

/** As Cpu.fault, with a vector that is a value. */
export function raise(p: Cpu, vector: Operand, error: Operand): void {
  recordFault(p, vector, error);
  p.leave(Status.FAULT);
}

export function raiseIf(p: Cpu, condition: Val, vector: Operand, error: Operand): void {
  p.fn.if(condition, () => raise(p, vector, error));
}

/** Error code that names a selector. */
export const selectorError = (p: Cpu, selector: Val): Val =>
  selector.and(0xfffc).or(p.get(SYS.EXT));

/** The fault with error code 0, or EXT alone while an event is being delivered. */
export function plainFaultIf(p: Cpu, condition: Val, vector: number): void {
  p.fn.if(condition, () => raise(p, vector, p.get(SYS.EXT)));
}

export function selectorFaultIf(p: Cpu, condition: Val, vector: Operand, selector: Val): void {
  p.fn.if(condition, () => raise(p, vector, selectorError(p, selector)));
}
