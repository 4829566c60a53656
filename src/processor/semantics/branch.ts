/**
 * Near jumps and loops, and BOUND. SDM Vol. 2, "JMP", "Jcc", "LOOP/LOOPcc", "BOUND". Calls and returns are in stack.ts.
 *
 * A target is checked before anything changes: canonical in 64-bit mode, within CS elsewhere; the fault is the jump's. A relative one is
 * checked here only where something changes before the jump; otherwise Insn.jumpRelative does it.
 */

import type { Val } from "../ir/value.ts";
import { Seg } from "../state/layout.ts";
import { elementFlags, Vector } from "./cpu.ts";
import { condition, readZf, signExtend } from "./flags.ts";
import type { Insn, Semantics, SemanticsTable } from "./insn.ts";
import { nonCanonical } from "./system/state.ts";

const RCX = 1;

/** An operand-sized branch target as an instruction pointer (i64); leaves with #GP(0) if it cannot be one. */
export function checkedTarget(insn: Insn, v: Val): Val {
  if (insn.is64) {
    insn.faultIf(nonCanonical(v), Vector.GP);
    return v;
  }
  const target = insn.shape.opsize === 2 ? v.wrap().and(0xffff) : v.wrap();
  if (insn.isFlat32) return target.extU();
  insn.faultIf(target.gtU(insn.segLimit(Seg.CS)), Vector.GP);
  return target.extU();
}

/** 1 if an instruction pointer cannot be one: not canonical in 64-bit mode, beyond the limit of CS elsewhere. */
export function isOutside(insn: Insn, target: Val): Val {
  if (insn.is64) return nonCanonical(target);
  return target.wrap().gtU(insn.segLimit(Seg.CS));
}

/** Leaves with #GP(0) if relative operand 0 leads outside and the jump is `taken` (always if null). */
export function checkRelative(insn: Insn, taken: Val | null): void {
  insn.unlessTaken(() => {
    const outside = isOutside(insn, insn.relativeTarget());
    insn.faultIf(taken ? taken.nez().and(outside) : outside, Vector.GP);
  });
}

/** LOOP, LOOPE, LOOPNE: the counter's width is the address size. */
function loop(extra: ((insn: Insn) => Val) | null): Semantics {
  return (insn) => {
    const { addrSize } = insn.shape;
    const left = insn.gpr(RCX, addrSize).sub(1);
    const isLeft = (addrSize === 2 ? left.and(0xffff) : left).nez();
    const taken = extra ? isLeft.and(extra(insn)) : isLeft;
    checkRelative(insn, taken);
    insn.setGpr(RCX, addrSize, left);
    insn.jumpRelative(0, taken);
  };
}

const bound: Semantics = (insn) => {
  const bytes = insn.bytes(0) as 2 | 4;
  const index = signExtend(insn.rd(0), bytes);
  const flags = insn.memFlags().or(elementFlags(bytes));
  const host = insn.hostR(insn.ea(2 * bytes, false), 2 * bytes, flags);
  const lower = signExtend(insn.raw(bytes, host), bytes);
  const upper = signExtend(insn.raw(bytes, host, bytes), bytes);
  insn.faultIf(index.ltS(lower).or(index.gtS(upper)), Vector.BR);
};

export const BRANCH: SemanticsTable = {
  jmp: (insn) => insn.jumpRelative(0, null),
  jmp_ind: (insn) => insn.jumpTo(checkedTarget(insn, insn.rd(0))),
  jcc: (insn) => insn.jumpRelative(0, condition(insn, insn.shape.cc)),
  jcxz: (insn) => insn.jumpRelative(0, insn.gpr(RCX, insn.shape.addrSize).eqz()),
  loop: loop(null),
  loope: loop(readZf),
  loopne: loop((insn) => readZf(insn).xor(1)),
  bound,
};
