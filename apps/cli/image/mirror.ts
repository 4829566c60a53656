/**
 * Packages straight from a Debian mirror.
 * Spec: Debian wiki, "DebianRepository/Format".
 *
 * Release -> Packages.xz -> .deb, each checked against the SHA-256 that the one before states. Release itself is taken as the mirror
 * gives it, without its signature: what comes of it runs as an untrusted guest.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import type { PackageSource } from "./package-source.ts";
import { findInIndex, findInRelease, type PackageRecord } from "./packages-index.ts";
import type { Progress } from "./progress.ts";
import type { Transport } from "./transport.ts";
import { decompressXz } from "./xz.ts";

/** Used where neither the user nor the machine's apt names one. */
export const DEFAULT_MIRROR = "https://deb.debian.org/debian";
export const DEFAULT_SUITE = "bookworm";

export interface MirrorOptions {
  /** "https://deb.debian.org/debian", without "dists". */
  readonly base: string;
  readonly suite: string;
  readonly transport: Transport;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

export class MirrorSource implements PackageSource {
  readonly description: string;
  readonly #options: MirrorOptions;
  readonly #indexes = new Map<string, Promise<Buffer>>();

  constructor(options: MirrorOptions) {
    this.#options = { ...options, base: checkMirror(options.base) };
    this.description = this.#options.base;
  }

  async find(name: string, architecture: string): Promise<PackageRecord | undefined> {
    let index = this.#indexes.get(architecture);
    if (!index) {
      index = this.#fetchIndex(architecture);
      this.#indexes.set(architecture, index);
    }
    return findInIndex(await index, name);
  }

  async download(record: PackageRecord): Promise<Uint8Array> {
    const url = `${this.#options.base}/${record.filename.split("/").map(encodeURIComponent).join("/")}`;
    return this.#fetch(`downloading ${record.name}`, url, record);
  }

  async #fetchIndex(architecture: string): Promise<Buffer> {
    const { base, suite, transport, signal } = this.#options;
    const path = `main/binary-${architecture}/Packages.xz`;
    const dist = `${base}/dists/${suite}`;
    const release = await transport.download(`${dist}/Release`, { signal });
    const expected = findInRelease(Buffer.from(release).toString(), path);
    if (!expected) {
      throw new HypolithError("mirror-refused", `${dist}/Release lists no ${path}`, {
        hint: "give the base address of a Debian mirror, like https://deb.debian.org/debian",
      });
    }
    const label = `downloading the package index of ${suite}`;
    const packed = await this.#fetch(label, `${dist}/${path}`, expected);
    const parts: Uint8Array[] = [];
    for await (const part of decompressXz(packed)) {
      signal.throwIfAborted();
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  async #fetch(
    label: string,
    url: string,
    expected: { readonly size: number; readonly sha256: string },
  ): Promise<Uint8Array> {
    const { transport, progress, signal } = this.#options;
    const bar = progress.bar(label, expected.size);
    try {
      const onProgress = (bytes: number): void => bar.update(bytes);
      return await transport.download(url, { expected, onProgress, signal });
    } finally {
      bar.end();
    }
  }
}

export function checkMirror(base: string): string {
  const url = URL.canParse(base) ? new URL(base) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return base.replace(/\/+$/, "");
  throw new HypolithError("mirror-invalid", `'${base}' is no address of a mirror`, {
    hint: "give one like https://deb.debian.org/debian",
  });
}
