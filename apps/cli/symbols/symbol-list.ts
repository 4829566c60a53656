/**
 * Symbols of code, from all files that were given, as the machine wants them: sorted, each with the addresses it covers.
 */
import type { SymbolList } from "../../../src/control/protocol.ts";

export interface CodeSymbol {
  readonly start: bigint;
  /** Behind its last byte; more than `start`. */
  readonly end: bigint;
  readonly name: string;
}

/** Where symbols come from turned out not to be what it should be. The message completes "FILE is no symbol file: ...". */
export class SymbolFileError extends Error {
  override readonly name = "SymbolFileError";
}

const ADDRESS_END = 1n << 64n;

/** Of several names for one address the first stays. */
export function makeSymbolList(symbols: readonly CodeSymbol[]): SymbolList {
  const sorted = symbols.toSorted((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const distinct = sorted.filter(({ start }, i) => i === 0 || sorted[i - 1]!.start !== start);
  return {
    starts: BigUint64Array.from(distinct, ({ start }) => start),
    // The last byte of the address space cannot be covered: its end would not fit.
    ends: BigUint64Array.from(distinct, ({ end }) => (end < ADDRESS_END ? end : ADDRESS_END - 1n)),
    names: distinct.map(({ name }) => name),
  };
}
