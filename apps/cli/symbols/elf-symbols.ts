/**
 * Symbols of code from the .symtab of a linked ELF64 file.
 * Spec: System V gABI, "Object Files": "ELF Header", "Sections", "Symbol Table".
 *
 * The file is anybody's: every offset, size and index is checked against the file before it is used, and a name is at most MAX_NAME bytes, so
 * what is made of a file is not much larger than the file. Addresses are those it was linked for.
 */
import { type CodeSymbol, SymbolFileError } from "./symbol-list.ts";

const MAGIC = 0x7f45_4c46;
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const EHDR_BYTES = 64;
const SHDR_BYTES = 64;
const SYM_BYTES = 24;
const ET_EXEC = 2;
const ET_DYN = 3;
const SHT_SYMTAB = 2;
const SHT_STRTAB = 3;
const SHF_EXECINSTR = 4n;
const STT_NOTYPE = 0;
const STT_FUNC = 2;
const STT_GNU_IFUNC = 10;
export const MAX_NAME = 256;

interface Section {
  readonly type: number;
  readonly flags: bigint;
  readonly address: bigint;
  readonly offset: bigint;
  readonly size: bigint;
  readonly link: number;
  readonly entryBytes: bigint;
}

export function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && viewOf(bytes).getUint32(0) === MAGIC;
}

/** Throws SymbolFileError. */
export function parseElfSymbols(bytes: Uint8Array): CodeSymbol[] {
  const sections = readSections(bytes);
  const table = sections.find(({ type }) => type === SHT_SYMTAB);
  if (!table) throw new SymbolFileError("it has no symbol table (.symtab); is it stripped?");
  if (table.entryBytes !== BigInt(SYM_BYTES))
    throw new SymbolFileError(`its symbols have ${table.entryBytes} bytes, not ${SYM_BYTES}`);
  const strings = sections[table.link];
  if (strings?.type !== SHT_STRTAB)
    throw new SymbolFileError("the names of its symbols are in no string table");
  const symbols = readSymbols(
    contentOf(bytes, table, "symbol table"),
    contentOf(bytes, strings, "string table"),
    sections,
  );
  if (symbols.length === 0) throw new SymbolFileError("it has no symbols of code");
  return withEnds(symbols);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function readSections(bytes: Uint8Array): Section[] {
  const view = viewOf(bytes);
  if (bytes.length < EHDR_BYTES || !isElf(bytes))
    throw new SymbolFileError("its header is cut off");
  if (view.getUint8(4) !== CLASS_64 || view.getUint8(5) !== LITTLE_ENDIAN)
    throw new SymbolFileError("it is no 64-bit little-endian ELF file");
  const type = view.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN)
    throw new SymbolFileError("it is not linked: its symbols have no addresses");
  const offset = view.getBigUint64(40, true);
  if (offset === 0n) throw new SymbolFileError("it has no sections, so no symbol table");
  if (view.getUint16(58, true) !== SHDR_BYTES)
    throw new SymbolFileError(`its section headers have not ${SHDR_BYTES} bytes`);
  const declared = view.getUint16(60, true);
  if (offset + BigInt(SHDR_BYTES) > bytes.length)
    throw new SymbolFileError("its section headers are cut off");
  // 0: too many for the field, the number is in the first header.
  const count = declared > 0 ? BigInt(declared) : view.getBigUint64(Number(offset) + 32, true);
  if (offset + count * BigInt(SHDR_BYTES) > bytes.length)
    throw new SymbolFileError("its section headers are cut off");
  return Array.from({ length: Number(count) }, (_, i) =>
    readSection(view, Number(offset) + i * SHDR_BYTES),
  );
}

function readSection(view: DataView, at: number): Section {
  return {
    type: view.getUint32(at + 4, true),
    flags: view.getBigUint64(at + 8, true),
    address: view.getBigUint64(at + 16, true),
    offset: view.getBigUint64(at + 24, true),
    size: view.getBigUint64(at + 32, true),
    link: view.getUint32(at + 40, true),
    entryBytes: view.getBigUint64(at + 56, true),
  };
}

function contentOf(bytes: Uint8Array, { offset, size }: Section, what: string): Uint8Array {
  if (offset + size > bytes.length) throw new SymbolFileError(`its ${what} is cut off`);
  return bytes.subarray(Number(offset), Number(offset + size));
}

interface Found {
  readonly start: bigint;
  /** 0: unknown. */
  readonly size: bigint;
  readonly sectionEnd: bigint;
  readonly name: string;
}

function readSymbols(
  table: Uint8Array,
  strings: Uint8Array,
  sections: readonly Section[],
): Found[] {
  const view = viewOf(table);
  const found: Found[] = [];
  for (let at = 0; at + SYM_BYTES <= table.length; at += SYM_BYTES) {
    const type = view.getUint8(at + 4) & 0xf;
    if (type !== STT_FUNC && type !== STT_NOTYPE && type !== STT_GNU_IFUNC) continue;
    // Undefined and absolute symbols have no section with code, and neither have indices beyond the table.
    const section = sections[view.getUint16(at + 6, true)];
    if (!section || (section.flags & SHF_EXECINSTR) === 0n) continue;
    const name = nameAt(strings, view.getUint32(at, true));
    if (name === "") continue;
    const start = view.getBigUint64(at + 8, true);
    const size = view.getBigUint64(at + 16, true);
    found.push({ start, size, sectionEnd: section.address + section.size, name });
  }
  return found;
}

function nameAt(strings: Uint8Array, offset: number): string {
  if (offset >= strings.length)
    throw new SymbolFileError("a symbol's name is outside the string table");
  const end = strings.indexOf(0, offset);
  if (end < 0) throw new SymbolFileError("its string table does not end with a zero");
  return Buffer.from(strings.subarray(offset, Math.min(end, offset + MAX_NAME))).toString("utf8");
}

/** Sized symbols as they say; labels without a size up to the next symbol, unless they lie inside a function that has one. */
function withEnds(found: readonly Found[]): CodeSymbol[] {
  const sorted = found.toSorted((a, b) => {
    if (a.start !== b.start) return a.start < b.start ? -1 : 1;
    return a.size > b.size ? -1 : a.size < b.size ? 1 : 0;
  });
  const symbols: CodeSymbol[] = [];
  let covered = 0n;
  sorted.forEach(({ start, size, sectionEnd, name }, i) => {
    if (size > 0n) {
      const end = start + size;
      if (end > covered) covered = end;
      symbols.push({ start, end, name });
    } else if (start >= covered) {
      const next = sorted[i + 1]?.start;
      const end = next !== undefined && next < sectionEnd ? next : sectionEnd;
      if (end > start) symbols.push({ start, end, name });
    }
  });
  return symbols;
}
