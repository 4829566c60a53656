/**
 * Frames from one thread to another: a ring of bytes in shared memory with one producer and one consumer.
 *
 *   word 0 bytes written, 1 bytes read, both modulo 2^32 · 2 the consumer sleeps · 3 the producer waits for room · then the bytes
 *
 * A frame is its tag of eight bytes (devices/virtio/frame-tag.ts) and itself, padded to eight: copies to and from shared memory are
 * made byte by byte unless both ends are aligned, which is several times slower. It may go over the end to the beginning. A consumer may look at tags first
 * (`announce`) and take the frames later. Nobody waits here: `push` and `sleep`
 * tell when the other side has to be woken, and how that is done is the embedder's. The two flags are set before the last look, so that no
 * wake-up is lost. Hot path.
 */
import { type FrameTag, getTag, putTag, TAG_BYTES } from "../devices/virtio/frame-tag.ts";
import { scatter, WholeBuffer } from "./scattered.ts";

const Word = { WRITTEN: 0, READ: 1, SLEEPING: 2, BLOCKED: 3, COUNT: 4 } as const;

const padded = (length: number): number => (length + 7) & ~7;
const sizeOf = (length: number): number => TAG_BYTES + padded(length);

export interface TaggedFrame {
  readonly tag: FrameTag;
  readonly frame: Uint8Array;
}

export class FrameRing {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #mask: number;
  /** Of what has been announced: where the next tag is. */
  #announced: number;
  readonly #tag = new Uint8Array(TAG_BYTES);
  readonly #raw = new WholeBuffer();

  /** Over memory that `create` made, here or in another thread. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, Word.COUNT);
    this.#bytes = new Uint8Array(buffer, Word.COUNT * 4);
    this.#mask = this.#bytes.length - 1;
    this.#announced = Atomics.load(this.#words, Word.READ);
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

  /** How many bytes have been taken ever, modulo 2^32. */
  get taken(): number {
    return Atomics.load(this.#words, Word.READ);
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
  push(frame: Uint8Array, flags = 0, segment = 0): boolean {
    return this.pushParts({ length: frame.length, flags, segment }, [frame]);
  }

  /** A frame in pieces, of as many bytes as the tag says. */
  pushParts(tag: FrameTag, parts: readonly Uint8Array[]): boolean {
    const size = sizeOf(tag.length);
    if (this.#bytes.length - this.#used < size) return false;
    const written = Atomics.load(this.#words, Word.WRITTEN);
    putTag(this.#tag, 0, tag);
    this.#put(written, this.#tag);
    this.#put(written + TAG_BYTES, this.#whole(tag.length, parts));
    Atomics.store(this.#words, Word.WRITTEN, (written + size) | 0);
    return true;
  }

  /** Pieces lie anywhere: put together in memory of our own they are copied fast. */
  #whole(length: number, parts: readonly Uint8Array[]): Uint8Array {
    if (parts.length === 1 && parts[0]!.byteOffset % 8 === 0) return parts[0]!;
    return this.#raw.gather(parts, length);
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

  /** Tags of frames that have not been announced yet, at most `frames` of them and not many more than `bytes` bytes in all; null if there are none. */
  announce(frames: number, bytes: number): Uint8Array | null {
    const written = Atomics.load(this.#words, Word.WRITTEN);
    const found: Uint8Array[] = [];
    let total = 0;
    while (this.#announced !== written && found.length < frames && total < bytes) {
      const tag = new Uint8Array(TAG_BYTES);
      this.#get(this.#announced, tag);
      const { length } = getTag(tag, 0);
      found.push(tag);
      total += length;
      this.#announced = (this.#announced + sizeOf(length)) | 0;
    }
    if (found.length === 0) return null;
    const tags = new Uint8Array(TAG_BYTES * found.length);
    for (const [i, tag] of found.entries()) tags.set(tag, TAG_BYTES * i);
    return tags;
  }

  get hasUnannounced(): boolean {
    return Atomics.load(this.#words, Word.WRITTEN) !== this.#announced;
  }

  /** Takes the next frame, as far as there is room for it in `parts`. False if there is none. */
  takeInto(parts: readonly Uint8Array[]): boolean {
    if (this.#used === 0) return false;
    const read = Atomics.load(this.#words, Word.READ);
    const { length } = this.#tagAt(read);
    const whole = this.#raw.room(length);
    if (parts.length > 0) this.#get(read + TAG_BYTES, whole);
    scatter(whole, parts);
    this.#advance(read, length);
    return true;
  }

  /** The next frame, or null. */
  shift(): TaggedFrame | null {
    if (this.#used === 0) return null;
    const read = Atomics.load(this.#words, Word.READ);
    const tag = this.#tagAt(read);
    const frame = new Uint8Array(tag.length);
    this.#get(read + TAG_BYTES, frame);
    this.#advance(read, tag.length);
    return { tag, frame };
  }

  #advance(read: number, length: number): void {
    const next = (read + sizeOf(length)) | 0;
    // What is taken needs no announcement any more.
    if (this.#announced === read) this.#announced = next;
    Atomics.store(this.#words, Word.READ, next);
  }

  #tagAt(position: number): FrameTag {
    this.#get(position, this.#tag);
    return getTag(this.#tag, 0);
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

  /** The consumer has been told of all frames: true if it may sleep until it is woken, false if something has come meanwhile. */
  sleep(): boolean {
    Atomics.store(this.#words, Word.SLEEPING, 1);
    if (!this.hasUnannounced) return true;
    Atomics.store(this.#words, Word.SLEEPING, 0);
    return false;
  }
}
