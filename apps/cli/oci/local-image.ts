/**
 * Images in files: OCI layouts as folder or archive, and what `docker save` and `podman save` write.
 * Spec: OCI Image Specification, "Image Layout"; Docker, "Image Specification v1.2" (manifest.json).
 */
import { createWriteStream, existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { HypolithError } from "../../../src/base/errors.ts";
import { DigestCheck, digestOf, splitDigest, wrongDigest } from "./digest.ts";
import { type ImageContent, withLayers } from "./image-content.ts";
import { archiveFiles, fileAbsent, folderFiles, type ImageFiles, readPart } from "./image-files.ts";
import { type FilePart, openCodec, openPart } from "./layer-file.ts";
import {
  checkPlatform,
  choosePlatform,
  type Descriptor,
  type IndexEntry,
  isIndex,
  LARGEST_MANIFEST,
  type Manifest,
  type Platform,
  parseConfig,
  parseManifest,
  platformMissing,
  unsound,
} from "./manifest.ts";

export interface LocalImageOptions {
  readonly path: string;
  /** The image of this name; undefined: the only one. */
  readonly tag: string | undefined;
  readonly platform: Platform;
  /** For a compressed archive, unpacked. */
  readonly staging: () => string;
  readonly signal: AbortSignal;
}

const DEEPEST_INDEX = 4;

export async function openLocalImage(options: LocalImageOptions): Promise<ImageContent> {
  const files = await openFiles(options);
  if (files.find("index.json")) return fromLayout(files, options);
  if (files.find("manifest.json")) return fromDocker(files, options);
  throw new HypolithError("not-an-image", `${files.what} holds no image`, {
    hint: "an OCI layout has an index.json, an archive of docker save a manifest.json",
  });
}

async function openFiles({ path, staging, signal }: LocalImageOptions): Promise<ImageFiles> {
  if (!existsSync(path)) {
    throw new HypolithError("image-absent", `there is no image at ${path}`, {
      hint: "a name of a registry's image has no './' in front",
    });
  }
  const status = statSync(path);
  if (status.isDirectory()) return folderFiles(path);
  if (!status.isFile()) throw unsound(path, "it is neither a folder nor a file");
  const whole: FilePart = { path, offset: 0, size: status.size };
  const codec = openCodec(whole, path);
  if (!codec) return archiveFiles(path, path);
  const plain = join(staging(), "archive.tar");
  try {
    await pipeline(openPart(whole), codec, createWriteStream(plain), { signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw unsound(path, (cause as Error).message, cause);
  }
  return archiveFiles(plain, path);
}

function fromLayout(files: ImageFiles, { platform, tag }: LocalImageOptions): ImageContent {
  const { what } = files;
  const bytes = readPart(files.find("index.json")!, what);
  const index = parseManifest(bytes, what);
  if (!isIndex(index)) throw unsound(what, "its index.json is no index");
  const [digest, manifest] = resolve(files, named(index, tag, what), platform);
  const config = parseConfig(readBlob(files, manifest.config), what);
  checkPlatform(config, platform, what);
  const layers = manifest.layers.map((layer) => blobOf(files, layer));
  return withLayers(what, digest, config, layers);
}

/** Those entries that have the name; all of them without one. */
function named(
  index: readonly IndexEntry[],
  tag: string | undefined,
  what: string,
): readonly IndexEntry[] {
  if (tag === undefined) {
    const names = index.flatMap(({ names: [name] }) => name ?? []);
    if (new Set(names).size < 2) return index;
    throw ambiguous(what, names);
  }
  const fits = (name: string): boolean => name === tag || name.endsWith(`:${tag}`);
  const found = index.filter(({ names }) => names.some(fits));
  if (found.length > 0) return found;
  throw new HypolithError("image-absent", `${what} has no image named ${tag}`, {
    hint: `it has ${index.flatMap(({ names: [name] }) => name ?? []).join(", ") || "no names"}`,
  });
}

function resolve(
  files: ImageFiles,
  index: readonly IndexEntry[],
  platform: Platform,
): [digest: string, manifest: Manifest] {
  let entries = index;
  for (let depth = 0; depth < DEEPEST_INDEX; depth++) {
    // Entries of an outer index often say no platform; then what they lead to does.
    const chosen = choosePlatform(entries, platform);
    if (!chosen) throw platformMissing(files.what, entries, platform);
    const parsed = parseManifest(readBlob(files, chosen), files.what);
    if (!isIndex(parsed)) return [chosen.digest, parsed];
    entries = parsed;
  }
  throw unsound(files.what, "its indexes lead to no image");
}

function blobOf(files: ImageFiles, { digest, size }: Descriptor): FilePart {
  const path = join("blobs", ...splitDigest(digest));
  const part = files.find(path);
  if (!part) throw fileAbsent(files.what, path);
  if (part.size === size) return part;
  throw unsound(files.what, `${path} has ${part.size} bytes instead of ${size}`);
}

function readBlob(files: ImageFiles, descriptor: Descriptor): Buffer {
  const bytes = readPart(blobOf(files, descriptor), files.what);
  const check = new DigestCheck(descriptor.digest);
  check.update(bytes);
  if (check.matches()) return bytes;
  throw wrongDigest(files.what, descriptor.digest);
}

interface DockerEntry {
  readonly Config?: unknown;
  readonly RepoTags?: unknown;
  readonly Layers?: unknown;
}

/** The names of its files say nothing sure; what is checked is each layer against its diff_id. */
function fromDocker(files: ImageFiles, { platform, tag }: LocalImageOptions): ImageContent {
  const { what } = files;
  const { Config: configPath, Layers: layerPaths } = dockerEntry(files, tag);
  if (typeof configPath !== "string" || !Array.isArray(layerPaths)) {
    throw unsound(what, "its manifest.json is wrong");
  }
  const bytes = readPart(findFile(files, configPath), what, LARGEST_MANIFEST);
  const config = parseConfig(bytes, what);
  checkPlatform(config, platform, what);
  const layers = layerPaths.map((path) => findFile(files, String(path)));
  return withLayers(what, digestOf(bytes), config, layers);
}

function dockerEntry(files: ImageFiles, tag: string | undefined): DockerEntry {
  const { what } = files;
  let entries: unknown;
  try {
    entries = JSON.parse(readPart(files.find("manifest.json")!, what).toString("utf8"));
  } catch (cause) {
    if (cause instanceof HypolithError) throw cause;
    throw unsound(what, "its manifest.json is no JSON", cause);
  }
  if (!Array.isArray(entries) || entries.length === 0) throw unsound(what, "it lists no image");
  const images = entries as DockerEntry[];
  const tagsOf = ({ RepoTags }: DockerEntry): string[] =>
    Array.isArray(RepoTags) ? RepoTags.map(String) : [];
  if (tag === undefined) {
    if (images.length === 1) return images[0]!;
    throw ambiguous(what, images.flatMap(tagsOf));
  }
  const found = images.find((image) =>
    tagsOf(image).some((name) => name === tag || name.endsWith(`:${tag}`)),
  );
  if (found) return found;
  throw new HypolithError("image-absent", `${what} has no image named ${tag}`, {
    hint: `it has ${images.flatMap(tagsOf).join(", ") || "no names"}`,
  });
}

function findFile(files: ImageFiles, path: string): FilePart {
  const part = files.find(path);
  if (part) return part;
  throw fileAbsent(files.what, path);
}

function ambiguous(what: string, names: readonly string[]): HypolithError {
  return new HypolithError("image-ambiguous", `${what} holds several images`, {
    hint: `say which: oci:${what}:NAME or docker-archive:${what}:NAME with one of ${names.join(", ")}`,
  });
}
