/**
 * The image supply: from a name like "debian:cloud-amd64" to a kernel and a busybox in memory.
 *
 * From the cache if it is there; else from the machine's apt; else from a mirror: the one given, the one that apt's sources name, or
 * Debian's own. A cache that cannot be written costs the next run a download and nothing else.
 */
import { statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { HypolithError } from "../../../src/base/errors.ts";
import type { Messages } from "../messages.ts";
import {
  APT_COMMANDS,
  type AptCommands,
  type AptContext,
  AptSource,
  AptTransport,
  aptMirror,
  canAptDownload,
  hasApt,
} from "./apt.ts";
import { defaultCacheRoot, ImageCache, sha256Of } from "./cache.ts";
import { extractFiles } from "./deb.ts";
import { BUSYBOX_PACKAGE, type Flavor } from "./flavors.ts";
import type { GuestImage } from "./guest-image.ts";
import { DEFAULT_MIRROR, DEFAULT_SUITE, MirrorSource } from "./mirror.ts";
import { isModulePath, selectModules } from "./modules.ts";
import type { PackageSource } from "./package-source.ts";
import { kernelPackageOf, type PackageRecord } from "./packages-index.ts";
import { Progress } from "./progress.ts";
import { FetchTransport } from "./transport.ts";

/** When to go and look for packages. */
export type PullPolicy = "missing" | "always" | "never";

export interface SupplyOptions {
  readonly flavor: Flavor;
  /** Undefined: neither read nor write one. */
  readonly cache: ImageCache | undefined;
  readonly pull: PullPolicy;
  /** A mirror that the user named; then apt is not asked. */
  readonly mirror: string | undefined;
  readonly suite: string | undefined;
  readonly messages: Messages;
  readonly signal: AbortSignal;
  readonly aptCommands?: AptCommands;
}

/** What the user may say of it. */
export interface SupplyWords {
  readonly cache: boolean;
  readonly pull: PullPolicy;
  readonly mirror?: string;
}

/** Supplies a Debian image as the command line says. */
export function supplyAsAsked(
  flavor: Flavor,
  { cache, pull, mirror }: SupplyWords,
  messages: Messages,
  signal: AbortSignal,
): Promise<GuestImage> {
  return supplyImage({
    flavor,
    cache: cache ? new ImageCache(defaultCacheRoot()) : undefined,
    pull,
    mirror,
    suite: undefined,
    messages,
    signal,
  });
}

/** The largest kernel package, and some air. */
const STAGING_SPACE = 128 * 2 ** 20;

export async function supplyImage(options: SupplyOptions): Promise<GuestImage> {
  const { flavor, cache, pull, messages } = options;
  if (cache && pull !== "always") {
    const found = cache.load(flavor.image, flavor.modules);
    if (found.state === "found") return found.image;
    if (found.state === "damaged") {
      messages.warn(
        `the cached image ${flavor.image} is damaged and is fetched anew: ${found.why}`,
      );
    }
  }
  if (pull === "never") {
    throw new HypolithError("image-absent", `the image ${flavor.image} is not in the cache`, {
      hint: "run once without --pull never",
    });
  }
  const image = await fetchImage(options);
  if (cache) store(cache, image, options);
  return image;
}

function store(cache: ImageCache, image: GuestImage, { flavor, messages }: SupplyOptions): void {
  try {
    cache.store(image, flavor.modules);
  } catch (error) {
    if (!(error instanceof HypolithError)) throw error;
    messages.warn(`${error.message}; this run goes on, the next one will download again`);
  }
}

/** Tries one source after the other; the last one's failure is the user's to read. */
async function fetchImage(options: SupplyOptions): Promise<GuestImage> {
  const { messages, signal } = options;
  let failure: unknown;
  for (const open of sources(options)) {
    const source = await open();
    signal.throwIfAborted();
    if (!source) continue;
    try {
      return await imageFrom(source, options);
    } catch (error) {
      signal.throwIfAborted();
      // A full disk is as full for the next source.
      if (!(error instanceof HypolithError) || error.code === "cache-full") throw error;
      messages.log("info", error.message);
      failure = error;
    }
  }
  throw failure;
}

type SourceOpener = () => Promise<PackageSource | undefined>;

function sources(options: SupplyOptions): SourceOpener[] {
  const { mirror, suite = DEFAULT_SUITE, signal } = options;
  const commands = options.aptCommands ?? APT_COMMANDS;
  const progress = new Progress(options.messages);
  const context: AptContext = { commands, stagingParent: stagingParent(options), progress, signal };
  const transport = new FetchTransport();
  if (mirror !== undefined) {
    return [async () => new MirrorSource({ base: mirror, suite, transport, progress, signal })];
  }
  const byApt: SourceOpener = async () =>
    (await hasApt(commands, signal)) ? new AptSource(context) : undefined;
  const byMirror: SourceOpener = async () => {
    const ofApt = await aptMirror(commands, signal);
    const { base, suite: release } = ofApt ?? { base: DEFAULT_MIRROR, suite };
    const useApt = ofApt !== undefined && canAptDownload(commands);
    return new MirrorSource({
      base,
      suite: release,
      transport: useApt ? new AptTransport(context) : transport,
      progress,
      signal,
    });
  };
  return [byApt, byMirror];
}

/** On the cache's file system if it can be written and has room, else where temporary files go. */
function stagingParent({ cache }: SupplyOptions): string {
  if (!cache) return tmpdir();
  try {
    cache.stage().remove();
    const { bavail, bsize } = statfsSync(cache.root);
    return bavail * bsize >= STAGING_SPACE ? cache.stagingParent : tmpdir();
  } catch {
    return tmpdir();
  }
}

async function imageFrom(source: PackageSource, options: SupplyOptions): Promise<GuestImage> {
  const { flavor, signal } = options;
  const meta = await require(source, flavor.metaPackage, flavor);
  const kernelRecord = await require(source, kernelPackageOf(meta), flavor);
  const busyboxRecord = await require(source, BUSYBOX_PACKAGE, flavor);
  const kernelPackage = await source.download(kernelRecord);
  const busyboxPackage = await source.download(busyboxRecord);
  const kernel = await takeKernel(kernelPackage, kernelRecord, flavor, signal);
  return {
    ...kernel,
    name: flavor.image,
    packages: [kernelRecord, busyboxRecord].map(({ name, version, architecture, sha256 }) => {
      return { name, version, architecture, sha256 };
    }),
    busybox: await takeBusybox(busyboxPackage, busyboxRecord, signal),
  };
}

async function require(
  source: PackageSource,
  name: string,
  { architecture }: Flavor,
): Promise<PackageRecord> {
  const record = await source.find(name, architecture);
  if (record) return record;
  throw new HypolithError(
    "package-absent",
    `${source.description} has no package ${name} for ${architecture}`,
    { hint: "use a mirror of Debian: --mirror https://deb.debian.org/debian" },
  );
}

type KernelParts = Pick<GuestImage, "release" | "kernel" | "systemMap" | "modules">;

async function takeKernel(
  deb: Uint8Array,
  record: PackageRecord,
  { modules }: Flavor,
  signal: AbortSignal,
): Promise<KernelParts> {
  const isBootFile = (path: string): boolean => /^boot\/(vmlinuz|System\.map)-/.test(path);
  const files = await extractFiles(deb, {
    wanted: (path) => isBootFile(path) || (modules.length > 0 && isModulePath(path)),
    // Modules come after, and only the end of the archive ends them.
    complete: (found) => modules.length === 0 && found.size === 2,
    signal,
  });
  const path = [...files.keys()].find((name) => name.startsWith("boot/vmlinuz-"));
  if (path === undefined) throw lacks(record, "kernel");
  const release = path.slice("boot/vmlinuz-".length);
  return {
    release,
    kernel: files.get(path)!,
    systemMap: files.get(`boot/System.map-${release}`) ?? new Uint8Array(0),
    modules: await selectModules(files, modules),
  };
}

async function takeBusybox(
  deb: Uint8Array,
  record: PackageRecord,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const files = await extractFiles(deb, {
    wanted: (path) => /^(usr\/)?bin\/busybox$/.test(path),
    complete: (found) => found.size === 1,
    signal,
  });
  const [busybox] = files.values();
  if (!busybox) throw lacks(record, "busybox");
  return busybox;
}

function lacks(record: PackageRecord, what: string): HypolithError {
  return new HypolithError(
    "package-unusable",
    `there is no ${what} in the package ${record.name} ${record.version}`,
  );
}

/** One line for `hypo doctor`. */
export function describeImage(image: GuestImage): string {
  return `${image.release}, kernel ${sha256Of(image.kernel).slice(0, 12)}`;
}
