/**
 * Bytes received ahead of what is missing, in pieces that neither overlap nor touch the next expected byte.
 *
 * Bounded twice: by the window, which the connection trims to, and by MAX_PIECES. What finds no room is dropped; the sender repeats it.
 */
const MAX_PIECES = 128;
const MAX_SACK_BLOCKS = 3;

export interface Piece {
  readonly start: number;
  readonly bytes: Uint8Array;
}

export class OutOfOrder {
  /** By position. */
  #pieces: Piece[] = [];
  /** Position of the piece that came last. */
  #latest = 0;

  get isEmpty(): boolean {
    return this.#pieces.length === 0;
  }

  get bytes(): number {
    return this.#pieces.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** Takes a copy of what is new in `bytes`. */
  add(start: number, bytes: Uint8Array): void {
    this.#latest = start;
    let at = start;
    const end = start + bytes.length;
    const added: Piece[] = [];
    for (const piece of this.#pieces) {
      if (at >= end) break;
      const pieceEnd = piece.start + piece.bytes.length;
      if (pieceEnd <= at) continue;
      if (piece.start > at) {
        const upTo = Math.min(piece.start, end);
        added.push({ start: at, bytes: bytes.slice(at - start, upTo - start) });
      }
      at = Math.max(at, pieceEnd);
    }
    if (at < end) added.push({ start: at, bytes: bytes.slice(at - start) });
    if (added.length === 0 || this.#pieces.length + added.length > MAX_PIECES) return;
    this.#pieces = [...this.#pieces, ...added].sort((a, b) => a.start - b.start);
  }

  /** The piece that continues the stream at `next`, without what is before it; null if there is none. */
  takeAt(next: number): Uint8Array | null {
    for (let first = this.#pieces[0]; first && first.start <= next; first = this.#pieces[0]) {
      this.#pieces.shift();
      const fresh = first.bytes.subarray(Math.min(next - first.start, first.bytes.length));
      if (fresh.length > 0) return fresh;
    }
    return null;
  }

  /** Ranges held, the one with the latest piece first. RFC 2018, "Generating Sack Options". */
  blocks(): { start: number; end: number }[] {
    const ranges: { start: number; end: number }[] = [];
    for (const { start, bytes } of this.#pieces) {
      const last = ranges.at(-1);
      if (last && last.end === start) last.end += bytes.length;
      else ranges.push({ start, end: start + bytes.length });
    }
    const isLatest = (r: { start: number; end: number }): boolean =>
      r.start <= this.#latest && this.#latest < r.end;
    ranges.sort((a, b) => Number(isLatest(b)) - Number(isLatest(a)));
    return ranges.slice(0, MAX_SACK_BLOCKS);
  }

  clear(): void {
    this.#pieces = [];
  }

  save(): Piece[] {
    return this.#pieces.map(({ start, bytes }) => ({ start, bytes: bytes.slice() }));
  }

  restore(pieces: readonly Piece[]): void {
    this.#pieces = pieces.map(({ start, bytes }) => ({ start, bytes: bytes.slice() }));
  }
}
