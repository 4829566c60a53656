/**
 * Decimal adjustment. SDM Vol. 2, "AAA", "AAS", "AAM", "AAD", "DAA", "DAS". Not in 64-bit mode.
 * Flags the manual leaves undefined: SF, ZF and PF describe AL, OF is clear, CF and AF are clear after AAM and AAD.
 */
import type { Val } from "../ir/value.ts";
import { Vector } from "./cpu.ts";
import { readAf, readCf, signExtend } from "./flags.ts";
import type { Insn, Semantics, SemanticsTable } from "./insn.ts";

const RAX = 0;

/** SF ZF PF of AL; CF and AF given (0/1); OF clear. */
function setFlags(insn: Insn, al: Val, cf: Val, af: Val): void {
  insn.setFlagResult(signExtend(al, 1));
  insn.setFlagCarry(cf.shl(31).shrS(1).or(af.shl(3)));
}

/** 1 if the low digit of AL is to be adjusted. */
const lowDigitIsOff = (insn: Insn, al: Val): Val => al.and(15).gtU(9).or(readAf(insn));

/** AAA (+1) and AAS (-1): to unpacked digits; AX takes the carry into AH. */
function adjustUnpacked(sign: 1 | -1): Semantics {
  return (insn) => {
    const ax = insn.gpr(RAX, 2);
    const off = lowDigitIsOff(insn, ax);
    const adjusted = ax.add(off.mul(sign * 0x106));
    const result = adjusted.and(0xff0f);
    insn.setGpr(RAX, 2, result);
    setFlags(insn, result, off, off);
  };
}

/** DAA (+1) and DAS (-1): to packed digits. */
function adjustPacked(sign: 1 | -1): Semantics {
  return (insn) => {
    const al = insn.gpr(RAX, 1);
    const cf = readCf(insn);
    const lowOff = lowDigitIsOff(insn, al);
    const highOff = al.gtU(0x99).or(cf);
    const result = al.add(lowOff.mul(sign * 6)).add(highOff.mul(sign * 0x60));
    insn.setGpr(RAX, 1, result);
    // DAS: a borrow by the low digit alone counts too; for DAA that is implied by AL > 99H.
    const carry = sign === 1 ? highOff : highOff.or(lowOff.and(al.ltU(6)));
    setFlags(insn, result, carry, lowOff);
  };
}

export const BCD: SemanticsTable = {
  aaa: adjustUnpacked(1),
  aas: adjustUnpacked(-1),
  daa: adjustPacked(1),
  das: adjustPacked(-1),
  aam: (insn) => {
    const base = insn.immediate(0).and(0xff);
    insn.faultIf(base.eqz(), Vector.DE);
    const al = insn.gpr(RAX, 1);
    const digit = al.remU(base);
    insn.setGpr(RAX, 2, al.divU(base).shl(8).or(digit));
    setFlags(insn, digit, insn.i32(0), insn.i32(0));
  },
  aad: (insn) => {
    const ax = insn.gpr(RAX, 2);
    const al = ax.add(ax.shrU(8).mul(insn.immediate(0))).and(0xff);
    insn.setGpr(RAX, 2, al);
    setFlags(insn, al, insn.i32(0), insn.i32(0));
  },
};
