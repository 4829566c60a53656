/**
 * What happens to an event: leave as a VM exit, or go through the IDT; and to the faults met on that way, up to the double fault and shutdown.
 * Spec: SDM Vol. 3A, "Interrupt 8 - Double Fault Exception (#DF)", "Debug Exceptions"; Vol. 3C, "Other Causes of VM Exits",
 * "Information for VM Exits Due to Vectored Events", "Information for VM Exits That Occur During Event Delivery".
 *
 * deliverPending() takes the event in PENDING* and answers JUMP (S.RIP is the handler; PENDING, VECTORING are zero) or EXIT (EXIT_* set;
 * VECTORING is the IDT-vectoring information, zero if the exit did not happen during delivery). S.VECTORING is not zero between calls only
 * after a software interrupt that faulted, until the pending fault is delivered; VM entry starts with it zero.
 * The error-code-valid bit of exits is clear in real-address mode, where nothing pushes error codes.
 */

import type { Val } from "../ir/value.ts";
import { TransitionCause } from "../isa/vendor.ts";
import { type Cpu, Vector } from "../semantics/cpu.ts";
import { Flag } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import { Primary } from "../semantics/system/common.ts";
import { call, type ProcedureText } from "../semantics/system/procedure-text.ts";
import {
  Blocking,
  DR6_BD,
  DR6_FIXED,
  DR7_GD,
  EventType,
  INFO_ERROR_CODE,
  INFO_NMI_UNBLOCKED,
  INFO_VALID,
  inV86,
  isProtected,
  recordFault,
  SYS,
  TASK_FAULT,
} from "../semantics/system/state.ts";
import { noteTransition } from "../semantics/system/transition.ts";
import { NO_BUDGET, Pending, S, Slow, Status } from "../state/layout.ts";
import { dropTrap } from "./debug-trap.ts";
import { Kind } from "./interrupts.ts";

/** Basic exit reasons. SDM Vol. 3D, "VMX Basic Exit Reasons". */
const EXIT_EXCEPTION = 0;
const EXIT_TRIPLE_FAULT = 2;
const ACTIVITY_SHUTDOWN = 2;

const bits = (...vectors: number[]): number => vectors.reduce((mask, v) => mask | (1 << v), 0);
const V = Vector;
const WITH_ERROR_CODE = bits(V.DF, V.TS, V.NP, V.SS, V.GP, V.PF, V.AC);
const FAULTS = bits(V.DE, V.BR, V.UD, V.NM, V.TS, V.NP, V.SS, V.GP, V.PF, V.MF, V.AC, V.XM);
const CONTRIBUTORY = bits(V.DE, V.TS, V.NP, V.SS, V.GP);

const DR6_HITS = 0xf;

const inSet = (p: Cpu, set: number, vector: Val): Val =>
  vector.ltU(32).and(p.i32(set).shrU(vector).and(1));
const typeOf = (info: Val): Val => info.shrU(8).and(7);

/** Ends as a triple fault: VM exit 2, or shutdown of the bare processor (which leaves its run loop the same way). */
function tripleFault(p: Procedure): void {
  p.set(S.PENDING, Pending.NONE);
  p.set(S.VECTORING, 0);
  p.set(SYS.EXT, 0);
  p.fn.if(p.get(S.NON_ROOT).eqz(), () => p.set(S.ACTIVITY, ACTIVITY_SHUTDOWN));
  p.set(S.EXIT_REASON, EXIT_TRIPLE_FAULT);
  p.set(S.EXIT_QUALIFICATION, 0n);
  p.set(S.EXIT_INTERRUPTION, 0);
  p.fn.return(Status.EXIT);
}

/**
 * Combines a hardware exception with the exception whose delivery it has interrupted. The second column of the double-fault table: benign
 * ones are handled one after the other, contributory and page faults make #DF, and those during #DF shut down. An exception that leaves by a VM
 * exit does so before it can double.
 */
function combine(p: Procedure): void {
  const { fn } = p;
  const first = p.get(S.VECTORING);
  const isException = first.ltS(0).and(typeOf(first).eq(EventType.HARDWARE));
  const leaves = isIntercepted(p, p.get(S.PENDING_VECTOR), p.get(S.PENDING_ERROR));
  const meets = isException.and(p.get(S.PENDING_TYPE).eq(EventType.HARDWARE));
  fn.if(meets.and(leaves.eqz()), () => {
    const earlier = first.and(0xff);
    const vector = p.get(S.PENDING_VECTOR);
    const contributory = inSet(p, CONTRIBUTORY, vector);
    const severe = contributory.or(vector.eq(V.PF));
    fn.if(earlier.eq(V.DF).and(severe), () => tripleFault(p));
    const doubled = inSet(p, CONTRIBUTORY, earlier)
      .and(contributory)
      .or(earlier.eq(V.PF).and(severe));
    fn.if(doubled, () => {
      // #DF replaces both: an exit it causes does not count as one during delivery.
      recordFault(p, V.DF, 0);
      p.set(S.VECTORING, 0);
    });
  });
}

/** Sets RF of a fault, or of what leaves in its place: the instruction is to be resumed. */
function setResume(p: Cpu): void {
  p.set(S.RFLAGS_REST, p.get(S.RFLAGS_REST).or(Flag.RF));
  p.set(S.RESUME_BUDGET, p.get(S.BUDGET));
}

/** Sets the exit fields for an event that leaves the guest instead of being delivered; RF is to be as its image would have had it. */
function exceptionExit(p: Procedure, info: Val, error: Val, qualification: Val): void {
  p.set(S.PENDING, Pending.NONE);
  p.set(SYS.EXT, 0);
  const unblocked = p
    .get(SYS.NMI_UNBLOCKED)
    .and(p.get(S.VECTORING).eqz())
    .and(info.and(0xff).ne(V.DF));
  p.set(SYS.NMI_UNBLOCKED, 0);
  p.set(S.EXIT_REASON, EXIT_EXCEPTION);
  p.set(S.EXIT_INTERRUPTION, info.or(unblocked.select(p.i32(INFO_NMI_UNBLOCKED), p.i32(0))));
  p.set(S.EXIT_INTERRUPTION_ERROR, error);
  p.set(S.EXIT_QUALIFICATION, qualification);
  p.fn.return(Status.EXIT);
}

/** 1 if the exception bitmap sends an exception out. Page faults are filtered by error code. */
function isIntercepted(p: Cpu, vector: Val, error: Val): Val {
  const bit = inSetOf(p.get(S.CTL_EXCEPTION_BITMAP), vector);
  const matches = error.and(p.get(S.CTL_PF_MASK)).eq(p.get(S.CTL_PF_MATCH));
  const inverted = vector.eq(V.PF).and(matches.eqz());
  return p.get(S.NON_ROOT).ne(0).and(bit.xor(inverted));
}

const inSetOf = (set: Val, vector: Val): Val => vector.ltU(32).and(set.shrU(vector).and(1));

/** What an exception leaves in CR2, DR6 and DR7 before its handler runs. */
function recordCause(p: Cpu, vector: Val, address: Val): void {
  const { fn } = p;
  fn.if(vector.eq(V.PF), () => p.set(S.CR2, address));
  fn.if(vector.eq(V.DB), () => {
    p.set(S.DR6, p.get(S.DR6).and(~DR6_HITS).or(address).or(DR6_FIXED));
    p.set(S.DR7, p.get(S.DR7).and(~DR7_GD));
  });
}

/** An event has reached its handler. */
function delivered(p: Cpu, type: Val, vector: Val): void {
  p.set(S.PENDING, Pending.NONE);
  p.set(S.VECTORING, 0);
  p.set(SYS.EXT, 0);
  p.set(S.ACTIVITY, 0);
  p.set(S.STI_BUDGET, NO_BUDGET);
  const nmi = type.eq(EventType.NMI).select(p.i32(Blocking.NMI), p.i32(0));
  const before = p.get(S.INTERRUPTIBILITY);
  const after = before.and(~(Blocking.STI | Blocking.MOV_SS)).or(nmi);
  p.set(S.INTERRUPTIBILITY, after);
  p.fn.if(after.ne(before), () => p.fn.callVoid(p.module.get("updateSlow")));
  noteTransition(p, type.or(TransitionCause.EVENT).or(vector.shl(8)));
  // The boundary before the handler is one for the monitor trap flag.
  const monitors = p
    .get(S.NON_ROOT)
    .ne(0)
    .and(p.get(S.CTL_PRIMARY).and(Primary.MONITOR_TRAP).ne(0));
  p.fn.if(monitors, () => {
    p.set(S.STEPPING, Slow.SINGLE_STEP);
    p.set(S.STEP_BLOCKING, 0);
  });
}

function deliverPending(p: Procedure): void {
  const { fn } = p;
  fn.loop((again) => {
    fn.if(p.get(S.PENDING).eq(Pending.VM_EXIT), () => {
      p.set(S.PENDING, Pending.NONE);
      p.set(SYS.EXT, 0);
      fn.return(Status.EXIT);
    });
    combine(p);
    // Breakpoints met by an instruction that has not come to its end, and those held back before it.
    p.set(S.BREAK_HITS, 0);
    p.set(S.PENDING_DEBUG, 0n);
    const vector = p.get(S.PENDING_VECTOR);
    const type = p.get(S.PENDING_TYPE);
    const isHardware = type.eq(EventType.HARDWARE);
    const error = p.get(S.PENDING_ERROR);
    const address = p.get(S.PENDING_ADDRESS);
    const hasError = isHardware.and(isProtected(p)).and(inSet(p, WITH_ERROR_CODE, vector));
    const isGeneralDetect = vector.eq(V.DB).and(address.and(DR6_BD).ne(0));
    const isFault = isHardware.and(inSet(p, FAULTS, vector).or(isGeneralDetect));
    const info = vector
      .or(type.shl(8))
      .or(hasError.select(p.i32(INFO_ERROR_CODE), p.i32(0)))
      .or(INFO_VALID);
    fn.if(isHardware.and(isIntercepted(p, vector, error)), () => {
      const qualification = vector.eq(V.PF).or(vector.eq(V.DB)).select(address, p.i64(0));
      fn.if(isFault, () => setResume(p));
      exceptionExit(p, info, error, qualification);
    });
    fn.if(isHardware, () => recordCause(p, vector, address));
    p.set(SYS.NMI_UNBLOCKED, 0);
    p.set(S.VECTORING, info);
    p.set(S.VECTORING_ERROR, error);
    p.set(SYS.EXT, 1);
    const kind = hasError.mul(Kind.ERROR).or(isFault.mul(Kind.RF));
    const status = call(p, "deliverEvent", vector, kind, error, p.get(S.RIP));
    fn.if(status.eq(Status.JUMP), () => {
      delivered(p, type, vector);
      fn.return(Status.JUMP);
    });
    fn.if(status.eq(Status.EXIT), () => {
      p.set(S.PENDING, Pending.NONE);
      p.set(SYS.EXT, 0);
      fn.return(Status.EXIT);
    });
    fn.br(again);
  });
}

/**
 * (vector, interruption type, RIP after the instruction, its length): INT n, INT3, INTO, INT1 -> JUMP, EXIT, TASK_FAULT or FAULT. After FAULT
 * the pending fault counts as met during delivery.
 */
function softwareInterrupt(p: Procedure): void {
  const { fn } = p;
  const vector = fn.param(0);
  const type = fn.param(1);
  const isInterrupt = type.eq(EventType.SOFTWARE_INTERRUPT);
  const info = vector.or(type.shl(8)).or(INFO_VALID);
  p.set(S.EXIT_LENGTH, fn.param(3));
  p.set(S.RFLAGS_REST, p.get(S.RFLAGS_REST).and(~Flag.RF));
  fn.if(isInterrupt.eqz().and(isIntercepted(p, vector, p.i32(0))), () => {
    exceptionExit(p, info, p.i32(0), p.i64(0));
  });
  const status = call(p, "deliverSoftware", info, vector, type, fn.param(2), isInterrupt);
  fn.if(status.eq(Status.JUMP), () => dropTrap(p));
  fn.return(status);
}

/** (information, vector, type, RIP to push, checks IOPL in virtual-8086 mode): common to instructions and VM-entry injection. */
function deliverSoftware(p: Procedure): void {
  const { fn } = p;
  const [info, vector, type, rip] = [fn.param(0), fn.param(1), fn.param(2), fn.param(3)];
  p.set(S.VECTORING, info);
  p.set(S.VECTORING_ERROR, 0);
  // INT1 behaves as an external event; the others are the program's own.
  const isPrivileged = type.eq(EventType.PRIVILEGED_SOFTWARE);
  p.set(SYS.EXT, isPrivileged);
  const status = fn.variable("i32", 0);
  const isV86Interrupt = type.eq(EventType.SOFTWARE_INTERRUPT).and(inV86(p).ne(0));
  fn.if(isV86Interrupt, () => status.set(call(p, "redirectInterrupt", vector, rip, fn.param(4))));
  fn.if(status.read().eqz(), () => {
    const kind = isPrivileged.select(p.i32(0), p.i32(Kind.SOFTWARE));
    status.set(call(p, "deliverEvent", vector, kind, 0, rip));
  });
  const result = status.read();
  fn.if(result.eq(Status.JUMP), () => delivered(p, type, vector));
  fn.if(result.eq(TASK_FAULT).eqz(), () => p.set(SYS.EXT, 0));
  fn.return(result);
}

/**
 * (information, error code, instruction length): event injection at VM entry -> JUMP or EXIT. CR2, DR6 and RF are as the VMM has left them.
 * SDM Vol. 3C, "Details of Vectored-Event Injection".
 */
function injectEvent(p: Procedure): void {
  const { fn } = p;
  const info = fn.param(0);
  const error = fn.param(1);
  const vector = info.and(0xff);
  const type = typeOf(info);
  const isSoftware = type.geU(EventType.SOFTWARE_INTERRUPT);
  p.set(S.EXIT_LENGTH, fn.param(2));
  const status = fn.variable("i32", 0);
  fn.if(
    isSoftware,
    () => {
      const next = p.get(S.RIP).add(fn.param(2).extU());
      const rip = p.get(S.MODE).and(3).eq(2).select(next, next.and(0xffff_ffffn));
      status.set(call(p, "deliverSoftware", info.and(INFO_VALID | 0x7ff), vector, type, rip, 0));
    },
    () => {
      p.set(S.VECTORING, info.and(INFO_VALID | 0xfff));
      p.set(S.VECTORING_ERROR, error);
      p.set(SYS.EXT, 1);
      const hasError = info.shrU(11).and(1);
      const result = call(p, "deliverEvent", vector, hasError.mul(Kind.ERROR), error, p.get(S.RIP));
      fn.if(result.eq(Status.JUMP), () => delivered(p, type, vector));
      status.set(result);
    },
  );
  const result = status.read();
  const isPending = result.eq(Status.FAULT).or(result.eq(TASK_FAULT));
  fn.if(isPending, () => fn.return(call(p, "deliverPending")));
  p.set(SYS.EXT, 0);
  fn.return(result);
}

export const exceptionProcedures: readonly ProcedureText[] = [
  { name: "deliverPending", params: [], answer: "status", body: deliverPending },
  {
    name: "softwareInterrupt",
    params: ["i32", "i32", "i64", "i32"],
    answer: "status",
    body: softwareInterrupt,
  },
  {
    name: "deliverSoftware",
    params: ["i32", "i32", "i32", "i64", "i32"],
    answer: "status",
    body: deliverSoftware,
  },
  { name: "injectEvent", params: ["i32", "i32", "i32"], answer: "status", body: injectEvent },
];
