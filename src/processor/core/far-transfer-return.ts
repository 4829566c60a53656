/**
 * Far returns, and what they share with IRET: the checks of the CS and SS on the stack.
 * Spec: SDM Vol. 2, "RET", "IRET/IRETD/IRETQ"; Vol. 3A, "Returning from a Called Procedure".
 */

import type { Val } from "../ir/value.ts";
import { Access, type Cpu, elementFlags, Vector } from "../semantics/cpu.ts";
import type { Procedure } from "../semantics/procedure.ts";
import {
  descriptorDpl,
  descriptorRights,
  isCode,
  isConforming,
  isImpossibleCode,
  isLongCode,
  isNull,
  isPresent,
  markAccessed,
  readDescriptor,
  rplOf,
  setSegment,
} from "../semantics/system/descriptor.ts";
import { callVoid, obtain, type ProcedureText } from "../semantics/system/procedure-text.ts";
import {
  frameAbove,
  mergeStackPointer,
  moveStackPointer,
  setStackPointer,
  stackMask,
} from "../semantics/system/stack-frame.ts";
import { inReal, longMode, selectorFaultIf, wrapLinear } from "../semantics/system/state.ts";
import { S, Seg } from "../state/layout.ts";
import { arrive, checkTarget, loadItem } from "./far-transfer.ts";

/** Stands for the descriptor of a null SS, which 64-bit returns to rings 0..2 allow. Present, and never a real one. */
const NULL_STACK = -1n;

/** (selector): the CS of a return, checked -> descriptor, marked accessed. */
function returnCode(p: Procedure): void {
  const selector = p.fn.param(0);
  p.faultIf(isNull(selector), Vector.GP);
  const d = readDescriptor(p, selector, Vector.GP);
  const rpl = rplOf(selector);
  const dpl = descriptorDpl(d);
  const wrongDpl = isConforming(d).select(dpl.gtU(rpl), dpl.ne(rpl));
  const bad = isCode(d)
    .eqz()
    .or(rpl.ltU(p.get(S.CPL)))
    .or(wrongDpl)
    .or(longMode(p).and(isImpossibleCode(d)));
  selectorFaultIf(p, bad, Vector.GP, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  p.fn.return(markAccessed(p, d));
}

/** (selector, new CPL, target is 64-bit code): the SS of a return to another level -> descriptor, or NULL_STACK. */
function returnStack(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  const cpl = fn.param(1);
  fn.if(isNull(selector), () => {
    const allowed = fn.param(2).and(cpl.ne(3)).and(rplOf(selector).eq(cpl));
    p.faultIf(allowed.eqz(), Vector.GP);
    fn.return(NULL_STACK);
  });
  fn.return(obtain(p, "stackDescriptor", selector, cpl, Vector.GP));
}

/** The stack pointer that a return to another level loads: as wide as the new code and stack segments say. */
export function returnStackPointer(p: Cpu, value: Val, stack: Val, toLong: Val): Val {
  const mask = stackMask(p, descriptorRights(stack));
  return toLong.select(value, mergeStackPointer(p, mask, value));
}

/** Loads CS, SS and RSP for a return to an outer level. */
export function commitOuter(p: Cpu, cs: Val, code: Val, ss: Val, stack: Val, sp: Val): void {
  const cpl = rplOf(cs);
  p.set(S.CPL, cpl);
  setStackPointer(p, sp);
  setSegment(p, Seg.CS, cs, code);
  callVoid(p, "cacheStack", ss, stack, cpl);
}

/** 1 if `code` is 64-bit code in IA-32e mode. */
export const isLongTarget = (p: Cpu, code: Val): Val => longMode(p).and(isLongCode(code));

/** (operand size, bytes to release). */
function farReturn(p: Procedure): void {
  const { fn } = p;
  const size = fn.param(0);
  const release = fn.param(1);
  const two = size.shl(1);
  const linear = frameAbove(p, two);
  const elements = size
    .eq(2)
    .select(p.i32(elementFlags(2)), size.eq(4).select(p.i32(elementFlags(4)), p.i32(0)));
  const flags = elements.or(Access.STACK);
  const host = obtain(p, "memR", linear, two, flags);
  const rip = loadItem(p, host, size);
  const cs = p.raw(2, host.add(size));
  const drop = (): void => moveStackPointer(p, two.add(release).extU());
  fn.if(inReal(p), () => {
    p.faultIf(rip.gtU(p.segLimit(Seg.CS).extU()), Vector.GP);
    drop();
    callVoid(p, "loadRealSegment", Seg.CS, cs);
    arrive(p, rip);
  });
  const code = obtain(p, "returnCode", cs);
  const cpl = rplOf(cs);
  fn.if(cpl.eq(p.get(S.CPL)), () => {
    checkTarget(p, code, rip);
    drop();
    setSegment(p, Seg.CS, cs, code);
    arrive(p, rip);
  });
  const skip = two.add(release);
  const outer = frameAbove(p, skip.add(two));
  const second = obtain(p, "memR", wrapLinear(p, outer.add(skip.extU())), two, flags);
  const sp = loadItem(p, second, size);
  const ss = p.raw(2, second.add(size));
  const toLong = isLongTarget(p, code);
  const stack = obtain(p, "returnStack", ss, cpl, toLong);
  checkTarget(p, code, rip);
  commitOuter(p, cs, code, ss, stack, returnStackPointer(p, sp.add(release.extU()), stack, toLong));
  callVoid(p, "nullInnerSegments", cpl);
  arrive(p, rip);
}

export const returnProcedures: readonly ProcedureText[] = [
  { name: "returnCode", params: ["i32"], answer: "wide", body: returnCode },
  { name: "returnStack", params: ["i32", "i32", "i32"], answer: "wide", body: returnStack },
  { name: "farReturn", params: ["i32", "i32"], answer: "status", body: farReturn },
];
