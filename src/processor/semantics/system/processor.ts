/**
 * Identification, time, caches, monitors, randomness, extended control registers, TLB invalidation. SDM Vol. 2, one entry per key.
 *
 * The clock and the random source are imports of the core module: readTsc(instructions retired in this run) leaves the guest's counter in
 * S.TSC, random() answers 64 bits.
 */

import type { Val } from "../../ir/value.ts";
import { Cr4 } from "../../state/control-bits.ts";
import { PCID_MAP, PCIDS, Pending, S } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import { Flag, setArithmeticImage } from "../flags.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import type { Procedure } from "../procedure.ts";
import {
  ExitReason,
  exitIf,
  exitWithOperand,
  Information,
  Primary,
  primary,
  registerNumber,
  ring0,
  Secondary,
  secondary,
  undefinedIf,
} from "./common.ts";
import { call, callVoid, type ProcedureText } from "./procedure-text.ts";
import { nonCanonical } from "./state.ts";

const [RAX, RCX, RDX] = [0, 1, 2];

/** #UD in VMX non-root operation unless a secondary control enables the instruction. */
function enabledInGuest(insn: Insn, control: number): void {
  undefinedIf(insn, insn.get(S.NON_ROOT).ne(0).and(secondary(insn, control).eqz()));
}

/** #GP(0) outside ring 0 if (or unless) a CR4 bit is set. */
function ring0By(insn: Insn, bit: number, whenSet: boolean): void {
  const flag = insn.get(S.CR4).and(bit).ne(0);
  insn.faultIf(
    insn
      .get(S.CPL)
      .ne(0)
      .and(whenSet ? flag : flag.eqz()),
    Vector.GP,
  );
}

function loadTsc(insn: Insn): void {
  callVoid(insn, "readTsc", insn.retired());
  const tsc = insn.get(S.TSC);
  insn.setGpr(RAX, 4, tsc.wrap());
  insn.setGpr(RDX, 4, tsc.high());
}

function rdtsc(insn: Insn): void {
  ring0By(insn, Cr4.TSD, true);
  exitIf(insn, primary(insn, Primary.RDTSC), ExitReason.RDTSC);
  loadTsc(insn);
}

function rdtscp(insn: Insn): void {
  enabledInGuest(insn, Secondary.RDTSCP);
  ring0By(insn, Cr4.TSD, true);
  exitIf(insn, primary(insn, Primary.RDTSC), ExitReason.RDTSCP);
  loadTsc(insn);
  insn.setGpr(RCX, 4, insn.get(S.TSC_AUX).wrap());
}

function rdpid(insn: Insn): void {
  enabledInGuest(insn, Secondary.RDTSCP);
  const v = insn.get(S.TSC_AUX);
  insn.wr(0, insn.bytes(0) === 8 ? v : v.wrap());
}

/** There are no performance counters, so every index is invalid. */
function rdpmc(insn: Insn): void {
  ring0By(insn, Cr4.PCE, false);
  exitIf(insn, primary(insn, Primary.RDPMC), ExitReason.RDPMC);
  insn.fault(Vector.GP);
}

function random(control: number, reason: number): Semantics {
  return (insn) => {
    insn.fn.if(secondary(insn, control), () => {
      const size = Math.log2(insn.bytes(0)) - 1;
      const register = registerNumber(insn, 0).shl(Information.REGISTER1);
      exitWithOperand(insn, reason, register.or(size << 11));
    });
    const v = call(insn, "random");
    insn.wr(0, insn.bytes(0) === 8 ? v : v.wrap());
    setArithmeticImage(insn, insn.i32(Flag.CF));
  };
}

// ---- caches and translations ----

function invd(insn: Insn): void {
  ring0(insn);
  exitIf(insn, insn.get(S.NON_ROOT), ExitReason.INVD);
}

function wbinvd(insn: Insn): void {
  ring0(insn);
  exitIf(insn, secondary(insn, Secondary.WBINVD), ExitReason.WBINVD);
}

/** Has the permissions of a byte read, no other effect. */
function clflush(insn: Insn): void {
  insn.hostR(insn.ea(1, false), 1, insn.memFlags());
}

function invlpg(insn: Insn): void {
  ring0(insn);
  const linear = insn.ea(1, false);
  // The operand is not accessed: its segment's limit does not matter.
  insn.set(S.PENDING, Pending.NONE);
  exitIf(insn, primary(insn, Primary.INVLPG), ExitReason.INVLPG, linear);
  insn.fn.if(nonCanonical(linear).eqz(), () => callVoid(insn, "invalidatePage", linear));
}

/** Types of INVPCID. */
const Invpcid = { ADDRESS: 0, CONTEXT: 1, ALL_WITH_GLOBAL: 2, ALL: 3 } as const;

/** (type, first and second half of the descriptor). */
function invalidatePcid(p: Procedure): void {
  const { fn } = p;
  const type = fn.param(0);
  const descriptor = fn.param(1);
  const address = fn.param(2);
  p.faultIf(type.gtU(BigInt(Invpcid.ALL)).or(descriptor.shrU(12).ne(0)), Vector.GP);
  const pcids = p.get(S.CR4).and(Cr4.PCIDE).ne(0);
  const pcid = descriptor.wrap().and(PCIDS - 1);
  const isSingle = type.leU(BigInt(Invpcid.CONTEXT));
  p.faultIf(isSingle.and(pcids.eqz()).and(pcid), Vector.GP);
  fn.if(type.eqz(), () => {
    p.faultIf(nonCanonical(address), Vector.GP);
    // One entry per linear page serves all address spaces.
    callVoid(p, "invalidatePage", address);
    fn.return(0);
  });
  fn.if(isSingle.eqz(), () => {
    callVoid(p, "flushTlb", 0);
    fn.return(0);
  });
  const isCurrent = pcids.eqz().or(
    p
      .get(S.CR3)
      .wrap()
      .and(PCIDS - 1)
      .eq(pcid),
  );
  fn.if(
    isCurrent,
    () => callVoid(p, "enterAddressSpace", 1),
    // Without a number, the PCID gets a fresh one when it is next entered.
    () => fn.store("i32.store16", pcid.shl(1).add(p.get(S.PCID_BASE)), 0, PCID_MAP),
  );
}

function invpcid(insn: Insn): void {
  enabledInGuest(insn, Secondary.INVPCID);
  ring0(insn);
  insn.fn.if(primary(insn, Primary.INVLPG), () => {
    exitWithOperand(insn, ExitReason.INVPCID, registerNumber(insn, 0).shl(Information.REGISTER2));
  });
  const type = insn.rd(0).extU();
  const host = insn.hostR(insn.ea(16, false), 16, insn.memFlags());
  const low = insn.raw(8, host);
  const high = insn.raw(8, host, 8);
  insn.propagate(call(insn, "invalidatePcid", type, low, high));
}

// ---- monitor, pause ----

const MWAIT_INTERRUPT_BREAK = 1;

function monitor(insn: Insn): void {
  undefinedIf(insn, insn.get(S.CPL));
  exitIf(insn, primary(insn, Primary.MONITOR), ExitReason.MONITOR);
  insn.faultIf(insn.gpr(RCX, 4), Vector.GP);
  insn.hostR(insn.ea(1, false), 1, insn.memFlags());
}

/** Without an exit the wait ends at once, which the architecture allows. */
function mwait(insn: Insn): void {
  undefinedIf(insn, insn.get(S.CPL));
  exitIf(insn, primary(insn, Primary.MWAIT), ExitReason.MWAIT);
  insn.faultIf(insn.gpr(RCX, 4).gtU(MWAIT_INTERRUPT_BREAK), Vector.GP);
}

function pause(insn: Insn): void {
  exitIf(insn, primary(insn, Primary.PAUSE), ExitReason.PAUSE);
}

// ---- extended control registers ----

/** x87 and SSE state: all that this processor has. */
const XCR0_X87 = 1n;
const XCR0_ALLOWED = 3n;

function checkXsave(p: Cpu): void {
  undefinedIf(p, p.get(S.CR4).and(Cr4.OSXSAVE).eqz());
}

function xgetbv(insn: Insn): void {
  checkXsave(insn);
  // Index 1 is XCR0 less what is in its initial configuration; saying "all in use" is always right.
  insn.faultIf(insn.gpr(RCX, 4).gtU(1), Vector.GP);
  const v = insn.get(S.XCR0);
  insn.setGpr(RAX, 4, v.wrap());
  insn.setGpr(RDX, 4, v.high());
}

function xsetbv(insn: Insn): void {
  checkXsave(insn);
  ring0(insn);
  exitIf(insn, insn.get(S.NON_ROOT), ExitReason.XSETBV);
  const v: Val = insn.gpr(RAX, 4).extU().or(insn.gpr(RDX, 8).shl(32));
  const bad = v.and(~XCR0_ALLOWED).ne(0).or(v.and(XCR0_X87).eqz());
  insn.faultIf(insn.gpr(RCX, 4).ne(0).or(bad), Vector.GP);
  insn.set(S.XCR0, v);
}

export const processorProcedures: readonly ProcedureText[] = [
  { name: "invalidatePcid", params: ["i64", "i64", "i64"], answer: "status", body: invalidatePcid },
];

export const PROCESSOR: SemanticsTable = {
  cpuid: (insn) => insn.vmExit(ExitReason.CPUID),
  rdtsc,
  rdtscp,
  rdpid,
  rdpmc,
  rdrand: random(Secondary.RDRAND, ExitReason.RDRAND),
  rdseed: random(Secondary.RDSEED, ExitReason.RDSEED),
  invd,
  wbinvd,
  clflush,
  clflushopt: clflush,
  invlpg,
  invpcid,
  monitor,
  mwait,
  pause,
  xgetbv,
  xsetbv,
};
