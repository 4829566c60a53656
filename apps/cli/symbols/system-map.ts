/**
 * Symbol tables as text: System.map and /proc/kallsyms, lines of "ADDRESS TYPE NAME" with "[MODULE]" behind it if it is in one; see nm(1) for the
 * types.
 *
 * The tables have no sizes: code reaches to the next symbol of any kind, but no further than MAX_SPAN, since behind the last function of the
 * kernel or of a module there is a gap without symbols.
 */
import { type CodeSymbol, SymbolFileError } from "./symbol-list.ts";

const LINE = /^([0-9a-f]{1,16}) (\S) (\S+)(?:\s+\[([^\]\s]+)\])?$/i;
/** Text, weak, indirect function. */
const CODE_TYPES = /^[tTwWi]$/;
export const MAX_SPAN = 0x1_0000n;
const SHOWN = 40;

/** Throws SymbolFileError. */
export function parseSystemMap(text: string): CodeSymbol[] {
  const entries = parseLines(text);
  if (entries.length === 0) throw new SymbolFileError("it is empty");
  if (entries.every(({ start }) => start === 0n)) {
    throw new SymbolFileError(
      "all its addresses are 0, as /proc/kallsyms shows them without privilege",
    );
  }
  const code = withEnds(entries);
  if (code.length === 0) throw new SymbolFileError("it has no symbols of code");
  return code;
}

interface Entry {
  readonly start: bigint;
  readonly isCode: boolean;
  readonly name: string;
}

function parseLines(text: string): Entry[] {
  const entries: Entry[] = [];
  let number = 0;
  for (const line of text.split("\n")) {
    number++;
    const trimmed = line.trimEnd();
    if (trimmed === "") continue;
    const match = LINE.exec(trimmed);
    if (!match) {
      const shown = JSON.stringify(trimmed.slice(0, SHOWN));
      throw new SymbolFileError(`line ${number} is not "address type name": ${shown}`);
    }
    const [, address, type, symbol, module] = match;
    entries.push({
      start: BigInt(`0x${address}`),
      isCode: CODE_TYPES.test(type!),
      name: module === undefined ? symbol! : `${symbol} [${module}]`,
    });
  }
  return entries;
}

function withEnds(entries: readonly Entry[]): CodeSymbol[] {
  const sorted = entries.toSorted((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const code: CodeSymbol[] = [];
  let next: bigint | undefined;
  for (let i = sorted.length - 1; i >= 0; i--) {
    const { start, isCode, name } = sorted[i]!;
    if (sorted[i + 1] && sorted[i + 1]!.start !== start) next = sorted[i + 1]!.start;
    const limit = start + MAX_SPAN;
    if (isCode) code.push({ start, end: next !== undefined && next < limit ? next : limit, name });
  }
  return code.reverse();
}
