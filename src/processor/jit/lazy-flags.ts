/**
 * Flags of the last arithmetic instruction, kept as its operands until somebody asks.
 *
 * A region knows at each place what set the flags last, so most are never computed: a conditional jump compares the operands, an exit or a
 * reader of anything else makes the two words of semantics/flags.ts from them. flagUse says what an instruction does to the flags; one
 * that it does not know is given the words and may do as it likes.
 */

import type { Val } from "../ir/value.ts";
import { carryOfAdd, carryOfSub, signExtend } from "../semantics/flags.ts";
import { keysOf } from "../semantics/insn.ts";
import { FLOAT_ARITHMETIC } from "../semantics/simd/float-arithmetic.ts";
import { FLOAT_CONVERT } from "../semantics/simd/float-convert.ts";
import { MOVES } from "../semantics/simd/moves.ts";
import { PACKED_INTEGER } from "../semantics/simd/packed-integer.ts";
import { PACKED_MULTIPLY } from "../semantics/simd/packed-multiply.ts";
import { PACKED_SHIFT } from "../semantics/simd/packed-shift.ts";
import { SHUFFLE } from "../semantics/simd/shuffle.ts";
import { X87 } from "../semantics/x87/index.ts";

export type FlagKind = "add" | "sub" | "logic";

/** Operands and result of an addition, a subtraction or a logical operation (whose result alone matters). */
export interface LazyFlags {
  readonly kind: FlagKind;
  readonly bytes: number;
  readonly a: Val;
  readonly b: Val;
  readonly r: Val;
}

/** The kind and size alone, as it is known before code is made; "words" = in the two words. */
export type FlagShape = { readonly kind: FlagKind; readonly bytes: number } | "words";

const KINDS: Readonly<Record<string, FlagKind>> = {
  add: "add",
  xadd: "add",
  sub: "sub",
  cmp: "sub",
  neg: "sub",
  and: "logic",
  or: "logic",
  xor: "logic",
  test: "logic",
};

/** Neither read nor write flags, or read conditions only. */
const KEEPS: ReadonlySet<string> = new Set([
  ..."mov movzx movsx movsxd lea xchg nop pause cbw cwd bswap movbe not setcc cmovcc".split(" "),
  ..."cli sti swapgs rdtsc jcc jcxz loop jmp jmp_ind push pop call call_ind ret leave div idiv".split(
    " ",
  ),
  ...keysOf(MOVES, PACKED_INTEGER, PACKED_MULTIPLY, PACKED_SHIFT, SHUFFLE).filter(
    (sem) => sem !== "ptest",
  ),
  ...keysOf(FLOAT_ARITHMETIC, FLOAT_CONVERT, X87).filter((sem) => !/^fu?comip?$|^fcmov/.test(sem)),
]);

/** Read and write the words, but never write them under a condition. */
const WRITES: ReadonlySet<string> = new Set(
  "pushf adc sbb inc dec mul imul1 imul2 imul3 popcnt bt bts btr btc clc stc cmc loope loopne".split(
    " ",
  ),
);
/** So do these when their count is an immediate. */
const SHIFTS: ReadonlySet<string> = new Set("shl shr sar rol ror shld shrd".split(" "));

/** What an instruction leaves: operands of a kind, what was there before, or words. */
export function flagEffect(sem: string): FlagKind | "keeps" | "words" {
  const kind = Object.hasOwn(KINDS, sem) ? KINDS[sem] : undefined;
  return kind ?? (KEEPS.has(sem) ? "keeps" : "words");
}

/** How an instruction uses the flags: sets operands, keeps them, uses words, or may write words under a condition. */
export function flagUse(
  sem: string,
  hasFixedCount: boolean,
): "sets" | "keeps" | "words" | "conditional" {
  if (Object.hasOwn(KINDS, sem)) return "sets";
  if (KEEPS.has(sem)) return "keeps";
  return WRITES.has(sem) || (SHIFTS.has(sem) && hasFixedCount) ? "words" : "conditional";
}

const zeroExtend = (v: Val, bytes: number): Val =>
  bytes >= 4 ? v : v.and(bytes === 2 ? 0xffff : 0xff);

function signed(v: Val, bytes: number): Val {
  if (bytes >= 4) return v;
  return bytes === 2 ? v.sext16() : v.sext8();
}

/** The result word. */
export function resultWord({ bytes, r }: LazyFlags): Val {
  return signExtend(r, bytes);
}

/** The carry word. */
export function carryWordOf({ kind, bytes, a, b, r }: LazyFlags): Val {
  if (kind === "logic") return r.fn.i32(0);
  return kind === "add" ? carryOfAdd(bytes, a, b, r) : carryOfSub(bytes, a, b, r);
}

const parity = ({ r }: LazyFlags): Val => r.wrap().and(0xff).popcnt().and(1).xor(1);
const isZero = ({ r, bytes }: LazyFlags): Val => zeroExtend(r, bytes).eqz();
const isNegative = ({ r, bytes }: LazyFlags): Val => signed(r, bytes).ltS(0);

/** OF as the sign of a value of the operand's type. */
function overflow({ kind, a, b, r }: LazyFlags): Val {
  const differs = a.xor(b);
  return kind === "add" ? differs.not().and(a.xor(r)) : differs.and(a.xor(r));
}

function positive(f: LazyFlags, which: number): Val {
  const { kind, bytes, a, b, r } = f;
  const zero = r.fn.i32(0);
  const isSub = kind === "sub";
  const u = (v: Val): Val => zeroExtend(v, bytes);
  const s = (v: Val): Val => signed(v, bytes);
  switch (which) {
    case 0:
      return kind === "logic" ? zero : signed(overflow(f), bytes).ltS(0);
    case 1:
      if (kind === "logic") return zero;
      return isSub ? u(a).ltU(u(b)) : u(r).ltU(u(a));
    case 2:
      return isSub ? u(a).eq(u(b)) : isZero(f);
    case 3:
      if (kind === "logic") return isZero(f);
      return isSub ? u(a).leU(u(b)) : u(r).ltU(u(a)).or(isZero(f));
    case 4:
      return isNegative(f);
    case 5:
      return parity(f);
    case 6:
      if (kind === "logic") return isNegative(f);
      return isSub ? s(a).ltS(s(b)) : isNegative(f).xor(signed(overflow(f), bytes).ltS(0));
    default:
      if (kind === "logic") return s(r).leS(0);
      return isSub ? s(a).leS(s(b)) : positive(f, 6).or(isZero(f));
  }
}

/** Condition code 0..15 as 0 or 1 (i32). */
export function lazyCondition(f: LazyFlags, cc: number): Val {
  const holds = positive(f, cc >> 1);
  return cc & 1 ? holds.eqz() : holds;
}

/** The same flags from operands that were carried over in variables. */
export function fromOperands(kind: FlagKind, bytes: number, a: Val, b: Val): LazyFlags {
  if (kind === "logic") return { kind, bytes, a, b: a, r: a };
  return { kind, bytes, a, b, r: kind === "add" ? a.add(b) : a.sub(b) };
}
