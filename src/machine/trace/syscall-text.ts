/** A system call in the notation of strace: arguments by their kinds, texts and buffers from the guest's memory. */

import { type ArgumentKind, type SyscallRow, syscallRow } from "../../control/syscall-table.ts";
import type { GuestReader } from "./guest-reader.ts";
import { errorName, Names } from "./syscall-values.ts";

const AT_FDCWD = -100;
const PATH_LIMIT = 512;
const DATA_LIMIT = 32;
const MAX_TEXTS = 32;
const NANO = 1_000_000_000n;
const REGISTERS = 6;

/** A call as it was made: its number, its six registers, the root of its page tables. */
export interface Call {
  readonly number: number;
  readonly args: readonly bigint[];
  readonly root: number;
}

const low = (v: bigint): number => Number(BigInt.asIntN(32, v));
const hex = (v: bigint): string => `0x${v.toString(16)}`;
const pointer = (v: bigint): string => (v === 0n ? "NULL" : hex(v));

const ESCAPES: Record<number, string> = { 9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\" };

function quote(text: string, isCut: boolean): string {
  let out = "";
  for (const c of text) {
    const code = c.codePointAt(0)!;
    out +=
      ESCAPES[code] ?? (code < 32 || (code >= 127 && code < 160) ? `\\${code.toString(8)}` : c);
  }
  return `"${out}"${isCut ? "..." : ""}`;
}

function quoteBytes(bytes: Uint8Array, isCut: boolean): string {
  let out = "";
  for (const code of bytes)
    out +=
      ESCAPES[code] ??
      (code < 32 || code > 126 ? `\\${code.toString(8)}` : String.fromCharCode(code));
  return `"${out}"${isCut ? "..." : ""}`;
}

export class SyscallText {
  readonly #reader: GuestReader;

  constructor(reader: GuestReader) {
    this.#reader = reader;
  }

  name(number: number): string {
    return syscallRow(number)?.name ?? `syscall_${hex(BigInt(number))}`;
  }

  /** Arguments as they are at entry; null: only at return, since the call fills it, or its page is not there yet. */
  atEntry(call: Call): (string | null)[] {
    return this.#kinds(call).map((kind, i) => {
      const at = call.args[i]!;
      if (kind === "B") return null;
      if (kind === "s" && at !== 0n && this.#reader.host(call.root, at) < 0) return null;
      return this.#one(kind, at, call.args[i + 1] ?? 0n, call.root);
    });
  }

  /** The arguments when the call has answered. */
  atReturn(call: Call, entry: readonly (string | null)[], result: bigint): string {
    const count = Number(BigInt.asIntN(64, result));
    const kinds = this.#kinds(call);
    return entry
      .map((text, i) => {
        if (text !== null) return text;
        const at = call.args[i]!;
        if (kinds[i] === "s") return this.#text(call.root, at);
        return count < 0 ? pointer(at) : this.#data(call.root, at, count);
      })
      .join(", ");
  }

  result({ number }: Call, value: bigint): { text: string; error: string | null } {
    const error = errorName(value);
    if (error !== null) return { text: `-1 ${error}`, error };
    const signed = BigInt.asIntN(64, value);
    const isAddress = ADDRESSES.has(this.name(number)) || signed > 0xffff_ffffn;
    return { text: isAddress ? hex(value) : signed.toString(), error: null };
  }

  #kinds({ number }: Call): readonly ArgumentKind[] {
    const row: SyscallRow | undefined = syscallRow(number);
    return row?.kinds ?? new Array<ArgumentKind>(REGISTERS).fill("x");
  }

  #data(root: number, at: bigint, length: number): string {
    if (at === 0n) return "NULL";
    const bytes = this.#reader.bytes(root, at, Math.min(length, DATA_LIMIT));
    if (bytes.length === 0 && length > 0) return hex(at);
    return quoteBytes(bytes, length > bytes.length);
  }

  #text(root: number, at: bigint): string {
    if (at === 0n) return "NULL";
    const found = this.#reader.text(root, at, PATH_LIMIT);
    return found ? quote(found.text, found.isCut) : hex(at);
  }

  #texts(root: number, at: bigint): string {
    if (at === 0n) return "NULL";
    const words: string[] = [];
    for (let i = 0; ; i++) {
      const item = this.#reader.word(root, at + BigInt(8 * i));
      if (item === null) return hex(at);
      if (item === 0n) break;
      if (i === MAX_TEXTS) {
        words.push("...");
        break;
      }
      words.push(this.#text(root, item));
    }
    return `[${words.join(", ")}]`;
  }

  #count(root: number, at: bigint): string {
    if (at === 0n) return "NULL";
    let count = 0;
    for (
      let item = this.#reader.word(root, at);
      item !== null && item !== 0n && count < 9999;
      count++
    )
      item = this.#reader.word(root, at + BigInt(8 * (count + 1)));
    return `${hex(at)} /* ${count} vars */`;
  }

  #time(root: number, at: bigint): string {
    if (at === 0n) return "NULL";
    const [seconds, nanoseconds] = [this.#reader.word(root, at), this.#reader.word(root, at + 8n)];
    if (seconds === null || nanoseconds === null || nanoseconds >= NANO) return hex(at);
    return `{${BigInt.asIntN(64, seconds)}.${nanoseconds.toString().padStart(9, "0")}}`;
  }

  #address(root: number, at: bigint, length: number): string {
    const bytes = this.#reader.bytes(root, at, Math.min(Math.max(length, 0), 128));
    if (at === 0n || bytes.length < 2) return pointer(at);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const family = view.getUint16(0, true);
    const name = Names.family(family);
    if (name === "AF_UNIX") {
      const path = bytes.subarray(2);
      const isAbstract = path[0] === 0;
      const text = isAbstract ? path.subarray(1) : path;
      const end = isAbstract ? text.length : text.indexOf(0);
      return `{${name}, ${isAbstract ? "@" : ""}${quoteBytes(text.subarray(0, end < 0 ? text.length : end), false)}}`;
    }
    if (name === "AF_INET" && bytes.length >= 8)
      return `{${name}, ${[...bytes.subarray(4, 8)].join(".")}:${view.getUint16(2, false)}}`;
    if (name === "AF_INET6" && bytes.length >= 24) {
      const groups = Array.from({ length: 8 }, (_, i) =>
        view.getUint16(8 + 2 * i, false).toString(16),
      );
      return `{${name}, [${groups.join(":")}]:${view.getUint16(2, false)}}`;
    }
    return `{${name}, ...}`;
  }

  #one(kind: ArgumentKind, v: bigint, next: bigint, root: number): string {
    switch (kind) {
      case "i":
      case "f":
        return String(low(v));
      case "u":
        return v.toString();
      case "l":
        return BigInt.asIntN(64, v).toString();
      case "p":
        return pointer(v);
      case "s":
        return this.#text(root, v);
      case "d":
        return low(v) === AT_FDCWD ? "AT_FDCWD" : String(low(v));
      case "b":
        return this.#data(root, v, Number(next));
      case "A":
        return this.#texts(root, v);
      case "E":
        return this.#count(root, v);
      case "T":
        return this.#time(root, v);
      case "a":
        return this.#address(root, v, Number(next));
      case "m":
        return `0${(low(v) & 0xffff).toString(8)}`;
      default:
        return NAMED[kind as keyof typeof NAMED]?.(low(v)) ?? hex(v);
    }
  }
}

const NAMED = {
  o: Names.open,
  P: Names.protection,
  M: Names.mapping,
  w: Names.whence,
  S: Names.signal,
  c: Names.clone,
  q: Names.family,
  t: Names.socket,
  W: Names.wait,
  F: Names.at,
  e: Names.epoll,
  k: Names.clock,
  n: Names.fcntl,
  R: Names.access,
  y: Names.futex,
  z: Names.arch,
} as const;

/** Calls that answer an address. */
const ADDRESSES = new Set(["mmap", "brk", "mremap", "shmat"]);
