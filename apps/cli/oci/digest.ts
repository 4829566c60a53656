/**
 * Content digests: "sha256:HEX".
 * Spec: OCI Image Specification, "Descriptors", Digests. SHA-512 is the other registered algorithm.
 */
import { createHash, type Hash } from "node:crypto";
import { HypolithError } from "../../../src/base/errors.ts";

const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export function isDigest(text: unknown): text is string {
  return typeof text === "string" && DIGEST.test(text);
}

export function splitDigest(digest: string): [algorithm: string, hex: string] {
  const at = digest.indexOf(":");
  return [digest.slice(0, at), digest.slice(at + 1)];
}

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Sums up bytes and compares them with what they should be. */
export class DigestCheck {
  readonly digest: string;
  readonly #hash: Hash;

  constructor(digest: string) {
    this.digest = digest;
    this.#hash = createHash(splitDigest(digest)[0]);
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** Call once. */
  matches(): boolean {
    return this.#hash.digest("hex") === splitDigest(this.digest)[1];
  }
}

export function wrongDigest(what: string, digest: string): HypolithError {
  return new HypolithError(
    "digest-mismatch",
    `${what} does not have the content of its digest ${digest}`,
    {
      hint: "the registry or what lies between has changed it; nothing of it was kept",
    },
  );
}
