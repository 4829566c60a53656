/**
 * Content-addressed store of images: blobs under their digest.
 *
 *   blobs/ALGORITHM/HEX            complete and checked, or not there
 *   partial/HEX.PID.N              being written by process PID; taken over by the next one when PID is gone
 *   pulls/PID                      a process that counts on blobs no name points to yet: nobody may remove those meanwhile
 *
 * Nothing is locked: a blob appears by rename after its digest has been checked, and whoever loses a race has renamed the same content.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { writeFailure } from "../image/cache.ts";
import { isAlive } from "../image/staging.ts";
import { DigestCheck, splitDigest, wrongDigest } from "./digest.ts";
import type { Descriptor } from "./manifest.ts";

export interface StoredBlob {
  readonly digest: string;
  readonly size: number;
}

export class BlobStore {
  readonly root: string;
  #count = 0;

  constructor(root: string) {
    this.root = root;
  }

  pathOf(digest: string): string {
    return join(this.root, "blobs", ...splitDigest(digest));
  }

  has({ digest, size }: Descriptor): boolean {
    try {
      return statSync(this.pathOf(digest)).size === size;
    } catch {
      return false;
    }
  }

  /** A blob that fits into memory, checked; undefined if it is not there. One that is damaged is removed. */
  read(digest: string): Buffer | undefined {
    const path = this.pathOf(digest);
    if (!existsSync(path)) return undefined;
    const bytes = readFileSync(path);
    const check = new DigestCheck(digest);
    check.update(bytes);
    if (check.matches()) return bytes;
    rmSync(path, { force: true });
    return undefined;
  }

  /** Removes those that are not what their digests say; answers how many. */
  removeDamaged(digests: readonly string[]): number {
    let damaged = 0;
    for (const digest of digests) {
      const path = this.pathOf(digest);
      if (!existsSync(path) || fileMatches(path, digest)) continue;
      rmSync(path, { force: true });
      damaged++;
    }
    return damaged;
  }

  /** For a blob at hand. Throws if it is not what the digest says. */
  write(digest: string, bytes: Uint8Array, what: string): void {
    const writer = this.begin(digest, false);
    try {
      writer.write(bytes);
      writer.commit(what);
    } finally {
      writer.end();
    }
  }

  /** Starts a blob, or goes on with what a process that is gone has left of it. */
  begin(digest: string, canResume = true): BlobWriter {
    const [, hex] = splitDigest(digest);
    const folder = join(this.root, "partial");
    const path = join(folder, `${hex}.${process.pid}.${this.#count++}`);
    try {
      mkdirSync(folder, { recursive: true });
      mkdirSync(dirname(this.pathOf(digest)), { recursive: true });
      if (canResume) this.#adopt(hex, path);
      return new BlobWriter(path, this.pathOf(digest), digest);
    } catch (cause) {
      throw writeFailure(this.root, cause);
    }
  }

  /** Renaming is the lock: of two processes one gets the file. */
  #adopt(hex: string, path: string): void {
    for (const name of namesIn(dirname(path))) {
      const [of, pid] = name.split(".");
      if (of !== hex || isRunning(pid)) continue;
      try {
        renameSync(join(dirname(path), name), path);
        return;
      } catch {
        // Another process was faster.
      }
    }
  }

  list(): StoredBlob[] {
    const folder = join(this.root, "blobs");
    return namesIn(folder).flatMap((algorithm) =>
      namesIn(join(folder, algorithm)).flatMap((hex) => {
        const size = sizeOf(join(folder, algorithm, hex));
        return size === undefined ? [] : [{ digest: `${algorithm}:${hex}`, size }];
      }),
    );
  }

  remove(digest: string): void {
    rmSync(this.pathOf(digest), { force: true });
  }

  /** Removes what processes that are gone have left half-done; answers the bytes. */
  sweepPartial(): number {
    const folder = join(this.root, "partial");
    let bytes = 0;
    for (const name of namesIn(folder)) {
      if (isRunning(name.split(".")[1])) continue;
      bytes += sizeOf(join(folder, name)) ?? 0;
      rmSync(join(folder, name), { force: true });
    }
    return bytes;
  }

  /** From now until the answer is called, other processes leave blobs alone. */
  announcePull(): () => void {
    const path = join(this.root, "pulls", `${process.pid}`);
    try {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, "");
    } catch (cause) {
      throw writeFailure(this.root, cause);
    }
    const end = (): void => rmSync(path, { force: true });
    process.once("exit", end);
    return () => {
      process.off("exit", end);
      end();
    };
  }

  /** Is another process pulling? */
  isPulledInto(): boolean {
    return namesIn(join(this.root, "pulls")).some(
      (pid) => Number(pid) !== process.pid && isRunning(pid),
    );
  }
}

/** One blob on its way into the store. */
export class BlobWriter {
  readonly #path: string;
  readonly #target: string;
  readonly #descriptor: number;
  #check: DigestCheck;
  #size = 0;
  #done = false;

  constructor(path: string, target: string, digest: string) {
    this.#path = path;
    this.#target = target;
    this.#check = new DigestCheck(digest);
    this.#descriptor = openSync(path, "a+", 0o600);
    const buffer = Buffer.alloc(1 << 16);
    for (let got = 0; ; this.#size += got) {
      got = readSync(this.#descriptor, buffer, 0, buffer.length, this.#size);
      if (got === 0) break;
      this.#check.update(buffer.subarray(0, got));
    }
  }

  /** Bytes that are there. */
  get size(): number {
    return this.#size;
  }

  write(bytes: Uint8Array): void {
    try {
      for (let at = 0; at < bytes.length; ) {
        at += writeSync(this.#descriptor, bytes, at, bytes.length - at);
      }
    } catch (cause) {
      throw writeFailure(dirname(this.#path), cause);
    }
    this.#check.update(bytes);
    this.#size += bytes.length;
  }

  /** From the beginning again. */
  restart(): void {
    truncateSync(this.#path, 0);
    this.#check = new DigestCheck(this.#check.digest);
    this.#size = 0;
  }

  /** Checks the digest and puts the blob into its place. Throws HypolithError "digest-mismatch"; then nothing is kept. */
  commit(what: string): void {
    this.#done = true;
    if (!this.#check.matches()) {
      rmSync(this.#path, { force: true });
      throw wrongDigest(what, this.#check.digest);
    }
    try {
      fdatasyncSync(this.#descriptor);
      renameSync(this.#path, this.#target);
    } catch (cause) {
      throw writeFailure(dirname(this.#target), cause);
    }
  }

  /** Call on every way out. What was not committed is kept for the next try of this or another process, if it is anything. */
  end(): void {
    closeSync(this.#descriptor);
    if (this.#done) return;
    if (this.#size === 0) rmSync(this.#path, { force: true });
    // Process id 0 is nobody's: the next writer may have it.
    else renameSync(this.#path, join(dirname(this.#path), abandonedName(basename(this.#path))));
  }
}

function fileMatches(path: string, digest: string): boolean {
  const check = new DigestCheck(digest);
  const descriptor = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(1 << 20);
    for (let got = 1; got > 0; ) {
      got = readSync(descriptor, buffer, 0, buffer.length, null);
      check.update(buffer.subarray(0, got));
    }
    return check.matches();
  } finally {
    closeSync(descriptor);
  }
}

/** Process 0 would be our own group. */
function isRunning(pid: string | undefined): boolean {
  return Number(pid) > 0 && isAlive(Number(pid));
}

function abandonedName(name: string): string {
  const [hex, pid, count] = name.split(".");
  return `${hex}.0.${pid}-${count}`;
}

export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

export function sizeOf(path: string): number | undefined {
  try {
    return statSync(path).size;
  } catch {
    return undefined;
  }
}
