/**
 * What the system instructions share: privilege and mode checks, VM-execution controls, ways to end.
 * Order of checks everywhere, by SDM Vol. 3C, "Relative Priority of Faults and VM Exits": #UD, faults by CPL, VM exit, other faults.
 */

import type { Val } from "../../ir/value.ts";
import { GPR, Mode, S, Status } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import { arithmeticImage, Flag, setArithmeticImage } from "../flags.ts";
import type { Insn } from "../insn.ts";
import { TASK_FAULT } from "./state.ts";
import { noteTransition } from "./transition.ts";

/** Bits of the VM-execution controls. SDM Vol. 3C, "Processor-Based VM-Execution Controls". */
export const Primary = {
  INTERRUPT_WINDOW: 1 << 2,
  HLT: 1 << 7,
  INVLPG: 1 << 9,
  MWAIT: 1 << 10,
  RDPMC: 1 << 11,
  RDTSC: 1 << 12,
  CR3_LOAD: 1 << 15,
  CR3_STORE: 1 << 16,
  CR8_LOAD: 1 << 19,
  CR8_STORE: 1 << 20,
  NMI_WINDOW: 1 << 22,
  MOV_DR: 1 << 23,
  UNCONDITIONAL_IO: 1 << 24,
  IO_BITMAPS: 1 << 25,
  MONITOR_TRAP: 1 << 27,
  MSR_BITMAPS: 1 << 28,
  MONITOR: 1 << 29,
  PAUSE: 1 << 30,
  SECONDARY: 1 << 31,
} as const;
export const Secondary = {
  DESCRIPTOR_TABLE: 1 << 2,
  RDTSCP: 1 << 3,
  WBINVD: 1 << 6,
  RDRAND: 1 << 11,
  INVPCID: 1 << 12,
  VM_FUNCTIONS: 1 << 13,
  RDSEED: 1 << 16,
} as const;

/** SDM Vol. 3D, "VMX Basic Exit Reasons". */
export const ExitReason = {
  CPUID: 10,
  HLT: 12,
  INVD: 13,
  INVLPG: 14,
  RDPMC: 15,
  RDTSC: 16,
  CR_ACCESS: 28,
  MOV_DR: 29,
  IO: 30,
  RDMSR: 31,
  WRMSR: 32,
  MWAIT: 36,
  MONITOR: 39,
  PAUSE: 40,
  GDTR_IDTR: 46,
  LDTR_TR: 47,
  RDTSCP: 51,
  WBINVD: 54,
  XSETBV: 55,
  RDRAND: 57,
  INVPCID: 58,
  RDSEED: 61,
} as const;

/** Nonzero if a primary control is on in VMX non-root operation (i32). */
export function primary(p: Cpu, bit: number): Val {
  return p.get(S.NON_ROOT).ne(0).and(p.get(S.CTL_PRIMARY).and(bit).ne(0));
}

/** Nonzero if a secondary control, and with it the use of secondary controls, is on in VMX non-root operation. */
export function secondary(p: Cpu, bit: number): Val {
  return primary(p, Primary.SECONDARY).and(p.get(S.CTL_SECONDARY).and(bit).ne(0));
}

export function exitIf(
  p: Cpu,
  condition: Val,
  reason: number,
  qualification: Val | bigint = 0n,
): void {
  p.fn.if(condition, () => p.vmExit(reason, qualification));
}

export function undefinedIf(p: Cpu, condition: Val): void {
  p.faultIf(condition, Vector.UD);
}

/** #UD in real-address and virtual-8086 mode. */
export function notInReal(insn: Insn): void {
  if (!insn.is64) undefinedIf(insn, insn.get(S.MODE).and(Mode.REAL));
}

/** #GP(0) outside ring 0. */
export function ring0(p: Cpu): void {
  p.faultIf(p.get(S.CPL), Vector.GP);
}

/** Ends with a status that a transfer procedure has answered. `cause`: a TransitionCause, unless an event was delivered, which says so itself. */
export function endTransfer(insn: Insn, status: Val, cause?: number): void {
  const { fn } = insn;
  fn.if(status.eq(Status.FAULT), () => insn.leave(Status.FAULT));
  fn.if(status.eq(Status.EXIT), () => insn.leave(Status.EXIT));
  fn.if(status.eq(TASK_FAULT), () => {
    // The instruction is over: its task is not the current one. An exit must not go back to it.
    const next = fn.call(insn.module.get("deliverPending"));
    fn.if(next.eq(Status.EXIT), () => insn.leave(Status.EXIT_AFTER));
    insn.leave(Status.JUMP);
  });
  if (cause !== undefined) noteTransition(insn, cause);
  insn.leave(Status.JUMP);
}

/** Calls a procedure that answers NEXT, FAULT or EXIT and goes on only after NEXT. */
export function attempt(insn: Cpu, status: Val): void {
  insn.fn.if(status.eq(Status.FAULT), () => insn.leave(Status.FAULT));
  insn.fn.if(status.eq(Status.EXIT), () => insn.leave(Status.EXIT));
}

/** Ends the instruction, and the block with it. */
export function jumpNext(insn: Insn): void {
  insn.jumpTo(insn.nextRip());
}

/** Ends the instruction after a change that the code mode, the TLB context or the careful path may depend on. */
export function refresh(insn: Insn): void {
  insn.fn.callVoid(insn.module.get("updateMode"));
  jumpNext(insn);
}

/** Bits of the VM-exit instruction information beside those of a memory operand. */
export const Information = { REGISTER1: 3, IS_REGISTER: 1 << 10, REGISTER2: 28 } as const;

/**
 * A VM exit with the instruction information: `extra` and what the memory operand says, if there is one; the qualification is its
 * displacement then. SDM Vol. 3C, "Information for VM Exits Due to Instruction Execution".
 */
export function exitWithOperand(insn: Insn, reason: number, extra: Val): void {
  const hasMemory = insn.shape.operands.some((o) => o.kind === "m");
  const operand = hasMemory ? insn.operandInformation() : null;
  insn.set(S.EXIT_INSTRUCTION_INFO, operand ? operand.information.or(extra) : extra);
  insn.vmExit(reason, operand?.displacement ?? 0n);
}

/** The r/m operand i where it is a register. */
export function registerOperand(insn: Insn, i: number): Val {
  if (insn.kind(i) !== "r") return insn.i32(0);
  return registerNumber(insn, i).shl(Information.REGISTER1).or(Information.IS_REGISTER);
}

/** Number of the general register that operand i names, for exit qualifications. Registers are named by their slots. */
export function registerNumber(insn: Insn, i: number): Val {
  return insn.regNumber(i).sub(GPR).shrU(3);
}

export function setZf(p: Cpu, zf: Val): void {
  setArithmeticImage(p, arithmeticImage(p).and(~Flag.ZF).or(zf.shl(6)));
}
