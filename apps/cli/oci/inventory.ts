/**
 * What is kept of images, and what of it nobody needs.
 *
 * A blob or root file system that no image names may belong to a pull or a start that is under way: such are left alone while
 * another process pulls, and while they are young.
 */

import { join } from "node:path";
import { defaultCacheRoot, ImageCache, YOUNG_MS } from "../image/cache.ts";
import { sweepStaging } from "../image/staging.ts";
import type { NamedImage } from "./image-names.ts";
import { type ImageShelf, openShelf } from "./supply.ts";

export interface Inventory {
  readonly cache: ImageCache;
  readonly shelf: ImageShelf;
}

export function openInventory(root: string = defaultCacheRoot()): Inventory {
  return { cache: new ImageCache(root), shelf: openShelf(root) };
}

/** Forgets pulled images and removes what only they named. Answers the bytes. */
export function removeImages({ shelf }: Inventory, images: readonly NamedImage[]): number {
  for (const image of images) shelf.names.remove(image);
  const kept = shelf.names.list();
  const roots = new Set(kept.map(({ rootKey }) => rootKey));
  let bytes = 0;
  for (const { key, size } of shelf.roots.list()) {
    if (roots.has(key) || !images.some(({ rootKey }) => rootKey === key)) continue;
    shelf.roots.remove(key);
    bytes += size;
  }
  if (shelf.store.isPulledInto()) return bytes;
  const named = new Set(kept.flatMap(({ blobs }) => blobs));
  const theirs = new Set(images.flatMap(({ blobs }) => blobs));
  for (const { digest, size } of shelf.store.list()) {
    if (named.has(digest) || !theirs.has(digest)) continue;
    shelf.store.remove(digest);
    bytes += size;
  }
  return bytes;
}

export interface Pruned {
  /** Images that were forgotten. */
  readonly images: number;
  readonly bytes: number;
  /** Another process pulls: blobs were left alone. */
  readonly isBusy: boolean;
}

/** Removes what no image needs; with `all` the images, too. */
export function prune(inventory: Inventory, all: boolean): Pruned {
  const { cache, shelf } = inventory;
  const named = all ? shelf.names.list() : [];
  const own = all ? cache.list().filter(({ name }) => cache.remove(name)) : [];
  let bytes = removeImages(inventory, named) + cache.prune() + shelf.store.sweepPartial();
  sweepStaging(cache.stagingParent);
  sweepStaging(join(shelf.store.root, "staging"));
  const kept = shelf.names.list();
  const roots = new Set(kept.map(({ rootKey }) => rootKey));
  for (const { key, size, used } of shelf.roots.list()) {
    if (roots.has(key) || Date.now() - used < YOUNG_MS) continue;
    shelf.roots.remove(key);
    bytes += size;
  }
  const isBusy = shelf.store.isPulledInto();
  if (!isBusy) bytes += removeUnnamed(shelf, kept);
  return { images: named.length + own.length, bytes, isBusy };
}

function removeUnnamed({ store }: ImageShelf, kept: readonly NamedImage[]): number {
  const named = new Set(kept.flatMap(({ blobs }) => blobs));
  let bytes = 0;
  for (const { digest, size } of store.list()) {
    if (named.has(digest)) continue;
    store.remove(digest);
    bytes += size;
  }
  return bytes;
}

export interface Usage {
  readonly kind: "pulled images" | "root file systems" | "own images";
  readonly count: number;
  readonly bytes: number;
  /** What `hypo system prune` would remove. */
  readonly reclaimable: number;
}

export function usage({ cache, shelf }: Inventory): Usage[] {
  const images = shelf.names.list();
  const named = new Set(images.flatMap(({ blobs }) => blobs));
  const roots = new Set(images.map(({ rootKey }) => rootKey));
  const blobs = shelf.store.list();
  const disks = shelf.roots.list();
  const own = cache.list();
  return [
    {
      kind: "pulled images",
      count: images.length,
      bytes: sum(blobs),
      reclaimable: sum(blobs.filter(({ digest }) => !named.has(digest))),
    },
    {
      kind: "root file systems",
      count: disks.length,
      bytes: sum(disks),
      reclaimable: sum(disks.filter(({ key }) => !roots.has(key))),
    },
    { kind: "own images", count: own.length, bytes: sum(own), reclaimable: 0 },
  ];
}

function sum(parts: ReadonlyArray<{ readonly size: number }>): number {
  return parts.reduce((total, { size }) => total + size, 0);
}
