/** The verbs about images. */
import { HypolithError } from "../../../src/base/errors.ts";
import { formatSize } from "../../common/size.ts";
import { debianImageName } from "../debian/suites.ts";
import { ExitCode } from "../exit-code.ts";
import { flavorOfImage } from "../image/flavors.ts";
import { supplyAsAsked } from "../image/supply.ts";
import type { Messages } from "../messages.ts";
import { UsageError } from "../usage-error.ts";
import { formatAge, formatTable } from "../vms/tables.ts";
import type { ImageRequest, PullOptions } from "./commands.ts";
import type { NamedImage } from "./image-names.ts";
import { readImageWord } from "./image-word.ts";
import { type Inventory, openInventory, prune, removeImages, usage } from "./inventory.ts";
import type { Platform } from "./manifest.ts";
import { formatReference, parseReference } from "./reference.ts";
import { pullReference, supplyImageContent } from "./supply.ts";

const SHORT_DIGEST = 12;

export async function performImageVerb(
  request: ImageRequest,
  messages: Messages,
  signal: AbortSignal,
): Promise<number> {
  const inventory = openInventory();
  switch (request.verb) {
    case "pull":
      for (const image of request.images)
        await pull(image, request.options, { inventory, messages, signal });
      return ExitCode.OK;
    case "images":
      print(
        request.options.json
          ? json(listImages(inventory))
          : imageTable(inventory, request.options.quiet),
      );
      return ExitCode.OK;
    case "rmi":
      for (const image of request.images) print(`${removed(inventory, image)}\n`);
      return ExitCode.OK;
    case "prune":
      return pruneAll(inventory, request.options, messages);
    case "df":
      print(request.options.json ? json(usage(inventory)) : usageTable(inventory));
      return ExitCode.OK;
  }
}

interface Context {
  readonly inventory: Inventory;
  readonly messages: Messages;
  readonly signal: AbortSignal;
}

async function pull(
  word: string,
  { platform = "linux/amd64", insecure = false, mirror }: PullOptions,
  { inventory, messages, signal }: Context,
): Promise<void> {
  const image = readImageWord(word);
  if (image.kind === "local") {
    throw new UsageError(`'${word}' is on this machine already`, `hypo run ${word}`);
  }
  if (image.kind === "own") {
    const flavor = flavorOfImage(image.name);
    await supplyAsAsked(
      flavor,
      { cache: true, pull: "always", ...(mirror !== undefined && { mirror }) },
      messages,
      signal,
    );
    print(`${flavor.image}\n`);
    return;
  }
  if (image.kind === "debian") {
    const made = await supplyImageContent(image, {
      ...{ shelf: inventory.shelf, platform: platformOf(platform), pull: "always", insecure },
      ...{ mirror, messages, signal },
    });
    print(`${made.name}\n`);
    return;
  }
  await pullReference(image.reference, {
    ...{ shelf: inventory.shelf, platform: platformOf(platform), insecure, messages, signal },
  });
  print(`${formatReference(image.reference)}\n`);
}

function platformOf(text: string): Platform {
  const [os, architecture, ...rest] = text.split("/");
  if (os && architecture && rest.length === 0) return { os, architecture };
  throw new UsageError(`'${text}' is no platform`, "write it like linux/amd64");
}

interface ListedImage {
  readonly name: string;
  readonly platform: string;
  readonly digest: string | null;
  /** Bytes, as downloaded. */
  readonly size: number;
  /** RFC 3339. */
  readonly created: string | null;
  readonly pulled: string | null;
}

function listImages({ cache, shelf }: Inventory): ListedImage[] {
  const own = cache.list().map(({ name, architecture, size }) => {
    const platform = `linux/${architecture === "i386" ? "386" : architecture}`;
    return { name, platform, digest: null, size, created: null, pulled: null };
  });
  const pulled = shelf.names.list().map(({ name, platform, digest, size, ...image }) => {
    const when = new Date(image.pulled).toISOString();
    return { name, platform, digest, size, created: image.created ?? null, pulled: when };
  });
  return [...own, ...pulled].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function imageTable(inventory: Inventory, quiet = false): string {
  const images = listImages(inventory);
  if (quiet) return images.map(({ name }) => `${name}\n`).join("");
  const rows = images.map(({ name, platform, digest, size, created }) => [
    name,
    platform,
    digest?.split(":")[1]?.slice(0, SHORT_DIGEST) ?? "-",
    age(created),
    formatSize(size),
  ]);
  return `${formatTable([["NAME", "PLATFORM", "DIGEST", "CREATED", "SIZE"], ...rows]).trimEnd()}\n`;
}

function age(created: string | null): string {
  const time = created === null ? Number.NaN : Date.parse(created);
  return Number.isNaN(time) ? "-" : `${formatAge(Math.max(0, Date.now() - time))} ago`;
}

function removed(inventory: Inventory, word: string): string {
  const { cache, shelf } = inventory;
  const image = isOwn(word) ? flavorOfImage(word).image : undefined;
  if (image !== undefined && cache.remove(image)) return image;
  const found = image === undefined ? findPulled(shelf.names.list(), word) : [];
  if (found.length === 0) {
    throw new HypolithError("image-absent", `there is no image '${word}' here`, {
      hint: "hypo images lists them",
    });
  }
  removeImages(inventory, found);
  return found[0]!.name;
}

function isOwn(word: string): boolean {
  return !/^[0-9a-f]{4,64}$/.test(word) && readImageWord(word).kind === "own";
}

/** By name, for all platforms; or by the beginning of its digest. */
function findPulled(images: readonly NamedImage[], word: string): readonly NamedImage[] {
  const hex = /^(?:sha256:)?([0-9a-f]{4,64})$/.exec(word)?.[1];
  const byDigest =
    hex === undefined ? [] : images.filter(({ digest }) => digest.startsWith(`sha256:${hex}`));
  if (new Set(byDigest.map(({ digest }) => digest)).size > 1) {
    throw new UsageError(`'${word}' is the beginning of several digests`, "write more of it");
  }
  if (byDigest.length > 0) return byDigest;
  const name = nameOf(word);
  return images.filter((image) => image.name === name);
}

function nameOf(word: string): string {
  const image = readImageWord(word);
  if (image.kind === "debian") return debianImageName(image.suite);
  return formatReference(image.kind === "registry" ? image.reference : parseReference(word));
}

function pruneAll(
  inventory: Inventory,
  { all = false, json: asJson = false }: { readonly all?: boolean; readonly json?: boolean },
  messages: Messages,
): number {
  const pruned = prune(inventory, all);
  if (pruned.isBusy)
    messages.warn("another process is pulling an image: parts of images were left alone");
  const { images, bytes } = pruned;
  if (asJson) print(json({ images, bytes }));
  else print(`${all ? `${images} images, ` : ""}${formatSize(bytes)} removed\n`);
  return ExitCode.OK;
}

function usageTable(inventory: Inventory): string {
  const rows = usage(inventory).map(({ kind, count, bytes, reclaimable }) => {
    return [kind, String(count), formatSize(bytes), formatSize(reclaimable)];
  });
  return `${formatTable([["WHAT", "COUNT", "SIZE", "RECLAIMABLE"], ...rows]).trimEnd()}\n`;
}

function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

function print(text: string): void {
  process.stdout.write(text);
}
