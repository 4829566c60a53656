/**
 * The image cache: what has been taken out of packages, stored by its SHA-256.
 *
 *   blobs/HEX             content, named by its checksum
 *   images/NAME.json      which blobs make up an image, and the packages they came from
 *   staging/              half-done work
 *
 * A file appears under its name complete or not at all: it is written in staging/ and renamed. The image's own file comes last, so
 * an interrupted store leaves at most blobs that nobody names. Every read checks the checksum; a damaged image is no image.
 * Two processes may store the same image at once: both rename the same content.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import type { GuestImage, SourcePackage } from "./guest-image.ts";
import { Staging, sweepStaging } from "./staging.ts";

/** Change it when the meaning of a stored image changes: older ones are then fetched anew. */
const FORMAT = 1;

interface BlobName {
  readonly sha256: string;
  readonly size: number;
}

interface StoredImage {
  readonly format: typeof FORMAT;
  readonly image: string;
  readonly release: string;
  readonly packages: readonly SourcePackage[];
  readonly kernel: BlobName;
  readonly systemMap: BlobName;
  readonly busybox: BlobName;
  readonly modules: ReadonlyArray<BlobName & { readonly name: string }>;
  /** What was asked for; another list than today's makes the image stale. */
  readonly requestedModules: readonly string[];
}

export function defaultCacheRoot(env: NodeJS.ProcessEnv = process.env): string {
  if (env.HYPO_HOME) return join(env.HYPO_HOME, "cache");
  return join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "hypolith");
}

export interface CachedImage {
  readonly name: string;
  readonly release: string;
  readonly architecture: string;
  /** Bytes. */
  readonly size: number;
}

/** Younger than this, a file that nobody names may be part of what another process is storing. */
export const YOUNG_MS = 60_000;

export type CacheLookup =
  | { readonly state: "found"; readonly image: GuestImage }
  | { readonly state: "absent" }
  | { readonly state: "damaged"; readonly why: string };

export class ImageCache {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  get stagingParent(): string {
    return join(this.root, "staging");
  }

  /** A folder for half-done work on the cache's own file system. Throws HypolithError if the cache cannot be written. */
  stage(): Staging {
    sweepStaging(this.stagingParent);
    try {
      return Staging.create(this.stagingParent);
    } catch (cause) {
      throw writeFailure(this.root, cause);
    }
  }

  load(name: string, requestedModules: readonly string[]): CacheLookup {
    const path = this.#imagePath(name);
    if (!existsSync(path)) return { state: "absent" };
    try {
      const stored = JSON.parse(readFileSync(path, "utf8")) as StoredImage;
      if (stored.format !== FORMAT) return { state: "absent" };
      if (stored.requestedModules.join() !== requestedModules.join()) return { state: "absent" };
      return { state: "found", image: this.#read(stored) };
    } catch (error) {
      return { state: "damaged", why: (error as Error).message };
    }
  }

  /** Throws HypolithError if the cache cannot be written; then it is as it was before. */
  store(image: GuestImage, requestedModules: readonly string[]): void {
    const staging = this.stage();
    try {
      const stored: StoredImage = {
        format: FORMAT,
        image: image.name,
        release: image.release,
        packages: image.packages,
        kernel: this.#writeBlob(staging, image.kernel),
        systemMap: this.#writeBlob(staging, image.systemMap),
        busybox: this.#writeBlob(staging, image.busybox),
        modules: image.modules.map(({ name, content }) => ({
          name,
          ...this.#writeBlob(staging, content),
        })),
        requestedModules,
      };
      const text = `${JSON.stringify(stored, undefined, 2)}\n`;
      this.#place(staging, Buffer.from(text), this.#imagePath(image.name));
    } catch (cause) {
      throw writeFailure(this.root, cause);
    } finally {
      staging.remove();
    }
  }

  /** What is there, without reading it. */
  list(): CachedImage[] {
    return this.#stored().map(({ image, release, packages, ...parts }) => {
      const blobs = [parts.kernel, parts.systemMap, parts.busybox, ...parts.modules];
      const size = blobs.reduce((sum, blob) => sum + blob.size, 0);
      return { name: image, release, architecture: packages[0]?.architecture ?? "", size };
    });
  }

  /** Forgets an image; its blobs stay until `prune`. */
  remove(name: string): boolean {
    const path = this.#imagePath(name);
    const isThere = existsSync(path);
    rmSync(path, { force: true });
    return isThere;
  }

  /** Removes blobs that no image names, but for young ones: somebody may be about to name them. Answers the bytes. */
  prune(): number {
    const images = this.#stored();
    const parts = images.flatMap((image) => [
      ...[image.kernel, image.systemMap, image.busybox, ...image.modules],
    ]);
    const named = new Set(parts.map(({ sha256 }) => sha256));
    const folder = join(this.root, "blobs");
    let bytes = 0;
    for (const name of existsSync(folder) ? readdirSync(folder) : []) {
      const path = join(folder, name);
      const { size, mtimeMs } = statSync(path);
      if (named.has(name) || Date.now() - mtimeMs < YOUNG_MS) continue;
      rmSync(path, { force: true });
      bytes += size;
    }
    return bytes;
  }

  #stored(): StoredImage[] {
    const folder = join(this.root, "images");
    const names = existsSync(folder) ? readdirSync(folder) : [];
    return names.flatMap((name) => {
      try {
        const stored = JSON.parse(readFileSync(join(folder, name), "utf8")) as StoredImage;
        return stored.format === FORMAT ? [stored] : [];
      } catch {
        return [];
      }
    });
  }

  #read(stored: StoredImage): GuestImage {
    return {
      name: stored.image,
      release: stored.release,
      packages: stored.packages,
      kernel: this.#readBlob(stored.kernel),
      systemMap: this.#readBlob(stored.systemMap),
      busybox: this.#readBlob(stored.busybox),
      modules: stored.modules.map((blob) => ({ name: blob.name, content: this.#readBlob(blob) })),
    };
  }

  #readBlob({ sha256, size }: BlobName): Uint8Array {
    const path = this.#blobPath(sha256);
    const content = readFileSync(path);
    if (content.length === size && sha256Of(content) === sha256) return content;
    // Out of the way, or storing the image again would find it present.
    rmSync(path, { force: true });
    throw new Error(`${path} does not have the content it is named after`);
  }

  #writeBlob(staging: Staging, content: Uint8Array): BlobName {
    const sha256 = sha256Of(content);
    const path = this.#blobPath(sha256);
    if (!existsSync(path)) this.#place(staging, content, path);
    return { sha256, size: content.length };
  }

  #place(staging: Staging, content: Uint8Array, path: string): void {
    const half = join(staging.path, "half");
    writeFileSync(half, content);
    mkdirSync(join(path, ".."), { recursive: true });
    renameSync(half, path);
  }

  #blobPath(sha256: string): string {
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new Error(`'${sha256}' is no checksum`);
    return join(this.root, "blobs", sha256);
  }

  #imagePath(name: string): string {
    return join(this.root, "images", `${name.replaceAll(/[^a-z0-9.-]/g, "_")}.json`);
  }
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

const FULL = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

export function writeFailure(path: string, cause: unknown): HypolithError {
  if (cause instanceof HypolithError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code && FULL.has(code)) {
    return new HypolithError("cache-full", `there is no space left for the cache in ${path}`, {
      cause,
      hint: "free some space there, or choose another place with HYPO_HOME",
    });
  }
  return new HypolithError(
    "cache-unwritable",
    `the cache in ${path} cannot be written: ${message}`,
    { cause, hint: "choose another place with HYPO_HOME" },
  );
}
