/** Guest memory in pieces: what a device's descriptors name, in their order. */

export function lengthOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

/** Puts bytes into the pieces, as far as they go. Answers how many there was room for. */
export function scatter(bytes: Uint8Array, parts: readonly Uint8Array[]): number {
  let at = 0;
  for (const part of parts) {
    if (at >= bytes.length) break;
    const piece = bytes.subarray(at, at + part.length);
    part.set(piece);
    at += piece.length;
  }
  return at;
}

/** Memory of our own, kept from one use to the next, that pieces are put together in. */
export class WholeBuffer {
  #bytes = new Uint8Array(0);

  /** `length` bytes with whatever was in them. */
  room(length: number): Uint8Array {
    if (this.#bytes.length < length) this.#bytes = new Uint8Array(length);
    return this.#bytes.subarray(0, length);
  }

  /** A copy of pieces that are `length` bytes together. */
  gather(parts: readonly Uint8Array[], length: number): Uint8Array {
    const whole = this.room(length);
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }
}
