/**
 * Which shapes a region executes itself. Everything else leaves to the interpreter for one instruction.
 * A semantics may be listed only if it touches general registers, XMM registers and flags through its Insn alone (a procedure that reads
 * them from the state block would see old values).
 */
import { BITS } from "../semantics/bits.ts";
import { BRANCH } from "../semantics/branch.ts";
import { keysOf, type Shape } from "../semantics/insn.ts";
import { INTEGER } from "../semantics/integer.ts";
import { MULTIPLY } from "../semantics/multiply.ts";
import { SHIFT } from "../semantics/shift.ts";
import { AES } from "../semantics/simd/aes.ts";
import { CARRYLESS } from "../semantics/simd/carryless.ts";
import { FLOAT_ARITHMETIC } from "../semantics/simd/float-arithmetic.ts";
import { FLOAT_COMPARE } from "../semantics/simd/float-compare.ts";
import { FLOAT_CONVERT } from "../semantics/simd/float-convert.ts";
import { FLOAT_ROUND } from "../semantics/simd/float-round.ts";
import { MOVES } from "../semantics/simd/moves.ts";
import { PACKED_INTEGER } from "../semantics/simd/packed-integer.ts";
import { PACKED_MULTIPLY } from "../semantics/simd/packed-multiply.ts";
import { PACKED_SHIFT } from "../semantics/simd/packed-shift.ts";
import { SHUFFLE } from "../semantics/simd/shuffle.ts";
import { X87 } from "../semantics/x87/index.ts";
import { Mode } from "../state/layout.ts";

const VECTOR = new Set(
  keysOf(
    ...[MOVES, PACKED_INTEGER, PACKED_MULTIPLY, PACKED_SHIFT, SHUFFLE],
    ...[FLOAT_ARITHMETIC, FLOAT_COMPARE, FLOAT_CONVERT, FLOAT_ROUND, AES, CARRYLESS],
  ),
);
/** Write memory through their own procedures. */
const MASKED_MOVES = new Set(["maskmovq", "maskmovdqu"]);
/** Of the x87: what reads or writes the whole state. */
const X87_STATE = new Set(["fldenv", "fnstenv", "fnsave", "frstor", "fwait"]);
const FPU = new Set(keysOf(X87).filter((sem) => !X87_STATE.has(sem)));
const GENERAL = new Set([
  ...keysOf(INTEGER, SHIFT, MULTIPLY, BRANCH).filter((sem) => sem !== "bound"),
  ..."bsf bsr popcnt cmpxchg cmpxchg8b cmpxchg16b push pop call call_ind ret leave clc stc cmc cld std pause".split(
    " ",
  ),
]);
/** Of the system: what changes neither privilege nor translations, and uses no procedure that looks at registers. */
const SYSTEM = new Set(["cli", "sti", "swapgs", "rdtsc"]);
const BIT_TESTS = new Set(keysOf(BITS).filter((sem) => sem.startsWith("bt")));

const isOf = (shape: Shape, kinds: string): boolean =>
  shape.operands.every(({ kind }) => kinds.includes(kind));

export function isInlined(shape: Shape): boolean {
  const { sem } = shape;
  if (VECTOR.has(sem)) return !MASKED_MOVES.has(sem) && isOf(shape, "rmixq");
  if (FPU.has(sem)) return isOf(shape, "tmr");
  if (GENERAL.has(sem)) return isOf(shape, "rmij");
  if (SYSTEM.has(sem)) return true;
  if (sem === "pushf") return shape.mode === Mode.CODE64;
  return BIT_TESTS.has(sem) && isOf(shape, "rmi");
}
