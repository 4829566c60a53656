/**
 * Pulling: from a name in a registry to an image in the store.
 *
 * Blobs that are there are not fetched again, others at most three at a time. The name is written last: an image that has one is complete.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import type { Progress } from "../image/progress.ts";
import type { BlobStore } from "./blob-store.ts";
import { DigestCheck, digestOf, isDigest, wrongDigest } from "./digest.ts";
import { type ImageContent, rootKey, withLayers } from "./image-content.ts";
import type { ImageNames, NamedImage } from "./image-names.ts";
import {
  checkPlatform,
  choosePlatform,
  type Descriptor,
  formatPlatform,
  isIndex,
  LARGEST_MANIFEST,
  type Manifest,
  type Platform,
  parseConfig,
  parseManifest,
  platformMissing,
  unsound,
} from "./manifest.ts";
import { formatReference } from "./reference.ts";
import type { Registry } from "./registry.ts";
import { ROOT_FORMAT } from "./root-format.ts";

export interface PullContext {
  readonly store: BlobStore;
  readonly names: ImageNames;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

const PARALLEL = 3;

/** Fetches an image and names it. */
export async function pullImage(
  registry: Registry,
  platform: Platform,
  context: PullContext,
): Promise<ImageContent> {
  const { store, names, progress } = context;
  const name = formatReference(registry.reference);
  const end = store.announcePull();
  try {
    progress.step(`pulling ${name} for ${formatPlatform(platform)}`);
    const found = await findManifest(registry, platform, context);
    const { manifest, digest } = found;
    const blobs = [manifest.config, ...manifest.layers];
    await fetchConfig(registry, manifest.config, context);
    const image = imageOf(name, digest, manifest, store);
    // Before its layers: nobody waits for what cannot run.
    checkPlatform(image.config, platform, name);
    await fetchBlobs(registry, manifest.layers, context);
    names.store({
      name,
      platform: formatPlatform(platform),
      digest,
      indexDigest: found.indexDigest,
      blobs: [...new Set([digest, ...blobs.map((blob) => blob.digest)])],
      size: blobs.reduce((sum, { size }) => sum + size, 0),
      rootKey: rootKey(image, ROOT_FORMAT),
      created: image.config.created,
      pulled: Date.now(),
    });
    return image;
  } finally {
    end();
  }
}

/** A pulled image; undefined if something of it is gone. */
export function storedImage(
  { name, digest }: NamedImage,
  store: BlobStore,
): ImageContent | undefined {
  const bytes = store.read(digest);
  if (!bytes) return undefined;
  const manifest = parseManifest(bytes, name);
  if (isIndex(manifest) || !manifest.layers.every((layer) => store.has(layer))) return undefined;
  return store.has(manifest.config) ? imageOf(name, digest, manifest, store) : undefined;
}

function imageOf(name: string, digest: string, manifest: Manifest, store: BlobStore): ImageContent {
  const bytes = store.read(manifest.config.digest);
  if (!bytes) {
    throw new HypolithError(
      "image-incomplete",
      `the configuration of ${name} is gone from the store`,
      {
        hint: "try again; hypo pull fetches it anew",
      },
    );
  }
  const layers = manifest.layers.map(({ digest: layer, size }) => {
    return { path: store.pathOf(layer), offset: 0, size };
  });
  return withLayers(name, digest, parseConfig(bytes, name), layers);
}

interface FoundManifest {
  readonly manifest: Manifest;
  readonly digest: string;
  readonly indexDigest: string;
}

async function findManifest(
  registry: Registry,
  platform: Platform,
  { store }: PullContext,
): Promise<FoundManifest> {
  const { reference } = registry;
  const name = formatReference(reference);
  const wanted = reference.digest ?? reference.tag!;
  let bytes = await checkedManifest(registry, wanted, name);
  const indexDigest = isDigest(wanted) ? wanted : digestOf(bytes);
  let digest = indexDigest;
  let parsed = parseManifest(bytes, name);
  if (isIndex(parsed)) {
    const chosen = choosePlatform(parsed, platform);
    if (!chosen) throw platformMissing(name, parsed, platform);
    digest = chosen.digest;
    bytes = store.read(digest) ?? (await checkedManifest(registry, digest, name));
    parsed = parseManifest(bytes, name);
    if (isIndex(parsed)) throw unsound(name, "its index leads to another index");
  }
  store.write(digest, bytes, name);
  return { manifest: parsed, digest, indexDigest };
}

async function checkedManifest(registry: Registry, wanted: string, name: string): Promise<Buffer> {
  const bytes = await registry.manifest(wanted);
  if (!isDigest(wanted)) return bytes;
  const check = new DigestCheck(wanted);
  check.update(bytes);
  if (check.matches()) return bytes;
  throw wrongDigest(`the manifest of ${name}`, wanted);
}

async function fetchConfig(
  registry: Registry,
  config: Descriptor,
  { store }: PullContext,
): Promise<void> {
  if (store.has(config)) return;
  if (config.size > LARGEST_MANIFEST) {
    throw unsound(formatReference(registry.reference), "its configuration is too large");
  }
  await fetchBlob(registry, config, store, () => {});
}

async function fetchBlobs(
  registry: Registry,
  blobs: readonly Descriptor[],
  { store, progress, signal }: PullContext,
): Promise<void> {
  const missing = new Map<string, Descriptor>();
  for (const blob of blobs) if (!store.has(blob)) missing.set(blob.digest, blob);
  if (missing.size === 0) return;
  const total = [...missing.values()].reduce((sum, { size }) => sum + size, 0);
  const label = `downloading ${missing.size} ${missing.size === 1 ? "layer" : "layers"}`;
  const bar = progress.bar(label, total);
  const done = new Map<string, number>();
  const queue = [...missing.values()];
  const work = async (): Promise<void> => {
    for (let blob = queue.shift(); blob; blob = queue.shift()) {
      signal.throwIfAborted();
      const { digest } = blob;
      await fetchBlob(registry, blob, store, (bytes) => {
        done.set(digest, bytes);
        bar.update([...done.values()].reduce((sum, part) => sum + part, 0));
      });
    }
  };
  try {
    const results = await Promise.allSettled(
      Array.from({ length: PARALLEL }, () =>
        work().catch((error) => {
          // The others end with what they have at hand.
          queue.length = 0;
          throw error;
        }),
      ),
    );
    const failure = results.find((result) => result.status === "rejected");
    if (failure) throw failure.reason;
  } finally {
    bar.end();
  }
}

async function fetchBlob(
  registry: Registry,
  { digest, size }: Descriptor,
  store: BlobStore,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const writer = store.begin(digest);
  const resumed = writer.size;
  try {
    await registry.blob(digest, size, writer, onBytes);
    try {
      writer.commit(`the blob of ${formatReference(registry.reference)}`);
      return;
    } catch (error) {
      // What another process had left of it may have been the wrong part.
      if (resumed === 0) throw error;
    }
  } finally {
    writer.end();
  }
  await fetchBlob(registry, { mediaType: "", digest, size }, store, onBytes);
}
