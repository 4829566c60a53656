/**
 * Looking at descriptors without loading them: VERR, VERW, LAR, LSL, ARPL. SDM Vol. 2, one entry per key.
 * A selector that names nothing usable clears ZF; only memory itself can fault.
 */

import type { Val } from "../../ir/value.ts";
import { S, Seg } from "../../state/layout.ts";
import { Access } from "../cpu.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import type { Procedure } from "../procedure.ts";
import { notInReal, setZf } from "./common.ts";
import {
  descriptorDpl,
  descriptorLimit,
  descriptorType,
  isConforming,
  isNull,
  isReadable,
  isWritableData,
  rplOf,
} from "./descriptor.ts";
import { type ProcedureText, perform } from "./procedure-text.ts";
import { Rights } from "./rights.ts";
import { longMode, SYS, wrapLinear } from "./state.ts";

const types = (...list: number[]): number => list.reduce((mask, t) => mask | (1 << t), 0);
const MEMORY_SEGMENTS = 0xffff_0000 | 0;
/** Descriptor types (S bit and type) that LAR and LSL know, outside and in IA-32e mode. */
const LAR_TYPES = {
  legacy: MEMORY_SEGMENTS | types(1, 2, 3, 4, 5, 9, 0xb, 0xc),
  long: MEMORY_SEGMENTS | types(2, 9, 0xb, 0xc),
};
const LSL_TYPES = {
  legacy: MEMORY_SEGMENTS | types(1, 2, 3, 9, 0xb),
  long: MEMORY_SEGMENTS | types(2, 9, 0xb),
};
const ACCESS_RIGHTS = 0x00f0_ff00;

/** (selector): SYS.INSPECTED = its descriptor, or 0 if it is null or outside its table. */
function inspectDescriptor(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  const base = fn.variable("i64", p.get(S.GDTR_BASE));
  const limit = fn.variable("i32", p.get(S.GDTR_LIMIT));
  fn.if(selector.and(4), () => {
    base.set(p.segBase(Seg.LDTR));
    limit.set(p.segRights(Seg.LDTR).and(Rights.UNUSABLE).select(p.i32(0), p.segLimit(Seg.LDTR)));
  });
  const index = selector.and(0xfff8);
  const unreachable = isNull(selector).or(index.or(7).gtU(limit.read()));
  fn.if(
    unreachable,
    () => p.set(SYS.INSPECTED, 0n),
    () =>
      p.set(SYS.INSPECTED, p.load(wrapLinear(p, base.read().add(index.extU())), 8, Access.SYSTEM)),
  );
}

/** Reads the descriptor of a selector: it (0 if none), and whether the program may use it. */
function inspect(insn: Insn, selector: Val): { d: Val; allowed: Val } {
  perform(insn, "inspectDescriptor", selector);
  const d = insn.get(SYS.INSPECTED);
  const dpl = descriptorDpl(d);
  const inner = insn.get(S.CPL).gtU(dpl).or(rplOf(selector).gtU(dpl));
  return { d, allowed: isConforming(d).or(inner.eqz()).and(d.ne(0)) };
}

function verify(isUsable: (d: Val) => Val): Semantics {
  return (insn) => {
    notInReal(insn);
    const { d, allowed } = inspect(insn, insn.rd(0).and(0xffff));
    setZf(insn, allowed.and(isUsable(d)));
  };
}

function look(known: typeof LAR_TYPES, value: (d: Val) => Val): Semantics {
  return (insn) => {
    notInReal(insn);
    const { d, allowed } = inspect(insn, insn.rd(1).and(0xffff));
    const mask = longMode(insn).select(insn.i32(known.long), insn.i32(known.legacy));
    const ok = allowed.and(mask.shrU(descriptorType(d)).and(1));
    insn.fn.if(ok, () => insn.wr(0, insn.bytes(0) === 8 ? value(d).extU() : value(d)));
    setZf(insn, ok);
  };
}

function arpl(insn: Insn): void {
  notInReal(insn);
  const source = rplOf(insn.rd(1));
  const destination = insn.place(0);
  const selector = destination.get();
  const raises = rplOf(selector).ltU(source);
  insn.fn.if(raises, () => destination.set(selector.and(0xfffc).or(source)));
  setZf(insn, raises);
}

export const inspectionProcedures: readonly ProcedureText[] = [
  { name: "inspectDescriptor", params: ["i32"], answer: "status", body: inspectDescriptor },
];

export const INSPECTION: SemanticsTable = {
  verr: verify(isReadable),
  verw: verify(isWritableData),
  lar: look(LAR_TYPES, (d) => d.high().and(ACCESS_RIGHTS)),
  lsl: look(LSL_TYPES, descriptorLimit),
  arpl,
};
