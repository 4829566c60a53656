/**
 * Root file systems of images, made once and kept.
 *
 *   roots/KEY.erofs       the image of a disk; KEY says which layers it is made of
 *   roots/KEY.json        what is known of it without reading it; appears last
 *
 * Both appear by rename. A machine that has one open keeps it, even if it is removed meanwhile.
 */
import {
  closeSync,
  fdatasyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { writeFailure } from "../image/cache.ts";
import type { Progress } from "../image/progress.ts";
import { Staging, sweepStaging } from "../image/staging.ts";
import { namesIn, sizeOf } from "./blob-store.ts";
import { writeErofs } from "./erofs-image.ts";
import { type ImageContent, rootKey } from "./image-content.ts";
import { ROOT_FORMAT } from "./root-format.ts";
import { type RootTree, textOf, withTree } from "./root-tree.ts";
import type { UserFiles } from "./users.ts";

export interface RootFacts extends UserFiles {
  /** Bytes of the disk's image. */
  readonly size: number;
  /** Files whose extended attributes were left out. */
  readonly withAttributes: number;
}

export interface StoredRoot extends RootFacts {
  readonly path: string;
}

export interface ListedRoot {
  readonly key: string;
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly used: number;
}

export interface RootStoreContext {
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

export class RootStore {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** The root file system of an image as a disk, made if it is not there. */
  async supply(image: ImageContent, context: RootStoreContext): Promise<StoredRoot> {
    const key = rootKey(image, ROOT_FORMAT);
    return this.#load(key) ?? (await this.#make(key, image, context));
  }

  list(): ListedRoot[] {
    return namesIn(this.#folder).flatMap((name) => {
      const key = /^([0-9a-f]{64})\.erofs$/.exec(name)?.[1];
      if (key === undefined) return [];
      const status = statSync(join(this.#folder, name), { throwIfNoEntry: false });
      return status ? [{ key, size: status.size, used: status.mtimeMs }] : [];
    });
  }

  remove(key: string): void {
    rmSync(this.#path(key, "json"), { force: true });
    rmSync(this.#path(key, "erofs"), { force: true });
  }

  /** A folder for half-done work, on the same file system. */
  stage(): Staging {
    const parent = join(this.#root, "staging");
    try {
      sweepStaging(parent);
      return Staging.create(parent);
    } catch (cause) {
      throw writeFailure(this.#root, cause);
    }
  }

  #load(key: string): StoredRoot | undefined {
    try {
      const facts = JSON.parse(readFileSync(this.#path(key, "json"), "utf8")) as RootFacts;
      const path = this.#path(key, "erofs");
      if (sizeOf(path) !== facts.size) return undefined;
      // In use: not to be taken away before the machine has it open.
      utimesSync(path, new Date(), new Date());
      return { ...facts, path };
    } catch {
      return undefined;
    }
  }

  async #make(
    key: string,
    image: ImageContent,
    { progress, signal }: RootStoreContext,
  ): Promise<StoredRoot> {
    const staging = this.stage();
    try {
      const half = join(staging.path, "root");
      const facts = await withTree(image, { folder: staging.path, progress, signal }, (tree) => {
        return { ...factsOf(tree), size: writeDisk(tree, half) };
      });
      mkdirSync(this.#folder, { recursive: true });
      renameSync(half, this.#path(key, "erofs"));
      const halfFacts = join(staging.path, "facts");
      writeFileSync(halfFacts, JSON.stringify(facts));
      renameSync(halfFacts, this.#path(key, "json"));
      return { ...facts, path: this.#path(key, "erofs") };
    } catch (cause) {
      signal.throwIfAborted();
      if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
      throw writeFailure(this.#root, cause);
    } finally {
      staging.remove();
    }
  }

  get #folder(): string {
    return join(this.#root, "roots");
  }

  #path(key: string, kind: "erofs" | "json"): string {
    return join(this.#folder, `${key}.${kind}`);
  }
}

export function factsOf({ root, withAttributes }: RootTree): Omit<RootFacts, "size"> {
  return {
    passwd: textOf(root, "etc/passwd"),
    group: textOf(root, "etc/group"),
    withAttributes,
  };
}

function writeDisk({ root }: RootTree, path: string): number {
  const descriptor = openSync(path, "w", 0o600);
  try {
    const { bytes } = writeErofs(root, descriptor);
    fdatasyncSync(descriptor);
    return bytes;
  } finally {
    closeSync(descriptor);
  }
}
