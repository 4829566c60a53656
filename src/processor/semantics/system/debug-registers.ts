/**
 * MOV to and from debug registers. SDM Vol. 3B, "Debug Registers"; Vol. 3C, "Relative Priority of Faults and VM Exits": the exit of "MOV-DR
 * exiting" comes before the CPL check and before #UD for DR4 and DR5.
 */

import type { Val } from "../../ir/value.ts";
import { Cr4 } from "../../state/control-bits.ts";
import { type Field, S } from "../../state/layout.ts";
import { Vector } from "../cpu.ts";
import { Flag } from "../flags.ts";
import type { Insn, SemanticsTable } from "../insn.ts";
import {
  ExitReason,
  exitIf,
  Primary,
  primary,
  refresh,
  registerNumber,
  ring0,
  undefinedIf,
} from "./common.ts";
import { DR6_BD, DR6_FIXED, DR7_GD } from "./state.ts";

const DR6_WRITABLE = 0xe00f;
const DR7_WRITABLE = 0xffff_23ff;
const DR7_FIXED = 0x400;
const FROM_DR = 0x10;

const ADDRESSES: readonly Field[] = [S.DR0, S.DR1, S.DR2, S.DR3];

/** All checks up to the access itself. Answers the register number with DR4 and DR5 turned into DR6 and DR7. */
function check(insn: Insn, n: Val, register: Val, direction: number): Val {
  undefinedIf(insn, n.gtU(7));
  const qualification = n.or(direction).or(register.shl(8)).extU();
  exitIf(insn, primary(insn, Primary.MOV_DR), ExitReason.MOV_DR, qualification);
  ring0(insn);
  const isAlias = n.and(6).eq(4);
  undefinedIf(insn, isAlias.and(insn.get(S.CR4).and(Cr4.DE).ne(0)));
  insn.fn.if(insn.get(S.DR7).and(DR7_GD).ne(0), () => {
    insn.set(S.PENDING_ADDRESS, BigInt(DR6_BD));
    insn.fault(Vector.DB);
  });
  return n.or(isAlias.shl(1));
}

function movToDr(insn: Insn): void {
  const { fn } = insn;
  const n = check(insn, insn.regNumber(0), registerNumber(insn, 1), 0);
  const value = insn.rd(1).extU();
  insn.faultIf(n.geU(6).and(value.shrU(32).ne(0)), Vector.GP);
  ADDRESSES.forEach((field, i) => {
    fn.if(n.eq(i), () => insn.set(field, value));
  });
  fn.if(n.eq(6), () => insn.set(S.DR6, value.and(DR6_WRITABLE).or(DR6_FIXED)));
  fn.if(n.eq(7), () => insn.set(S.DR7, value.and(DR7_WRITABLE).or(DR7_FIXED)));
  // Where no breakpoint was enabled before, an old RF may still stand here.
  insn.set(S.RFLAGS_REST, insn.get(S.RFLAGS_REST).and(~Flag.RF));
  refresh(insn);
}

function movFromDr(insn: Insn): void {
  const { fn } = insn;
  const n = check(insn, insn.regNumber(1), registerNumber(insn, 0), FROM_DR);
  const value = fn.variable("i64", insn.get(S.DR7));
  [...ADDRESSES].forEach((field, i) => {
    fn.if(n.eq(i), () => value.set(insn.get(field)));
  });
  fn.if(n.eq(6), () => value.set(insn.get(S.DR6)));
  const v = value.read();
  insn.wr(0, insn.bytes(0) === 8 ? v : v.wrap());
}

export const DEBUG_REGISTERS: SemanticsTable = { mov_to_dr: movToDr, mov_from_dr: movFromDr };
