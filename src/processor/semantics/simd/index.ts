/**
 * MMX, SSE to SSE4.2, AES, PCLMULQDQ, CRC32, and the saving and restoring of x87 and SSE state.
 *
 *   operands      availability, alignment, register files      mxcsr, soft-*, float-*   floating point
 *   packed-*, shuffle, moves   integer vectors                 fx-image, xsave          state areas
 */
import type { ModuleBuilder } from "../../ir/module.ts";
import type { SemanticsTable } from "../insn.ts";
import { AES, defineAes } from "./aes.ts";
import { APPROXIMATE, defineApproximations } from "./approximate.ts";
import { CARRYLESS, defineCarryless } from "./carryless.ts";
import { defineFloatArithmetic, FLOAT_ARITHMETIC } from "./float-arithmetic.ts";
import { defineFloatCompare, FLOAT_COMPARE } from "./float-compare.ts";
import { defineFloatConvert, FLOAT_CONVERT } from "./float-convert.ts";
import { defineFloatRound, FLOAT_ROUND } from "./float-round.ts";
import { defineFxImage, FX_IMAGE } from "./fx-image.ts";
import { defineMaskedCopy, MOVES } from "./moves.ts";
import { defineRaise } from "./mxcsr.ts";
import { defineAvailability } from "./operands.ts";
import { PACKED_INTEGER } from "./packed-integer.ts";
import { PACKED_MULTIPLY } from "./packed-multiply.ts";
import { PACKED_SHIFT } from "./packed-shift.ts";
import { SHUFFLE } from "./shuffle.ts";
import { defineSoftArithmetic } from "./soft-arithmetic.ts";
import { defineStringCompare, STRING_COMPARE } from "./string-compare.ts";
import { defineXsave, XSAVE } from "./xsave.ts";

/** Needs memR, memW and memCommit in the module. */
export function defineSimdProcedures(module: ModuleBuilder): void {
  defineAvailability(module);
  defineMaskedCopy(module);
  defineRaise(module);
  defineSoftArithmetic(module);
  defineFloatArithmetic(module);
  defineFloatCompare(module);
  defineFloatRound(module);
  defineFloatConvert(module);
  defineApproximations(module);
  defineStringCompare(module);
  defineAes(module);
  defineCarryless(module);
  defineFxImage(module);
  defineXsave(module);
}

export const SIMD: SemanticsTable = {
  ...MOVES,
  ...PACKED_INTEGER,
  ...PACKED_MULTIPLY,
  ...PACKED_SHIFT,
  ...SHUFFLE,
  ...FLOAT_ARITHMETIC,
  ...FLOAT_COMPARE,
  ...FLOAT_ROUND,
  ...FLOAT_CONVERT,
  ...APPROXIMATE,
  ...STRING_COMPARE,
  ...AES,
  ...CARRYLESS,
  ...FX_IMAGE,
  ...XSAVE,
};
