/**
 * Writer of tar archives into a file: what an image's layer is made of.
 * Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format" (for names and numbers that ustar has no room for).
 *
 * Names are bytes as Latin-1 text, as tar-file.ts reads them. The same entries give the same bytes.
 */
import { readSync } from "node:fs";
import type { Attributes } from "./file-tree.ts";
import { writeAll } from "./layer-file.ts";
import type { FileRange, TarType } from "./tar-file.ts";

export interface WrittenEntry {
  /** Without leading slash. */
  readonly name: string;
  readonly type: TarType;
  readonly attributes: Attributes;
  /** Of a link. */
  readonly target?: string;
  /** Of a file. */
  readonly content?: Uint8Array | FileRange;
  readonly device?: readonly [major: number, minor: number];
}

const BLOCK = 512;
const CHUNK = 1 << 20;
const FLAGS: Readonly<Record<TarType, string>> = {
  ...{ file: "0", hardlink: "1", symlink: "2", character: "3" },
  ...{ block: "4", directory: "5", fifo: "6" },
};
const LARGEST_ID = 0o7777777;
const LARGEST_SIZE = 0o77777777777;

export class TarWriter {
  readonly #write: (bytes: Uint8Array) => void;
  #size = 0;

  constructor(write: (bytes: Uint8Array) => void) {
    this.#write = write;
  }

  static intoFile(descriptor: number): TarWriter {
    return new TarWriter((bytes) => writeAll(descriptor, bytes));
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  add(entry: WrittenEntry): void {
    const size = entry.content === undefined ? 0 : sizeOf(entry.content);
    const name = entry.type === "directory" ? `${entry.name}/` : entry.name;
    const { uid, gid } = entry.attributes;
    const records: [key: string, value: string][] = [];
    if (name.length > 100) records.push(["path", name]);
    if ((entry.target?.length ?? 0) > 100) records.push(["linkpath", entry.target!]);
    if (uid > LARGEST_ID) records.push(["uid", String(uid)]);
    if (gid > LARGEST_ID) records.push(["gid", String(gid)]);
    if (size > LARGEST_SIZE) records.push(["size", String(size)]);
    if (records.length > 0) this.#extended(records);
    this.#put(header({ ...entry, name, size, flag: FLAGS[entry.type] }));
    if (entry.content !== undefined) this.#content(entry.content, size);
  }

  /** The archive's end; answers its bytes. */
  end(): number {
    this.#put(Buffer.alloc(2 * BLOCK));
    return this.#size;
  }

  #extended(records: ReadonlyArray<readonly [string, string]>): void {
    const content = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)));
    const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: 0 };
    this.#put(header({ name: "pax", attributes, size: content.length, flag: "x" }));
    this.#content(content, content.length);
  }

  #content(content: Uint8Array | FileRange, size: number): void {
    if (content instanceof Uint8Array) this.#put(content);
    else this.#copy(content);
    const rest = size % BLOCK;
    if (rest > 0) this.#put(Buffer.alloc(BLOCK - rest));
  }

  #copy({ descriptor, offset, size }: FileRange): void {
    const buffer = Buffer.alloc(Math.min(size, CHUNK));
    for (let at = 0; at < size; ) {
      const wanted = Math.min(buffer.length, size - at);
      const got = readSync(descriptor, buffer, 0, wanted, offset + at);
      if (got === 0) throw new Error("a file has become shorter while it was read");
      this.#put(buffer.subarray(0, got));
      at += got;
    }
  }

  #put(bytes: Uint8Array): void {
    this.#write(bytes);
    this.#size += bytes.length;
  }
}

function sizeOf(content: Uint8Array | FileRange): number {
  return content instanceof Uint8Array ? content.length : content.size;
}

interface HeaderFields {
  readonly name: string;
  readonly attributes: Attributes;
  readonly size: number;
  readonly flag: string;
  readonly target?: string;
  readonly device?: readonly [major: number, minor: number];
}

/** Fields that an extended header has are cut off here. */
function header({ name, attributes, size, flag, target = "", device }: HeaderFields): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number): void => {
    const text = value.toString(8).padStart(length - 1, "0");
    bytes.write(`${text.length < length ? text : "0".repeat(length - 1)}\0`, at, "latin1");
  };
  bytes.write(name.slice(0, 100), 0, "latin1");
  octal(attributes.mode, 100, 8);
  octal(attributes.uid, 108, 8);
  octal(attributes.gid, 116, 8);
  octal(size, 124, 12);
  octal(attributes.mtime, 136, 12);
  bytes.fill(0x20, 148, 156);
  bytes.write(flag, 156, "latin1");
  bytes.write(target.slice(0, 100), 157, "latin1");
  bytes.write("ustar\x0000", 257, "latin1");
  octal(device?.[0] ?? 0, 329, 8);
  octal(device?.[1] ?? 0, 337, 8);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return bytes;
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts all of it. */
function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.from(` ${key}=${value}\n`, "latin1");
  let length = rest.length;
  while (String(length).length + rest.length !== length)
    length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}
