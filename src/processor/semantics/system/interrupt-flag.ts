/**
 * Flags with a meaning for the system: CLI, STI, PUSHF, POPF, CLAC, STAC, and HLT beside them.
 * Spec: SDM Vol. 2, one entry per key; Vol. 3A, "Protected-Mode Virtual Interrupts", "Virtual-8086 Mode Extensions".
 *
 * Hot path: PUSHF and POPF of 64-bit mode, CLI, STI.
 */

import type { Val } from "../../ir/value.ts";
import { Cr4 } from "../../state/control-bits.ts";
import { Mode, NO_BUDGET, S, Status } from "../../state/layout.ts";
import { Access, type Cpu, Vector } from "../cpu.ts";
import { Flag, rflagsImage, setRflagsImage } from "../flags.ts";
import type { Insn, SemanticsTable } from "../insn.ts";
import type { Procedure } from "../procedure.ts";
import {
  ExitReason,
  exitIf,
  jumpNext,
  Primary,
  primary,
  refresh,
  ring0,
  undefinedIf,
} from "./common.ts";
import { call, callVoid, type ProcedureText } from "./procedure-text.ts";
import { frameAbove, frameBelow, moveStackPointer } from "./stack-frame.ts";
import { Blocking, inV86, ioplOf, isProtected } from "./state.ts";

const setRest = (p: Cpu, v: Val): void => p.set(S.RFLAGS_REST, v);

/** The program's IOPL lets it have IF itself. Virtual-8086 programs need IOPL 3 whatever their CPL, which is 3. */
const ownsInterruptFlag = (p: Cpu): Val =>
  isProtected(p)
    .eqz()
    .or(p.get(S.CPL).leU(ioplOf(p)));

/** The virtual interrupt flag stands in: CR4.VME in virtual-8086 mode, CR4.PVI at CPL 3 in protected mode. */
function hasVirtualFlag(p: Cpu): Val {
  const cr4 = p.get(S.CR4).wrap();
  const v86 = inV86(p).ne(0);
  const pvi = cr4.and(Cr4.PVI).ne(0).and(p.get(S.CPL).eq(3));
  return v86.select(cr4.and(Cr4.VME).ne(0), pvi);
}

const RSP = 4;
/** Exits on interrupt windows: one opens with IF. */
const WINDOWS = Primary.INTERRUPT_WINDOW | Primary.NMI_WINDOW;

function cli(insn: Insn): void {
  const { fn } = insn;
  const rest = insn.get(S.RFLAGS_REST);
  fn.if(
    ownsInterruptFlag(insn),
    () => {
      setRest(insn, rest.and(~Flag.IF));
      // An interrupt window that was open is not any more.
      fn.if(insn.get(S.SLOW), () => callVoid(insn, "updateSlow"));
    },
    () => {
      insn.faultIf(hasVirtualFlag(insn).eqz(), Vector.GP);
      setRest(insn, rest.and(~Flag.VIF));
    },
  );
}

function sti(insn: Insn): void {
  const { fn } = insn;
  const rest = insn.get(S.RFLAGS_REST);
  fn.if(
    ownsInterruptFlag(insn),
    () => {
      fn.if(rest.and(Flag.IF).eqz(), () => {
        const waits = insn
          .get(S.SLOW)
          .or(insn.get(S.CTL_PRIMARY).and(WINDOWS))
          .or(insn.get(S.INTERRUPT_WAITS));
        insn.rarely(waits, () => {
          setRest(insn, rest.or(Flag.IF));
          insn.set(S.INTERRUPTIBILITY, insn.get(S.INTERRUPTIBILITY).or(Blocking.STI));
          callVoid(insn, "updateSlow");
          jumpNext(insn);
        });
        setRest(insn, rest.or(Flag.IF));
        insn.set(S.STI_BUDGET, insn.get(S.BUDGET_START).sub(insn.retired()).sub(1));
      });
    },
    () => {
      insn.faultIf(hasVirtualFlag(insn).eqz().or(rest.and(Flag.VIP)), Vector.GP);
      setRest(insn, rest.or(Flag.VIF));
    },
  );
}

const NOT_PUSHED = Flag.VM | Flag.RF;

/** RFLAGS as PUSHF sees it; faults of virtual-8086 mode first. */
function pushedImage(insn: Insn): Val {
  const { fn } = insn;
  const image = fn.variable("i32", rflagsImage(insn).and(~NOT_PUSHED));
  if (insn.is64) return image.read();
  fn.if(inV86(insn).ne(0).and(ioplOf(insn).ne(3)), () => {
    if (insn.shape.opsize === 4) insn.fault(Vector.GP);
    else {
      insn.faultIf(insn.get(S.CR4).and(Cr4.VME).eqz(), Vector.GP);
      const flags = image.read();
      image.set(flags.and(~Flag.IF).or(flags.shrU(10).and(Flag.IF)).or(Flag.IOPL));
    }
  });
  return image.read();
}

function pushf(insn: Insn): void {
  const size = insn.shape.opsize;
  const image = pushedImage(insn);
  if (insn.is64) {
    const rsp = insn.gpr(RSP, 8).sub(size);
    const top = insn.hostW(rsp, size, Access.STACK);
    insn.setRaw(size, top, size === 8 ? image.extU() : image);
    insn.commit(top);
    insn.setGpr(RSP, 8, rsp);
    return;
  }
  const host = insn.hostW(frameBelow(insn, size), size, Access.STACK);
  insn.setRaw(size, host, size === 8 ? image.extU() : image);
  insn.commit(host);
  moveStackPointer(insn, BigInt(-size));
}

const USER_FLAGS =
  Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.TF | Flag.DF | Flag.OF | Flag.NT;
/** Changes that the careful path or the TLB context depends on. */
const NOTICED = Flag.TF | Flag.IF | Flag.AC;

/** (popped image, operand size) -> NEXT, JUMP if something depends on what has changed, FAULT. */
function popFlags(p: Procedure): void {
  const { fn } = p;
  const popped = fn.param(0);
  const isNarrow = fn.param(1).eq(2);
  const before = rflagsImage(p);
  const wide = isNarrow.select(p.i32(0), p.i32(Flag.AC | Flag.ID));
  const iopl = isProtected(p).eqz().or(p.get(S.CPL).eqz()).select(p.i32(Flag.IOPL), p.i32(0));
  const own = ownsInterruptFlag(p);
  const interrupt = own.select(p.i32(Flag.IF), p.i32(0));
  const mask = fn.variable("i32", wide.or(iopl).or(interrupt).or(USER_FLAGS));
  const extra = fn.variable("i32", 0);
  fn.if(inV86(p).ne(0).and(own.eqz()), () => {
    p.faultIf(isNarrow.eqz().or(p.get(S.CR4).and(Cr4.VME).eqz()), Vector.GP);
    const enables = popped.and(Flag.IF);
    p.faultIf(enables.ne(0).and(before.and(Flag.VIP).ne(0)).or(popped.and(Flag.TF)), Vector.GP);
    mask.set(mask.read().or(Flag.VIF));
    extra.set(enables.shl(10));
  });
  const m = mask.read();
  const source = popped.and(~Flag.VIF).or(extra.read());
  const kept = before.and(m.not()).and(isNarrow.select(p.i32(-1), p.i32(~Flag.RF)));
  setRflagsImage(p, kept.or(source.and(m)));
  const changed = before.xor(p.get(S.RFLAGS_REST)).and(NOTICED);
  fn.if(changed, () => {
    callVoid(p, "updateMode");
    p.leave(Status.JUMP);
  });
}

function popf(insn: Insn): void {
  const { fn } = insn;
  const size = insn.shape.opsize;
  if (!insn.is64) {
    const denied = insn
      .get(S.MODE)
      .and(Mode.REAL)
      .ne(0)
      .and(inV86(insn).ne(0))
      .and(ioplOf(insn).ne(3));
    const virtual = size === 2 ? insn.get(S.CR4).and(Cr4.VME).ne(0) : insn.i32(0);
    insn.faultIf(denied.and(virtual.eqz()), Vector.GP);
  }
  const v = insn.raw(size, insn.hostR(frameAbove(insn, size), size, Access.STACK));
  const status = call(insn, "popFlags", v.wrap(), size);
  insn.propagate(status.eq(Status.FAULT));
  moveStackPointer(insn, BigInt(size));
  fn.if(status, () => jumpNext(insn));
}

function accessFlag(set: boolean): (insn: Insn) => void {
  return (insn) => {
    // #UD, not #GP, outside ring 0.
    undefinedIf(insn, insn.get(S.CPL));
    const rest = insn.get(S.RFLAGS_REST);
    setRest(insn, set ? rest.or(Flag.AC) : rest.and(~Flag.AC));
    refresh(insn);
  };
}

const ACTIVITY_HLT = 1;

/** Without "HLT exiting" the processor halts: the run loop is left as for an exit of reason 12, with the activity state set. */
function hlt(insn: Insn): void {
  ring0(insn);
  exitIf(insn, primary(insn, Primary.HLT), ExitReason.HLT);
  insn.set(S.ACTIVITY, ACTIVITY_HLT);
  insn.set(S.EXIT_REASON, ExitReason.HLT);
  insn.set(S.EXIT_QUALIFICATION, 0n);
  insn.set(S.INTERRUPTIBILITY, insn.get(S.INTERRUPTIBILITY).and(~(Blocking.STI | Blocking.MOV_SS)));
  insn.set(S.STI_BUDGET, NO_BUDGET);
  callVoid(insn, "updateSlow");
  insn.set(S.RIP, insn.nextRip());
  insn.leave(Status.EXIT_AFTER);
}

export const flagProcedures: readonly ProcedureText[] = [
  { name: "popFlags", params: ["i32", "i32"], answer: "status", body: popFlags },
];

export const INTERRUPT_FLAG: SemanticsTable = {
  cli,
  sti,
  pushf,
  popf,
  clac: accessFlag(false),
  stac: accessFlag(true),
  hlt,
};
