/** A block port in memory: for tests, and for overlays that need not outlive their machine. */
import type { BlockPort } from "./block-port.ts";

const GRANULE = 1 << 16;

export class MemoryPort implements BlockPort {
  readonly readOnly = false;
  /** 64 KiB pieces by index; absent ones are zeros */
  readonly #pieces = new Map<number, Uint8Array>();
  #size = 0;

  constructor(bytes?: Uint8Array) {
    if (bytes) this.write(0, bytes);
  }

  get size(): number {
    return this.#size;
  }

  read(offset: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const at = offset + done;
      const inside = at % GRANULE;
      const length = Math.min(GRANULE - inside, into.length - done);
      const piece = this.#pieces.get(Math.floor(at / GRANULE));
      if (piece) into.set(piece.subarray(inside, inside + length), done);
      else into.fill(0, done, done + length);
      done += length;
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const inside = at % GRANULE;
      const length = Math.min(GRANULE - inside, bytes.length - done);
      const index = Math.floor(at / GRANULE);
      const piece = this.#pieces.get(index) ?? new Uint8Array(GRANULE);
      this.#pieces.set(index, piece);
      piece.set(bytes.subarray(done, done + length), inside);
      done += length;
    }
    this.#size = Math.max(this.#size, offset + bytes.length);
  }

  flush(): void {}

  truncate(size: number): void {
    const last = Math.floor(size / GRANULE);
    for (const index of [...this.#pieces.keys()]) if (index > last) this.#pieces.delete(index);
    this.#pieces.get(last)?.fill(0, size % GRANULE);
    this.#size = size;
  }

  /** All of it, as one array. */
  bytes(): Uint8Array {
    const bytes = new Uint8Array(this.#size);
    this.read(0, bytes);
    return bytes;
  }
}
