/**
 * Far JMP and CALL: to a code segment, through a call gate, to a task.
 * Spec: SDM Vol. 2, "JMP", "CALL"; Vol. 3A, "Privilege Level Checking When Transferring Program Control Between Code Segments".
 *
 * farJump and farCall answer JUMP (S.RIP is the target), FAULT, EXIT (task switch in VMX non-root operation) or TASK_FAULT. Offsets come in
 * already cut to the operand size.
 */

import type { Val } from "../ir/value.ts";
import { Access, type Cpu, Vector } from "../semantics/cpu.ts";
import { rflagsImage } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import {
  DescriptorType,
  descriptorBase,
  descriptorDpl,
  descriptorLimit,
  descriptorRights,
  descriptorType,
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
import {
  call,
  callVoid,
  obtain,
  type ProcedureText,
  perform,
} from "../semantics/system/procedure-text.ts";
import {
  frameAbove,
  frameBelow,
  frameFlags,
  mergeStackPointer,
  moveStackPointer,
  placeFrame,
  RSP,
  setStackPointer,
  stackMask,
} from "../semantics/system/stack-frame.ts";
import {
  inReal,
  longMode,
  nonCanonical,
  plainFaultIf,
  SYS,
  selectorFaultIf,
} from "../semantics/system/state.ts";
import { POISON, S, Seg, Status } from "../state/layout.ts";
import { TaskSource } from "./task-switch.ts";

/** Leaves with #GP(0) if an instruction pointer is not one in code segment `d`: its limit, or canonical form for 64-bit code. */
export function checkTarget(p: Cpu, d: Val, rip: Val): void {
  const toLong = longMode(p).and(isLongCode(d));
  const outside = toLong.select(nonCanonical(rip), rip.gtU(descriptorLimit(d).extU()));
  plainFaultIf(p, outside, Vector.GP);
}

/** The end of every far transfer: instruction pointer, derived state, JUMP. */
export function arrive(p: Cpu, rip: Val): void {
  p.set(S.RIP, rip);
  callVoid(p, "updateMode");
  p.leave(Status.JUMP);
}

/** Loads an item of 2, 4 or 8 bytes as an i64. */
export function loadItem(p: Cpu, address: Val, size: Val): Val {
  const unused = p.i32(64).sub(size.shl(3)).extU();
  return p.fn.load("i64.load", address).and(p.i64(-1).shrU(unused));
}

/** Stores the low 2, 4 or 8 bytes of an i64. */
export function storeItem(p: Cpu, address: Val, size: Val, value: Val): void {
  const { fn } = p;
  fn.if(
    size.eq(8),
    () => fn.store("i64.store", address, value),
    () =>
      fn.if(
        size.eq(4),
        () => fn.store("i64.store32", address, value),
        () => fn.store("i64.store16", address, value),
      ),
  );
}

/** Far transfer in real-address or virtual-8086 mode, after the return address has been dealt with. */
function arriveReal(p: Cpu, selector: Val, offset: Val): void {
  callVoid(p, "loadRealSegment", Seg.CS, selector);
  arrive(p, offset);
}

function checkRealTarget(p: Cpu, offset: Val): void {
  p.faultIf(offset.gtU(p.segLimit(Seg.CS).extU()), Vector.GP);
}

/** Checks of a code segment named by the instruction itself. */
function checkDirectCode(p: Cpu, selector: Val, d: Val): void {
  const dpl = descriptorDpl(d);
  const cpl = p.get(S.CPL);
  selectorFaultIf(p, longMode(p).and(isImpossibleCode(d)), Vector.GP, selector);
  const allowed = isConforming(d).select(dpl.leU(cpl), rplOf(selector).leU(cpl).and(dpl.eq(cpl)));
  selectorFaultIf(p, allowed.eqz(), Vector.GP, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
}

/** CS:RIP at an unchanged CPL. */
function enterCode(p: Cpu, selector: Val, d: Val, rip: Val): void {
  const marked = markAccessed(p, d);
  setSegment(p, Seg.CS, selector.and(0xfffc).or(p.get(S.CPL)), marked);
  arrive(p, rip);
}

/** Pushes CS and the return address onto the current stack: answers what writes them, once nothing can fault any more. */
function placeReturn(p: Cpu, size: Val, checkAfterStack: () => void): (nextRip: Val) => void {
  const bytes = size.shl(1);
  const linear = frameBelow(p, bytes);
  checkAfterStack();
  const host = placeFrame(p, linear, bytes, size, Access.STACK);
  return (nextRip) => {
    storeItem(p, host, size, nextRip);
    storeItem(p, host.add(size), size, p.segSelector(Seg.CS).extU());
    p.commit(host);
    moveStackPointer(p, bytes.extU().neg());
  };
}

/** A descriptor that is not code: gate or TSS. Ends the procedure. */
function systemTarget(p: Procedure, selector: Val, d: Val, isCall: number, nextRip: Val): void {
  const { fn } = p;
  const type = descriptorType(d);
  const is = (t: number): Val => type.eq(t);
  const gate = (): void => fn.return(call(p, "farGate", selector, d, isCall, nextRip));
  fn.if(longMode(p), () => {
    selectorFaultIf(p, is(DescriptorType.CALL_GATE).eqz(), Vector.GP, selector);
    gate();
  });
  fn.if(is(DescriptorType.CALL_GATE).or(is(DescriptorType.CALL_GATE16)), gate);
  const isGate = is(DescriptorType.TASK_GATE);
  const isTss = is(DescriptorType.TSS).or(is(DescriptorType.TSS16));
  selectorFaultIf(p, isGate.or(isTss).eqz(), Vector.GP, selector);
  const dpl = descriptorDpl(d);
  selectorFaultIf(p, p.get(S.CPL).gtU(dpl).or(rplOf(selector).gtU(dpl)), Vector.GP, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  const task = isGate.select(d.shrU(16).wrap().and(0xffff), selector);
  fn.return(
    call(p, "taskSwitch", task, isCall ? TaskSource.CALL : TaskSource.JMP, nextRip, rflagsImage(p)),
  );
}

/** (selector, offset, next RIP). */
function farJump(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  const offset = fn.param(1);
  fn.if(inReal(p), () => {
    checkRealTarget(p, offset);
    arriveReal(p, selector, offset);
  });
  p.faultIf(isNull(selector), Vector.GP);
  const d = readDescriptor(p, selector, Vector.GP);
  fn.if(isCode(d), () => {
    checkDirectCode(p, selector, d);
    checkTarget(p, d, offset);
    enterCode(p, selector, d, offset);
  });
  systemTarget(p, selector, d, 0, fn.param(2));
}

/** (selector, offset, operand size, next RIP). */
function farCall(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  const offset = fn.param(1);
  const size = fn.param(2);
  const nextRip = fn.param(3);
  fn.if(inReal(p), () => {
    const push = placeReturn(p, size, () => checkRealTarget(p, offset));
    push(nextRip);
    arriveReal(p, selector, offset);
  });
  p.faultIf(isNull(selector), Vector.GP);
  const d = readDescriptor(p, selector, Vector.GP);
  fn.if(isCode(d), () => {
    checkDirectCode(p, selector, d);
    const marked = markAccessed(p, d);
    const push = placeReturn(p, size, () => checkTarget(p, d, offset));
    push(nextRip);
    enterCode(p, selector, marked, offset);
  });
  systemTarget(p, selector, d, 1, nextRip);
}

/** Where a call gate leads: selector, code descriptor (checked for existence and kind), offset. */
function gateTarget(
  p: Procedure,
  gateSelector: Val,
  gate: Val,
): { selector: Val; d: Val; offset: Val } {
  const { fn } = p;
  const dpl = descriptorDpl(gate);
  selectorFaultIf(
    p,
    p.get(S.CPL).gtU(dpl).or(rplOf(gateSelector).gtU(dpl)),
    Vector.GP,
    gateSelector,
  );
  selectorFaultIf(p, isPresent(gate).eqz(), Vector.NP, gateSelector);
  const full = gate.and(0xffff).or(gate.shrU(32).and(0xffff_0000));
  const isWide = descriptorType(gate).eq(DescriptorType.CALL_GATE);
  const offset = fn.variable("i64", isWide.select(full, gate.and(0xffff)));
  fn.if(longMode(p), () => {
    const high = p.raw(8, obtain(p, "descriptorHost", gateSelector, 16, Vector.GP), 8);
    selectorFaultIf(p, high.shrU(40).and(0x1f).ne(0), Vector.GP, gateSelector);
    offset.set(full.or(high.shl(32)));
  });
  const selector = gate.shrU(16).wrap().and(0xffff);
  p.faultIf(isNull(selector), Vector.GP);
  const d = readDescriptor(p, selector, Vector.GP);
  const notLong = longMode(p).and(isLongCode(d).eqz().or(isImpossibleCode(d)));
  selectorFaultIf(p, isCode(d).eqz().or(notLong), Vector.GP, selector);
  return { selector, d, offset: offset.read() };
}

/** (selector of the gate, gate, is a call, next RIP). */
function farGate(p: Procedure): void {
  const { fn } = p;
  const gate = fn.param(1);
  const isCall = fn.param(2);
  const nextRip = fn.param(3);
  const { selector, d, offset } = gateTarget(p, fn.param(0), gate);
  const dpl = descriptorDpl(d);
  const cpl = p.get(S.CPL);
  const isInner = isConforming(d).eqz().and(dpl.ltU(cpl));
  selectorFaultIf(p, dpl.gtU(cpl).or(isInner.and(isCall.eqz())), Vector.GP, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  const marked = markAccessed(p, d);
  fn.if(isCall.eqz(), () => {
    checkTarget(p, d, offset);
    enterCode(p, selector, marked, offset);
  });
  const narrow = descriptorType(gate).eq(DescriptorType.CALL_GATE16).select(p.i32(2), p.i32(4));
  const size = longMode(p).select(p.i32(8), narrow);
  fn.if(isInner.eqz(), () => {
    const push = placeReturn(p, size, () => checkTarget(p, d, offset));
    push(nextRip);
    enterCode(p, selector, marked, offset);
  });
  callInner(p, {
    selector,
    d: marked,
    offset,
    size,
    parameters: longMode(p).select(p.i32(0), gate.high().and(0x1f)),
    nextRip,
  });
}

interface InnerCall {
  readonly selector: Val;
  readonly d: Val;
  readonly offset: Val;
  readonly size: Val;
  readonly parameters: Val;
  readonly nextRip: Val;
}

/** A call to an inner privilege level: new stack, old stack pointer and parameters on it. */
function callInner(p: Procedure, c: InnerCall): void {
  const { fn } = p;
  const cpl = descriptorDpl(c.d);
  perform(p, "innerStack", cpl);
  const ss = p.get(SYS.STACK_SELECTOR);
  const stack = p.get(SYS.STACK_DESCRIPTOR);
  const copied = c.parameters.mul(c.size);
  const bytes = c.size.shl(2).add(copied);
  const { linear, sp } = innerFrame(p, stack, bytes);
  fn.if(linear.eq(POISON), () => selectorFaultIf(p, p.i32(1), Vector.SS, ss));
  checkTarget(p, c.d, c.offset);
  const from = fn.variable("i32", 0);
  fn.if(copied, () => from.set(obtain(p, "memR", frameAbove(p, copied), copied, Access.STACK)));
  const host = placeFrame(p, linear, bytes, c.size, frameFlags(p, cpl));
  const at = (i: number): Val => host.add(c.size.mul(i));
  storeItem(p, host, c.size, c.nextRip);
  storeItem(p, at(1), c.size, p.segSelector(Seg.CS).extU());
  fn.memoryCopy(at(2), from.read(), copied);
  storeItem(p, at(2).add(copied), c.size, p.gpr(RSP, 8));
  storeItem(p, at(3).add(copied), c.size, p.segSelector(Seg.SS).extU());
  p.commit(host);
  p.set(S.CPL, cpl);
  setStackPointer(p, sp);
  callVoid(p, "cacheStack", ss, stack, cpl);
  setSegment(p, Seg.CS, c.selector.and(0xfffc).or(cpl), c.d);
  arrive(p, c.offset);
}

/**
 * The place for a frame of `bytes` on the stack that innerStack has found: linear address (POISON outside its limit) and the stack pointer
 * after it.
 */
export function innerFrame(p: Procedure, stack: Val, bytes: Val): { linear: Val; sp: Val } {
  const { fn } = p;
  const top = p.get(SYS.STACK_POINTER).sub(bytes.extU());
  const linear = fn.variable("i64", top);
  const sp = fn.variable("i64", top);
  fn.if(longMode(p).eqz(), () => {
    const rights = descriptorRights(stack);
    const mask = stackMask(p, rights);
    sp.set(mergeStackPointer(p, mask, top));
    linear.set(
      call(
        p,
        "stackSpan",
        descriptorBase(stack),
        descriptorLimit(stack),
        rights,
        top.and(mask),
        bytes,
      ),
    );
  });
  return { linear: linear.read(), sp: sp.read() };
}

export const farProcedures: readonly ProcedureText[] = [
  { name: "farJump", params: ["i32", "i64", "i64"], answer: "status", body: farJump },
  { name: "farCall", params: ["i32", "i64", "i32", "i64"], answer: "status", body: farCall },
  { name: "farGate", params: ["i32", "i64", "i32", "i64"], answer: "status", body: farGate },
];
