/**
 * From a word on the command line to an image whose parts are here: in files, in the store, or pulled.
 */
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import { closest } from "../closest.ts";
import { debianImageName, SUITES } from "../debian/suites.ts";
import { defaultCacheRoot } from "../image/cache.ts";
import { FLAVORS } from "../image/flavors.ts";
import { Progress } from "../image/progress.ts";
import type { PullPolicy } from "../image/supply.ts";
import type { Messages } from "../messages.ts";
import { BlobStore } from "./blob-store.ts";
import { readCredentials } from "./credentials.ts";
import type { ImageContent } from "./image-content.ts";
import { ImageNames } from "./image-names.ts";
import type { ImageWord } from "./image-word.ts";
import { openLocalImage } from "./local-image.ts";
import { formatPlatform, type Platform } from "./manifest.ts";
import { pullImage, storedImage } from "./pull.ts";
import { formatReference, type ImageReference } from "./reference.ts";
import { Registry } from "./registry.ts";
import { RootStore } from "./root-store.ts";

/** All that is kept of images, in one folder. */
export interface ImageShelf {
  readonly store: BlobStore;
  readonly names: ImageNames;
  readonly roots: RootStore;
}

export interface ImageSupplyOptions {
  readonly shelf: ImageShelf;
  readonly platform: Platform;
  readonly pull: PullPolicy;
  /** The registry speaks plain HTTP. */
  readonly insecure: boolean;
  /** Of Debian, if the user named one. */
  readonly mirror: string | undefined;
  readonly messages: Messages;
  readonly signal: AbortSignal;
}

export function openShelf(cacheRoot: string = defaultCacheRoot()): ImageShelf {
  const root = join(cacheRoot, "oci");
  return { store: new BlobStore(root), names: new ImageNames(root), roots: new RootStore(root) };
}

export async function supplyImageContent(
  word: Exclude<ImageWord, { kind: "own" }>,
  options: ImageSupplyOptions,
): Promise<ImageContent> {
  const { shelf, platform, signal } = options;
  if (word.kind === "debian") return fromDebian(word.suite, options);
  if (word.kind === "registry") return fromRegistry(word.reference, options);
  let staging: { readonly path: string } | undefined;
  return openLocalImage({
    path: word.path,
    tag: word.tag,
    platform,
    // Gone with the process: layers are read from it until the machine has started.
    staging: () => {
      staging ??= shelf.roots.stage();
      return staging.path;
    },
    signal,
  });
}

/** One that is there is taken as it is; --pull always asks the mirror for newer packages. */
async function fromDebian(suite: string, options: ImageSupplyOptions): Promise<ImageContent> {
  const { shelf, platform, pull, mirror, messages, signal } = options;
  const name = debianImageName(suite);
  if (pull !== "always") {
    const named = shelf.names.find(name, platform);
    const found = named && storedImage(named, shelf.store);
    if (found) return found;
  }
  if (pull === "never") throw notCached(name, platform);
  const { buildDebian } = await import("../debian/build-image.ts");
  return buildDebian({ suite, platform, shelf, mirror, messages, signal });
}

function notCached(name: string, platform: Platform): HypolithError {
  return new HypolithError(
    "image-absent",
    `the image ${name} for ${formatPlatform(platform)} is not in the cache`,
    { hint: `hypo pull ${name}` },
  );
}

async function fromRegistry(
  reference: ImageReference,
  options: ImageSupplyOptions,
): Promise<ImageContent> {
  const { shelf, platform, pull, messages, signal } = options;
  const name = formatReference(reference);
  if (pull !== "always") {
    const named = shelf.names.find(name, platform);
    const found = named && storedImage(named, shelf.store);
    if (found) return found;
    if (named) messages.warn(`parts of ${name} are gone from the cache and are fetched anew`);
  }
  if (pull === "never") throw notCached(name, platform);
  try {
    return await pullReference(reference, options);
  } catch (error) {
    signal.throwIfAborted();
    throw withOwnNames(error, reference);
  }
}

export function pullReference(
  reference: ImageReference,
  { shelf, platform, insecure, messages, signal }: Omit<ImageSupplyOptions, "pull" | "mirror">,
): Promise<ImageContent> {
  const credentials = readCredentials()(reference);
  const registry = new Registry(reference, { credentials, insecure, signal });
  return pullImage(registry, platform, { ...shelf, progress: new Progress(messages), signal });
}

/** Somebody who meant one of our own images should not look for it in a registry. */
function withOwnNames(error: unknown, { host, path, tag }: ImageReference): unknown {
  if (!(error instanceof HypolithError) || host !== "docker.io") return error;
  const word = path.replace(/^library\//, "") + (tag === "latest" ? "" : `:${tag ?? ""}`);
  const near = closest(word, [
    "debian",
    ...FLAVORS.map(({ image }) => image),
    ...SUITES.map(debianImageName),
  ]);
  const hints = [error.hint, near && `did you mean '${near}', which comes with hypo?`];
  const hint = hints.filter((text) => text).join("\n");
  return new HypolithError(error.code, error.message, {
    cause: error.cause,
    ...(hint && { hint }),
  });
}
