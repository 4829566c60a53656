/**
 * The workshop's cache, .cache/ in the checkout (git ignores it): kernels, images and built programs, each made once.
 *
 * A file's name carries a digest of all it is made from, so a change of the recipe makes another file and nothing is ever stale.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const CHECKOUT = fileURLToPath(new URL("../../", import.meta.url));
const CACHE = join(CHECKOUT, ".cache");

export function digest(...parts: ReadonlyArray<string | Uint8Array>): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return hash.digest("hex");
}

/** The path of the cached file `name`; `make` writes it at the path that it is given if it is not there. */
export async function cachedFile(
  name: string,
  make: (path: string) => Promise<void> | void,
): Promise<string> {
  const path = join(CACHE, name);
  if (existsSync(path)) return path;
  mkdirSync(dirname(path), { recursive: true });
  const half = `${path}.half`;
  await make(half);
  renameSync(half, path);
  return path;
}

/** A cached file for content that is at hand. */
export function storedFile(name: string, content: Uint8Array): Promise<string> {
  return cachedFile(name, (path) => writeFileSync(path, content));
}

/** A folder in the cache for results of this run. */
export function outputFolder(name: string): string {
  const path = join(CACHE, name);
  mkdirSync(path, { recursive: true });
  return path;
}
