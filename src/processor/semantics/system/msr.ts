/**
 * RDMSR and WRMSR: privilege, MSR bitmaps, and the registers that the processor itself uses. Everything else is the VMM's (exits 31 and 32);
 * on the bare processor it does not exist (#GP).
 * Spec: SDM Vol. 2, "RDMSR", "WRMSR"; Vol. 3C, "MSR-Bitmap Address"; Vol. 4, the registers.
 */

import type { Val } from "../../ir/value.ts";
import { Cr0, Efer } from "../../state/control-bits.ts";
import { type Field, S, SEG_BASE, Seg, segmentAt } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import type { Insn, SemanticsTable } from "../insn.ts";
import type { Procedure } from "../procedure.ts";
import { attempt, ExitReason, ring0 } from "./common.ts";
import { call, callVoid, type ProcedureText } from "./procedure-text.ts";
import { nonCanonical } from "./state.ts";

const [RAX, RCX, RDX] = [0, 1, 2];

/** What a value must satisfy: anything · canonical · 32 bits · zero · memory types (PAT) · EFER's own rules. */
type Rule = "any" | "canonical" | "narrow" | "zero" | "memory-types" | "efer";

interface Msr {
  readonly index: number;
  readonly field: Field;
  readonly rule: Rule;
}

const segmentBase = (seg: number): Field => ({ at: segmentAt(seg) + SEG_BASE, type: "i64" });

/** Most often used first. */
const MSRS: readonly Msr[] = [
  { index: 0xc000_0100, field: segmentBase(Seg.FS), rule: "canonical" },
  { index: 0xc000_0102, field: S.KERNEL_GS_BASE, rule: "canonical" },
  { index: 0xc000_0101, field: segmentBase(Seg.GS), rule: "canonical" },
  { index: 0xc000_0080, field: S.EFER, rule: "efer" },
  { index: 0xc000_0081, field: S.STAR, rule: "any" },
  { index: 0xc000_0082, field: S.LSTAR, rule: "canonical" },
  { index: 0xc000_0083, field: S.CSTAR, rule: "canonical" },
  { index: 0xc000_0084, field: S.SFMASK, rule: "any" },
  { index: 0xc000_0103, field: S.TSC_AUX, rule: "narrow" },
  { index: 0x174, field: S.SYSENTER_CS, rule: "any" },
  { index: 0x175, field: S.SYSENTER_ESP, rule: "canonical" },
  { index: 0x176, field: S.SYSENTER_EIP, rule: "canonical" },
  { index: 0x277, field: S.PAT, rule: "memory-types" },
  { index: 0xda0, field: S.XSS, rule: "zero" },
];

/** Bytes of the MSR bitmap per direction and range. */
const HIGH_RANGE = 0x400;
const WRITES = 0x800;
const HIGH_BASE = 0xc000_0000 | 0;
const RANGE = 0x2000;

/** 1 if the MSR bitmap of VMX non-root operation sends the access out. */
function isIntercepted(p: Cpu, index: Val, direction: number): Val {
  const { fn } = p;
  const result = fn.variable("i32", p.get(S.NON_ROOT).ne(0));
  fn.if(result.read().and(p.get(S.CTL_MSR_BITMAP).ne(0)), () => {
    const isHigh = index.and(HIGH_BASE).eq(HIGH_BASE);
    const low = isHigh.select(index.xor(HIGH_BASE), index);
    fn.if(low.ltU(RANGE), () => {
      const at = p
        .get(S.CTL_MSR_BITMAP)
        .add(isHigh.select(p.i32(HIGH_RANGE), p.i32(0)))
        .add(low.shrU(3));
      result.set(fn.load("i32.load8_u", at, direction).shrU(low.and(7)).and(1));
    });
  });
  return result.read();
}

/** An MSR that is not ours. */
function foreign(p: Cpu, reason: number): void {
  p.fn.if(p.get(S.NON_ROOT), () => p.vmExit(reason));
  p.fault(Vector.GP);
}

/** (index) -> NEXT with the value in EDX:EAX, FAULT or EXIT. */
function readMsr(p: Procedure): void {
  const { fn } = p;
  const index = fn.param(0);
  fn.if(isIntercepted(p, index, 0), () => p.vmExit(ExitReason.RDMSR));
  for (const msr of MSRS) {
    fn.if(index.eq(msr.index | 0), () => {
      const v = p.get(msr.field);
      p.setGpr(RAX, 4, v.wrap());
      p.setGpr(RDX, 4, v.high());
      fn.return(0);
    });
  }
  foreign(p, ExitReason.RDMSR);
}

/** Every byte of a PAT value is UC, WC, WT, WP, WB or UC-: 0, 1, 4, 5, 6, 7. */
function isBadPat(p: Cpu, v: Val): Val {
  const high = v.and(0xf8f8_f8f8_f8f8_f8f8n).ne(0);
  const twoOrThree = v
    .and(0x0202_0202_0202_0202n)
    .and(v.shrU(1).and(0x0202_0202_0202_0202n).not())
    .ne(0);
  return high.or(twoOrThree.and(p.i32(1)));
}

function checkRule(p: Cpu, rule: Rule, v: Val): void {
  if (rule === "canonical") p.faultIf(nonCanonical(v), Vector.GP);
  else if (rule === "narrow") p.faultIf(v.shrU(32).ne(0), Vector.GP);
  else if (rule === "zero") p.faultIf(v.ne(0), Vector.GP);
  else if (rule === "memory-types") p.faultIf(isBadPat(p, v), Vector.GP);
}

/** (value): LMA is not writable, LME only while paging is off. */
function writeEfer(p: Procedure): void {
  const v = p.fn.param(0);
  const old = p.get(S.EFER);
  p.faultIf(v.and(p.get(S.EFER_ALLOWED).or(Efer.LMA).not()).ne(0), Vector.GP);
  const changed = v.xor(old);
  const paging = p.get(S.CR0).and(Cr0.PG).ne(0);
  p.faultIf(changed.and(Efer.LME).ne(0).and(paging), Vector.GP);
  p.set(S.EFER, v.and(~Efer.LMA).or(old.and(Efer.LMA)));
  p.fn.if(changed.and(Efer.NXE).ne(0), () => callVoid(p, "flushTlb", 0));
}

/** (index, value) -> NEXT, FAULT or EXIT. */
function writeMsr(p: Procedure): void {
  const { fn } = p;
  const index = fn.param(0);
  const v = fn.param(1);
  fn.if(isIntercepted(p, index, WRITES), () => p.vmExit(ExitReason.WRMSR));
  for (const { index: n, field, rule } of MSRS) {
    fn.if(index.eq(n | 0), () => {
      if (rule === "efer") fn.return(call(p, "writeEfer", v));
      else {
        checkRule(p, rule, v);
        p.set(field, v);
        fn.return(0);
      }
    });
  }
  foreign(p, ExitReason.WRMSR);
}

function rdmsr(insn: Insn): void {
  ring0(insn);
  attempt(insn, insn.fn.call(insn.module.get("readMsr"), insn.gpr(RCX, 4)));
}

function wrmsr(insn: Insn): void {
  ring0(insn);
  const value = insn.gpr(RAX, 4).extU().or(insn.gpr(RDX, 8).shl(32));
  attempt(insn, insn.fn.call(insn.module.get("writeMsr"), insn.gpr(RCX, 4), value));
}

export const msrProcedures: readonly ProcedureText[] = [
  { name: "readMsr", params: ["i32"], answer: "status", body: readMsr },
  { name: "writeMsr", params: ["i32", "i64"], answer: "status", body: writeMsr },
  { name: "writeEfer", params: ["i64"], answer: "status", body: writeEfer },
];

export const MSR: SemanticsTable = { rdmsr, wrmsr };
