/**
 * Bytes that wait to be sent or acknowledged, by their position in the stream.
 *
 * A list of chunks as they came; small ones are copied together, so that memory stays in proportion to bytes. Reading copies straight into
 * a frame; a cursor makes reading onward constant in cost. Who appends a chunk gives it away.
 */
const SMALL = 1024;
const BLOCK = 4096;

interface Chunk {
  bytes: Uint8Array;
  /** Position of its first byte. */
  start: number;
}

export class SendQueue {
  #chunks: Chunk[] = [];
  /** Index of the first chunk that is not released yet. */
  #head = 0;
  #cursor = 0;
  /** Where in the last chunk's buffer there is room, when it is a block of ours. */
  #block: { buffer: Uint8Array; used: number } | null = null;
  #start: number;
  #end: number;

  constructor(start: number) {
    this.#start = start;
    this.#end = start;
  }

  /** Position of the first byte held. */
  get start(): number {
    return this.#start;
  }

  /** Position after the last byte held. */
  get end(): number {
    return this.#end;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  append(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (bytes.length < SMALL) this.#appendSmall(bytes);
    else {
      this.#chunks.push({ bytes, start: this.#end });
      this.#block = null;
    }
    this.#end += bytes.length;
  }

  #appendSmall(bytes: Uint8Array): void {
    const block = this.#block;
    const last = this.#chunks.at(-1);
    if (block && last && block.used + bytes.length <= BLOCK) {
      block.buffer.set(bytes, block.used);
      const from = block.used - last.bytes.length;
      block.used += bytes.length;
      last.bytes = block.buffer.subarray(from, block.used);
      return;
    }
    const buffer = new Uint8Array(BLOCK);
    buffer.set(bytes);
    this.#block = { buffer, used: bytes.length };
    this.#chunks.push({ bytes: buffer.subarray(0, bytes.length), start: this.#end });
  }

  /** Copies `length` bytes from `position` on into `into` at `at`; all of them must be held. */
  copy(position: number, length: number, into: Uint8Array, at: number): void {
    this.#seek(position);
    for (let index = this.#cursor; length > 0; index++) {
      const { bytes, start } = this.#chunks[index]!;
      const from = position - start;
      const count = Math.min(length, bytes.length - from);
      into.set(count === bytes.length ? bytes : bytes.subarray(from, from + count), at);
      this.#cursor = index;
      position += count;
      at += count;
      length -= count;
    }
  }

  #seek(position: number): void {
    const chunks = this.#chunks;
    if (this.#cursor < this.#head || this.#cursor >= chunks.length) this.#cursor = this.#head;
    while (this.#cursor > this.#head && chunks[this.#cursor]!.start > position) this.#cursor--;
    for (;;) {
      const { bytes, start } = chunks[this.#cursor]!;
      if (position < start + bytes.length) return;
      this.#cursor++;
    }
  }

  /** Forgets what is before `position`. */
  release(position: number): void {
    const chunks = this.#chunks;
    this.#start = Math.min(Math.max(position, this.#start), this.#end);
    while (this.#head < chunks.length) {
      const { bytes, start } = chunks[this.#head]!;
      if (start + bytes.length > this.#start) break;
      chunks[this.#head] = EMPTY;
      this.#head++;
    }
    if (this.#head === chunks.length) {
      this.#chunks = [];
      this.#head = 0;
      this.#block = null;
    } else if (this.#head > 64 && this.#head * 2 > chunks.length) {
      this.#chunks = chunks.slice(this.#head);
      this.#cursor = Math.max(0, this.#cursor - this.#head);
      this.#head = 0;
    }
  }

  /** All bytes held, in a copy. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.length);
    if (bytes.length > 0) this.copy(this.#start, bytes.length, bytes, 0);
    return bytes;
  }

  static from(start: number, bytes: Uint8Array): SendQueue {
    const queue = new SendQueue(start);
    queue.append(bytes.slice());
    return queue;
  }
}

const EMPTY: Chunk = { bytes: new Uint8Array(), start: -1 };
