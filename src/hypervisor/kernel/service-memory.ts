/**
 * The RAM of a service's VM as the kernel handles it: read within bounds, and set to a whole image. Only pages that differ are written, so
 * what has been decoded of unchanged code stays.
 */
import { invariant } from "../../base/invariant.ts";
import { RAM_BASE } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";

const PAGE = 4096;

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
    for (let at = 0; at < image.length; at += PAGE) {
      const wanted = image.subarray(at, at + PAGE);
      const present = this.bytes.subarray(at, at + PAGE);
      if (isEqual(present, wanted)) continue;
      this.#engine.noticeWrite(RAM_BASE + at, PAGE);
      present.set(wanted);
    }
  }

  copy(): Uint8Array {
    return this.bytes.slice();
  }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < PAGE; i++) if (a[i] !== b[i]) return false;
  return true;
}
