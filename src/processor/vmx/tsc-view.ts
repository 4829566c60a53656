/**
 * What a guest reads as its TSC: multiplied, then offset. SDM Vol. 3C, "Changes to Instruction Behavior in VMX Non-Root Operation" (RDTSC):
 * without TSC offsetting neither field counts, the multiplier only with TSC scaling.
 */
import { Field, PrimaryControl, SecondaryControl } from "../isa/vmcs-fields.ts";

/** Multipliers are fixed-point numbers with so many fraction bits. */
const FRACTION = 48n;
const ONE = 1n << FRACTION;

export interface TscView {
  /** Two's complement of 64 bits, as a signed number. */
  readonly offset: bigint;
  readonly multiplier: bigint;
  /** The offset as a number if it is exact as one and there is nothing to multiply with, else null. */
  readonly plain: number | null;
}

export const PLAIN_TSC: TscView = { offset: 0n, multiplier: ONE, plain: 0 };

/** The last two are the control words; a secondary one that is not activated is 0. */
export function tscViewOf(
  vmcs: { big(field: number): bigint },
  primary: number,
  secondary: number,
): TscView {
  if ((primary & PrimaryControl.TSC_OFFSETTING) === 0) return PLAIN_TSC;
  const offset = BigInt.asIntN(64, vmcs.big(Field.TSC_OFFSET));
  const isScaled = (secondary & SecondaryControl.TSC_SCALING) !== 0;
  const multiplier = isScaled ? vmcs.big(Field.TSC_MULTIPLIER) : ONE;
  const asNumber = Number(offset);
  const isPlain = multiplier === ONE && Number.isSafeInteger(asNumber);
  return { offset, multiplier, plain: isPlain ? asNumber : null };
}

/** A TSC seen through `view`: a number where that is exact, else 64 bits. */
export function viewTsc(view: TscView, tsc: number | bigint): number | bigint {
  if (view.plain === 0) return tsc;
  if (view.plain !== null && typeof tsc === "number") {
    const sum = tsc + view.plain;
    if (Number.isSafeInteger(sum)) return sum;
  }
  const product = (BigInt.asUintN(64, BigInt(tsc)) * view.multiplier) >> FRACTION;
  return BigInt.asUintN(64, product + view.offset);
}
