import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isElf, MAX_NAME, parseElfSymbols } from "./elf-symbols.ts";
import { SymbolFileError } from "./symbol-list.ts";

const EHDR = 64;
const SHDR = 64;
const SYM = 24;
const FUNC = 2;
const NOTYPE = 0;
const OBJECT = 1;
const TEXT = 1;
const DATA = 2;
const SYMTAB = 3;
const STRTAB = 4;
const SECTIONS = 5;
const ABSOLUTE = 0xfff1;
const TEXT_START = 0x40_1000n;
const TEXT_BYTES = 0x1000n;

interface Symbol {
  readonly name: string;
  readonly value: bigint;
  readonly size?: bigint;
  readonly type?: number;
  readonly section?: number;
}

/** ELF header, symbols, strings, section headers: null, .text, .data, .symtab, .strtab. */
function elf(symbols: readonly Symbol[]): { bytes: Uint8Array; view: DataView; headers: number } {
  const strings = Buffer.from(`\0${symbols.map(({ name }) => `${name}\0`).join("")}`);
  const symtab = EHDR;
  const strtab = symtab + SYM * symbols.length;
  const headers = strtab + strings.length;
  const bytes = new Uint8Array(headers + SECTIONS * SHDR);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setBigUint64(40, BigInt(headers), true);
  view.setUint16(58, SHDR, true);
  view.setUint16(60, SECTIONS, true);
  bytes.set(strings, strtab);
  let name = 1;
  symbols.forEach((symbol, i) => {
    const at = symtab + SYM * i;
    view.setUint32(at, name, true);
    view.setUint8(at + 4, symbol.type ?? FUNC);
    view.setUint16(at + 6, symbol.section ?? TEXT, true);
    view.setBigUint64(at + 8, symbol.value, true);
    view.setBigUint64(at + 16, symbol.size ?? 0n, true);
    name += Buffer.byteLength(symbol.name) + 1;
  });
  const section = (n: number, type: number, flags: bigint, place: readonly bigint[]): void => {
    const at = headers + n * SHDR;
    view.setUint32(at + 4, type, true);
    view.setBigUint64(at + 8, flags, true);
    place.forEach((value, i) => {
      view.setBigUint64(at + 16 + 8 * i, value, true);
    });
  };
  section(TEXT, 1, 6n, [TEXT_START, 0n, TEXT_BYTES]);
  section(DATA, 1, 3n, [0x50_0000n, 0n, TEXT_BYTES]);
  section(SYMTAB, 2, 0n, [0n, BigInt(symtab), BigInt(SYM * symbols.length)]);
  section(STRTAB, 3, 0n, [0n, BigInt(strtab), BigInt(strings.length)]);
  view.setUint32(headers + SYMTAB * SHDR + 40, STRTAB, true);
  view.setBigUint64(headers + SYMTAB * SHDR + 56, BigInt(SYM), true);
  return { bytes, view, headers };
}

const ONE: readonly Symbol[] = [{ name: "main", value: TEXT_START, size: 16n }];

const refuses = (bytes: Uint8Array, why: RegExp): void =>
  assert.throws(
    () => parseElfSymbols(bytes),
    (error: unknown) => error instanceof SymbolFileError && why.test(error.message),
  );

test("functions are taken with their sizes, labels up to the next symbol, data not at all", () => {
  const symbols: Symbol[] = [
    { name: "label", value: 0x40_1100n, type: NOTYPE },
    { name: "main", value: 0x40_1000n, size: 0x80n },
    { name: "inside", value: 0x40_1040n, type: NOTYPE },
    { name: "last", value: 0x40_1200n, type: NOTYPE },
    { name: "object", value: 0x50_0000n, size: 8n, type: OBJECT, section: DATA },
    { name: "data_label", value: 0x50_0010n, type: NOTYPE, section: DATA },
    { name: "undefined", value: 0n, section: 0 },
    { name: "absolute", value: 0x40_1300n, section: ABSOLUTE },
  ];
  assert.deepEqual(parseElfSymbols(elf(symbols).bytes), [
    { start: 0x40_1000n, end: 0x40_1080n, name: "main" },
    { start: 0x40_1100n, end: 0x40_1200n, name: "label" },
    { start: 0x40_1200n, end: TEXT_START + TEXT_BYTES, name: "last" },
  ]);
});

test("a file is read where it lies in a larger buffer", () => {
  const { bytes } = elf(ONE);
  const shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  assert.ok(isElf(shifted.subarray(3)));
  assert.equal(parseElfSymbols(shifted.subarray(3))[0]!.name, "main");
});

test("the number of sections may be in the first header", () => {
  const { bytes, view, headers } = elf(ONE);
  view.setUint16(60, 0, true);
  view.setBigUint64(headers + 32, BigInt(SECTIONS), true);
  assert.equal(parseElfSymbols(bytes).length, 1);
  view.setBigUint64(headers + 32, 2n ** 63n, true);
  refuses(bytes, /section headers are cut off/);
});

test("a name that is long is cut", () => {
  const [symbol] = parseElfSymbols(elf([{ ...ONE[0]!, name: "n".repeat(5000) }]).bytes);
  assert.equal(symbol!.name, "n".repeat(MAX_NAME));
});

const DAMAGES: readonly (readonly [RegExp, (view: DataView, headers: number) => void])[] = [
  [/64-bit little-endian/, (v) => v.setUint8(4, 1)],
  [/64-bit little-endian/, (v) => v.setUint8(5, 2)],
  [/not linked/, (v) => v.setUint16(16, 1, true)],
  [/no sections/, (v) => v.setBigUint64(40, 0n, true)],
  [/cut off/, (v) => v.setBigUint64(40, 2n ** 64n - 1n, true)],
  [/have not 64 bytes/, (v) => v.setUint16(58, 63, true)],
  [/cut off/, (v) => v.setUint16(60, SECTIONS + 1, true)],
  [/stripped/, (v, h) => v.setUint32(h + SYMTAB * SHDR + 4, 1, true)],
  [/have 23 bytes/, (v, h) => v.setBigUint64(h + SYMTAB * SHDR + 56, 23n, true)],
  [/no string table/, (v, h) => v.setUint32(h + SYMTAB * SHDR + 40, 0xffff_ffff, true)],
  [/no string table/, (v, h) => v.setUint32(h + SYMTAB * SHDR + 40, TEXT, true)],
  [
    /symbol table is cut off/,
    (v, h) => v.setBigUint64(h + SYMTAB * SHDR + 32, 2n ** 64n - 1n, true),
  ],
  [/string table is cut off/, (v, h) => v.setBigUint64(h + STRTAB * SHDR + 24, 2n ** 63n, true)],
  [/outside the string table/, (v) => v.setUint32(EHDR, 0xffff_fff0, true)],
  [/end with a zero/, (v, h) => v.setBigUint64(h + STRTAB * SHDR + 32, 3n, true)],
  [/no symbols of code/, (v, h) => v.setBigUint64(h + TEXT * SHDR + 8, 2n, true)],
];

test("a damaged file is refused, and it is said why", () => {
  for (const [why, damage] of DAMAGES) {
    const { bytes, view, headers } = elf(ONE);
    damage(view, headers);
    refuses(bytes, why);
  }
});

test("a file that is cut off anywhere is refused", () => {
  const { bytes } = elf(ONE);
  for (let length = 4; length < bytes.length; length++)
    refuses(bytes.subarray(0, length), /cut off/);
});

test("whatever bytes change, there are symbols or a refusal", () => {
  const change = fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 12 }), (changes) => {
      const { bytes } = elf([...ONE, { name: "b", value: 0x40_1100n, type: NOTYPE }]);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      try {
        for (const { start, end } of parseElfSymbols(bytes)) assert.ok(end > start);
      } catch (error) {
        assert.ok(error instanceof SymbolFileError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
