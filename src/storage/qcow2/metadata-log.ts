/**
 * What of an image's metadata is held back until the next flush, kept beside the image for as long as the system runs: the death of the process loses
 * nothing, and a power failure finds an image with all that was flushed and nothing of this.
 *
 *   0 magic · 8 identity, 64 bytes · 72 generation u32 · 76 sum u32 · 128 records: generation u32, bytes of the body u32, sum of it u32, 0; body: pieces,
 *   each offset u64, length u32, 0 u32, bytes padded to 8
 *
 * All numbers are little endian. The identity names the run of the system and the image: writes that only a system's memory has are there as long as it
 * runs. Nothing here is ever flushed. A new generation empties the log; a record that is cut off, or of another generation, ends it.
 */
import type { BlockPort, Io } from "../block-port.ts";
import { viewOf } from "./header.ts";

const MAGIC = Uint8Array.from("HYPOLOG1", (c) => c.charCodeAt(0));
const IDENTITY_BYTES = 64;
const At = { IDENTITY: 8, GENERATION: 72, SUM: 76, RECORDS: 128 } as const;
const HEADER_BYTES = 80;
const RECORD_BYTES = 16;
const PIECE_BYTES = 16;
/** Then all is written to the image, without being asked. */
const MAX_BYTES = 8 << 20;
const WORD = 2 ** 32;

export interface LogPiece {
  /** in the image */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class MetadataLog {
  readonly #port: BlockPort;
  readonly #identity: Uint8Array;
  #generation = 1;
  #end: number = At.RECORDS;

  /** `identity`: at most 64 ASCII characters. */
  constructor(port: BlockPort, identity: string) {
    this.#port = port;
    this.#identity = new Uint8Array(IDENTITY_BYTES);
    for (let i = 0; i < Math.min(identity.length, IDENTITY_BYTES); i++)
      this.#identity[i] = identity.charCodeAt(i) & 0x7f;
  }

  get isFull(): boolean {
    return this.#end > MAX_BYTES;
  }

  /** Empties it. */
  *clear(): Io<void> {
    this.#generation = (this.#generation + 1) % WORD;
    this.#end = At.RECORDS;
    const pending = this.#port.write(0, this.#header(this.#generation));
    if (pending) yield pending;
  }

  /** Keeps what the pieces of the image are to be. All of them, or none. */
  *append(pieces: readonly LogPiece[]): Io<void> {
    if (pieces.length === 0) return;
    const body = pieces.reduce((sum, { bytes }) => sum + PIECE_BYTES + padded(bytes.length), 0);
    const record = new Uint8Array(RECORD_BYTES + body);
    const view = viewOf(record);
    let at = RECORD_BYTES;
    for (const { offset, bytes } of pieces) {
      view.setUint32(at, offset % WORD, true);
      view.setUint32(at + 4, Math.floor(offset / WORD), true);
      view.setUint32(at + 8, bytes.length, true);
      record.set(bytes, at + PIECE_BYTES);
      at += PIECE_BYTES + padded(bytes.length);
    }
    view.setUint32(0, this.#generation, true);
    view.setUint32(4, body, true);
    view.setUint32(8, sumOf(record.subarray(RECORD_BYTES)), true);
    const pending = this.#port.write(this.#end, record);
    if (pending) yield pending;
    this.#end += record.length;
  }

  /** Writes what it kept to the image, if it is this image's and the system has not stopped since. Then `clear` it. */
  *replay(image: BlockPort): Io<void> {
    const header = new Uint8Array(HEADER_BYTES);
    let pending = this.#port.read(0, header);
    if (pending) yield pending;
    this.#generation = viewOf(header).getUint32(At.GENERATION, true);
    const isOurs = this.#header(this.#generation).every((byte, i) => byte === header[i]);
    if (!isOurs) return;
    for (let at: number = At.RECORDS; ; ) {
      const body = yield* this.#record(at);
      if (!body) return;
      for (const { offset, bytes } of piecesOf(body)) {
        pending = image.write(offset, bytes);
        if (pending) yield pending;
      }
      at += RECORD_BYTES + body.length;
    }
  }

  /** The body of the record at a place, or undefined if there is none. */
  *#record(at: number): Io<Uint8Array | undefined> {
    const head = new Uint8Array(RECORD_BYTES);
    let pending = this.#port.read(at, head);
    if (pending) yield pending;
    const view = viewOf(head);
    const length = view.getUint32(4, true);
    const fits = length > 0 && at + RECORD_BYTES + length <= this.#port.size;
    if (!fits || view.getUint32(0, true) !== this.#generation) return undefined;
    const body = new Uint8Array(length);
    pending = this.#port.read(at + RECORD_BYTES, body);
    if (pending) yield pending;
    return sumOf(body) === view.getUint32(8, true) ? body : undefined;
  }

  #header(generation: number): Uint8Array {
    const header = new Uint8Array(HEADER_BYTES);
    header.set(MAGIC);
    header.set(this.#identity, At.IDENTITY);
    const view = viewOf(header);
    view.setUint32(At.GENERATION, generation, true);
    view.setUint32(At.SUM, sumOf(header.subarray(0, At.SUM)), true);
    return header;
  }
}

const padded = (length: number): number => Math.ceil(length / 8) * 8;

function* piecesOf(body: Uint8Array): Generator<LogPiece> {
  const view = viewOf(body);
  for (let at = 0; at + PIECE_BYTES <= body.length; ) {
    const offset = view.getUint32(at, true) + view.getUint32(at + 4, true) * WORD;
    const length = view.getUint32(at + 8, true);
    const start = at + PIECE_BYTES;
    yield { offset, bytes: body.subarray(start, start + length) };
    at = start + padded(length);
  }
}

/** FNV-1a. */
function sumOf(bytes: Uint8Array): number {
  let sum = 0x811c_9dc5;
  for (let i = 0; i < bytes.length; i++) sum = Math.imul(sum ^ bytes[i]!, 0x0100_0193);
  return sum >>> 0;
}
