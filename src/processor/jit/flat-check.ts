/**
 * What 32-bit code of a region takes for granted and the mode (state/layout.ts, Mode.FLAT) does not say. Nothing in a region loads a segment,
 * so it is enough to look once, when the region is entered.
 */
import type { FunctionBuilder } from "../ir/function.ts";
import type { Val } from "../ir/value.ts";
import { Rights } from "../semantics/system/rights.ts";
import { gprAt, SEG_LIMIT, SEG_RIGHTS, segmentAt } from "../state/layout.ts";

const RSP = 4;
const NO_LIMIT = -1;
const { UNUSABLE, CODE, EXPAND_DOWN, READABLE, WRITABLE } = Rights;

/**
 * Nonzero (i32) if the upper half of RSP is not clear (stack instructions keep it), or a segment has a limit or the wrong type.
 * `segments`: numbers, and whether they are written through.
 */
export function isNotFlat(fn: FunctionBuilder, segments: ReadonlyMap<number, boolean>): Val {
  let isOther = fn.load("i32.load", 0, gprAt(RSP) + 4);
  for (const [seg, isWritten] of segments) {
    const rights = fn.load("i32.load", 0, segmentAt(seg) + SEG_RIGHTS);
    const hasLimit = fn.load("i32.load", 0, segmentAt(seg) + SEG_LIMIT).xor(NO_LIMIT);
    const data = rights.and(UNUSABLE | CODE | EXPAND_DOWN | WRITABLE).eq(WRITABLE);
    const code = rights.and(UNUSABLE | CODE | READABLE).eq(CODE | READABLE);
    isOther = isOther.or(hasLimit).or((isWritten ? data : data.or(code)).eqz());
  }
  return isOther;
}
