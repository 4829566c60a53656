/**
 * IRET in all modes: real, virtual-8086, protected to the same or an outer level, to virtual-8086 mode, out of a nested task, 64-bit.
 * Spec: SDM Vol. 2, "IRET/IRETD/IRETQ"; Vol. 3C, "Changes to Instruction Behavior in VMX Non-Root Operation" (blocking by NMI).
 *
 * One procedure per operand size, iret2, iret4, iret8 (RIP after the instruction) -> JUMP, FAULT, EXIT or TASK_FAULT. iret8 is the return path
 * of every 64-bit kernel: straight-line code, two descriptor reads.
 *
 * Hot path: the 64-bit form.
 */

import type { Val } from "../ir/value.ts";
import { Access, type Cpu, elementFlags, Vector } from "../semantics/cpu.ts";
import { Flag, rflagsImage, setRflagsImage } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import { rplOf, setSegment } from "../semantics/system/descriptor.ts";
import { call, callVoid, obtain, type ProcedureText } from "../semantics/system/procedure-text.ts";
import { frameAbove, moveStackPointer, RSP } from "../semantics/system/stack-frame.ts";
import {
  Blocking,
  in64,
  inReal,
  inV86,
  ioplOf,
  isProtected,
  longMode,
  SYS,
} from "../semantics/system/state.ts";
import { Cr4 } from "../state/control-bits.ts";
import { S, Seg } from "../state/layout.ts";
import { arrive, checkTarget } from "./far-transfer.ts";
import { commitOuter, isLongTarget, returnStackPointer } from "./far-transfer-return.ts";
import { TaskSource } from "./task-switch.ts";

const NMI_EXITING = 1 << 3;
const VIRTUAL_NMIS = 1 << 5;

const STATUS_AND_CONTROL =
  Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.TF | Flag.DF | Flag.OF | Flag.NT;
const WIDE_FLAGS = Flag.RF | Flag.AC | Flag.ID;
const VIRTUAL_INTERRUPT = Flag.VIF | Flag.VIP;
const LOW_FLAGS = 0xffff;
const ALL_FLAGS = 0x3f_7fd5;

/** Lifts blocking by NMI, which IRET does even if it then faults. Under "NMI exiting" alone, blocking belongs to the VMM. */
function unblockNmi(p: Cpu): void {
  const pin = p.get(S.CTL_PIN);
  const isOurs = p
    .get(S.NON_ROOT)
    .eqz()
    .or(pin.and(NMI_EXITING | VIRTUAL_NMIS).ne(NMI_EXITING));
  const blocking = p.get(S.INTERRUPTIBILITY);
  const lifted = isOurs.and(blocking.and(Blocking.NMI).ne(0));
  p.set(SYS.NMI_UNBLOCKED, lifted);
  p.set(S.INTERRUPTIBILITY, lifted.select(blocking.and(~Blocking.NMI), blocking));
}

/** The end of an IRET that did not fault. */
function finish(p: Cpu, rip: Val): void {
  p.set(SYS.NMI_UNBLOCKED, 0);
  arrive(p, rip);
}

function setFlags(p: Cpu, popped: Val, mask: Val | number): void {
  const old = rflagsImage(p);
  const m = typeof mask === "number" ? p.i32(mask) : mask;
  setRflagsImage(p, old.and(m.not()).or(popped.and(m)));
  p.set(S.RESUME_BUDGET, p.get(S.BUDGET));
}

/** Which flags a return in protected mode may change, by CPL and IOPL before it. */
function changeable(p: Cpu, size: number): Val {
  const cpl = p.get(S.CPL);
  const wide = size === 2 ? 0 : WIDE_FLAGS;
  const ring0 = Flag.IOPL | Flag.IF | (size === 2 ? 0 : VIRTUAL_INTERRUPT);
  const interrupt = cpl.leU(ioplOf(p)).select(p.i32(Flag.IF), p.i32(0));
  return cpl
    .eqz()
    .select(p.i32(ring0), interrupt)
    .or(STATUS_AND_CONTROL | wide);
}

type Size = 2 | 4 | 8;

/** Item i of a frame, as an i64. */
function item(p: Cpu, host: Val, i: number, size: Size): Val {
  return p.raw(size, host, i * size).extU();
}

const flagsItem = (p: Cpu, host: Val, i: number, size: Size): Val => item(p, host, i, size).wrap();

/** 64-bit mode: five items always, SS:RSP always loaded. */
function returnFrom64(p: Procedure, size: Size): void {
  p.faultIf(p.get(S.RFLAGS_REST).and(Flag.NT), Vector.GP);
  const host = p.hostR(p.gpr(RSP, 8), 5 * size, Access.STACK | elementFlags(size));
  const rip = item(p, host, 0, size);
  const cs = p.raw(2, host, size);
  const flags = flagsItem(p, host, 2, size);
  const sp = item(p, host, 3, size);
  const ss = p.raw(2, host, 4 * size);
  const code = obtain(p, "returnCode", cs);
  const cpl = rplOf(cs);
  const toLong = isLongTarget(p, code);
  const stack = obtain(p, "returnStack", ss, cpl, toLong);
  checkTarget(p, code, rip);
  const mask = changeable(p, size);
  const isOuter = cpl.ne(p.get(S.CPL));
  commitOuter(p, cs, code, ss, stack, returnStackPointer(p, sp, stack, toLong));
  setFlags(p, flags, mask);
  p.fn.if(isOuter, () => callVoid(p, "nullInnerSegments", cpl));
  finish(p, rip);
}

/** Protected mode outside 64-bit mode. */
function returnProtected(p: Procedure, size: 2 | 4, nextRip: Val): void {
  const { fn } = p;
  fn.if(p.get(S.RFLAGS_REST).and(Flag.NT), () => {
    p.faultIf(longMode(p), Vector.GP);
    const link = p.load(p.segBase(Seg.TR), 2, Access.SYSTEM);
    const flags = rflagsImage(p).and(~Flag.NT);
    fn.return(call(p, "taskSwitch", link, TaskSource.IRET, nextRip, flags));
  });
  const host = p.hostR(frameAbove(p, 3 * size), 3 * size, Access.STACK | elementFlags(size));
  const rip = item(p, host, 0, size);
  const cs = p.raw(2, host, size);
  const flags = flagsItem(p, host, 2, size);
  if (size === 4) {
    const toV86 = flags.and(Flag.VM).ne(0).and(p.get(S.CPL).eqz()).and(longMode(p).eqz());
    fn.if(toV86, () => fn.return(call(p, "returnToV86")));
  }
  const code = obtain(p, "returnCode", cs);
  const cpl = rplOf(cs);
  fn.if(cpl.eq(p.get(S.CPL)), () => {
    checkTarget(p, code, rip);
    setFlags(p, flags, changeable(p, size));
    moveStackPointer(p, BigInt(3 * size));
    setSegment(p, Seg.CS, cs, code);
    finish(p, rip);
  });
  const outer = p.hostR(frameAbove(p, 5 * size), 5 * size, Access.STACK | elementFlags(size));
  const sp = item(p, outer, 3, size);
  const ss = p.raw(2, outer, 4 * size);
  const toLong = isLongTarget(p, code);
  const stack = obtain(p, "returnStack", ss, cpl, toLong);
  checkTarget(p, code, rip);
  const mask = changeable(p, size);
  commitOuter(p, cs, code, ss, stack, returnStackPointer(p, sp, stack, toLong));
  setFlags(p, flags, mask);
  callVoid(p, "nullInnerSegments", cpl);
  finish(p, rip);
}

const V86_ITEMS = 9;

/** From ring 0 to virtual-8086 mode: EIP CS EFLAGS ESP SS ES DS FS GS. */
function returnToV86(p: Procedure): void {
  const bytes = 4 * V86_ITEMS;
  const host = p.hostR(frameAbove(p, bytes), bytes, Access.STACK);
  const items = Array.from({ length: V86_ITEMS }, (_, i) => p.raw(4, host, 4 * i));
  const [rip, cs, flags, sp, ss, es, ds, fs, gs] = items as [
    Val,
    Val,
    Val,
    Val,
    Val,
    Val,
    Val,
    Val,
    Val,
  ];
  p.faultIf(rip.gtU(0xffff), Vector.GP);
  setFlags(p, flags, ALL_FLAGS);
  p.set(S.CPL, 3);
  for (const [seg, selector] of [
    [Seg.CS, cs],
    [Seg.SS, ss],
    [Seg.ES, es],
    [Seg.DS, ds],
    [Seg.FS, fs],
    [Seg.GS, gs],
  ] as const) {
    callVoid(p, "loadRealSegment", seg, selector.and(0xffff));
  }
  p.setGpr(RSP, 4, sp);
  finish(p, rip.extU());
}

/** Real-address mode, and virtual-8086 mode once its privileges are checked: `mask` says which flags may change. */
function returnReal(p: Procedure, size: 2 | 4, mask: number, check?: (flags: Val) => void): void {
  const host = p.hostR(frameAbove(p, 3 * size), 3 * size, Access.STACK | elementFlags(size));
  const rip = item(p, host, 0, size);
  const cs = p.raw(2, host, size);
  const flags = flagsItem(p, host, 2, size);
  p.faultIf(rip.gtU(p.segLimit(Seg.CS).extU()), Vector.GP);
  check?.(flags);
  setFlags(p, flags, mask);
  if (check) {
    // IF of the program stands for VIF.
    const vif = flags.and(Flag.IF).shl(10);
    p.set(S.RFLAGS_REST, p.get(S.RFLAGS_REST).and(~Flag.VIF).or(vif));
  }
  moveStackPointer(p, BigInt(3 * size));
  callVoid(p, "loadRealSegment", Seg.CS, cs);
  finish(p, rip);
}

function returnV86(p: Procedure, size: 2 | 4): void {
  const flags =
    ALL_FLAGS & ~(Flag.VM | Flag.IOPL | VIRTUAL_INTERRUPT) & (size === 2 ? LOW_FLAGS : -1);
  p.fn.if(ioplOf(p).eq(3), () => returnReal(p, size, flags));
  if (size === 4) p.fault(Vector.GP);
  else {
    p.faultIf(p.get(S.CR4).wrap().and(Cr4.VME).eqz(), Vector.GP);
    returnReal(p, size, flags & ~Flag.IF, (popped) => {
      const pending = popped.and(Flag.IF).ne(0).and(p.get(S.RFLAGS_REST).and(Flag.VIP).ne(0));
      p.faultIf(pending.or(popped.and(Flag.TF)), Vector.GP);
    });
  }
}

function iret(size: Size): (p: Procedure) => void {
  return (p) => {
    const { fn } = p;
    if (size === 8) {
      unblockNmi(p);
      returnFrom64(p, 8);
      return;
    }
    fn.if(inReal(p).eqz().or(isProtected(p).eqz()).or(ioplOf(p).eq(3)), () => unblockNmi(p));
    fn.if(in64(p), () => returnFrom64(p, size));
    fn.if(inReal(p).eqz(), () => returnProtected(p, size, fn.param(0)));
    fn.if(inV86(p), () => returnV86(p, size));
    const kept = size === 2 ? LOW_FLAGS : ALL_FLAGS & ~(Flag.VM | VIRTUAL_INTERRUPT);
    returnReal(p, size, kept);
  };
}

export const iretProcedures: readonly ProcedureText[] = [
  { name: "iret2", params: ["i64"], answer: "status", body: iret(2) },
  { name: "iret4", params: ["i64"], answer: "status", body: iret(4) },
  { name: "iret8", params: ["i64"], answer: "status", body: iret(8) },
  { name: "returnToV86", params: [], answer: "status", body: returnToV86 },
];
