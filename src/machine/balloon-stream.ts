/**
 * What becomes of memory that a guest does not need: it is made zero, so that a snapshot leaves it out. The other end of a balloon's stream.
 *
 * A WebAssembly memory can give nothing back to the system, so this process stays as large as it was (ADR 28). To look at a page that was
 * never touched makes it larger, even.
 */
import { HypolithError } from "../base/errors.ts";
import type { StreamServer } from "./stream-server.ts";

const PAGE = 4096;
const WORDS = PAGE / 8;
const TARGET_BYTES = 4;
const NOTHING = -1;

export class BalloonStream implements StreamServer {
  /** Pages that the guest shall give, if it is to be told. */
  #target = NOTHING;
  /** Bytes that were not zero and now are. */
  cleared = 0;

  /** Asks the guest for that many bytes in all. */
  setTarget(bytes: number): void {
    this.#target = Math.min(Math.max(0, Math.floor(bytes / PAGE)), 0xffff_ffff);
  }

  take(): void {}

  move(toMemory: boolean, _: Uint8Array, memory: readonly Uint8Array[]): void {
    if (!toMemory) return;
    for (const part of memory) {
      if (part.byteOffset % PAGE !== 0) continue;
      for (let at = 0; at + PAGE <= part.length; at += PAGE) this.#clear(part, at);
    }
  }

  get hasMore(): boolean {
    return this.#target !== NOTHING;
  }

  give(): Uint8Array | null {
    if (this.#target === NOTHING) return null;
    const bytes = new Uint8Array(TARGET_BYTES);
    new DataView(bytes.buffer).setUint32(0, this.#target, true);
    this.#target = NOTHING;
    return bytes;
  }

  save(): unknown {
    return this.#target;
  }

  restore(state: unknown): void {
    if (!Number.isSafeInteger(state))
      throw new HypolithError("snapshot-shape", "the saved end of a balloon does not fit");
    this.#target = state as number;
  }

  #clear(part: Uint8Array, at: number): void {
    const words = new BigUint64Array(part.buffer, part.byteOffset + at, WORDS);
    for (let i = 0; i < WORDS; i++) {
      if (words[i] === 0n) continue;
      words.fill(0n);
      this.cleared += PAGE;
      return;
    }
  }
}
