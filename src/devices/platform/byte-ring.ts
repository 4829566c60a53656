/**
 * A bounded queue of bytes over a plain state, as a hardware FIFO is.
 * Head and count are masked at each use, so not even a forged snapshot can index outside.
 */
export interface ByteRingState {
  bytes: Uint8Array;
  head: number;
  count: number;
}

export class ByteRing {
  readonly #state: ByteRingState;
  readonly #size: number;

  /** `size` must be a power of two. */
  static state(size: number): ByteRingState {
    return { bytes: new Uint8Array(size), head: 0, count: 0 };
  }

  constructor(state: ByteRingState) {
    this.#state = state;
    this.#size = state.bytes.length;
  }

  get count(): number {
    return Math.min(Math.max(this.#state.count | 0, 0), this.#size);
  }

  get free(): number {
    return this.#size - this.count;
  }

  clear(): void {
    this.#state.count = 0;
  }

  /** Drops the byte if full. */
  push(byte: number): void {
    if (this.free === 0) return;
    this.#state.bytes[this.#index(this.count)] = byte;
    this.#state.count = this.count + 1;
  }

  /** Pushes as many as fit and answers how many. */
  pushAll(bytes: Uint8Array): number {
    const accepted = Math.min(bytes.length, this.free);
    for (let i = 0; i < accepted; i++) this.push(bytes[i]);
    return accepted;
  }

  /** The first byte, removed; 0 if empty. */
  shift(): number {
    if (this.count === 0) return 0;
    const byte = this.peek(0);
    this.#state.count = this.count - 1;
    this.#state.head = (this.#state.head + 1) & (this.#size - 1);
    return byte;
  }

  peek(position: number): number {
    return this.#state.bytes[this.#index(position)];
  }

  replaceFirst(byte: number): void {
    this.#state.bytes[this.#index(0)] = byte;
  }

  /** Whether any queued byte is not zero. */
  some(): boolean {
    for (let i = 0; i < this.count; i++) if (this.peek(i) !== 0) return true;
    return false;
  }

  #index(position: number): number {
    return (this.#state.head + position) & (this.#size - 1);
  }
}
