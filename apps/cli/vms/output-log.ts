/**
 * What a machine wrote, kept beside its record: chunks with stream and time. Two files of bounded size: what is oldest is forgotten.
 *
 * Chunk: stream u32 (1 output, 2 errors), length u32, milliseconds since 1970 f64, bytes; little-endian. A chunk that is cut off (its writer was
 * killed) ends the file.
 */
import {
  closeSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

const FILE = "output.log";
const OLDER = "output.log.1";
const HEADER = 16;
const MAX_FILE_BYTES = 8 << 20;
const MAX_CHUNK = 1 << 24;
const BLOCK = 1 << 16;

export type LogStream = 1 | 2;

export interface LogChunk {
  readonly stream: LogStream;
  readonly time: number;
  readonly bytes: Buffer;
}

export class OutputLog {
  readonly #folder: string;
  readonly #limit: number;
  #descriptor: number;
  #size = 0;

  constructor(folder: string, limit = MAX_FILE_BYTES) {
    this.#folder = folder;
    this.#limit = limit;
    this.#descriptor = openSync(join(folder, FILE), "w", 0o600);
  }

  /** A disk that is full costs the log, not the machine. */
  add(stream: LogStream, bytes: Uint8Array): void {
    if (this.#descriptor < 0 || bytes.length === 0) return;
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(stream, 0);
    header.writeUInt32LE(bytes.length, 4);
    header.writeDoubleLE(Date.now(), 8);
    try {
      if (this.#size > this.#limit) this.#turnOver();
      const chunk = Buffer.concat([header, bytes]);
      writeSync(this.#descriptor, chunk);
      this.#size += chunk.length;
    } catch {
      this.close();
    }
  }

  close(): void {
    if (this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }

  #turnOver(): void {
    closeSync(this.#descriptor);
    this.#descriptor = -1;
    renameSync(join(this.#folder, FILE), join(this.#folder, OLDER));
    this.#descriptor = openSync(join(this.#folder, FILE), "w", 0o600);
    this.#size = 0;
  }
}

/** Reads a log from its beginning, and what has been added since at each `next`. */
export class LogReader {
  readonly #folder: string;
  #descriptor = -1;
  #rest: Buffer = Buffer.alloc(0);

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** All that is there and has not been read yet. */
  next(): LogChunk[] {
    const chunks: LogChunk[] = [];
    if (this.#descriptor < 0) {
      chunks.push(...decodeChunks(readWhole(join(this.#folder, OLDER))).chunks);
      this.#open();
    }
    this.#readOn(chunks);
    if (this.#descriptor >= 0 && this.#isOlder()) {
      closeSync(this.#descriptor);
      this.#rest = Buffer.alloc(0);
      this.#open();
      this.#readOn(chunks);
    }
    return chunks;
  }

  close(): void {
    if (this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }

  #open(): void {
    try {
      this.#descriptor = openSync(join(this.#folder, FILE), "r");
    } catch {
      this.#descriptor = -1;
    }
  }

  #readOn(chunks: LogChunk[]): void {
    if (this.#descriptor < 0) return;
    const parts = [this.#rest];
    for (;;) {
      const block = Buffer.alloc(BLOCK);
      const length = readSync(this.#descriptor, block);
      if (length === 0) break;
      parts.push(block.subarray(0, length));
    }
    const decoded = decodeChunks(Buffer.concat(parts));
    this.#rest = decoded.rest;
    chunks.push(...decoded.chunks);
  }

  /** The file that we read has been put aside. */
  #isOlder(): boolean {
    try {
      const now = openSync(join(this.#folder, FILE), "r");
      const isSame = fstatSync(now).ino === fstatSync(this.#descriptor).ino;
      closeSync(now);
      return !isSame;
    } catch {
      return false;
    }
  }
}

function readWhole(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch {
    return Buffer.alloc(0);
  }
}

function decodeChunks(bytes: Buffer): { readonly chunks: LogChunk[]; readonly rest: Buffer } {
  const chunks: LogChunk[] = [];
  let at = 0;
  while (at + HEADER <= bytes.length) {
    const length = bytes.readUInt32LE(at + 4);
    if (length > MAX_CHUNK || at + HEADER + length > bytes.length) break;
    const stream = bytes.readUInt32LE(at) === 2 ? 2 : 1;
    const time = bytes.readDoubleLE(at + 8);
    chunks.push({ stream, time, bytes: bytes.subarray(at + HEADER, at + HEADER + length) });
    at += HEADER + length;
  }
  return { chunks, rest: Buffer.from(bytes.subarray(at)) };
}

/** The last `lines` lines of what the chunks hold together; a last line without an end counts as one. */
export function lastLines(chunks: readonly LogChunk[], lines: number): LogChunk[] {
  if (lines <= 0) return [];
  const kept: LogChunk[] = [];
  // The newline that ends the last line is not the beginning of another.
  let wanted = chunks.at(-1)?.bytes.at(-1) === 0x0a ? lines + 1 : lines;
  for (const chunk of chunks.toReversed()) {
    let from = chunk.bytes.length;
    while (wanted > 0) {
      const newline = from > 0 ? chunk.bytes.lastIndexOf(0x0a, from - 1) : -1;
      if (newline < 0) break;
      wanted -= 1;
      from = newline;
    }
    kept.unshift(wanted === 0 ? { ...chunk, bytes: chunk.bytes.subarray(from + 1) } : chunk);
    if (wanted === 0) break;
  }
  return kept;
}
