/**
 * Stacks of control transfers: whole frames on the current stack or on the one of an inner privilege level.
 * Spec: SDM Vol. 3A, "Stack Switching"; Vol. 2, "CALL", "RET", "INT n".
 *
 * A frame is one access: checked as a whole against the segment limit, then placed by one hostW or hostR, so nothing is written before
 * everything is known to be writable. If its place faults, it is probed again item by item from the top down, which is the order in which a
 * processor pushes, so that CR2 names the same address. A 16-bit stack pointer that wraps in the middle of a frame is a limit violation here.
 */

import type { Operand, Val } from "../../ir/value.ts";
import { gprAt, POISON, S, Seg, Status } from "../../state/layout.ts";
import { Access, type Cpu, elementFlags, Vector } from "../cpu.ts";
import type { Procedure } from "../procedure.ts";
import { isNull } from "./descriptor.ts";
import { call, obtain, type ProcedureText } from "./procedure-text.ts";
import { Rights } from "./rights.ts";
import {
  hasWideTss,
  in64,
  longMode,
  recordFault,
  SYS,
  selectorFaultIf,
  wrapLinear,
} from "./state.ts";

export const RSP = 4;

/** Mask of a stack pointer in a stack segment with these rights. */
export const stackMask = (p: Cpu, rights: Val): Val =>
  rights.and(Rights.DB).select(p.i64(0xffff_ffffn), p.i64(0xffff));

/** Mask of the current stack pointer. */
export const currentMask = (p: Cpu): Val =>
  in64(p).select(p.i64(-1), stackMask(p, p.segRights(Seg.SS)));

/** Linear address of the `bytes` under the top of the current stack, checked; leaves with #SS(0). */
export function frameBelow(p: Cpu, bytes: Operand): Val {
  const linear = call(p, "stackBelow", bytes);
  p.fn.if(linear.eq(POISON), () => p.leave(Status.FAULT));
  return linear;
}

/** Linear address of the `bytes` from the top of the current stack on, checked; leaves with #SS(0). */
export function frameAbove(p: Cpu, bytes: Operand): Val {
  const linear = call(p, "stackAbove", bytes);
  p.fn.if(linear.eq(POISON), () => p.leave(Status.FAULT));
  return linear;
}

/** Host address of a frame to be written; leaves with FAULT. `item` is the size of its items. */
export function placeFrame(
  p: Cpu,
  linear: Val,
  bytes: Operand,
  item: Operand,
  flags: Operand,
): Val {
  return obtain(p, "frameHost", linear, bytes, item, flags);
}

/** The new value of RSP when its low part (by the mask) becomes `value`. */
export function mergeStackPointer(p: Cpu, mask: Val, value: Val): Val {
  // A write to ESP clears the upper half; a write to SP keeps the rest.
  const keeps = mask.eq(0xffff);
  return keeps.select(p.gpr(RSP, 8).and(-0x1_0000).or(value.and(0xffff)), value.and(mask));
}

export function setStackPointer(p: Cpu, value: Val): void {
  p.setRaw(8, 0, value, gprAt(RSP));
}

/** Adds to the current stack pointer. */
export function moveStackPointer(p: Cpu, delta: Operand): void {
  const old = p.gpr(RSP, 8);
  setStackPointer(p, mergeStackPointer(p, currentMask(p), old.add(delta)));
}

/** Access flags for a frame on the stack of `cpl`: pushes of an inner level are supervisor accesses before CPL changes. */
export function frameFlags(p: Cpu, cpl: Val): Val {
  return cpl.ltU(p.get(S.CPL)).select(p.i32(Access.STACK | Access.SYSTEM), p.i32(Access.STACK));
}

/** (segment base, limit, rights, offset, bytes) -> linear address, or POISON outside the limit. Not for 64-bit mode. */
function stackSpan(p: Procedure): void {
  const { fn } = p;
  const limit = fn.param(1).extU();
  const rights = fn.param(2);
  const start = fn.param(3);
  const last = start.add(fn.param(4).sub(1).extU());
  const upper = stackMask(p, rights);
  const expandsDown = rights.and(Rights.CODE | Rights.EXPAND_DOWN).eq(Rights.EXPAND_DOWN);
  const outside = expandsDown.select(start.leU(limit).or(last.gtU(upper)), last.gtU(limit));
  const linear = wrapLinear(p, fn.param(0).add(start).and(0xffff_ffffn));
  fn.return(outside.or(rights.and(Rights.UNUSABLE)).select(p.i64(POISON), linear));
}

/** A frame of `bytes` that begins at RSP + displacement, on the current stack. */
function currentSpan(p: Procedure, bytes: Val, displacement: Val | null): void {
  const { fn } = p;
  const sp = p.gpr(RSP, 8);
  const top = displacement ? sp.add(displacement) : sp;
  const linear = fn.variable("i64", top);
  fn.if(in64(p).eqz(), () => {
    const rights = p.segRights(Seg.SS);
    const start = top.and(stackMask(p, rights));
    linear.set(call(p, "stackSpan", p.segBase(Seg.SS), p.segLimit(Seg.SS), rights, start, bytes));
  });
  // In 64-bit mode the access finds non-canonical addresses; only the one that means "violation" is caught here.
  fn.if(linear.read().eq(POISON), () => {
    recordFault(p, Vector.SS, p.get(SYS.EXT));
    fn.return(POISON);
  });
  fn.return(linear.read());
}

function stackBelow(p: Procedure): void {
  const bytes = p.fn.param(0);
  currentSpan(p, bytes, bytes.extU().neg());
}

/** (linear, bytes, item size, Access flags) -> host address for writing. */
function frameHost(p: Procedure): void {
  const { fn } = p;
  const [linear, bytes, item] = [fn.param(0), fn.param(1), fn.param(2)];
  const wide = item.eq(4).select(p.i32(elementFlags(4)), p.i32(0));
  const flags = fn.param(3).or(item.eq(2).select(p.i32(elementFlags(2)), wide));
  const memW = p.module.get("memW");
  const host = fn.call(memW, linear, bytes, flags);
  fn.if(host.eqz(), () => {
    const at = fn.variable("i32", bytes);
    fn.while(
      () => at.read(),
      () => {
        at.set(at.read().sub(item));
        const one = wrapLinear(p, linear.add(at.read().extU()));
        fn.if(fn.call(memW, one, item, flags).eqz(), () => p.leave(Status.FAULT));
      },
    );
  });
  fn.return(host);
}

/**
 * (new CPL): stack pointer of an inner level from the TSS into SYS.STACK_*. In IA-32e mode SS becomes a null selector; otherwise its
 * descriptor is read and checked. SDM Vol. 3A, "Stack Switching", "Stack Switching in 64-bit Mode".
 */
function innerStack(p: Procedure): void {
  const { fn } = p;
  const cpl = fn.param(0);
  const tss = p.segBase(Seg.TR);
  const entry = (at: Val, bytes: number): Val => {
    const outside = at.add(bytes - 1).gtU(p.segLimit(Seg.TR));
    selectorFaultIf(p, outside, Vector.TS, p.segSelector(Seg.TR));
    return p.hostR(wrapLinear(p, tss.add(at.extU())), bytes, Access.SYSTEM);
  };
  fn.if(longMode(p), () => {
    p.set(SYS.STACK_POINTER, p.raw(8, entry(cpl.shl(3).add(4), 8)));
    p.set(SYS.STACK_SELECTOR, cpl);
    p.leave(Status.NEXT);
  });
  fn.if(
    hasWideTss(p),
    () => {
      const host = entry(cpl.shl(3).add(4), 6);
      p.set(SYS.STACK_POINTER, p.raw(4, host).extU());
      p.set(SYS.STACK_SELECTOR, p.raw(2, host, 4));
    },
    () => {
      const host = entry(cpl.shl(2).add(2), 4);
      p.set(SYS.STACK_POINTER, p.raw(2, host).extU());
      p.set(SYS.STACK_SELECTOR, p.raw(2, host, 2));
    },
  );
  const selector = p.get(SYS.STACK_SELECTOR);
  selectorFaultIf(p, isNull(selector), Vector.TS, selector);
  p.set(SYS.STACK_DESCRIPTOR, obtain(p, "stackDescriptor", selector, cpl, Vector.TS));
}

export const stackProcedures: readonly ProcedureText[] = [
  {
    name: "stackSpan",
    params: ["i64", "i32", "i32", "i64", "i32"],
    answer: "wide",
    body: stackSpan,
  },
  { name: "stackBelow", params: ["i32"], answer: "wide", body: stackBelow },
  {
    name: "stackAbove",
    params: ["i32"],
    answer: "wide",
    body: (p) => currentSpan(p, p.fn.param(0), null),
  },
  { name: "frameHost", params: ["i64", "i32", "i32", "i32"], answer: "host", body: frameHost },
  { name: "innerStack", params: ["i32"], answer: "status", body: innerStack },
];
