/**
 * Integer arithmetic and logic, moves and tests. SDM Vol. 2, one entry per key.
 */
import type { Val } from "../ir/value.ts";
import {
  condition,
  flagsAdd,
  flagsAddCarry,
  flagsLogic,
  flagsSub,
  flagsSubBorrow,
  readCf,
  setCf,
  signExtend,
} from "./flags.ts";
import type { Insn, Semantics, SemanticsTable } from "./insn.ts";

const carryIn = (insn: Insn): Val => (insn.size === 8 ? readCf(insn).extU() : readCf(insn));

/** Truncates a result to the operand size where the representation is wider (8 and 16 bits in i32). */
function truncate(v: Val, bytes: number): Val {
  if (bytes === 1) return v.and(0xff);
  if (bytes === 2) return v.and(0xffff);
  return v;
}

function arithmetic(
  compute: (insn: Insn, a: Val, b: Val) => Val,
  flags: typeof flagsAdd,
): Semantics {
  return (insn) => {
    const source = insn.rd(1);
    const destination = insn.place(0);
    const a = destination.get();
    const r = compute(insn, a, source);
    destination.set(r);
    flags(insn, insn.size, a, source, r);
  };
}

function logic(compute: (a: Val, b: Val) => Val): Semantics {
  return (insn) => {
    const source = insn.rd(1);
    const destination = insn.place(0);
    const r = compute(destination.get(), source);
    destination.set(r);
    flagsLogic(insn, insn.size, r);
  };
}

function increment(flags: typeof flagsAddCarry): Semantics {
  return (insn) => {
    const destination = insn.place(0);
    const a = destination.get();
    const one = insn.constant(1);
    const r = flags === flagsAddCarry ? a.add(one) : a.sub(one);
    destination.set(r);
    const cf = readCf(insn);
    flags(insn, insn.size, a, one, r);
    setCf(insn, cf);
  };
}

function widen(signed: boolean): Semantics {
  return (insn) => {
    const from = insn.bytes(1);
    const v = insn.rd(1);
    if (insn.size === 8) insn.wr(0, signed ? signExtend(v, from) : v.extU());
    else insn.wr(0, signed && from < 4 ? (from === 1 ? v.sext8() : v.sext16()) : v);
  };
}

export const INTEGER: SemanticsTable = {
  add: arithmetic((_, a, b) => a.add(b), flagsAdd),
  sub: arithmetic((_, a, b) => a.sub(b), flagsSub),
  adc: arithmetic((insn, a, b) => a.add(b).add(carryIn(insn)), flagsAddCarry),
  sbb: arithmetic((insn, a, b) => a.sub(b).sub(carryIn(insn)), flagsSubBorrow),
  and: logic((a, b) => a.and(b)),
  or: logic((a, b) => a.or(b)),
  xor: logic((a, b) => a.xor(b)),
  cmp: (insn) => {
    const a = insn.rd(0);
    const b = insn.rd(1);
    flagsSub(insn, insn.size, a, b, a.sub(b));
  },
  test: (insn) => flagsLogic(insn, insn.size, insn.rd(0).and(insn.rd(1))),
  inc: increment(flagsAddCarry),
  dec: increment(flagsSubBorrow),
  neg: (insn) => {
    const destination = insn.place(0);
    const b = destination.get();
    const zero = insn.constant(0);
    const r = zero.sub(b);
    destination.set(r);
    flagsSub(insn, insn.size, zero, b, r);
  },
  not: (insn) => {
    const destination = insn.place(0);
    destination.set(destination.get().not());
  },
  mov: (insn) => insn.wr(0, insn.rd(1)),
  movzx: widen(false),
  movsx: widen(true),
  movsxd: widen(true),
  lea: (insn) => insn.wr(0, insn.size === 8 ? insn.offset() : insn.offset().wrap()),
  xchg: (insn) => {
    const memory = insn.kind(0) === "m" ? 0 : 1;
    const destination = insn.place(memory);
    const a = destination.get();
    const b = insn.rd(1 - memory);
    destination.set(b);
    insn.wr(1 - memory, a);
  },
  xadd: (insn) => {
    const destination = insn.place(0);
    const a = destination.get();
    const b = insn.rd(1);
    const r = a.add(b);
    destination.set(r);
    // The register is written second: XADD reg, same reg ends with the sum.
    if (insn.kind(0) === "m") insn.wr(1, a);
    else {
      insn.wr(1, a);
      destination.set(r);
    }
    flagsAdd(insn, insn.size, a, b, r);
  },
  setcc: (insn) => insn.wr(0, condition(insn, insn.shape.cc)),
  cmovcc: (insn) => {
    const b = insn.rd(1);
    insn.wr(0, condition(insn, insn.shape.cc).select(b, insn.rd(0)));
  },
  bswap: (insn) => {
    const v = insn.rd(0);
    if (insn.size === 8) {
      insn.wr(0, swap32(v.high()).extU().or(swap32(v.wrap()).extU().shl(32)));
    } else insn.wr(0, insn.size === 4 ? swap32(v) : insn.i32(0));
  },
  movbe: (insn) => {
    const v = insn.rd(1);
    if (insn.size === 8) {
      insn.wr(0, swap32(v.high()).extU().or(swap32(v.wrap()).extU().shl(32)));
    } else insn.wr(0, insn.size === 4 ? swap32(v) : truncate(v.shl(8).or(v.shrU(8)), 2));
  },
  nop: () => {},
  cbw: (insn) => {
    // CBW, CWDE, CDQE by operation size.
    const s = insn.shape.opsize;
    const half = insn.gpr(0, (s / 2) as 1 | 2 | 4);
    if (s === 8) insn.setGpr(0, 8, half.extS());
    else insn.setGpr(0, s, s === 2 ? half.sext8() : half.sext16());
  },
  cwd: (insn) => {
    // CWD, CDQ, CQO by operation size.
    const s = insn.shape.opsize;
    const a = insn.gpr(0, s);
    if (s === 8) insn.setGpr(2, 8, a.shrS(63));
    else insn.setGpr(2, s, (s === 2 ? a.sext16() : a).shrS(31));
  },
};

function swap32(v: Val): Val {
  return v
    .rotl(8)
    .and(0x00ff00ff)
    .or(v.rotr(8).and(0xff00ff00 | 0));
}
