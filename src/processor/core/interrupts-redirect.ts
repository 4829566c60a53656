/**
 * INT n in virtual-8086 mode: the IOPL rule, and with CR4.VME the redirection of single vectors to 8086 handlers.
 * Spec: SDM Vol. 3A, "Class 3 - Software Interrupt Handling in Virtual-8086 Mode", "Software Interrupt Redirection (in the TSS)".
 */
import { Access, Vector } from "../semantics/cpu.ts";
import { Flag, rflagsImage } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import { call, type ProcedureText } from "../semantics/system/procedure-text.ts";
import { hasWideTss, ioplOf, TSS_IO_BASE, TSS_MINIMUM_LIMIT } from "../semantics/system/state.ts";
import { Cr4 } from "../state/control-bits.ts";
import { S, Seg, Status } from "../state/layout.ts";

const REDIRECTION_BYTES = 32;

/** (vector, RIP to push, IOPL is checked) -> NEXT to go through the IDT, JUMP if an 8086 handler has been entered, FAULT. */
function redirectInterrupt(p: Procedure): void {
  const { fn } = p;
  const vector = fn.param(0);
  const isRing3 = ioplOf(p).eq(3);
  const denied = isRing3.eqz().and(fn.param(2));
  fn.if(p.get(S.CR4).and(Cr4.VME).eqz(), () => {
    p.faultIf(denied, Vector.GP);
    p.leave(Status.NEXT);
  });
  const tss = p.segBase(Seg.TR);
  const limit = p.segLimit(Seg.TR);
  p.faultIf(hasWideTss(p).eqz().or(limit.ltU(TSS_MINIMUM_LIMIT)), Vector.GP);
  const map = p.load(tss.add(TSS_IO_BASE), 2, Access.SYSTEM);
  const at = map.sub(REDIRECTION_BYTES).add(vector.shrU(3));
  p.faultIf(at.gtU(limit), Vector.GP);
  const bit = p.load(tss.add(at.extU()), 1, Access.SYSTEM).shrU(vector.and(7)).and(1);
  fn.if(bit, () => {
    p.faultIf(denied, Vector.GP);
    p.leave(Status.NEXT);
  });
  const flags = rflagsImage(p);
  const virtual = flags.and(~Flag.IF).or(flags.shrU(10).and(Flag.IF)).or(Flag.IOPL);
  const image = isRing3.select(flags, virtual);
  const cleared = isRing3.select(p.i32(Flag.IF), p.i32(Flag.VIF)).or(Flag.TF | Flag.RF);
  fn.return(call(p, "deliverTo8086", vector, image, fn.param(1), 0n, cleared));
}

export const redirectProcedures: readonly ProcedureText[] = [
  {
    name: "redirectInterrupt",
    params: ["i32", "i64", "i32"],
    answer: "status",
    body: redirectInterrupt,
  },
];
