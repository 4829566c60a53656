/** What a guest writes, as a stream that may be read or not: of what nobody reads, the oldest is forgotten. */
import { Readable } from "node:stream";

const MOST_KEPT = 8 << 20;

export class GuestOutput extends Readable {
  #waiting: Uint8Array[] = [];
  #size = 0;
  #isWanted = false;
  #isOver = false;

  add(bytes: Uint8Array): void {
    if (this.#isOver || bytes.length === 0) return;
    this.#waiting.push(bytes);
    this.#size += bytes.length;
    while (this.#size > MOST_KEPT && this.#waiting.length > 1)
      this.#size -= this.#waiting.shift()!.length;
    this.#offer();
  }

  finish(): void {
    this.#isOver = true;
    this.#offer();
  }

  override _read(): void {
    this.#isWanted = true;
    this.#offer();
  }

  #offer(): void {
    while (this.#isWanted && this.#waiting.length > 0) {
      const bytes = this.#waiting.shift()!;
      this.#size -= bytes.length;
      this.#isWanted = this.push(bytes);
    }
    if (this.#isOver && this.#isWanted && this.#waiting.length === 0) this.push(null);
  }
}
