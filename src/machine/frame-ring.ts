/**
 * Frames from one thread to another: a ring of bytes in shared memory with one producer and one consumer.
 *
 *   word 0 bytes written, 1 bytes read, both modulo 2^32 · 2 the consumer sleeps · 3 the producer waits for room · then the bytes
 *
 * A frame is eight bytes that begin with its length, 16 bits little endian, and itself, padded to eight: copies to and from shared memory are
 * made byte by byte unless both ends are aligned, which is several times slower. It may go over the end to the beginning. Nobody waits here: `push` and `sleep`
 * tell when the other side has to be woken, and how that is done is the embedder's. The two flags are set before the last look, so that no
 * wake-up is lost. Hot path.
 */
const Word = { WRITTEN: 0, READ: 1, SLEEPING: 2, BLOCKED: 3, COUNT: 4 } as const;
const HEADER_BYTES = 8;
/** Of a frame in what `take` answers: its length alone. */
const LENGTH_BYTES = 2;

const sizeOf = (length: number): number => HEADER_BYTES + ((length + 7) & ~7);

export class FrameRing {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #mask: number;
  /** What `take` puts together its answer from. */
  #raw = new Uint8Array(0);

  /** Over memory that `create` made, here or in another thread. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, Word.COUNT);
    this.#bytes = new Uint8Array(buffer, Word.COUNT * 4);
    this.#mask = this.#bytes.length - 1;
  }

  /** `capacity`: bytes, a power of two. */
  static create(capacity: number): FrameRing {
    const ring = new FrameRing(new SharedArrayBuffer(Word.COUNT * 4 + capacity));
    ring.#words[Word.SLEEPING] = 1;
    return ring;
  }

  get #used(): number {
    return (Atomics.load(this.#words, Word.WRITTEN) - Atomics.load(this.#words, Word.READ)) >>> 0;
  }

  get isEmpty(): boolean {
    return this.#used === 0;
  }

  // ---- the producer ----

  /** Is there room for a frame of this length? If not, the consumer will say when there may be (`takeBlocked`). */
  hasRoom(length: number): boolean {
    const needed = sizeOf(length);
    if (this.#bytes.length - this.#used >= needed) return true;
    Atomics.store(this.#words, Word.BLOCKED, 1);
    return this.#bytes.length - this.#used >= needed;
  }

  /** False if it finds no room; then it is not sent. */
  push(frame: Uint8Array): boolean {
    const { length } = frame;
    if (this.#bytes.length - this.#used < sizeOf(length)) return false;
    const written = Atomics.load(this.#words, Word.WRITTEN);
    this.#bytes[written & this.#mask] = length;
    this.#bytes[(written + 1) & this.#mask] = length >>> 8;
    this.#put(written + HEADER_BYTES, frame);
    Atomics.store(this.#words, Word.WRITTEN, (written + sizeOf(length)) | 0);
    return true;
  }

  #put(position: number, bytes: Uint8Array): void {
    const at = position & this.#mask;
    const first = Math.min(bytes.length, this.#bytes.length - at);
    if (first === bytes.length) this.#bytes.set(bytes, at);
    else {
      this.#bytes.set(bytes.subarray(0, first), at);
      this.#bytes.set(bytes.subarray(first), 0);
    }
  }

  /** After `push`: true, once, if the consumer sleeps and is to be woken. */
  takeSleeping(): boolean {
    const sleeps = Atomics.load(this.#words, Word.SLEEPING) === 1;
    return sleeps && Atomics.exchange(this.#words, Word.SLEEPING, 0) === 1;
  }

  // ---- the consumer ----

  /** Whole frames with their lengths, as many as are there and fit into `limit` bytes; null if there are none. */
  take(limit: number): Uint8Array | null {
    const used = this.#used;
    const read = Atomics.load(this.#words, Word.READ);
    let size = 0;
    let answer = 0;
    while (size < used) {
      const length = this.#lengthAt(read + size);
      if (answer > 0 && answer + LENGTH_BYTES + length > limit) break;
      answer += LENGTH_BYTES + length;
      size += sizeOf(length);
    }
    if (size === 0) return null;
    if (this.#raw.length < size) this.#raw = new Uint8Array(size);
    this.#get(read, this.#raw.subarray(0, size));
    Atomics.store(this.#words, Word.READ, (read + size) | 0);
    return this.#compact(new Uint8Array(answer));
  }

  /** Frames of the raw copy with no more than their lengths between them. */
  #compact(answer: Uint8Array): Uint8Array {
    for (let at = 0, from = 0; at < answer.length; ) {
      const length = this.#raw[from]! | (this.#raw[from + 1]! << 8);
      answer[at] = length;
      answer[at + 1] = length >>> 8;
      answer.set(this.#raw.subarray(from + HEADER_BYTES, from + HEADER_BYTES + length), at + 2);
      at += LENGTH_BYTES + length;
      from += sizeOf(length);
    }
    return answer;
  }

  /** The next frame, or null. */
  shift(): Uint8Array | null {
    if (this.#used === 0) return null;
    const read = Atomics.load(this.#words, Word.READ);
    const length = this.#lengthAt(read);
    const frame = new Uint8Array(length);
    this.#get(read + HEADER_BYTES, frame);
    Atomics.store(this.#words, Word.READ, (read + sizeOf(length)) | 0);
    return frame;
  }

  #lengthAt(position: number): number {
    return this.#bytes[position & this.#mask]! | (this.#bytes[(position + 1) & this.#mask]! << 8);
  }

  #get(position: number, into: Uint8Array): void {
    const at = position & this.#mask;
    const first = Math.min(into.length, this.#bytes.length - at);
    into.set(this.#bytes.subarray(at, at + first));
    if (first < into.length) into.set(this.#bytes.subarray(0, into.length - first), first);
  }

  /** After taking: true, once, if the producer waits for room and there is some now. */
  takeBlocked(): boolean {
    if (Atomics.load(this.#words, Word.BLOCKED) === 0) return false;
    // Not for crumbs: each wake-up costs more than a frame.
    if (this.#used * 2 > this.#bytes.length) return false;
    return Atomics.exchange(this.#words, Word.BLOCKED, 0) === 1;
  }

  /** The consumer has nothing to do: true if it may sleep until it is woken, false if something has come meanwhile. */
  sleep(): boolean {
    Atomics.store(this.#words, Word.SLEEPING, 1);
    if (this.isEmpty) return true;
    Atomics.store(this.#words, Word.SLEEPING, 0);
    return false;
  }
}
