/**
 * Delivery of one event through the IDT (or the interrupt vector table of real mode).
 * Spec: SDM Vol. 3A, "Exception- and Interrupt-Handler Procedures", "Interrupt and Exception Handling in 64-bit Mode"; Vol. 2, "INT n".
 *
 * deliverEvent(vector, Kind bits, error code, RIP to push) -> JUMP (delivered, S.RIP is the handler), FAULT (PENDING holds the fault met on the
 * way, nothing has changed), EXIT (task gate in VMX non-root operation) or TASK_FAULT. It knows nothing of double faults, of VM exits for
 * the event itself, or of CR2 and DR6: that is exceptions.ts, which is also its only caller with interrupts-software.ts.
 *
 * Hot path: deliverLong.
 */

import type { Val } from "../ir/value.ts";
import { Access, type Cpu, Vector } from "../semantics/cpu.ts";
import { Flag, rflagsImage } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import {
  DescriptorType,
  descriptorDpl,
  descriptorType,
  isCode,
  isConforming,
  isImpossibleCode,
  isLongCode,
  isNull,
  isPresent,
  markAccessed,
  readDescriptor,
  segmentAddress,
  setSegment,
  storeSegment,
} from "../semantics/system/descriptor.ts";
import { call, callVoid, type ProcedureText, perform } from "../semantics/system/procedure-text.ts";
import { Rights } from "../semantics/system/rights.ts";
import {
  frameBelow,
  frameFlags,
  moveStackPointer,
  placeFrame,
  RSP,
  setStackPointer,
} from "../semantics/system/stack-frame.ts";
import {
  inV86,
  isProtected,
  longMode,
  nonCanonical,
  plainFaultIf,
  raise,
  SYS,
  selectorFaultIf,
  wrapLinear,
} from "../semantics/system/state.ts";
import { POISON, S, Seg, Status } from "../state/layout.ts";
import { arrive, checkTarget, innerFrame } from "./far-transfer.ts";
import { TaskSource } from "./task-switch.ts";

/** Properties of an event: pushes an error code · gate DPL is checked (INT n, INT3, INTO) · RF is set in the pushed image (faults). */
export const Kind = { ERROR: 1, SOFTWARE: 2, RF: 4 } as const;

const CLEARED = Flag.TF | Flag.NT | Flag.RF | Flag.VM;
const IDT_BIT = 2;
const IST_OFFSET = 28;

interface Event {
  readonly vector: Val;
  readonly kind: Val;
  readonly error: Val;
  readonly rip: Val;
}

const eventOf = (p: Procedure): Event => ({
  vector: p.fn.param(0),
  kind: p.fn.param(1),
  error: p.fn.param(2),
  rip: p.fn.param(3),
});

/** Leaves with a fault whose error code names the IDT entry. */
function gateFaultIf(p: Cpu, condition: Val, vector: number, event: Event): void {
  p.fn.if(condition, () => raise(p, vector, event.vector.shl(3).or(IDT_BIT).or(p.get(SYS.EXT))));
}

/** RFLAGS as it is pushed. */
function pushedFlags(p: Cpu, event: Event): Val {
  return rflagsImage(p).or(event.kind.and(Kind.RF).shl(14));
}

/** Flags of the handler: interrupt gates (even type) mask interrupts. */
function enterHandler(p: Cpu, gateType: Val): void {
  const masks = gateType.and(1).select(p.i32(CLEARED), p.i32(CLEARED | Flag.IF));
  p.set(S.RFLAGS_REST, p.get(S.RFLAGS_REST).and(masks.not()));
}

/** DPL (for software interrupts) and presence of a gate. */
function checkGate(p: Cpu, gate: Val, event: Event): void {
  const denied = event.kind
    .and(Kind.SOFTWARE)
    .ne(0)
    .and(descriptorDpl(gate).ltU(p.get(S.CPL)));
  gateFaultIf(p, denied, Vector.GP, event);
  gateFaultIf(p, isPresent(gate).eqz(), Vector.NP, event);
}

/** The code segment of a gate, up to the privilege rules. */
function gateCode(p: Procedure, gate: Val): { selector: Val; d: Val } {
  const selector = gate.shrU(16).wrap().and(0xffff);
  plainFaultIf(p, isNull(selector), Vector.GP);
  const d = readDescriptor(p, selector, Vector.GP);
  const outer = descriptorDpl(d).gtU(p.get(S.CPL));
  selectorFaultIf(p, isCode(d).eqz().or(outer), Vector.GP, selector);
  return { selector, d };
}

// ---- IA-32e mode ----

function deliverLong(p: Procedure): void {
  const { fn } = p;
  const event = eventOf(p);
  const at = event.vector.shl(4);
  gateFaultIf(p, at.add(15).gtU(p.get(S.IDTR_LIMIT)), Vector.GP, event);
  const entry = p.hostR(p.get(S.IDTR_BASE).add(at.extU()), 16, Access.SYSTEM);
  const gate = p.raw(8, entry);
  const target = gate
    .and(0xffff)
    .or(gate.shrU(32).and(0xffff_0000))
    .or(p.raw(8, entry, 8).shl(32));
  const type = descriptorType(gate);
  gateFaultIf(p, type.or(1).ne(DescriptorType.TRAP), Vector.GP, event);
  checkGate(p, gate, event);
  const { selector, d } = gateCode(p, gate);
  selectorFaultIf(p, isLongCode(d).eqz().or(isImpossibleCode(d)), Vector.GP, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  const code = markAccessed(p, d);
  const cpl = p.get(S.CPL);
  const newCpl = isConforming(d).select(cpl, descriptorDpl(d));
  const isInner = newCpl.ltU(cpl);
  const top = fn.variable("i64", p.gpr(RSP, 8));
  const ist = gate.high().and(7);
  fn.if(isInner.or(ist), () => {
    const offset = ist.select(ist.shl(3).add(IST_OFFSET), newCpl.shl(3).add(4));
    selectorFaultIf(p, offset.add(7).gtU(p.segLimit(Seg.TR)), Vector.TS, p.segSelector(Seg.TR));
    top.set(p.load(p.segBase(Seg.TR).add(offset.extU()), 8, Access.SYSTEM));
  });
  const hasError = event.kind.and(Kind.ERROR);
  const bytes = hasError.shl(3).add(40);
  const sp = top.read().and(-16).sub(bytes.extU());
  // The stack's #SS precedes #GP for the handler's address; its page faults follow.
  plainFaultIf(p, nonCanonical(sp), Vector.SS);
  plainFaultIf(p, nonCanonical(target), Vector.GP);
  const host = placeFrame(p, sp, bytes, 8, frameFlags(p, newCpl));
  p.setRaw(8, host, event.error.extU());
  const frame = host.add(hasError.shl(3));
  p.setRaw(8, frame, event.rip);
  p.setRaw(8, frame, p.segSelector(Seg.CS).extU(), 8);
  p.setRaw(8, frame, pushedFlags(p, event).extU(), 16);
  p.setRaw(8, frame, p.gpr(RSP, 8), 24);
  p.setRaw(8, frame, p.segSelector(Seg.SS).extU(), 32);
  p.commit(host);
  setStackPointer(p, sp);
  fn.if(isInner, () => {
    p.set(S.CPL, newCpl);
    callVoid(p, "cacheStack", newCpl, 0n, newCpl);
  });
  setSegment(p, Seg.CS, selector.and(0xfffc).or(newCpl), code);
  enterHandler(p, type);
  arrive(p, target);
}

// ---- legacy protected and virtual-8086 mode ----

/** Stores the frame in ascending order: error code, EIP, CS, EFLAGS, then `rest`. */
function storeFrame(p: Cpu, host: Val, size: 2 | 4, event: Event, rest: readonly Val[]): void {
  const { fn } = p;
  const store = size === 4 ? "i32.store" : "i32.store16";
  const hasError = event.kind.and(Kind.ERROR);
  fn.store(store, host, event.error);
  const frame = host.add(hasError.mul(size));
  const items = [event.rip.wrap(), p.segSelector(Seg.CS), pushedFlags(p, event), ...rest];
  items.forEach((v, i) => {
    fn.store(store, frame, v, i * size);
  });
}

const V86_SEGMENTS = [Seg.ES, Seg.DS, Seg.FS, Seg.GS] as const;

interface Handler {
  readonly event: Event;
  readonly selector: Val;
  readonly code: Val;
  readonly gateType: Val;
  readonly target: Val;
  /** 4 or 2. */
  readonly size: Val;
}

function bySize(p: Cpu, size: Val, body: (size: 2 | 4) => void): void {
  p.fn.if(
    size.eq(4),
    () => body(4),
    () => body(2),
  );
}

function deliverInner(p: Procedure, h: Handler): void {
  const { fn } = p;
  const cpl = descriptorDpl(h.code);
  perform(p, "innerStack", cpl);
  const ss = p.get(SYS.STACK_SELECTOR);
  const stack = p.get(SYS.STACK_DESCRIPTOR);
  const fromV86 = inV86(p).ne(0);
  const items = h.event.kind.and(Kind.ERROR).add(5).add(fromV86.shl(2));
  const bytes = items.mul(h.size);
  const { linear, sp } = innerFrame(p, stack, bytes);
  fn.if(linear.eq(POISON), () => selectorFaultIf(p, p.i32(1), Vector.SS, ss));
  checkTarget(p, h.code, h.target);
  const host = placeFrame(p, linear, bytes, h.size, frameFlags(p, cpl));
  const oldSp = p.gpr(RSP, 4);
  const oldSs = p.segSelector(Seg.SS);
  fn.if(
    fromV86,
    () =>
      bySize(p, h.size, (size) =>
        storeFrame(p, host, size, h.event, [
          oldSp,
          oldSs,
          ...V86_SEGMENTS.map((s) => p.segSelector(s)),
        ]),
      ),
    () => bySize(p, h.size, (size) => storeFrame(p, host, size, h.event, [oldSp, oldSs])),
  );
  p.commit(host);
  fn.if(fromV86, () => {
    for (const seg of V86_SEGMENTS) {
      storeSegment(p, segmentAddress(p.i32(seg)), {
        base: 0n,
        limit: 0,
        rights: Rights.UNUSABLE,
        selector: 0,
      });
    }
  });
  p.set(S.CPL, cpl);
  setStackPointer(p, sp);
  callVoid(p, "cacheStack", ss, stack, cpl);
  setSegment(p, Seg.CS, h.selector.and(0xfffc).or(cpl), h.code);
  enterHandler(p, h.gateType);
  arrive(p, h.target);
}

function deliverSame(p: Procedure, h: Handler): void {
  const items = h.event.kind.and(Kind.ERROR).add(3);
  const bytes = items.mul(h.size);
  const linear = frameBelow(p, bytes);
  checkTarget(p, h.code, h.target);
  const host = placeFrame(p, linear, bytes, h.size, Access.STACK);
  bySize(p, h.size, (size) => storeFrame(p, host, size, h.event, []));
  p.commit(host);
  moveStackPointer(p, bytes.extU().neg());
  setSegment(p, Seg.CS, h.selector.and(0xfffc).or(p.get(S.CPL)), h.code);
  enterHandler(p, h.gateType);
  arrive(p, h.target);
}

/** Task gate: switches, then pushes the error code onto the new task's stack. */
function deliverToTask(p: Procedure, gate: Val, event: Event): void {
  const { fn } = p;
  const task = gate.shrU(16).wrap().and(0xffff);
  const flags = pushedFlags(p, event);
  const status = call(p, "taskSwitch", task, TaskSource.GATE, event.rip, flags);
  fn.if(status.eq(Status.JUMP).and(event.kind.and(Kind.ERROR)), () =>
    fn.return(call(p, "pushTaskError", event.error)),
  );
  fn.return(status);
}

function deliverLegacy(p: Procedure): void {
  const { fn } = p;
  const event = eventOf(p);
  const at = event.vector.shl(3);
  gateFaultIf(p, at.add(7).gtU(p.get(S.IDTR_LIMIT)), Vector.GP, event);
  const gate = p.load(wrapLinear(p, p.get(S.IDTR_BASE).add(at.extU())), 8, Access.SYSTEM);
  const type = descriptorType(gate);
  const isTask = type.eq(DescriptorType.TASK_GATE);
  const isProcedure = type.and(0x16).eq(DescriptorType.INTERRUPT16);
  gateFaultIf(p, isTask.or(isProcedure).eqz(), Vector.GP, event);
  checkGate(p, gate, event);
  fn.if(isTask, () => deliverToTask(p, gate, event));
  const { selector, d } = gateCode(p, gate);
  const dpl = descriptorDpl(d);
  const isInner = isConforming(d)
    .eqz()
    .and(dpl.ltU(p.get(S.CPL)));
  // Out of virtual-8086 mode only to ring 0.
  selectorFaultIf(
    p,
    inV86(p)
      .ne(0)
      .and(isInner.eqz().or(dpl.ne(0))),
    Vector.GP,
    selector,
  );
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  const code = markAccessed(p, d);
  const isWide = type.and(8);
  const full = gate.and(0xffff).or(gate.shrU(32).and(0xffff_0000));
  const target = isWide.select(full, gate.and(0xffff));
  const h: Handler = {
    event,
    selector,
    code,
    gateType: type,
    target,
    size: isWide.select(p.i32(4), p.i32(2)),
  };
  fn.if(isInner, () => deliverInner(p, h));
  deliverSame(p, h);
}

// ---- real-address mode ----

/**
 * (vector, flags image to push, RIP to push, linear address of the vector table, flags to clear): the 8086 way, in real-address mode and for
 * redirected interrupts of virtual-8086 mode.
 */
function deliverTo8086(p: Procedure): void {
  const { fn } = p;
  const linear = frameBelow(p, 6);
  const entry = p.load(wrapLinear(p, fn.param(3).add(fn.param(0).shl(2).extU())), 4, 0);
  const host = placeFrame(p, linear, 6, 2, Access.STACK);
  p.setRaw(2, host, fn.param(2).wrap());
  p.setRaw(2, host, p.segSelector(Seg.CS), 2);
  p.setRaw(2, host, fn.param(1), 4);
  p.commit(host);
  moveStackPointer(p, -6n);
  p.set(S.RFLAGS_REST, p.get(S.RFLAGS_REST).and(fn.param(4).not()));
  callVoid(p, "loadRealSegment", Seg.CS, entry.shrU(16));
  arrive(p, entry.and(0xffff).extU());
}

function deliverEvent(p: Procedure): void {
  const { fn } = p;
  const event = eventOf(p);
  const pass = (name: string): void =>
    fn.return(call(p, name, event.vector, event.kind, event.error, event.rip));
  fn.if(longMode(p), () => pass("deliverLong"));
  fn.if(isProtected(p), () => pass("deliverLegacy"));
  gateFaultIf(p, event.vector.shl(2).add(3).gtU(p.get(S.IDTR_LIMIT)), Vector.GP, event);
  const cleared = Flag.IF | Flag.TF | Flag.AC | Flag.RF;
  fn.return(
    call(p, "deliverTo8086", event.vector, rflagsImage(p), event.rip, p.get(S.IDTR_BASE), cleared),
  );
}

const EVENT = ["i32", "i32", "i32", "i64"] as const;

export const interruptProcedures: readonly ProcedureText[] = [
  { name: "deliverLong", params: EVENT, answer: "status", body: deliverLong },
  { name: "deliverLegacy", params: EVENT, answer: "status", body: deliverLegacy },
  {
    name: "deliverTo8086",
    params: ["i32", "i32", "i64", "i64", "i32"],
    answer: "status",
    body: deliverTo8086,
  },
  { name: "deliverEvent", params: EVENT, answer: "status", body: deliverEvent },
];
