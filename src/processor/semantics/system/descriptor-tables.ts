/**
 * LGDT, LIDT, SGDT, SIDT. SDM Vol. 2, their pages; Vol. 3C, "Instructions That Cause VM Exits Conditionally" (descriptor-table exiting).
 */
import { type Field, S } from "../../state/layout.ts";
import { Vector } from "../cpu.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import { ExitReason, ring0 } from "./common.ts";
import { checkUmip, descriptorTableExit } from "./segments.ts";
import { nonCanonical } from "./state.ts";

function store(base: Field, limit: Field, identity: number): Semantics {
  return (insn) => {
    checkUmip(insn);
    descriptorTableExit(insn, ExitReason.GDTR_IDTR, identity);
    const bytes = insn.is64 ? 10 : 6;
    const host = insn.hostW(insn.ea(bytes, true), bytes, insn.memFlags());
    insn.setRaw(2, host, insn.get(limit));
    // All 32 bits of the base whatever the operand size, as processors do since the 386.
    if (insn.is64) insn.setRaw(8, host, insn.get(base), 2);
    else insn.setRaw(4, host, insn.get(base).wrap(), 2);
    insn.commit(host);
  };
}

function load(base: Field, limit: Field, identity: number): Semantics {
  return (insn) => {
    ring0(insn);
    descriptorTableExit(insn, ExitReason.GDTR_IDTR, identity);
    const bytes = insn.is64 ? 10 : 6;
    const host = insn.hostR(insn.ea(bytes, false), bytes, insn.memFlags());
    const newLimit = insn.raw(2, host);
    const wide = insn.is64 ? insn.raw(8, host, 2) : insn.raw(4, host, 2).extU();
    if (insn.is64) insn.faultIf(nonCanonical(wide), Vector.GP);
    insn.set(base, insn.shape.opsize === 2 ? wide.and(0xff_ffff) : wide);
    insn.set(limit, newLimit);
  };
}

export const DESCRIPTOR_TABLES: SemanticsTable = {
  sgdt: store(S.GDTR_BASE, S.GDTR_LIMIT, 0),
  sidt: store(S.IDTR_BASE, S.IDTR_LIMIT, 1),
  lgdt: load(S.GDTR_BASE, S.GDTR_LIMIT, 2),
  lidt: load(S.IDTR_BASE, S.IDTR_LIMIT, 3),
};
