/**
 * The RAM of a service's VM as the kernel handles it: read within bounds, and set to a whole image. Only pages that differ are written, so
 * what has been decoded of unchanged code stays.
 */
import { invariant } from "../../base/invariant.ts";
import { RAM_BASE } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";

const PAGE = 4096;
const PAGE_WORDS = PAGE / 4;

export class ServiceMemory {
  readonly bytes: Uint8Array;
  readonly #engine: Engine;

  constructor(engine: Engine, length: number) {
    invariant(length % PAGE === 0, "memory of whole pages");
    this.#engine = engine;
    this.bytes = new Uint8Array(engine.view.buffer, RAM_BASE, length);
  }

  /** A window of [at, at + length), or null if it is not all there. */
  window(at: number, length: number): Uint8Array | null {
    return at <= this.bytes.length && length <= this.bytes.length - at
      ? this.bytes.subarray(at, at + length)
      : null;
  }

  /** Makes the memory equal to `image`, which is as long. */
  set(image: Uint8Array): void {
    invariant(image.length === this.bytes.length, "an image of the whole memory");
    const wanted = wordsOf(image);
    const present = wordsOf(this.bytes);
    for (let at = 0; at < image.length; at += PAGE) {
      if (isEqual(present, wanted, at / 4)) continue;
      this.#engine.noticeWrite(RAM_BASE + at, PAGE);
      this.bytes.set(image.subarray(at, at + PAGE), at);
    }
  }

  copy(): Uint8Array {
    return this.bytes.slice();
  }
}

function wordsOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

function isEqual(a: Uint32Array, b: Uint32Array, from: number): boolean {
  for (let i = from; i < from + PAGE_WORDS; i++) if (a[i] !== b[i]) return false;
  return true;
}
