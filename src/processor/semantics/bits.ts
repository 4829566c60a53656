/**
 * Bit tests, scans, counts, and compare-and-exchange. SDM Vol. 2, one entry per key.
 *
 * A bit offset in a register reaches beyond a memory operand: it selects the operand-sized element that holds the bit, up or down from
 * the operand's address. BT and its family change CF only.
 */

import type { Val } from "../ir/value.ts";
import { Access, Vector } from "./cpu.ts";
import { arithmeticImage, Flag, flagsLogic, flagsSub, setArithmeticImage, setCf } from "./flags.ts";
import type { Insn, Place, Semantics, SemanticsTable } from "./insn.ts";

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const LOG2 = { 2: 1, 4: 2, 8: 3 } as const;

type Change = (v: Val, mask: Val) => Val;

/** True if operand 1 is a register whose value reaches beyond the memory operand 0. */
const reachesBeyond = (insn: Insn): boolean => insn.kind(0) === "m" && insn.kind(1) === "r";

/** Linear address of the element that holds bit `offset` (operand-sized, signed). */
function elementAddress(insn: Insn, offset: Val, write: boolean): Val {
  const bytes = insn.bytes(0) as 2 | 4 | 8;
  const signed = bytes === 8 ? offset : (bytes === 2 ? offset.sext16() : offset).extS();
  const log2 = LOG2[bytes];
  const displacement = signed.shrS(log2 + 3).shl(log2);
  // The effective address wraps at the address size with the displacement in it; the segment comes after.
  const { addrSize } = insn.shape;
  const mask = addrSize === 8 ? -1n : addrSize === 4 ? 0xffff_ffffn : 0xffffn;
  return insn.linear(insn.offset().add(displacement).and(mask), bytes, write);
}

/** Bit number within the element, in the operand's type. */
function bitNumber(insn: Insn, offset: Val): Val {
  const bytes = insn.size;
  const masked = offset.and(8 * bytes - 1);
  return bytes === 8 ? masked.extU() : masked;
}

const bt: Semantics = (insn) => {
  const offset = insn.rd(1);
  const bytes = insn.bytes(0);
  const v = reachesBeyond(insn)
    ? insn.load(elementAddress(insn, offset, false), bytes, insn.memFlags())
    : insn.rd(0);
  setCf(insn, v.shrU(bitNumber(insn, offset)).wrap().and(1));
};

function elementPlace(insn: Insn, offset: Val): Place {
  const bytes = insn.bytes(0);
  const linear = elementAddress(insn, offset, true);
  const host = insn.hostW(linear, bytes, insn.memFlags().or(Access.MODIFY));
  return {
    get: () => insn.raw(bytes, host),
    set: (v) => {
      insn.setRaw(bytes, host, v);
      insn.commit(host);
    },
  };
}

function testAndChange(change: Change): Semantics {
  return (insn) => {
    const offset = insn.rd(1);
    const destination = reachesBeyond(insn) ? elementPlace(insn, offset) : insn.place(0);
    const n = bitNumber(insn, offset);
    const v = destination.get();
    destination.set(change(v, insn.constant(1).shl(n)));
    setCf(insn, v.shrU(n).wrap().and(1));
  };
}

/** Scans leave the destination alone if there is no bit. Flags but ZF, undefined, are those of the source. */
function scan(index: (v: Val) => Val): Semantics {
  return (insn) => {
    const v = insn.rd(1);
    insn.fn.if(v.nez(), () => insn.wr(0, index(v)));
    flagsLogic(insn, insn.size, v);
  };
}

const popcnt: Semantics = (insn) => {
  const v = insn.rd(1);
  insn.wr(0, v.popcnt());
  // ZF alone may be set: a result of 1 has odd parity, a result of 0 has it corrected.
  insn.setFlagResult(v.nez().extU());
  insn.setFlagCarry(v.eqz().shl(8));
};

const cmpxchg: Semantics = (insn) => {
  const bytes = insn.bytes(0) as 1 | 2 | 4 | 8;
  const source = insn.rd(1);
  const destination = insn.place(0);
  const old = destination.get();
  const expected = insn.gpr(RAX, bytes);
  insn.fn.if(
    old.eq(expected),
    () => destination.set(source),
    () => insn.setGpr(RAX, bytes, old),
  );
  flagsSub(insn, bytes, expected, old, expected.sub(old));
};

/** CMPXCHG8B (half = 4) and CMPXCHG16B (half = 8): RDX:RAX against memory, RCX:RBX into it. */
function cmpxchgPair(half: 4 | 8): Semantics {
  return (insn) => {
    const linear = insn.ea(2 * half, true);
    if (half === 8) insn.faultIf(linear.and(15).ne(0), Vector.GP);
    const host = insn.hostW(linear, 2 * half, insn.memFlags().or(Access.MODIFY));
    const low = insn.raw(half, host);
    const high = insn.raw(half, host, half);
    const equal = low.eq(insn.gpr(RAX, half)).and(high.eq(insn.gpr(RDX, half)));
    insn.fn.if(
      equal,
      () => {
        insn.setRaw(half, host, insn.gpr(RBX, half));
        insn.setRaw(half, host, insn.gpr(RCX, half), half);
        insn.commit(host);
      },
      () => {
        insn.setGpr(RAX, half, low);
        insn.setGpr(RDX, half, high);
      },
    );
    setArithmeticImage(insn, arithmeticImage(insn).and(~Flag.ZF).or(equal.shl(6)));
  };
}

export const BITS: SemanticsTable = {
  bt,
  bts: testAndChange((v, mask) => v.or(mask)),
  btr: testAndChange((v, mask) => v.and(mask.not())),
  btc: testAndChange((v, mask) => v.xor(mask)),
  bsf: scan((v) => v.ctz()),
  bsr: scan((v) => (v.type === "i64" ? v.clz().xor(63) : v.clz().xor(31))),
  popcnt,
  cmpxchg,
  cmpxchg8b: cmpxchgPair(4),
  cmpxchg16b: cmpxchgPair(8),
};
