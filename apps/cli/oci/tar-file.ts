/**
 * Reader of tar archives that lie in a file: headers, and where the contents are.
 * Spec: POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" (types L, K, S,
 * numbers in base 256).
 *
 * Names are bytes, kept as Latin-1 text: one character a byte, whatever their encoding. Contents are not read. Nothing is trusted: every
 * length is checked against the file before it is used. Sparse files are refused: no builder of images writes them.
 */
import { readSync } from "node:fs";
import { HypolithError } from "../../../src/base/errors.ts";

export type TarType =
  | "file"
  | "hardlink"
  | "symlink"
  | "character"
  | "block"
  | "directory"
  | "fifo";

export interface TarEntry {
  readonly name: string;
  readonly type: TarType;
  /** Of the link. */
  readonly target: string;
  /** Permissions, with set-id and sticky bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Whole seconds since 1970. */
  readonly mtime: number;
  readonly size: number;
  /** Of the content, in the file. */
  readonly offset: number;
  readonly device: readonly [major: number, minor: number];
  /** It has extended attributes, which are not read. */
  readonly hasAttributes: boolean;
}

/** Part of an open file. */
export interface FileRange {
  readonly descriptor: number;
  readonly offset: number;
  readonly size: number;
}

const BLOCK = 512;
const WINDOW = 1 << 17;
const LONGEST_NAME = 1 << 16;
const LARGEST_PAX = 1 << 20;
const TYPES: Readonly<Record<string, TarType>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

type Pax = ReadonlyMap<string, string>;

/** All entries, in order. Throws HypolithError "tar-unsound". */
export function* readTar(range: FileRange): Generator<TarEntry> {
  const window = new FileWindow(range);
  let global: Pax = new Map();
  let next: { pax: Pax; name?: string; target?: string } = { pax: new Map() };
  let at = 0;
  while (at < range.size) {
    const header = window.read(at, BLOCK, "a header");
    // Archives end with two blocks of zeros; some writers leave them out, or write one.
    if (header.every((byte) => byte === 0)) return;
    checkSum(header);
    const type = header.toString("latin1", 156, 157);
    const size = number(header, 124, 12, "size");
    const start = at + BLOCK;
    if (type === "x" || type === "g") {
      const records = parsePax(window.small(start, size, LARGEST_PAX));
      if (type === "g") global = new Map([...global, ...records]);
      else next = { ...next, pax: records };
      at = start + padded(size);
    } else if (type === "L" || type === "K") {
      const text = untilNul(window.small(start, size, LONGEST_NAME));
      next = type === "L" ? { ...next, name: text } : { ...next, target: text };
      at = start + padded(size);
    } else {
      const pax: Pax = new Map([...global, ...next.pax]);
      const entry = makeEntry(header, start, pax, next);
      if (start + entry.size > range.size) throw unsound("it is cut short");
      yield entry;
      next = { pax: new Map() };
      at = start + padded(entry.size);
    }
  }
  if (at > range.size + BLOCK) throw unsound("it is cut short");
}

function makeEntry(
  header: Buffer,
  offset: number,
  pax: Pax,
  long: { readonly name?: string; readonly target?: string },
): TarEntry {
  const flag = header.toString("latin1", 156, 157);
  const name = pax.get("path") ?? long.name ?? headerName(header);
  const type = flag === "\0" && name.endsWith("/") ? "directory" : TYPES[flag];
  if (flag === "S" || [...pax.keys()].some((key) => key.startsWith("GNU.sparse."))) {
    throw unsound(`'${printable(name)}' is a sparse file`);
  }
  if (!type) throw unsound(`'${printable(name)}' is of the unknown type '${printable(flag)}'`);
  return {
    name,
    type,
    target: pax.get("linkpath") ?? long.target ?? untilNul(header.subarray(157, 257)),
    mode: number(header, 100, 8, "mode") & 0o7777,
    uid: paxNumber(pax, "uid") ?? number(header, 108, 8, "uid"),
    gid: paxNumber(pax, "gid") ?? number(header, 116, 8, "gid"),
    mtime: paxNumber(pax, "mtime") ?? number(header, 136, 12, "mtime"),
    // Only files have content, whatever the header of another says.
    size: type === "file" ? (paxNumber(pax, "size") ?? number(header, 124, 12, "size")) : 0,
    offset,
    device:
      type === "character" || type === "block"
        ? [number(header, 329, 8, "device"), number(header, 337, 8, "device")]
        : [0, 0],
    hasAttributes: [...pax.keys()].some((key) => key.startsWith("SCHILY.xattr.")),
  };
}

function headerName(header: Buffer): string {
  const name = untilNul(header.subarray(0, 100));
  if (header.toString("latin1", 257, 263) !== "ustar\0") return name;
  const prefix = untilNul(header.subarray(345, 500));
  return prefix === "" ? name : `${prefix}/${name}`;
}

function checkSum(header: Buffer): void {
  const wanted = number(header, 148, 8, "checksum");
  let sum = 8 * 0x20;
  let signed = sum;
  for (let at = 0; at < BLOCK; at++) {
    if (at >= 148 && at < 156) continue;
    sum += header[at]!;
    signed += header.readInt8(at);
  }
  // Old writers summed up signed bytes.
  if (wanted !== sum && wanted !== signed) throw unsound("the checksum of a header is wrong");
}

function number(header: Buffer, at: number, length: number, what: string): number {
  const field = header.subarray(at, at + length);
  if ((field[0]! & 0x80) !== 0) return base256(field, what);
  const text = untilNul(field).trim();
  if (text === "") return 0;
  const value = /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
  return bounded(value, what);
}

function base256(field: Buffer, what: string): number {
  // Negative numbers are for times before 1970; such a file is from then.
  if (field[0] === 0xff) return 0;
  let value = BigInt(field[0]! & 0x7f);
  for (const byte of field.subarray(1)) value = (value << 8n) | BigInt(byte);
  return bounded(Number(value), what);
}

function paxNumber(pax: Pax, key: string): number | undefined {
  const text = pax.get(key);
  if (text === undefined) return undefined;
  if (!/^-?\d{1,19}(?:\.\d*)?$/.test(text)) throw unsound(`the ${key} of a file is no number`);
  return bounded(Math.max(0, Math.floor(Number(text))), key);
}

function bounded(value: number, what: string): number {
  if (Number.isSafeInteger(value)) return value;
  throw unsound(`the ${what} of a file is no number`);
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts all of it. */
function parsePax(bytes: Buffer): Pax {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length; ) {
    const blank = bytes.indexOf(0x20, at);
    const text = blank < 0 ? "" : bytes.toString("latin1", at, blank);
    const end = at + Number(text);
    const equals = bytes.indexOf(0x3d, blank);
    const isSound = /^\d{1,7}$/.test(text) && end <= bytes.length && equals > blank && equals < end;
    if (!isSound || bytes[end - 1] !== 0x0a) throw unsound("an extended header is wrong");
    const value = bytes.toString("latin1", equals + 1, end - 1);
    const key = bytes.toString("latin1", blank + 1, equals);
    if (value.includes("\0") && !key.startsWith("SCHILY.xattr."))
      throw unsound("a name holds a zero byte");
    records.set(key, value);
    at = end;
  }
  return records;
}

/** The part of a file that was read last; headers lie close together. */
class FileWindow {
  readonly #range: FileRange;
  readonly #buffer = Buffer.alloc(WINDOW);
  #start = 0;
  #length = 0;

  constructor(range: FileRange) {
    this.#range = range;
  }

  /** At most a window. The bytes stay until the next call. */
  read(at: number, length: number, what: string): Buffer {
    if (at + length > this.#range.size) throw unsound(`it is cut short in ${what}`);
    if (at < this.#start || at + length > this.#start + this.#length) this.#fill(at);
    const from = at - this.#start;
    if (from + length > this.#length) throw unsound(`it is cut short in ${what}`);
    return this.#buffer.subarray(from, from + length);
  }

  small(at: number, size: number, limit: number): Buffer {
    if (size > limit) throw unsound(`a header of ${size} bytes is too large`);
    if (at + size > this.#range.size) throw unsound("it is cut short");
    const bytes = Buffer.alloc(size);
    const { descriptor, offset } = this.#range;
    for (let got = 0; got < size; ) {
      const count = readSync(descriptor, bytes, got, size - got, offset + at + got);
      if (count === 0) throw unsound("it is cut short");
      got += count;
    }
    return bytes;
  }

  #fill(at: number): void {
    const { descriptor, offset, size } = this.#range;
    this.#start = at;
    this.#length = 0;
    const wanted = Math.min(WINDOW, size - at);
    while (this.#length < wanted) {
      const room = wanted - this.#length;
      const got = readSync(
        descriptor,
        this.#buffer,
        this.#length,
        room,
        offset + at + this.#length,
      );
      if (got === 0) return;
      this.#length += got;
    }
  }
}

function untilNul(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("latin1", 0, end < 0 ? bytes.length : end);
}

function padded(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
}

/** A name for an error message. */
export function printable(name: string): string {
  const text = Buffer.from(name, "latin1").toString("utf8").slice(0, 200);
  return text.replaceAll(/[\p{Cc}\p{Cf}]/gu, "?");
}

function unsound(why: string): HypolithError {
  return new HypolithError("tar-unsound", `the tar archive is not sound: ${why}`);
}
