/**
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT: fast calls that load fixed flat segments without reading descriptors.
 * Spec: SDM Vol. 2, their pages; the behaviour is Intel's (SYSCALL only in 64-bit mode, SYSENTER in every protected mode, SYSRET checks RCX
 * at CPL 0).
 *
 * sysCall(next RIP), sysReturn(operand size), sysEnter(), sysExit(operand size) -> JUMP or FAULT.
 *
 * Hot path: sysCall and sysReturn are straight-line code.
 */

import type { Val } from "../ir/value.ts";
import { type Cpu, Vector } from "../semantics/cpu.ts";
import { Flag, rflagsImage, setRflagsImage } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import { storeSegment } from "../semantics/system/descriptor.ts";
import type { ProcedureText } from "../semantics/system/procedure-text.ts";
import { RSP } from "../semantics/system/stack-frame.ts";
import { in64, isProtected, longMode, nonCanonical } from "../semantics/system/state.ts";
import { Efer } from "../state/control-bits.ts";
import { S, Seg, segmentAt } from "../state/layout.ts";
import { trapByResult } from "./debug-trap.ts";
import { arrive } from "./far-transfer.ts";

/** Access rights of the fixed segments, ring 0; the DPL is added. Accessed, present, 4 GiB. */
const CODE64 = 0xa09b;
const CODE32 = 0xc09b;
const DATA32 = 0xc093;
const DPL3 = 0x60;

const [RCX, RDX, R11] = [1, 2, 11];
const SYSRET_FLAGS = 0x3c_7fd7;

function loadFlat(p: Cpu, seg: number, selector: Val, rights: Val | number): void {
  storeSegment(p, segmentAt(seg), { base: 0n, limit: -1, rights, selector });
}

function sysCall(p: Procedure): void {
  const disabled = p.get(S.EFER).and(Efer.SCE).eqz();
  p.faultIf(disabled.or(in64(p).eqz()), Vector.UD);
  const flags = rflagsImage(p);
  p.setGpr(RCX, 8, p.fn.param(0));
  p.setGpr(R11, 8, flags.and(~Flag.RF).extU());
  setRflagsImage(p, flags.and(p.get(S.SFMASK).wrap().not()));
  const selector = p.get(S.STAR).high().and(0xfffc);
  loadFlat(p, Seg.CS, selector, CODE64);
  loadFlat(p, Seg.SS, selector.add(8), DATA32);
  p.set(S.CPL, 0);
  trapByResult(p);
  arrive(p, p.get(S.LSTAR));
}

function sysReturn(p: Procedure): void {
  const isWide = p.fn.param(0).eq(8);
  const disabled = p.get(S.EFER).and(Efer.SCE).eqz();
  p.faultIf(disabled.or(in64(p).eqz()), Vector.UD);
  p.faultIf(p.get(S.CPL), Vector.GP);
  const rcx = p.gpr(RCX, 8);
  // Intel checks the target here, still at ring 0 on the caller's stack.
  p.faultIf(isWide.and(nonCanonical(rcx)), Vector.GP);
  setRflagsImage(p, p.gpr(R11, 4).and(SYSRET_FLAGS));
  const star = p.get(S.STAR).shrU(48).wrap();
  loadFlat(
    p,
    Seg.CS,
    isWide.select(star.add(16), star).or(3),
    isWide.select(p.i32(CODE64 | DPL3), p.i32(CODE32 | DPL3)),
  );
  loadFlat(p, Seg.SS, star.add(8).or(3), DATA32 | DPL3);
  p.set(S.CPL, 3);
  trapByResult(p);
  arrive(p, isWide.select(rcx, rcx.and(0xffff_ffffn)));
}

function sysEnter(p: Procedure): void {
  const selector = p.get(S.SYSENTER_CS).wrap().and(0xfffc);
  p.faultIf(isProtected(p).eqz().or(selector.eqz()), Vector.GP);
  const isLong = longMode(p);
  const narrow = (v: Val): Val => isLong.select(v, v.and(0xffff_ffffn));
  p.set(S.RFLAGS_REST, p.get(S.RFLAGS_REST).and(~(Flag.VM | Flag.IF)));
  p.setGpr(RSP, 8, narrow(p.get(S.SYSENTER_ESP)));
  loadFlat(p, Seg.CS, selector, isLong.select(p.i32(CODE64), p.i32(CODE32)));
  loadFlat(p, Seg.SS, selector.add(8), DATA32);
  p.set(S.CPL, 0);
  arrive(p, narrow(p.get(S.SYSENTER_EIP)));
}

function sysExit(p: Procedure): void {
  const isWide = p.fn.param(0).eq(8);
  const selector = p.get(S.SYSENTER_CS).wrap().and(0xfffc);
  p.faultIf(isProtected(p).eqz().or(selector.eqz()).or(p.get(S.CPL)), Vector.GP);
  const rip = p.gpr(RDX, 8);
  const rsp = p.gpr(RCX, 8);
  p.faultIf(isWide.and(nonCanonical(rip).or(nonCanonical(rsp))), Vector.GP);
  const narrow = (v: Val): Val => isWide.select(v, v.and(0xffff_ffffn));
  const cs = selector.add(isWide.select(p.i32(32), p.i32(16))).or(3);
  p.setGpr(RSP, 8, narrow(rsp));
  loadFlat(p, Seg.CS, cs, isWide.select(p.i32(CODE64 | DPL3), p.i32(CODE32 | DPL3)));
  loadFlat(p, Seg.SS, cs.add(8), DATA32 | DPL3);
  p.set(S.CPL, 3);
  arrive(p, narrow(rip));
}

export const syscallProcedures: readonly ProcedureText[] = [
  { name: "sysCall", params: ["i64"], answer: "status", body: sysCall },
  { name: "sysReturn", params: ["i32"], answer: "status", body: sysReturn },
  { name: "sysEnter", params: [], answer: "status", body: sysEnter },
  { name: "sysExit", params: ["i32"], answer: "status", body: sysExit },
];
