/**
 * Flag instructions and the unprivileged leftovers of the one-byte map. SDM Vol. 2, one entry per key.
 */
import { GPR, S } from "../state/layout.ts";
import { arithmeticImage, Flag, readCf, readOf, setArithmeticImage, setCf } from "./flags.ts";
import type { Semantics, SemanticsTable } from "./insn.ts";

const RAX = 0;
const RBX = 3;
const AH = GPR + 1;
const LOW_FLAGS = 0xd5;

const xlat: Semantics = (insn) => {
  // The operand is [RBX]; AL is added before the address is truncated and checked.
  const rbx = insn.gpr(RBX, 8);
  insn.setGpr(RBX, 8, rbx.add(insn.gpr(RAX, 1).extU()));
  const linear = insn.ea(1, false);
  insn.setGpr(RBX, 8, rbx);
  insn.setGpr(RAX, 1, insn.load(linear, 1, insn.memFlags()));
};

export const FLAG_OPS: SemanticsTable = {
  clc: (insn) => setCf(insn, insn.i32(0)),
  stc: (insn) => setCf(insn, insn.i32(1)),
  cmc: (insn) => setCf(insn, readCf(insn).xor(1)),
  cld: (insn) => insn.set(S.RFLAGS_REST, insn.get(S.RFLAGS_REST).and(~Flag.DF)),
  std: (insn) => insn.set(S.RFLAGS_REST, insn.get(S.RFLAGS_REST).or(Flag.DF)),
  lahf: (insn) => insn.setRaw(1, 0, arithmeticImage(insn).and(LOW_FLAGS).or(2), AH),
  sahf: (insn) => {
    const overflow = readOf(insn).shl(11);
    setArithmeticImage(insn, insn.raw(1, 0, AH).and(LOW_FLAGS).or(overflow));
  },
  salc: (insn) => insn.setGpr(RAX, 1, readCf(insn).neg()),
  xlat,
};
