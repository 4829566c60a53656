/**
 * Which shapes a region executes itself. Everything else leaves to the interpreter for one instruction.
 * A semantics may be listed only if it touches general registers and flags through its Insn alone (a procedure that reads them from the
 * state block would see old values).
 */
import { BITS } from "../semantics/bits.ts";
import { BRANCH } from "../semantics/branch.ts";
import type { Shape } from "../semantics/insn.ts";
import { INTEGER } from "../semantics/integer.ts";
import { SHIFT } from "../semantics/shift.ts";
import { FLOAT_ARITHMETIC } from "../semantics/simd/float-arithmetic.ts";
import { FLOAT_CONVERT } from "../semantics/simd/float-convert.ts";
import { MOVES } from "../semantics/simd/moves.ts";
import { PACKED_INTEGER } from "../semantics/simd/packed-integer.ts";
import { PACKED_MULTIPLY } from "../semantics/simd/packed-multiply.ts";
import { PACKED_SHIFT } from "../semantics/simd/packed-shift.ts";
import { SHUFFLE } from "../semantics/simd/shuffle.ts";

const WHOLE_TABLES = new Set([INTEGER, SHIFT].flatMap((t) => Object.keys(t)));
const VECTOR = new Set(
  [
    MOVES,
    PACKED_INTEGER,
    PACKED_MULTIPLY,
    PACKED_SHIFT,
    SHUFFLE,
    FLOAT_ARITHMETIC,
    FLOAT_CONVERT,
  ].flatMap((t) => Object.keys(t)),
);
/** Write memory through their own procedures. */
const NOT_INLINED = new Set(["maskmovq", "maskmovdqu"]);
const SINGLE = new Set([
  "imul2",
  "imul3",
  "bsf",
  "bsr",
  "popcnt",
  "push",
  "pop",
  "call",
  "call_ind",
  "ret",
  "leave",
  "clc",
  "stc",
  "cmc",
  ...Object.keys(BRANCH).filter((k) => k !== "bound"),
]);
const BIT_TESTS = new Set(Object.keys(BITS).filter((k) => k.startsWith("bt")));

export function isInlined(shape: Shape): boolean {
  const { sem, operands } = shape;
  if (VECTOR.has(sem))
    return !NOT_INLINED.has(sem) && operands.every((o) => "rmix".includes(o.kind));
  if (operands.some((o) => !"rmij".includes(o.kind))) return false;
  if (WHOLE_TABLES.has(sem)) return !(sem.startsWith("rc") && operands.length > 0);
  if (SINGLE.has(sem)) return true;
  return BIT_TESTS.has(sem) && operands[0]!.kind === "r";
}
