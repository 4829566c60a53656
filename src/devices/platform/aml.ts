/**
 * A small encoder for ACPI Machine Language: the objects, methods and resource descriptors that a PC's DSDT needs.
 * Spec: ACPI Specification 6.x, "ACPI Machine Language (AML) Specification" and "Resource Data Types for ACPI".
 *
 * Each function answers the bytes of one term; terms nest by concatenation. Lengths are computed, names are padded to
 * four characters, and every value is checked to fit its field, because a table is built from constants and a wrong one is our bug.
 */
import { invariant } from "../../base/invariant.ts";

export type Aml = readonly number[];

const Op = {
  ZERO: 0x00,
  ONE: 0x01,
  NAME: 0x08,
  BYTE: 0x0a,
  WORD: 0x0b,
  DWORD: 0x0c,
  STRING: 0x0d,
  SCOPE: 0x10,
  BUFFER: 0x11,
  PACKAGE: 0x12,
  METHOD: 0x14,
  ROOT: 0x5c,
  DUAL_NAME: 0x2e,
  EXT: 0x5b,
  EXT_DEVICE: 0x82,
  ARG0: 0x68,
  STORE: 0x70,
  NOTIFY: 0x86,
  IF: 0xa0,
  RETURN: 0xa4,
} as const;

export function integer(value: number): Aml {
  invariant(Number.isInteger(value) && value >= 0 && value < 2 ** 32, "not an AML dword");
  if (value <= 1) return [value === 0 ? Op.ZERO : Op.ONE];
  if (value < 0x100) return [Op.BYTE, value];
  if (value < 0x1_0000) return [Op.WORD, ...le(value, 2)];
  return [Op.DWORD, ...le(value, 4)];
}

export function string(text: string): Aml {
  invariant(/^[ -~]*$/.test(text), "AML strings are ASCII");
  return [Op.STRING, ...ascii(text), 0];
}

/** A compressed EISA identifier such as PNP0501. */
export function eisaId(id: string): Aml {
  invariant(/^[A-Z]{3}[0-9A-F]{4}$/.test(id), "not an EISA id");
  const [a, b, c] = ascii(id).map((code) => code - 0x40);
  const manufacturer = (a << 10) | (b << 5) | c;
  const product = Number.parseInt(id.slice(3), 16);
  // Big-endian fields in a little-endian integer.
  const swap = (word: number) => ((word & 0xff) << 8) | (word >> 8);
  return integer(swap(product) * 0x1_0000 + swap(manufacturer));
}

/** `name` is at most four characters, or two such with a dot between them, with a leading backslash or without. */
export function path(name: string): Aml {
  const root = name.startsWith("\\");
  const segments = (root ? name.slice(1) : name).split(".");
  const isGood = segments.every((segment) => /^[A-Z_][A-Z0-9_]{0,3}$/.test(segment));
  invariant(isGood && segments.length <= 2, `bad AML name ${name}`);
  const prefix = [...(root ? [Op.ROOT] : []), ...(segments.length === 2 ? [Op.DUAL_NAME] : [])];
  return [...prefix, ...segments.flatMap((segment) => ascii(segment.padEnd(4, "_")))];
}

export const name = (at: string, value: Aml): Aml => [Op.NAME, ...path(at), ...value];

export const scope = (at: string, ...terms: Aml[]): Aml => [
  Op.SCOPE,
  ...withLength([...path(at), ...terms.flat()]),
];

export const device = (at: string, ...terms: Aml[]): Aml => [
  Op.EXT,
  Op.EXT_DEVICE,
  ...withLength([...path(at), ...terms.flat()]),
];

/** A method that is not serialized. */
export const method = (at: string, args: number, ...terms: Aml[]): Aml => [
  Op.METHOD,
  ...withLength([...path(at), args, ...terms.flat()]),
];

/** At most 255 elements. */
export function aPackage(...elements: Aml[]): Aml {
  invariant(elements.length < 0x100, "too many package elements");
  return [Op.PACKAGE, ...withLength([elements.length, ...elements.flat()])];
}

export const buffer = (bytes: Aml): Aml => [
  Op.BUFFER,
  ...withLength([...integer(bytes.length), ...bytes]),
];

export const storeArg0 = (target: string): Aml => [Op.STORE, Op.ARG0, ...path(target)];
export const when = (predicate: Aml, ...terms: Aml[]): Aml => [
  Op.IF,
  ...withLength([...predicate, ...terms.flat()]),
];
export const notify = (target: string, value: number): Aml => [
  Op.NOTIFY,
  ...path(target),
  ...integer(value),
];
export const returns = (value: Aml): Aml => [Op.RETURN, ...value];

/** Resource descriptors, closed by the end tag, as the buffer that _CRS names. */
export const resources = (...descriptors: Aml[]): Aml => buffer([...descriptors.flat(), 0x79, 0]);

/** Fixed ports decoded with all 16 bits. */
export const ioPorts = (base: number, length: number): Aml => [
  0x47,
  0x01,
  ...le(base, 2),
  ...le(base, 2),
  0x01,
  ...le(length, 1),
];

/** One edge-triggered, active-high, exclusive ISA interrupt. */
export const isaIrq = (irq: number): Aml => [0x22, ...le(1 << irq, 2)];

export const memory32Fixed = (base: number, length: number, writable: boolean): Aml => [
  0x86,
  9,
  0,
  writable ? 1 : 0,
  ...le(base, 4),
  ...le(length, 4),
];

const ResourceType = { MEMORY: 0, IO: 1, BUS: 2 } as const;
/** Produced by the bridge; minimum and maximum are fixed; positive decode. */
const FIXED_WINDOW = 0x0c;
const MEMORY_READ_WRITE = 1;
const IO_ENTIRE_RANGE = 3;

/** Address windows that a bridge passes on; ends are inclusive. */
export const busRange = (first: number, last: number): Aml =>
  wordWindow(ResourceType.BUS, 0, first, last);
export const ioWindow = (first: number, last: number): Aml =>
  wordWindow(ResourceType.IO, IO_ENTIRE_RANGE, first, last);
export const memoryWindow = (first: number, last: number): Aml => [
  0x87,
  ...le(0x17, 2),
  ResourceType.MEMORY,
  FIXED_WINDOW,
  MEMORY_READ_WRITE,
  ...le(0, 4),
  ...le(first, 4),
  ...le(last, 4),
  ...le(0, 4),
  ...le(last - first + 1, 4),
];

function wordWindow(type: number, flags: number, first: number, last: number): Aml {
  const fields = [0, first, last, 0, last - first + 1];
  return [0x88, ...le(0x0d, 2), type, FIXED_WINDOW, flags, ...fields.flatMap((v) => le(v, 2))];
}

/** PkgLength: one byte below 64, else a nibble and one to three more bytes; it counts itself. */
function withLength(body: Aml): Aml {
  for (let bytes = 1; bytes <= 4; bytes++) {
    const length = body.length + bytes;
    if (bytes === 1 && length < 0x40) return [length, ...body];
    if (bytes > 1 && length < 2 ** (8 * bytes - 4)) {
      const rest = le(length >> 4, bytes - 1);
      return [((bytes - 1) << 6) | (length & 0xf), ...rest, ...body];
    }
  }
  invariant(false, "AML term too long");
}

function le(value: number, size: number): number[] {
  invariant(Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size), "value out of field");
  return Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
}

function ascii(text: string): number[] {
  return Array.from(text, (character) => character.charCodeAt(0));
}
