/**
 * CR0, CR2, CR3, CR4, CR8: checks, masks of VMX non-root operation, and what a change brings with it.
 * Spec: SDM Vol. 3A, "Control Registers", "Enabling and Disabling of Paging and Virtualization", "IA-32e Mode: Activating"; Vol. 2, "MOV -
 * Move to/from Control Registers", "LMSW", "SMSW", "CLTS"; Vol. 3C, "Guest/Host Masks and Read Shadows for CR0 and CR4", "CR3-Target Controls".
 *
 * A VM exit comes after #UD and the CPL check and before all checks of the value. Bits that the host owns keep their real value when the guest
 * writes and read as the shadow. What VMX operation fixes (NE, VMXE, PE and PG) is in S.CR0_REQUIRED and S.CR4_REQUIRED; our own micro-hypervisor
 * fixes nothing.
 */

import type { Val } from "../../ir/value.ts";
import { TransitionCause } from "../../isa/vendor.ts";
import { Cr0, Cr4, Efer } from "../../state/control-bits.ts";
import { DEVICE, type Field, Page, S, Seg, Status } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import type { Insn, SemanticsTable } from "../insn.ts";
import type { Procedure } from "../procedure.ts";
import {
  attempt,
  ExitReason,
  exitIf,
  Primary,
  primary,
  refresh,
  registerNumber,
  ring0,
  undefinedIf,
} from "./common.ts";
import { call, callVoid, type ProcedureText, perform } from "./procedure-text.ts";
import { Rights } from "./rights.ts";
import { checkUmip } from "./segments.ts";
import { hasWideTss, in64, longMode } from "./state.ts";
import { noteTransition } from "./transition.ts";

const CR0_BITS =
  Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.NW | Cr0.CD | Cr0.PG;
/** CR0, CR2, CR3, CR4, CR8. */
const EXISTING = 0x11d;
const CR3_NO_FLUSH = 1n << 63n;
/** Access types in the exit qualification of control-register accesses. */
const AccessType = { TO_CR: 0, FROM_CR: 1, CLTS: 2, LMSW: 3 } as const;
const PDPTE_RESERVED = 0x1e6n;
const PDPTES: readonly Field[] = [S.PDPTE0, S.PDPTE1, S.PDPTE2, S.PDPTE3];
const CR8_BITS = 0xfn;

/** 1 if any of the bits is set. Bit 31 of a mask must not become a sign. */
const has = (v: Val, bits: number): Val => v.and(v.type === "i64" ? bits >>> 0 : bits).ne(0);

// ---- values as the guest sees them ----

function guestView(p: Cpu, register: Field, mask: Field, shadow: Field): Val {
  const own = p.get(mask);
  const view = p.get(register).and(own.not()).or(p.get(shadow).and(own));
  return p.get(S.NON_ROOT).select(view, p.get(register));
}

const cr0View = (p: Cpu): Val => guestView(p, S.CR0, S.CTL_CR0_MASK, S.CTL_CR0_SHADOW);
const cr4View = (p: Cpu): Val => guestView(p, S.CR4, S.CTL_CR4_MASK, S.CTL_CR4_SHADOW);

/** Exits if the guest tries to change a bit that the host owns; answers the value with the host's bits in it. */
function ownedBits(
  p: Cpu,
  value: Val,
  register: Field,
  mask: Field,
  shadow: Field,
  qualification: Val,
): Val {
  const inGuest = p.get(S.NON_ROOT).ne(0);
  const own = p.get(mask);
  const differs = value.xor(p.get(shadow)).and(own).ne(0);
  exitIf(p, inGuest.and(differs), ExitReason.CR_ACCESS, qualification);
  return inGuest.select(value.and(own.not()).or(p.get(register).and(own)), value);
}

// ---- paging state ----

/** (CR3): reads and checks the four PAE page-directory-pointer entries. */
function loadPdptes(p: Procedure): void {
  const { fn } = p;
  const table = fn.call(p.module.get("physicalHost"), fn.param(0).and(0xffff_ffe0n), Page.READ);
  fn.if(table.eqz(), () => p.leave(Status.FAULT));
  p.faultIf(table.eq(DEVICE), Vector.GP);
  const entries = PDPTES.map((_, i) => fn.load("i64.load", table, 8 * i));
  const reserved = p.get(S.PHYSICAL_RESERVED).or(PDPTE_RESERVED).or(0xfff0_0000_0000_0000n);
  for (const e of entries) p.faultIf(has(e, 1).and(e.and(reserved).ne(0)), Vector.GP);
  PDPTES.forEach((field, i) => {
    p.set(field, entries[i]!);
  });
}

const paePaging = (p: Cpu): Val =>
  has(p.get(S.CR0), Cr0.PG)
    .and(has(p.get(S.CR4), Cr4.PAE))
    .and(longMode(p).eqz());

/** (value): CR3 without checks of the value itself. */
function loadCr3(p: Procedure): void {
  const value = p.fn.param(0);
  p.fn.if(paePaging(p), () => perform(p, "loadPdptes", value));
  callVoid(p, "loadPageTableBase", value);
}

/** Checks for paging being turned on with IA32_EFER.LME. SDM Vol. 3A, "IA-32e Mode System Data Structures", "IA-32e Mode Initialization". */
function checkActivation(p: Cpu): void {
  const inLongCode = has(p.segRights(Seg.CS), Rights.LONG);
  p.faultIf(has(p.get(S.CR4), Cr4.PAE).eqz().or(inLongCode).or(hasWideTss(p).eqz()), Vector.GP);
}

/** (new value): CR0 with all its consequences. */
function changeCr0(p: Procedure): void {
  const { fn } = p;
  const value = fn.param(0);
  const old = p.get(S.CR0);
  const next = value.and(CR0_BITS >>> 0).or(Cr0.ET);
  const pg = has(next, Cr0.PG);
  const pe = has(next, Cr0.PE);
  const bad = value
    .shrU(32)
    .ne(0)
    .or(pg.and(pe.eqz()))
    .or(has(next, Cr0.NW).and(has(next, Cr0.CD).eqz()))
    .or(p.get(S.CR0_REQUIRED).and(value.not()).ne(0));
  p.faultIf(bad, Vector.GP);
  const changed = next.xor(old);
  const pgChanges = has(changed, Cr0.PG);
  const isLme = has(p.get(S.EFER), Efer.LME);
  fn.if(pgChanges.and(pg).and(isLme), () => checkActivation(p));
  fn.if(pgChanges.and(pg.eqz()), () =>
    p.faultIf(has(p.get(S.CR4), Cr4.PCIDE).or(in64(p)), Vector.GP),
  );
  const reloads = pg
    .and(has(p.get(S.CR4), Cr4.PAE))
    .and(isLme.eqz())
    .and(has(changed, Cr0.PG | Cr0.CD | Cr0.NW));
  fn.if(reloads, () => perform(p, "loadPdptes", p.get(S.CR3)));
  p.set(S.CR0, next);
  const lma = pg.and(isLme).select(p.i64(Efer.LMA), p.i64(0));
  p.set(S.EFER, p.get(S.EFER).and(~Efer.LMA).or(lma));
  fn.if(pe.eqz(), () => p.set(S.CPL, 0));
  fn.if(has(changed, Cr0.PE), () => noteTransition(p, TransitionCause.MOV_CR0));
  fn.if(has(changed, Cr0.PG | Cr0.PE | Cr0.WP), () => callVoid(p, "flushTlb", 0));
}

/** (new value): CR4 with all its consequences. */
function changeCr4(p: Procedure): void {
  const { fn } = p;
  const value = fn.param(0);
  const old = p.get(S.CR4);
  const changed = value.xor(old);
  const isLong = longMode(p);
  p.faultIf(value.and(p.get(S.CR4_ALLOWED).not()).ne(0), Vector.GP);
  p.faultIf(p.get(S.CR4_REQUIRED).and(value.not()).ne(0), Vector.GP);
  p.faultIf(isLong.and(has(value, Cr4.PAE).eqz().or(has(changed, Cr4.LA57))), Vector.GP);
  const pcidStarts = has(changed, Cr4.PCIDE).and(has(value, Cr4.PCIDE));
  p.faultIf(pcidStarts.and(isLong.eqz().or(has(p.get(S.CR3), 0xfff))), Vector.GP);
  const pagesPae = has(p.get(S.CR0), Cr0.PG).and(isLong.eqz()).and(has(value, Cr4.PAE));
  fn.if(pagesPae.and(has(changed, Cr4.PAE | Cr4.PGE | Cr4.PSE | Cr4.SMEP)), () =>
    perform(p, "loadPdptes", p.get(S.CR3)),
  );
  p.set(S.CR4, value);
  const flushes = Cr4.PSE | Cr4.PAE | Cr4.PGE | Cr4.PCIDE | Cr4.SMEP | Cr4.SMAP;
  fn.if(has(changed, flushes), () => callVoid(p, "flushTlb", 0));
}

// ---- MOV CR ----

/** (value, qualification) */
function writeCr0(p: Procedure): void {
  const value = ownedBits(p, p.fn.param(0), S.CR0, S.CTL_CR0_MASK, S.CTL_CR0_SHADOW, p.fn.param(1));
  p.fn.return(call(p, "changeCr0", value));
}

function writeCr4(p: Procedure): void {
  const value = ownedBits(p, p.fn.param(0), S.CR4, S.CTL_CR4_MASK, S.CTL_CR4_SHADOW, p.fn.param(1));
  p.fn.return(call(p, "changeCr4", value));
}

function writeCr3(p: Procedure): void {
  const { fn } = p;
  const value = fn.param(0);
  fn.if(primary(p, Primary.CR3_LOAD), () => {
    const count = p.get(S.CTL_CR3_TARGETS);
    const targets: readonly Field[] = [
      S.CTL_CR3_TARGET0,
      S.CTL_CR3_TARGET1,
      S.CTL_CR3_TARGET2,
      S.CTL_CR3_TARGET3,
    ];
    const isTarget = targets
      .map((field, i) => count.gtU(i).and(p.get(field).eq(value)))
      .reduce((any, one) => any.or(one));
    exitIf(p, isTarget.eqz(), ExitReason.CR_ACCESS, fn.param(1));
  });
  const noFlush = has(p.get(S.CR4), Cr4.PCIDE).select(p.i64(CR3_NO_FLUSH), p.i64(0));
  const reserved = p.get(S.PHYSICAL_RESERVED).or(0xfff0_0000_0000_0000n).and(noFlush.not());
  p.faultIf(in64(p).and(value.and(reserved).ne(0)), Vector.GP);
  fn.return(call(p, "loadCr3", value));
}

function writeCr8(p: Procedure): void {
  const value = p.fn.param(0);
  exitIf(p, primary(p, Primary.CR8_LOAD), ExitReason.CR_ACCESS, p.fn.param(1));
  p.faultIf(value.and(~CR8_BITS).ne(0), Vector.GP);
  p.set(S.CR8, value);
}

/** (register, value, qualification) -> NEXT, FAULT or EXIT. */
function writeControl(p: Procedure): void {
  const { fn } = p;
  const n = fn.param(0);
  const pass =
    (name: string): (() => void) =>
    () =>
      fn.return(call(p, name, fn.param(1), fn.param(2)));
  fn.if(n.eq(0), pass("writeCr0"));
  fn.if(n.eq(3), pass("writeCr3"));
  fn.if(n.eq(4), pass("writeCr4"));
  fn.if(n.eq(8), pass("writeCr8"));
  p.set(S.CR2, fn.param(1));
}

function checkAccess(insn: Insn, n: Val): void {
  undefinedIf(insn, insn.i32(EXISTING).shrU(n).and(1).eqz());
  ring0(insn);
}

function qualify(n: Val, type: number, register: Val): Val {
  return n
    .or(type << 4)
    .or(register.shl(8))
    .extU();
}

function movToCr(insn: Insn): void {
  const n = insn.regNumber(0);
  checkAccess(insn, n);
  const qualification = qualify(n, AccessType.TO_CR, registerNumber(insn, 1));
  attempt(insn, insn.fn.call(insn.module.get("writeControl"), n, insn.rd(1).extU(), qualification));
  refresh(insn);
}

function movFromCr(insn: Insn): void {
  const { fn } = insn;
  const n = insn.regNumber(1);
  checkAccess(insn, n);
  const qualification = qualify(n, AccessType.FROM_CR, registerNumber(insn, 0));
  const exits = n
    .eq(3)
    .and(primary(insn, Primary.CR3_STORE))
    .or(n.eq(8).and(primary(insn, Primary.CR8_STORE)));
  exitIf(insn, exits, ExitReason.CR_ACCESS, qualification);
  const value = fn.variable("i64", insn.get(S.CR2));
  fn.if(n.eq(0), () => value.set(cr0View(insn)));
  fn.if(n.eq(3), () => value.set(insn.get(S.CR3)));
  fn.if(n.eq(4), () => value.set(cr4View(insn)));
  fn.if(n.eq(8), () => value.set(insn.get(S.CR8)));
  const v = value.read();
  insn.wr(0, insn.bytes(0) === 8 ? v : v.wrap());
}

// ---- machine status word, task switched ----

function smsw(insn: Insn): void {
  checkUmip(insn);
  const v = cr0View(insn);
  insn.wr(0, insn.bytes(0) === 8 ? v : v.wrap());
}

const LMSW_BITS = Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS;

/** LMSW can set PE but not clear it; the exit condition follows that. */
function lmsw(insn: Insn): void {
  const { fn } = insn;
  ring0(insn);
  const isMemory = insn.kind(0) === "m";
  const source = insn.rd(0).and(0xffff);
  if (isMemory) insn.set(S.EXIT_LINEAR, insn.ea(2, false));
  const value = source.extU();
  const own = insn.get(S.CTL_CR0_MASK);
  const shadow = insn.get(S.CTL_CR0_SHADOW);
  const changesPe = value.and(shadow.not()).and(own).and(Cr0.PE).ne(0);
  const changesRest = value
    .xor(shadow)
    .and(own)
    .and(LMSW_BITS & ~Cr0.PE)
    .ne(0);
  const qualification = insn.i64((AccessType.LMSW << 4) | (isMemory ? 0x40 : 0)).or(value.shl(16));
  exitIf(
    insn,
    insn.get(S.NON_ROOT).ne(0).and(changesPe.or(changesRest)),
    ExitReason.CR_ACCESS,
    qualification,
  );
  const kept = insn.get(S.NON_ROOT).select(own, insn.i64(0)).or(~LMSW_BITS);
  const old = insn.get(S.CR0);
  const next = old.and(kept).or(value.and(kept.not())).or(old.and(Cr0.PE));
  attempt(insn, fn.call(insn.module.get("changeCr0"), next));
  refresh(insn);
}

function clts(insn: Insn): void {
  const { fn } = insn;
  ring0(insn);
  const owned = insn
    .get(S.NON_ROOT)
    .ne(0)
    .and(has(insn.get(S.CTL_CR0_MASK), Cr0.TS));
  const shown = has(insn.get(S.CTL_CR0_SHADOW), Cr0.TS);
  exitIf(insn, owned.and(shown), ExitReason.CR_ACCESS, BigInt(AccessType.CLTS << 4));
  fn.if(owned.eqz(), () => insn.set(S.CR0, insn.get(S.CR0).and(~Cr0.TS)));
}

const WRITE = ["i64", "i64"] as const;

export const controlProcedures: readonly ProcedureText[] = [
  { name: "loadPdptes", params: ["i64"], answer: "status", body: loadPdptes },
  { name: "loadCr3", params: ["i64"], answer: "status", body: loadCr3 },
  { name: "changeCr0", params: ["i64"], answer: "status", body: changeCr0 },
  { name: "changeCr4", params: ["i64"], answer: "status", body: changeCr4 },
  { name: "writeCr0", params: WRITE, answer: "status", body: writeCr0 },
  { name: "writeCr3", params: WRITE, answer: "status", body: writeCr3 },
  { name: "writeCr4", params: WRITE, answer: "status", body: writeCr4 },
  { name: "writeCr8", params: WRITE, answer: "status", body: writeCr8 },
  { name: "writeControl", params: ["i32", "i64", "i64"], answer: "status", body: writeControl },
];

export const CONTROL_REGISTERS: SemanticsTable = {
  mov_to_cr: movToCr,
  mov_from_cr: movFromCr,
  smsw,
  lmsw,
  clts,
};
