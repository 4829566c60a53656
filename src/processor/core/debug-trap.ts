/**
 * Debug exceptions that are traps, and what they need of the boundary after an instruction: breakpoints that its accesses have met, TF, the
 * monitor trap flag, and what MOV SS holds back.
 * Spec: SDM Vol. 3B, "Data Memory and I/O Breakpoint Exception Conditions", "Single-Step Exception Condition"; Vol. 3A, "Masking Exceptions and
 * Interrupts When Switching Stacks"; Vol. 3C, "Monitor Trap Flag", "Guest Non-Register State" (pending debug exceptions).
 *
 * The careful path calls instructionDone, then (unless the instruction's device writes have to be carried out first) instructionBoundary, which
 * answers NEXT, FAULT (#DB is pending) or EXIT (monitor trap flag, privilege level). What is due waits in S.PENDING_DEBUG. Only the careful path does so:
 * whatever is looked for here keeps S.SLOW or S.STEPPING from being zero.
 */

import type { Cpu } from "../semantics/cpu.ts";
import { Vector } from "../semantics/cpu.ts";
import { Flag } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import { call, callVoid, type ProcedureText } from "../semantics/system/procedure-text.ts";
import { Blocking, raise } from "../semantics/system/state.ts";
import { exitsOnLevel } from "../semantics/system/transition.ts";
import { PendingDebug, S, Slow, Status } from "../state/layout.ts";

const EXIT_MONITOR_TRAP = 37;
const MONITOR_TRAP_FLAG = 1 << 27;
const DELIVERABLE = PendingDebug.ENABLED | PendingDebug.BS;

/** (STEPPING): the instruction before S.RIP is done. Lifts the blocking it was under, and notes the traps that it has earned. */
function instructionDone(p: Procedure): void {
  const { fn } = p;
  const stepping = fn.param(0);
  fn.if(stepping, () => {
    const blocking = p.get(S.INTERRUPTIBILITY).and(p.get(S.STEP_BLOCKING).not());
    p.set(S.INTERRUPTIBILITY, blocking);
    // The trap of an instruction that has just loaded SS is lost, its breakpoints wait.
    const isDue = stepping.and(Slow.TRAP).ne(0).and(blocking.and(Blocking.MOV_SS).eqz());
    fn.if(isDue, () => p.set(S.PENDING_DEBUG, p.get(S.PENDING_DEBUG).or(PendingDebug.BS)));
    p.set(S.STEPPING, stepping.and(~Slow.TRAP));
  });
  const hits = p.get(S.BREAK_HITS);
  fn.if(hits, () => {
    p.set(S.PENDING_DEBUG, p.get(S.PENDING_DEBUG).or(hits.or(PendingDebug.ENABLED).extU()));
    p.set(S.BREAK_HITS, 0);
  });
  fn.if(stepping.or(hits), () => callVoid(p, "updateSlow"));
}

/** (STEPPING): what comes between two instructions before anything else. */
function instructionBoundary(p: Procedure): void {
  const { fn } = p;
  const monitors = p.get(S.NON_ROOT).ne(0).and(p.get(S.CTL_PRIMARY).and(MONITOR_TRAP_FLAG).ne(0));
  fn.if(fn.param(0).ne(0).and(monitors), () => p.vmExit(EXIT_MONITOR_TRAP));
  if (exitsOnLevel.isBuilt)
    fn.if(p.get(S.CPL_CAUSE), () => fn.if(call(p, "cplBoundary"), () => p.leave(Status.EXIT)));
  const pending = p.get(S.PENDING_DEBUG);
  const isFree = p.get(S.INTERRUPTIBILITY).and(Blocking.MOV_SS).eqz();
  fn.if(pending.ne(0).and(isFree), () => {
    p.set(S.PENDING_DEBUG, 0n);
    callVoid(p, "updateSlow");
    fn.if(pending.and(DELIVERABLE).ne(0), () => {
      p.set(S.PENDING_ADDRESS, pending.and(PendingDebug.HITS | PendingDebug.BS));
      raise(p, Vector.DB, 0);
    });
  });
}

/**
 * SYSCALL and SYSRET decide about their single-step trap by the TF they leave, so that a kernel that masks TF does not meet the trap and a
 * program goes on being stepped after the call. (Not in the SDM; Xen Security Advisory 204.)
 */
export function trapByResult(p: Cpu): void {
  const { fn } = p;
  const before = p.get(S.STEPPING);
  const isSet = p.get(S.RFLAGS_REST).and(Flag.TF);
  fn.if(
    isSet,
    () => {
      fn.if(before.eqz(), () => p.set(S.STEP_BLOCKING, 0));
      p.set(S.STEPPING, before.or(Slow.SINGLE_STEP | Slow.SHADOW | Slow.TRAP));
    },
    () => p.set(S.STEPPING, before.and(~Slow.TRAP)),
  );
}

/** The instruction has cleared TF by entering a handler, and with it its own trap. SDM Vol. 3B, "Single-Step Exception Condition". */
export function dropTrap(p: Cpu): void {
  p.set(S.STEPPING, p.get(S.STEPPING).and(~Slow.TRAP));
}

export const debugTrapProcedures: readonly ProcedureText[] = [
  { name: "instructionDone", params: ["i32"], answer: "none", body: instructionDone },
  { name: "instructionBoundary", params: ["i32"], answer: "status", body: instructionBoundary },
];
