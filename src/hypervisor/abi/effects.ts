/**
 * Effects: what a service asks for in a reply. They are carried out together with the reply's state, or not at all.
 *
 * The data area of a reply holds records, one behind the other, each padded to 8 bytes:
 *   0 kind u32 · 4 bytes of payload u32 · 8 payload
 *
 *   TIMER      deadline in ns u64, all ones disarms
 *   LINE       line u32, level u32
 *   INTERRUPT  address u32, data u32 of an interrupt message (SDM Vol. 3A, "Message Signalled Interrupts")
 *   PUT        stream u32, 0 u32, bytes
 *   STOP       kind u32 (StopNumber), 0 u32
 *   LOG        UTF-8 text
 *   WRITE      guest-physical address u64, bytes
 *   DECODE     slot u32, space u32 (AddressSpace), base u64, size u64; size 0 frees the slot
 *   MOVE       stream u32, direction u32 (MoveDirection), header bytes u32, segments u32, header padded to 8, segments: address u64, length u32, 0 u32
 *
 * A MOVE carries bytes between guest memory and a stream of the embedder without the service: what they mean is in the header, which the embedder gets with
 * them.
 */
import { HEADER_BYTES, type Message } from "./message.ts";

export const EffectKind = {
  TIMER: 1,
  LINE: 2,
  INTERRUPT: 3,
  PUT: 4,
  STOP: 5,
  LOG: 6,
  WRITE: 7,
  DECODE: 8,
  MOVE: 9,
} as const;

export const StopNumber = { POWEROFF: 1, RESET: 2 } as const;
export const MoveDirection = { FROM_MEMORY: 0, TO_MEMORY: 1 } as const;
export const AddressSpace = { MEMORY: 0, PORTS: 1 } as const;
/** A deadline that never comes. */
export const NO_DEADLINE = 0xffff_ffff;

/** Parts of guest-physical memory, in order. */
export interface Segments {
  readonly addresses: readonly number[];
  readonly lengths: readonly number[];
}

export interface Move {
  readonly stream: number;
  readonly toMemory: boolean;
  readonly header: Uint8Array;
  readonly segments: Segments;
}

const RECORD_BYTES = 8;
const MOVE_BYTES = 16;
const SEGMENT_BYTES = 16;
const MAX_MOVE_HEADER = 4096;
const NO_BYTES = new Uint8Array(0);

const padded = (bytes: number): number => (bytes + 7) & ~7;

/** Appends records to the reply in `message`. */
export class EffectWriter {
  readonly #message: Message;
  #used = 0;

  constructor(message: Message) {
    this.#message = message;
  }

  get used(): number {
    return this.#used;
  }

  clear(): void {
    this.#used = 0;
  }

  /** Room for the bytes of one more record with `fixed` bytes before them. */
  room(fixed: number): number {
    return this.#message.capacity - this.#used - RECORD_BYTES - padded(fixed);
  }

  /** Answers false, with nothing written, if there is no room. */
  addMove({ stream, toMemory, header, segments: { addresses, lengths } }: Move): boolean {
    const length = moveBytes(header.length, addresses.length);
    if (this.#used + RECORD_BYTES + length > this.#message.capacity) return false;
    const { view, bytes } = this.#message;
    const record = HEADER_BYTES + this.#used;
    view.setUint32(record, EffectKind.MOVE, true);
    view.setUint32(record + 4, length, true);
    let at = record + RECORD_BYTES;
    view.setUint32(at, stream, true);
    view.setUint32(at + 4, toMemory ? MoveDirection.TO_MEMORY : MoveDirection.FROM_MEMORY, true);
    view.setUint32(at + 8, header.length, true);
    view.setUint32(at + 12, addresses.length, true);
    bytes.set(header, at + MOVE_BYTES);
    at += MOVE_BYTES + padded(header.length);
    for (let i = 0; i < addresses.length; i++, at += SEGMENT_BYTES) {
      const address = addresses[i]!;
      view.setUint32(at, address, true);
      view.setUint32(at + 4, Math.floor(address / 0x1_0000_0000), true);
      view.setUint32(at + 8, lengths[i]!, true);
      view.setUint32(at + 12, 0, true);
    }
    this.#used += RECORD_BYTES + length;
    return true;
  }

  /** Up to six words and bytes behind them. Answers false, with nothing written, if there is no room. */
  add(kind: number, words: readonly number[], bytes: Uint8Array = NO_BYTES): boolean {
    const length = 4 * words.length + bytes.length;
    if (this.#used + RECORD_BYTES + padded(length) > this.#message.capacity) return false;
    const { view } = this.#message;
    let at = HEADER_BYTES + this.#used;
    view.setUint32(at, kind, true);
    view.setUint32(at + 4, length, true);
    at += RECORD_BYTES;
    for (let i = 0; i < words.length; i++) view.setUint32(at + 4 * i, words[i]!, true);
    if (bytes.length > 0) this.#message.bytes.set(bytes, at + 4 * words.length);
    this.#used += RECORD_BYTES + padded(length);
    return true;
  }
}

/** Payload of a MOVE. */
export const moveBytes = (headerBytes: number, segments: number): number =>
  MOVE_BYTES + padded(headerBytes) + SEGMENT_BYTES * segments;

/** Walks the records of a reply. Every length is checked: a reply is whatever a service wrote. */
export class EffectReader {
  readonly #message: Message;
  #at = 0;
  #end = 0;
  kind = 0;
  /** Where the payload begins in the message, and its length. */
  at = 0;
  length = 0;

  constructor(message: Message) {
    this.#message = message;
  }

  /** Answers false if the length of the whole is impossible. */
  open(): boolean {
    const { dataBytes, capacity } = this.#message;
    this.#at = HEADER_BYTES;
    this.#end = HEADER_BYTES + dataBytes;
    return dataBytes <= capacity && dataBytes % 8 === 0;
  }

  /** The next record: 1 = there is one, 0 = that was all, -1 = malformed. */
  next(): -1 | 0 | 1 {
    if (this.#at === this.#end) return 0;
    const { view } = this.#message;
    this.kind = view.getUint32(this.#at, true);
    this.length = view.getUint32(this.#at + 4, true);
    this.at = this.#at + RECORD_BYTES;
    if (this.length > this.#end - this.at) return -1;
    this.#at = this.at + padded(this.length);
    return this.#at <= this.#end ? 1 : -1;
  }

  word(index: number): number {
    return this.#message.view.getUint32(this.at + 4 * index, true);
  }

  /** Exact below 2^53, else too large for anything that is checked. */
  wide(index: number): number {
    return this.word(index) + this.word(index + 1) * 0x1_0000_0000;
  }

  /** Of a MOVE: where its segments begin, in words; -1 if its lengths do not fit together. */
  moveSegments(): number {
    const { length } = this;
    if (length < MOVE_BYTES) return -1;
    if (this.word(2) > MAX_MOVE_HEADER) return -1;
    const start = MOVE_BYTES + padded(this.word(2));
    return length === start + SEGMENT_BYTES * this.word(3) ? start / 4 : -1;
  }

  moveHeader(): Uint8Array {
    const from = this.at + MOVE_BYTES;
    return this.#message.bytes.subarray(from, from + this.word(2));
  }

  /** The payload from `offset` on: a window of the message, to be copied by who keeps it. */
  bytes(offset: number): Uint8Array {
    return this.#message.bytes.subarray(this.at + offset, this.at + this.length);
  }
}
