/**
 * Moves of MMX and XMM registers, fences and cache hints. SDM Vol. 2, one entry per key.
 *
 * Non-temporal stores are stores, fences and prefetches are nothing: this processor is in order and has no cache.
 * A scalar load clears the rest of the register, a scalar register move keeps it.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { POISON, S } from "../../state/layout.ts";
import { Access } from "../cpu.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import {
  enterMmx,
  highHalf,
  isMmx,
  lowHalf,
  readAligned,
  readLow,
  requireMmx,
  requireSse,
  requireUnit,
  writeAligned,
  writeMmx,
  zeroExtend,
} from "./operands.ts";
import { RESULT } from "./scratch.ts";

const aligned: Semantics = (insn) => {
  requireSse(insn);
  writeAligned(insn, 0, readAligned(insn, 1));
};

const unaligned: Semantics = (insn) => {
  requireSse(insn);
  insn.wr(0, insn.rd(1));
};

/** MOVSS, MOVSD: the size is the operand's. */
const scalar: Semantics = (insn) => {
  requireSse(insn);
  const v = insn.rd(1);
  if (insn.kind(1) === "m") insn.regWrite(0, 16, zeroExtend(v));
  else insn.wr(0, v);
};

/** MOVQ between MMX registers and memory, or between XMM registers and memory. */
const quad: Semantics = (insn) => {
  const register = insn.kind(0) === "m" ? 1 : 0;
  requireUnit(insn, register);
  const v = readLow(insn, 1, 8);
  if (insn.kind(0) === "m") {
    insn.wr(0, v);
    if (isMmx(insn, 1)) enterMmx(insn);
  } else if (isMmx(insn)) writeMmx(insn, 0, zeroExtend(v));
  else insn.regWrite(0, 16, zeroExtend(v));
};

/** MOVD, MOVQ between a vector register and a general one or memory. */
const general: Semantics = (insn) => {
  const toVector = insn.kind(0) === "x" || insn.kind(0) === "q";
  requireUnit(insn, toVector ? 0 : 1);
  const v = insn.rd(1);
  if (!toVector) {
    insn.wr(0, v);
    if (isMmx(insn, 1)) enterMmx(insn);
  } else if (isMmx(insn)) writeMmx(insn, 0, zeroExtend(v));
  else insn.regWrite(0, 16, zeroExtend(v));
};

const replaceHigh = (v: Val, high: Val): Val => v.fn.lane("i64x2.replace_lane", 1, v, high);

const lowQuad: Semantics = (insn) => {
  requireSse(insn);
  if (insn.kind(0) === "m") insn.wr(0, readLow(insn, 1, 8));
  else insn.regWrite(0, 8, readLow(insn, 1, 8));
};

const highQuad: Semantics = (insn) => {
  requireSse(insn);
  if (insn.kind(0) === "m") {
    insn.store(insn.ea(8, true), 8, highHalf(insn.regRead(1, 16)), insn.memFlags());
  } else {
    const high = readLow(insn, 1, 8);
    insn.regWrite(0, 16, replaceHigh(insn.regRead(0, 16), high));
  }
};

/** A shuffle of 32-bit elements of the source, which is aligned. */
function duplicate(lanes: readonly number[]): Semantics {
  return (insn) => {
    requireSse(insn);
    const v = readAligned(insn, 1);
    const bytes = lanes.flatMap((n) => [4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3]);
    insn.regWrite(0, 16, insn.fn.lane("i8x16.shuffle", bytes, v, v));
  };
}

function signMask(name: string): Semantics {
  return (insn) => {
    requireUnit(insn, 1);
    const bits = insn.fn.op(name, insn.regRead(1, isMmx(insn, 1) ? 8 : 16));
    insn.wr(0, insn.bytes(0) === 8 ? bits.extU() : bits);
  };
}

const byteSignMask: Semantics = (insn) => {
  if (!isMmx(insn, 1)) return signMask("i8x16.bitmask")(insn);
  requireMmx(insn);
  const bits = insn.fn.op("i8x16.bitmask", zeroExtend(insn.regRead(1, 8)));
  enterMmx(insn);
  insn.wr(0, insn.bytes(0) === 8 ? bits.extU() : bits);
};

/** Stores the selected bytes of `value` to host, which stands for byte `first`. */
export function defineMaskedCopy(module: ModuleBuilder): void {
  module.function("simdMaskedCopy", ["i32", "i32", "i32", "v128"], [], (fn) => {
    const start = fn.param(0).sub(fn.param(1));
    fn.store("v128.store", 0, fn.param(3), RESULT);
    const left = fn.variable("i32", fn.param(2));
    fn.while(
      () => left.read(),
      () => {
        const bits = left.read();
        const n = bits.ctz();
        fn.store("i32.store8", start.add(n), fn.load("i32.load8_u", n, RESULT));
        left.set(bits.and(bits.sub(1)));
      },
    );
  });
}

/**
 * MASKMOVDQU, MASKMOVQ: only the bytes from the first to the last selected one are accessed, so bytes beyond them do not fault.
 * An empty mask writes nothing and checks the segment only.
 */
const maskedStore: Semantics = (insn) => {
  const { fn } = insn;
  const bytes = isMmx(insn, 1) ? 8 : 16;
  requireUnit(insn, 1);
  const read = (i: number): Val =>
    bytes === 16 ? insn.regRead(i, 16) : zeroExtend(insn.regRead(i, 8));
  const mask = fn.op("i8x16.shr_s", read(2), fn.i32(7));
  const selected = fn.op("i8x16.bitmask", mask);
  const linear = insn.ea(bytes, true);
  fn.if(selected, () => {
    const first = selected.ctz();
    const count = fn.i32(32).sub(selected.clz()).sub(first);
    const start = linear.eq(POISON).select(linear, linear.add(first.extU()));
    const host = fn.call(insn.module.get("memW"), start, count, insn.memFlags().or(Access.BYTES));
    insn.propagate(host.eqz());
    fn.callVoid(insn.module.get("simdMaskedCopy"), host, first, selected, read(1));
    insn.commit(host);
  });
  if (bytes === 8) enterMmx(insn);
};

const nothing: Semantics = () => {};

/** CLFLUSH is checked like a load of one byte. */
const touch: Semantics = (insn) => {
  insn.hostR(insn.ea(1, false), 1, insn.memFlags());
};

export const MOVES: SemanticsTable = {
  movaps: aligned,
  movapd: aligned,
  movdqa: aligned,
  movntps: aligned,
  movntpd: aligned,
  movntdq: aligned,
  movntdqa: aligned,
  movups: unaligned,
  movupd: unaligned,
  movdqu: unaligned,
  lddqu: unaligned,
  movss: scalar,
  movsd_xmm: scalar,
  movq: quad,
  movntq: quad,
  movd: general,
  movnti: (insn) => insn.wr(0, insn.rd(1)),
  movlps: lowQuad,
  movlpd: lowQuad,
  movhps: highQuad,
  movhpd: highQuad,
  movhlps: (insn) => {
    requireSse(insn);
    insn.regWrite(0, 8, highHalf(insn.regRead(1, 16)));
  },
  movlhps: (insn) => {
    requireSse(insn);
    insn.regWrite(0, 16, replaceHigh(insn.regRead(0, 16), insn.regRead(1, 8)));
  },
  movddup: (insn) => {
    requireSse(insn);
    insn.regWrite(0, 16, insn.fn.op("i64x2.splat", readLow(insn, 1, 8)));
  },
  movsldup: duplicate([0, 0, 2, 2]),
  movshdup: duplicate([1, 1, 3, 3]),
  movq2dq: (insn) => {
    requireSse(insn);
    requireMmx(insn);
    const v = insn.regRead(1, 8);
    enterMmx(insn);
    insn.regWrite(0, 16, zeroExtend(v));
  },
  movdq2q: (insn) => {
    requireSse(insn);
    requireMmx(insn);
    writeMmx(insn, 0, zeroExtend(lowHalf(insn.regRead(1, 16))));
  },
  movmskps: signMask("i32x4.bitmask"),
  movmskpd: signMask("i64x2.bitmask"),
  pmovmskb: byteSignMask,
  maskmovdqu: maskedStore,
  maskmovq: maskedStore,
  emms: (insn) => {
    requireMmx(insn);
    enterMmx(insn);
    insn.set(S.FTAG_EMPTY, 0xff);
  },
  lfence: nothing,
  sfence: nothing,
  mfence: nothing,
  prefetch: nothing,
  clflush: touch,
  clflushopt: touch,
};
