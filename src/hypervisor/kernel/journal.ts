/**
 * The messages of a service since its last checkpoint, in order, as they were sent, and what it read of guest memory meanwhile. With the
 * checkpoint they make the service's present state: a program is a function of its messages.
 *
 * Hot path: an entry is some words in one growing array.
 *   0 words of the entry · 1 header words · 2 data bytes · 3 reads begin at word · 4 reply: status | effect bytes << 8 · header · data · reads
 * A read: 0 words · 1 address low · 2 address high · 3 length · bytes.
 * The last entry may be uncommitted: its message has been sent and has no reply yet.
 */
import { HEADER_BYTES, type Message } from "../abi/message.ts";

const ENTRY_WORDS = 5;
const READ_WORDS = 4;
const FIRST_WORDS = 1 << 14;
/** An array of at most this size is used again: what is made anew for each checkpoint is garbage faster than it is collected. */
const KEPT_WORDS = 1 << 19;
/** Messages without high registers, stream and argument end here, but for the data length, which is kept apart. */
const SHORT_WORDS = 32;
const HEADER_WORDS = HEADER_BYTES / 4;
const WORD = 0x1_0000_0000;

export class Journal {
  #words = new Uint32Array(FIRST_WORDS);
  #bytes = new Uint8Array(this.#words.buffer);
  #used = 0;
  /** Start of the last entry. */
  #last = 0;
  #replayAt = 0;
  /** Start of the entry being replayed. */
  #replaying = 0;
  #readAt = 0;
  #readEnd = 0;
  entries = 0;

  get byteLength(): number {
    return 4 * this.#used;
  }

  /** Keeps the message as it is about to be sent. `isShort`: its first 128 bytes say all. */
  begin(message: Message, isShort: boolean): void {
    const headerWords = isShort ? SHORT_WORDS : HEADER_WORDS;
    const { dataBytes } = message;
    const words = ENTRY_WORDS + headerWords + ((dataBytes + 3) >> 2);
    this.#reserve(words);
    const at = this.#used;
    const target = this.#words;
    target[at] = words;
    target[at + 1] = headerWords;
    target[at + 2] = dataBytes;
    target[at + 3] = words;
    target[at + 4] = 0;
    const source = message.words;
    const to = at + ENTRY_WORDS;
    for (let i = 0; i < headerWords; i++) target[to + i] = source[i]!;
    if (dataBytes > 0) {
      const data = message.bytes.subarray(HEADER_BYTES, HEADER_BYTES + dataBytes);
      this.#bytes.set(data, 4 * (to + headerWords));
    }
    this.#last = at;
    this.#used = at + words;
    this.entries++;
  }

  /** The last entry's message once more, as it was. Its reads will be made anew. */
  resend(message: Message): void {
    this.#load(message, this.#last);
    this.#used = this.#last + this.#words[this.#last + 3]!;
    this.#words[this.#last] = this.#words[this.#last + 3]!;
  }

  /** The reply to the last entry has been committed. */
  commit(status: number, effectBytes: number): void {
    this.#words[this.#last + 4] = (status & 0xff) | (effectBytes << 8);
  }

  /** The last entry will never be committed. */
  drop(): void {
    this.#used = this.#last;
    this.entries--;
  }

  /** A checkpoint has been taken: everything so far is in it. */
  clear(): void {
    this.#used = 0;
    this.#last = 0;
    this.entries = 0;
    if (this.#words.length > KEPT_WORDS) {
      this.#words = new Uint32Array(FIRST_WORDS);
      this.#bytes = new Uint8Array(this.#words.buffer);
    }
  }

  // ---- guest memory ----

  /** Keeps what the message being handled has read. */
  addRead(address: number, bytes: Uint8Array): void {
    const words = READ_WORDS + ((bytes.length + 3) >> 2);
    this.#reserve(words);
    const at = this.#used;
    this.#words[at] = words;
    this.#words[at + 1] = address % WORD;
    this.#words[at + 2] = Math.floor(address / WORD);
    this.#words[at + 3] = bytes.length;
    this.#bytes.set(bytes, 4 * (at + READ_WORDS));
    this.#used += words;
    this.#words[this.#last]! += words;
  }

  /** What the message being replayed read the first time, or null if it asks for something else now. */
  replayRead(address: number, length: number): Uint8Array | null {
    const at = this.#readAt;
    if (at >= this.#readEnd) return null;
    const words = this.#words;
    const recorded = words[at + 1]! + words[at + 2]! * WORD;
    if (recorded !== address || words[at + 3] !== length) return null;
    this.#readAt += words[at]!;
    const from = 4 * (at + READ_WORDS);
    return this.#bytes.subarray(from, from + length);
  }

  // ---- replay ----

  rewind(): void {
    this.#replayAt = 0;
  }

  /** Loads the next committed message; `withLast`: the last entry is committed, too. Answers false when there is none. */
  next(message: Message, withLast: boolean): boolean {
    const at = this.#replayAt;
    const end = withLast ? this.#used : this.#last;
    if (at >= end) return false;
    this.#load(message, at);
    this.#replaying = at;
    this.#readAt = at + this.#words[at + 3]!;
    this.#readEnd = at + this.#words[at]!;
    this.#replayAt = this.#readEnd;
    return true;
  }

  /** Whether the message just replayed was answered as it was the first time. */
  agrees(status: number, effectBytes: number): boolean {
    return this.#words[this.#replaying + 4] === ((status & 0xff) | (effectBytes << 8)) >>> 0;
  }

  #load(message: Message, at: number): void {
    const headerWords = this.#words[at + 1]!;
    const dataBytes = this.#words[at + 2]!;
    const from = at + ENTRY_WORDS;
    message.words.fill(0);
    message.words.set(this.#words.subarray(from, from + headerWords));
    message.dataBytes = dataBytes;
    const data = 4 * (from + headerWords);
    message.bytes.set(this.#bytes.subarray(data, data + dataBytes), HEADER_BYTES);
  }

  #reserve(words: number): void {
    const needed = this.#used + words;
    if (needed <= this.#words.length) return;
    const larger = new Uint32Array(Math.max(needed, 2 * this.#words.length));
    larger.set(this.#words.subarray(0, this.#used));
    this.#words = larger;
    this.#bytes = new Uint8Array(larger.buffer);
  }
}
