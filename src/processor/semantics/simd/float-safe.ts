/**
 * When is a native operation all there is to it? If no operand is denormal and the result is finite and above the least normal number (or
 * an exact zero), an operation rounded to nearest can raise nothing but PE, and DAZ and FTZ do not matter.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { Val } from "../../ir/value.ts";
import type { Format } from "./float-format.ts";
import {
  aboveLeast,
  both,
  either,
  finite,
  isZero,
  notDenormal,
  scalarAboveLeast,
  scalarFinite,
  scalarIsZero,
  scalarNotDenormal,
} from "./float-vector.ts";

export type Operation = "Add" | "Sub" | "Mul" | "Div";
/** AddSub: subtracts in even elements, adds in odd ones. */
export type PackedOperation = Operation | "AddSub";

/** The WebAssembly name. */
export const native = (op: Operation): string => op.toLowerCase();

/** Mask of the elements of which only PE is in question. Tiny sums are exact, so a sum need only not be denormal. */
export function packedSafe(
  fn: FunctionBuilder,
  f: Format,
  op: PackedOperation,
  [a, b, r]: readonly [Val, Val, Val],
): Val {
  const operands = both(fn, notDenormal(fn, f, a), notDenormal(fn, f, b));
  if (op === "Mul" || op === "Div") {
    const zeroOperand =
      op === "Mul" ? either(fn, isZero(fn, f, a), isZero(fn, f, b)) : isZero(fn, f, a);
    const exactZero = both(fn, isZero(fn, f, r), zeroOperand);
    return both(fn, operands, either(fn, aboveLeast(fn, f, r), exactZero));
  }
  return both(fn, operands, both(fn, notDenormal(fn, f, r), finite(fn, f, r)));
}

/** The same of scalar bits in the format's own width: i32, nonzero if safe. */
export function scalarSafe(f: Format, op: Operation, [a, b, r]: readonly [Val, Val, Val]): Val {
  const operands = scalarNotDenormal(f, a).and(scalarNotDenormal(f, b));
  if (op === "Mul" || op === "Div") {
    const zeroOperand = op === "Mul" ? scalarIsZero(a).or(scalarIsZero(b)) : scalarIsZero(a);
    const exactZero = scalarIsZero(r).and(zeroOperand);
    return operands.and(scalarAboveLeast(f, r).or(exactZero));
  }
  return operands.and(scalarNotDenormal(f, r)).and(scalarFinite(f, r));
}
