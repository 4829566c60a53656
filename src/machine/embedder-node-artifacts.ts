/**
 * What the engine has made of nothing but its own code, kept in the user's cache: cache/engine/DIGEST-NAME, with a checksum in front. The digest
 * is over the processor's files, so what other code has made is never found.
 */
import { createHash } from "node:crypto";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import type { ArtifactStore } from "../processor/interpreter/core-cache.ts";

const SOURCES = fileURLToPath(new URL("../processor", import.meta.url));
const SUM_BYTES = 4;
/** What has not been used for so long goes. */
const MAX_AGE_MS = 30 * 86_400_000;

export class NodeArtifacts implements ArtifactStore {
  readonly #folder: string;
  #digest: string | undefined;

  constructor(folder = join(cacheRoot(), "engine")) {
    this.#folder = folder;
  }

  get(name: string): Uint8Array | undefined {
    const path = this.#path(name);
    try {
      const bytes = readFileSync(path);
      const content = bytes.subarray(SUM_BYTES);
      if (bytes.readUInt32LE(0) !== crc32(content)) return undefined;
      return content;
    } catch {
      return undefined;
    }
  }

  /** A cache that cannot be written costs time and nothing else. */
  put(name: string, bytes: Uint8Array): void {
    const path = this.#path(name);
    const half = `${path}.${process.pid}`;
    const sum = Buffer.alloc(SUM_BYTES);
    sum.writeUInt32LE(crc32(bytes));
    try {
      mkdirSync(this.#folder, { recursive: true });
      this.#sweep();
      writeFileSync(half, Buffer.concat([sum, bytes]));
      renameSync(half, path);
    } catch {
      remove(half);
    }
  }

  #sweep(): void {
    const now = Date.now();
    for (const file of readdirSync(this.#folder)) {
      const path = join(this.#folder, file);
      if (file.startsWith(this.#digest!)) utimesSync(path, now / 1000, now / 1000);
      else if (statSync(path).mtimeMs < now - MAX_AGE_MS) rmSync(path, { force: true });
    }
  }

  #path(name: string): string {
    this.#digest ??= digestOf(SOURCES);
    return join(this.#folder, `${this.#digest}-${name}`);
  }
}

function remove(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // There is no such folder.
  }
}

function cacheRoot({ HYPO_HOME, XDG_CACHE_HOME } = process.env): string {
  if (HYPO_HOME) return join(HYPO_HOME, "cache");
  return join(XDG_CACHE_HOME || join(homedir(), ".cache"), "hypolith");
}

function digestOf(root: string): string {
  const hash = createHash("sha256").update(process.version);
  for (const name of (readdirSync(root, { recursive: true }) as string[]).sort()) {
    if (!/\.[jt]s$/.test(name) || name.includes(".test.")) continue;
    const { size, mtimeMs } = statSync(join(root, name));
    hash.update(`${name}:${size}:${mtimeMs}\n`);
  }
  return hash.digest("hex").slice(0, 16);
}
