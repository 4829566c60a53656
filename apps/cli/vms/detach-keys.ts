/** The keys that leave a machine running, as docker writes them: "ctrl-p,ctrl-q". */
import { UsageError } from "../usage-error.ts";

/** Bytes of a sequence like "ctrl-p,ctrl-q" or "ctrl-x,x". Throws UsageError. */
export function parseDetachKeys(text: string): Buffer {
  const bytes = text.split(",").map((key) => {
    const control = /^ctrl-([a-z@[\\\]^_])$/i.exec(key)?.[1];
    if (control) return control.toUpperCase().charCodeAt(0) & 0x1f;
    if (key.length === 1 && key.charCodeAt(0) < 0x80) return key.charCodeAt(0);
    throw new UsageError(`'${text}' are no keys`, "write them like ctrl-p,ctrl-q or ctrl-x,x");
  });
  return Buffer.from(bytes);
}

/** Passes on what is typed, but for the sequence. Keys that may be its beginning wait for the next one. */
export class DetachKeys {
  readonly #keys: Buffer;
  #matched = 0;

  constructor(keys: Buffer) {
    this.#keys = keys;
  }

  /** Null when the sequence is complete. */
  filter(typed: Buffer): Buffer | null {
    const out: number[] = [];
    for (const byte of typed) {
      if (byte === this.#keys[this.#matched]) {
        this.#matched += 1;
        if (this.#matched === this.#keys.length) return null;
        continue;
      }
      // The held keys are the guest's after all, but for the end of them that begins the sequence anew.
      const held = [...this.#keys.subarray(0, this.#matched), byte];
      this.#matched = 0;
      let keep = Math.min(held.length, this.#keys.length - 1);
      while (keep > 0 && !this.#begins(held.slice(held.length - keep))) keep -= 1;
      out.push(...held.slice(0, held.length - keep));
      this.#matched = keep;
    }
    return Buffer.from(out);
  }

  #begins(bytes: readonly number[]): boolean {
    return bytes.every((byte, i) => byte === this.#keys[i]);
  }
}
