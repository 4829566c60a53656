/**
 * Names of pulled images: for each name and platform a small file that says which manifest it is.
 *
 *   names/NAME@OS-ARCH.json        NAME percent-encoded; appears by rename
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeFailure } from "../image/cache.ts";
import { namesIn } from "./blob-store.ts";
import { isDigest } from "./digest.ts";
import { formatPlatform, type Platform } from "./manifest.ts";

export interface NamedImage {
  /** In full: "docker.io/library/alpine:latest". */
  readonly name: string;
  /** "linux/amd64". */
  readonly platform: string;
  /** Of the manifest of that platform. */
  readonly digest: string;
  /** Of what the registry has under the name: the index if there is one. */
  readonly indexDigest: string;
  /** Of configuration and layers. */
  readonly blobs: readonly string[];
  /** Bytes of all blobs. */
  readonly size: number;
  /** Of the root file system: oci/roots. */
  readonly rootKey: string;
  /** RFC 3339. */
  readonly created: string | undefined;
  /** Milliseconds since 1970. */
  readonly pulled: number;
}

const FORMAT = 1;

export class ImageNames {
  readonly #folder: string;
  #count = 0;

  constructor(root: string) {
    this.#folder = join(root, "names");
  }

  find(name: string, platform: Platform): NamedImage | undefined {
    return this.#read(fileName(name, formatPlatform(platform)));
  }

  list(): NamedImage[] {
    const files = namesIn(this.#folder).filter((name) => name.endsWith(".json"));
    return files.flatMap((file) => this.#read(file) ?? []);
  }

  store(image: NamedImage): void {
    try {
      mkdirSync(this.#folder, { recursive: true });
      const half = join(this.#folder, `.${process.pid}.${this.#count++}`);
      writeFileSync(half, `${JSON.stringify({ format: FORMAT, ...image }, undefined, 2)}\n`);
      renameSync(half, join(this.#folder, fileName(image.name, image.platform)));
    } catch (cause) {
      throw writeFailure(this.#folder, cause);
    }
  }

  remove({ name, platform }: NamedImage): void {
    rmSync(join(this.#folder, fileName(name, platform)), { force: true });
  }

  /** A file that cannot be understood names nothing; the next pull writes it anew. */
  #read(file: string): NamedImage | undefined {
    try {
      const json = JSON.parse(readFileSync(join(this.#folder, file), "utf8"));
      const isSound = json.format === FORMAT && isDigest(json.digest) && json.blobs.every(isDigest);
      return isSound ? (json as NamedImage) : undefined;
    } catch {
      return undefined;
    }
  }
}

function fileName(name: string, platform: string): string {
  return `${encodeURIComponent(name)}@${platform.replaceAll("/", "-")}.json`;
}
