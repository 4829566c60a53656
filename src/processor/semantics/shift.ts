/**
 * Shifts and rotates. SDM Vol. 2, "SAL/SAR/SHL/SHR", "RCL/RCR/ROL/ROR", "SHLD", "SHRD".
 *
 * The count is taken modulo 32 (64 for 64-bit operands); a count of zero changes no flag, but a 32-bit register destination is still
 * zero-extended. With `previous` = the operand shifted by one step less, the bits that give CF and OF are the two ends of it, so the
 * carry word comes from `previous` without a look at the count. OF is thereby defined for every count, as the last step defines it.
 * AF, undefined for shifts, is cleared.
 */
import type { Val } from "../ir/value.ts";
import { readCf, signExtend } from "./flags.ts";
import type { Insn, Place, Semantics, SemanticsTable } from "./insn.ts";

const CF_OF = 0xc000_0000 | 0;
const OTHERS = 0x3fff_ffff;

/** A shift being built: `count` is masked (i32), `by` the same in the operand's type. */
interface Shift {
  readonly insn: Insn;
  readonly bytes: number;
  readonly count: Val;
  readonly by: Val;
  readonly destination: Place;
  readonly a: Val;
}

/** Reads count and destination; `countOperand` is 1, or 2 for double shifts. */
function begin(insn: Insn, countOperand: number): Shift {
  const bytes = insn.size;
  const count = insn.rd(countOperand).and(bytes === 8 ? 63 : 31);
  const destination = insn.place(0);
  const by = bytes === 8 ? count.extU() : count;
  return { insn, bytes, count, by, destination, a: destination.get() };
}

/** The two top bits of an operand-sized value at bits 31:30 (i32); bits below are left over. */
function topBits(v: Val, bytes: number): Val {
  if (bytes === 8) return v.high();
  return bytes === 4 ? v : v.shl(32 - 8 * bytes);
}

/** Carry word for CF = bit 0 of `previous` and OF = its top bit. */
function carryOfRightShift(previous: Val, bytes: number): Val {
  const low = previous.wrap();
  const top = topBits(previous, bytes).shrU(1);
  return low.shl(31).or(low.shl(30).xor(top).and(0x4000_0000));
}

/** Writes the result; sets all flags from it and `carry` unless the count is zero. */
function finish(s: Shift, r: Val, carry: (previousBy: Val) => Val): void {
  s.destination.set(r);
  s.insn.fn.if(s.count, () => {
    s.insn.setFlagResult(signExtend(r, s.bytes));
    s.insn.setFlagCarry(carry(s.by.sub(1)));
  });
}

const shl: Semantics = (insn) => {
  const s = begin(insn, 1);
  finish(s, s.a.shl(s.by), (by) => topBits(s.a.shl(by), s.bytes).and(CF_OF));
};

const shr: Semantics = (insn) => {
  const s = begin(insn, 1);
  finish(s, s.a.shrU(s.by), (by) => carryOfRightShift(s.a.shrU(by), s.bytes));
};

const sar: Semantics = (insn) => {
  const s = begin(insn, 1);
  const a = s.bytes === 1 ? s.a.sext8() : s.bytes === 2 ? s.a.sext16() : s.a;
  // OF = 0: carry[30] = CF.
  finish(s, a.shrS(s.by), (by) => a.shrS(by).wrap().shl(31).shrS(1));
};

/** An 8- or 16-bit value repeated over 32 bits, so that 32-bit rotation rotates it. */
function repeated(v: Val, bytes: number): Val {
  if (bytes === 1) return v.mul(0x0101_0101);
  return bytes === 2 ? v.or(v.shl(16)) : v;
}

/** Rotates change only CF and OF. `carry` makes their bits of the carry word from the rotated value. */
function rotate(direction: "rotl" | "rotr", carry: (r: Val) => Val): Semantics {
  return (insn) => {
    const s = begin(insn, 1);
    const r = repeated(s.a, s.bytes).bin(direction, s.by);
    s.destination.set(r);
    insn.fn.if(s.count, () => {
      const bits = carry(r);
      const word = s.bytes === 8 ? bits.high() : bits;
      insn.setFlagCarry(insn.flagCarry().and(OTHERS).or(word.and(CF_OF)));
    });
  };
}

/** ROL: CF = bit 0, OF ^ CF = top bit. ROR: CF = top bit, OF ^ CF = the one below. */
const rol = rotate("rotl", (r) => r.rotr(1));
const ror = rotate("rotr", (r) => r);

/** What a rotate through carry gives: the result, CF, and OF ^ CF (both 0/1). */
interface ThroughCarry {
  readonly r: Val;
  readonly cf: Val;
  readonly overflowXorCarry: Val;
}

const bit = (v: Val, n: number): Val => v.shrU(n).wrap().and(1);

function rotateThroughCarry(turn: (s: Shift, n: Val) => ThroughCarry): Semantics {
  return (insn) => {
    const s = begin(insn, 1);
    const steps = s.bytes < 4 ? s.count.remU(8 * s.bytes + 1) : s.count;
    insn.fn.if(
      s.count,
      () => {
        const { r, cf, overflowXorCarry } = turn(s, s.bytes === 8 ? steps.extU() : steps);
        s.destination.set(r);
        const flags = cf.shl(31).or(overflowXorCarry.shl(30));
        insn.setFlagCarry(insn.flagCarry().and(OTHERS).or(flags));
      },
      () => s.destination.set(s.a),
    );
  };
}

const rcl = rotateThroughCarry((s, n) => {
  const top = 8 * s.bytes - 1;
  const cfIn = s.bytes === 8 ? readCf(s.insn).extU() : readCf(s.insn);
  if (s.bytes < 4) {
    const wide = s.a.or(cfIn.shl(top + 1));
    const turned = wide.shl(n).or(wide.shrU(n.neg().add(top + 2)));
    return { r: turned, cf: bit(turned, top + 1), overflowXorCarry: bit(turned, top) };
  }
  // a >> (width + 1 - n), in two steps because that may be the width.
  const fromTop = s.a.shrU(1).shrU(n.neg().add(top + 1));
  const r = s.a
    .shl(n)
    .or(cfIn.shl(n.sub(1)))
    .or(fromTop);
  return {
    r,
    cf: s.a
      .shrU(n.neg().add(top + 1))
      .wrap()
      .and(1),
    overflowXorCarry: bit(r, top),
  };
});

const rcr = rotateThroughCarry((s, n) => {
  const top = 8 * s.bytes - 1;
  const cfIn = s.bytes === 8 ? readCf(s.insn).extU() : readCf(s.insn);
  const outcome = (r: Val, cf: Val): ThroughCarry => ({
    r,
    cf,
    overflowXorCarry: bit(r, top)
      .xor(bit(r, top - 1))
      .xor(cf),
  });
  if (s.bytes < 4) {
    const wide = s.a.or(cfIn.shl(top + 1));
    const turned = wide.shrU(n).or(wide.shl(n.neg().add(top + 2)));
    return outcome(turned, bit(turned, top + 1));
  }
  const fromBottom = s.a.shl(1).shl(n.neg().add(top + 1));
  const r = s.a
    .shrU(n)
    .or(cfIn.shl(n.neg().add(top + 1)))
    .or(fromBottom);
  return outcome(r, s.a.shrU(n.sub(1)).wrap().and(1));
});

/**
 * 16-bit double shifts: a count above 16 is undefined; here, as on hardware, the second operand follows itself, so that they are
 * shifts of 48 bits.
 */
function doubleShift16(insn: Insn, isLeft: boolean): void {
  const b = insn.rd(1).extU();
  const s = begin(insn, 2);
  const a = s.a.extU();
  const all = isLeft ? a.shl(32).or(b.mul(0x1_0001)) : b.mul(0x1_0001_0000).or(a);
  const shifted = (by: Val): Val => (isLeft ? all.shl(by.extU()) : all.shrU(by.extU()));
  const r = isLeft ? shifted(s.by).high().and(0xffff) : shifted(s.by).wrap().and(0xffff);
  finish(s, r, (by) => {
    const previous = shifted(by);
    return isLeft ? previous.shrU(16).wrap().and(CF_OF) : carryOfDoubleRight(previous, r, 2);
  });
}

/** CF = the last bit shifted out; OF = change of sign by the last step = the two top bits of the result differ. */
function carryOfDoubleRight(previous: Val, r: Val, bytes: number): Val {
  const cf = previous.wrap();
  const tops = topBits(r, bytes);
  return cf.shl(31).or(cf.shl(30).xor(tops.shrU(1)).xor(tops).and(0x4000_0000));
}

const shld: Semantics = (insn) => {
  if (insn.size === 2) {
    doubleShift16(insn, true);
    return;
  }
  const b = insn.rd(1);
  const s = begin(insn, 2);
  // b >> (width - n), in two steps because that may be the width.
  const low = b.shrU(1).shrU(s.by.xor(8 * s.bytes - 1));
  finish(s, s.a.shl(s.by).or(low), (by) => topBits(s.a.shl(by), s.bytes).and(CF_OF));
};

const shrd: Semantics = (insn) => {
  if (insn.size === 2) {
    doubleShift16(insn, false);
    return;
  }
  const b = insn.rd(1);
  const s = begin(insn, 2);
  const high = b.shl(1).shl(s.by.xor(8 * s.bytes - 1));
  const r = s.a.shrU(s.by).or(high);
  finish(s, r, (by) => carryOfDoubleRight(s.a.shrU(by), r, s.bytes));
};

export const SHIFT: SemanticsTable = { shl, shr, sar, rol, ror, rcl, rcr, shld, shrd };
