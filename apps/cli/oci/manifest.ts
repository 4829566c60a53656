/**
 * Manifests, indexes and configurations of images, read from JSON that nobody vouches for.
 * Spec: OCI Image Specification, "Image Manifest", "Image Index", "Image Configuration"; Docker's schema 2 has the same fields.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import { isDigest } from "./digest.ts";

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
}

export interface IndexEntry extends Descriptor {
  readonly platform: (Platform & { readonly variant: string | undefined }) | undefined;
  /** org.opencontainers.image.ref.name or io.containerd.image.name, of layouts. */
  readonly names: readonly string[];
}

export interface Manifest {
  readonly config: Descriptor;
  /** The lowest first. */
  readonly layers: readonly Descriptor[];
}

export interface ImageConfig {
  readonly platform: Platform;
  /** RFC 3339, if it says. */
  readonly created: string | undefined;
  /** Digests of the layers as plain tar. */
  readonly diffIds: readonly string[];
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  /** NAME=VALUE. */
  readonly environment: readonly string[];
  readonly user: string;
  readonly workdir: string;
  readonly stopSignal: string | undefined;
}

export const MediaType = {
  INDEX: "application/vnd.oci.image.index.v1+json",
  MANIFEST: "application/vnd.oci.image.manifest.v1+json",
  DOCKER_INDEX: "application/vnd.docker.distribution.manifest.list.v2+json",
  DOCKER_MANIFEST: "application/vnd.docker.distribution.manifest.v2+json",
  CONFIG: "application/vnd.oci.image.config.v1+json",
  DOCKER_CONFIG: "application/vnd.docker.container.image.v1+json",
  LAYER: "application/vnd.oci.image.layer.v1.tar",
} as const;

/** A forged manifest must not take the machine's memory. */
export const LARGEST_MANIFEST = 4 << 20;
const LARGEST_BLOB = 64 * 2 ** 30;
const MOST_LAYERS = 1024;

type Json = { readonly [name: string]: unknown };

export function parseManifest(bytes: Uint8Array, what: string): Manifest | readonly IndexEntry[] {
  const json = parseObject(bytes, what);
  if (json.schemaVersion !== 2) {
    throw unsound(what, `its schemaVersion is ${JSON.stringify(json.schemaVersion)}, not 2`);
  }
  if (Array.isArray(json.manifests)) return json.manifests.map((entry) => indexEntry(entry, what));
  const type = json.mediaType ?? MediaType.MANIFEST;
  if (type !== MediaType.MANIFEST && type !== MediaType.DOCKER_MANIFEST) {
    throw unsound(what, `it is of the type ${String(type)}`);
  }
  const config = descriptor(json.config, what);
  if (config.mediaType !== MediaType.CONFIG && config.mediaType !== MediaType.DOCKER_CONFIG) {
    throw new HypolithError("not-an-image", `${what} is an artifact, not an image`, {
      hint: `its configuration is of the type ${config.mediaType}`,
    });
  }
  const layers = list(json.layers, what, "layers").map((layer) => descriptor(layer, what));
  if (layers.length > MOST_LAYERS) throw unsound(what, `it has ${layers.length} layers`);
  return { config, layers };
}

export function isIndex(parsed: Manifest | readonly IndexEntry[]): parsed is readonly IndexEntry[] {
  return Array.isArray(parsed);
}

export function parseConfig(bytes: Uint8Array, what: string): ImageConfig {
  const json = parseObject(bytes, what);
  const rootfs = object(json.rootfs ?? {});
  const config = object(json.config ?? {});
  const diffIds = list(rootfs.diff_ids ?? [], what, "diff_ids");
  if (!diffIds.every(isDigest)) throw unsound(what, "a diff_id is no digest");
  return {
    platform: { os: text(json.os), architecture: text(json.architecture) },
    created: text(json.created) || undefined,
    diffIds,
    entrypoint: words(config.Entrypoint, what),
    command: words(config.Cmd, what),
    environment: words(config.Env, what),
    user: text(config.User),
    workdir: text(config.WorkingDir) || "/",
    stopSignal: text(config.StopSignal) || undefined,
  };
}

/** The entry for a platform; undefined if there is none. Entries without a platform are for layouts with one image. */
export function choosePlatform(
  entries: readonly IndexEntry[],
  wanted: Platform,
): IndexEntry | undefined {
  const fits = ({ platform }: IndexEntry): boolean =>
    platform?.os === wanted.os && platform.architecture === wanted.architecture;
  const images = entries.filter(isImageEntry);
  // A variant (amd64 "v2", "v3") promises more than our processor may have; the plain one is for all.
  const fitting = images.filter(fits);
  const plain = fitting.find(({ platform }) => platform?.variant === undefined);
  if (plain ?? fitting[0]) return plain ?? fitting[0];
  const [only] = images;
  return images.length === 1 && only?.platform === undefined ? only : undefined;
}

/** Build attestations travel in the index as images of an unknown platform. */
function isImageEntry({ mediaType, platform }: IndexEntry): boolean {
  const types: readonly string[] = [
    ...[MediaType.MANIFEST, MediaType.DOCKER_MANIFEST],
    ...[MediaType.INDEX, MediaType.DOCKER_INDEX],
  ];
  return types.includes(mediaType) && platform?.os !== "unknown";
}

export function formatPlatform({ os, architecture }: Platform): string {
  return `${os}/${architecture}`;
}

export function platformMissing(
  what: string,
  entries: readonly IndexEntry[],
  wanted: Platform,
): HypolithError {
  const there = entries.filter(isImageEntry).flatMap(({ platform }) => platform ?? []);
  const names = [...new Set(there.map(formatPlatform))];
  return new HypolithError(
    "platform-missing",
    `${what} has no image for ${formatPlatform(wanted)}`,
    {
      hint: names.length > 0 ? `it has ${names.join(", ")}` : "it has no images at all",
    },
  );
}

/** Throws HypolithError "platform-missing" if an image is for another platform than the one wanted. */
export function checkPlatform({ platform }: ImageConfig, wanted: Platform, what: string): void {
  if (formatPlatform(platform) === formatPlatform(wanted)) return;
  throw new HypolithError(
    "platform-missing",
    `${what} has no image for ${formatPlatform(wanted)}`,
    {
      hint: `it has ${formatPlatform(platform)}`,
    },
  );
}

function indexEntry(value: unknown, what: string): IndexEntry {
  const json = object(value);
  const platform = json.platform === undefined ? undefined : object(json.platform);
  const annotations = object(json.annotations ?? {});
  const names = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
  return {
    ...descriptor(value, what),
    platform: platform && {
      os: text(platform.os),
      architecture: text(platform.architecture),
      variant: text(platform.variant) || undefined,
    },
    names: names.map((name) => text(annotations[name])).filter((name) => name !== ""),
  };
}

function descriptor(value: unknown, what: string): Descriptor {
  const { mediaType, digest, size } = object(value);
  if (!isDigest(digest)) throw unsound(what, `${JSON.stringify(digest)} is no digest`);
  if (!Number.isSafeInteger(size) || (size as number) < 0 || (size as number) > LARGEST_BLOB) {
    throw unsound(what, `${JSON.stringify(size)} is no size`);
  }
  return { mediaType: text(mediaType), digest, size: size as number };
}

function parseObject(bytes: Uint8Array, what: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw unsound(what, "it is no JSON", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw unsound(what, "it is no JSON object");
  }
  return value as Json;
}

function object(value: unknown): Json {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? (value as Json) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function list(value: unknown, what: string, name: string): unknown[] {
  if (!Array.isArray(value)) throw unsound(what, `its ${name} are no list`);
  return value;
}

function words(value: unknown, what: string): string[] {
  if (value === undefined || value === null) return [];
  const all = list(value, what, "words");
  if (!all.every((word) => typeof word === "string")) throw unsound(what, "a word is no text");
  return all as string[];
}

export function unsound(what: string, why: string, cause?: unknown): HypolithError {
  return new HypolithError("image-unsound", `${what} is not sound: ${why}`, { cause });
}
