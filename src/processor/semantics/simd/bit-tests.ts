/** POPCNT and PTEST: results in the arithmetic flags. SDM Vol. 2. */
import type { Val } from "../../ir/value.ts";
import { setArithmeticImage } from "../flags.ts";
import type { SemanticsTable } from "../insn.ts";
import { readAligned, requireSse } from "./operands.ts";

export const BIT_TESTS: SemanticsTable = {
  popcnt: (insn) => {
    const v = insn.rd(1);
    insn.wr(0, v.popcnt());
    setArithmeticImage(insn, v.eqz().shl(6));
  },
  ptest: (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const b = readAligned(insn, 1);
    const a = insn.regRead(0, 16);
    const none = (v: Val): Val => fn.op("v128.any_true", v).eqz();
    const zf = none(fn.op("v128.and", a, b));
    const cf = none(fn.op("v128.andnot", b, a));
    setArithmeticImage(insn, zf.shl(6).or(cf));
  },
};
