/**
 * `hypo run debian`: a root file system made of Debian's packages, without root on this machine, kept like an image of a registry.
 *
 *   signed Release -> package index -> packages, each checked by what is before it
 *   packages -> tree, with dpkg's database                    package-tree.ts
 *   the packages' own scripts, in a machine of ours           configure.ts
 *   tree and changes -> one layer, configuration, manifest -> the store, under the name "debian:SUITE"
 */
import { createHash } from "node:crypto";
import { closeSync, fdatasyncSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { createGzip } from "node:zlib";
import { HypolithError } from "../../../src/base/errors.ts";
import { flavorOfImage } from "../image/flavors.ts";
import { Progress } from "../image/progress.ts";
import { supplyAsAsked } from "../image/supply.ts";
import type { Transport } from "../image/transport.ts";
import type { Messages } from "../messages.ts";
import { digestOf } from "../oci/digest.ts";
import { writeErofs } from "../oci/erofs-image.ts";
import type { ImageContent } from "../oci/image-content.ts";
import { rootKey } from "../oci/image-content.ts";
import { applyLayer } from "../oci/layer.ts";
import { writeAll } from "../oci/layer-file.ts";
import { formatPlatform, MediaType, type Platform } from "../oci/manifest.ts";
import { storedImage } from "../oci/pull.ts";
import { ROOT_FORMAT } from "../oci/root-format.ts";
import type { ImageShelf } from "../oci/supply.ts";
import { writeTree } from "../oci/tree-tar.ts";
import { type AptList, aptListName } from "./apt-lists.ts";
import {
  type ArchiveContext,
  addIndex,
  downloadPackages,
  fetchByCodename,
  fetchRelease,
  fingerprint,
  type Release,
} from "./archive.ts";
import { asLayer } from "./changes-layer.ts";
import { configurePackages } from "./configure.ts";
import { choosePackages } from "./package-choice.ts";
import { type IndexedPackage, PackageIndex } from "./package-index.ts";
import { PackageTree } from "./package-tree.ts";
import { machineKeyrings } from "./signed-release.ts";
import { chooseMirror, type DebianMirror } from "./sources.ts";
import { debianImageName, isRolling } from "./suites.ts";

export interface BuildOptions {
  readonly suite: string;
  readonly platform: Platform;
  readonly shelf: ImageShelf;
  /** The one that the user named. */
  readonly mirror: string | undefined;
  readonly messages: Messages;
  readonly signal: AbortSignal;
}

/** Builds and names it. What is there already and still is what the mirror has is not built again. */
export async function buildDebian(options: BuildOptions): Promise<ImageContent> {
  const { shelf, messages, signal } = options;
  const staging = shelf.roots.stage();
  const end = shelf.store.announcePull();
  try {
    const progress = new Progress(messages);
    const mirror = await chooseMirror(options, staging.path, progress);
    const around = { keyrings: machineKeyrings(), folder: staging.path, progress, signal };
    progress.step(`looking for ${debianImageName(options.suite)} at ${mirror.base}`);
    const { release, transport } = await findRelease(options.suite, mirror, around);
    return await build(options, mirror, release, { ...around, transport });
  } finally {
    end();
    staging.remove();
  }
}

/** The first way that leads there is the way for everything. */
async function findRelease(
  suite: string,
  { base, transports }: DebianMirror,
  context: Omit<ArchiveContext, "transport">,
): Promise<{ readonly release: Release; readonly transport: Transport }> {
  let failure: unknown;
  for (const transport of transports) {
    try {
      const release = await fetchByCodename({ base, suite }, { ...context, transport });
      return { release, transport };
    } catch (error) {
      context.signal.throwIfAborted();
      if (!(error instanceof HypolithError) || !ABSENT.has(error.code)) throw error;
      failure = error;
    }
  }
  throw failure;
}

async function build(
  options: BuildOptions,
  mirror: DebianMirror,
  release: Release,
  context: ArchiveContext,
): Promise<ImageContent> {
  const { platform, messages } = options;
  const architecture = platform.architecture === "386" ? "i386" : platform.architecture;
  if (!release.isSigned)
    messages.warn(`${mirror.base} is believed by its TLS certificate: no Debian keyring here`);
  const security = await securityRelease(release, mirror, context);
  const index = new PackageIndex();
  const lists: AptList[] = [];
  for (const one of [release, ...(security ? [security] : [])]) {
    const content = await addIndex(index, one, architecture, context);
    const list = `main/binary-${architecture}/Packages`;
    lists.push({ name: aptListName(one.place, "InRelease"), content: one.file });
    lists.push({ name: aptListName(one.place, list), content });
  }
  const packages = choosePackages(index);
  const known = knownImage(options, fingerprint(packages), release);
  if (known) return known;
  return await assemble(
    options,
    { release, security, packages, architecture, mirror, lists },
    context,
  );
}

/** Fixes since the last point release; a mirror that has no such archive gives a system without them. */
async function securityRelease(
  { codename }: Release,
  { security }: DebianMirror,
  context: ArchiveContext,
): Promise<Release | undefined> {
  if (security === undefined || isRolling(codename)) return undefined;
  try {
    return await fetchRelease({ base: security, suite: `${codename}-security` }, context);
  } catch (error) {
    const isAbsent = error instanceof HypolithError && ABSENT.has(error.code);
    if (!isAbsent) throw error;
    context.progress.step(`${security} has no ${codename}-security: going on without it`);
    return undefined;
  }
}

const ABSENT = new Set(["mirror-refused", "apt-failed", "network-unreachable"]);

interface Parts {
  readonly release: Release;
  readonly security: Release | undefined;
  readonly packages: readonly IndexedPackage[];
  readonly architecture: string;
  readonly mirror: DebianMirror;
  readonly lists: readonly AptList[];
}

async function assemble(
  options: BuildOptions,
  parts: Parts,
  context: ArchiveContext,
): Promise<ImageContent> {
  const { messages, signal } = options;
  const { folder, progress } = context;
  const { release, packages, architecture } = parts;
  const tree = new PackageTree(folder, architecture, Math.floor(release.date / 1000));
  try {
    await downloadPackages(packages, context, (found, deb) => tree.add(found.name, deb, signal));
    const { preinst, count } = tree.finish();
    addSettings(tree, parts);
    const disk = join(folder, "unpacked");
    writeDisk(tree, disk);
    const flavor = flavorOfImage(architecture === "i386" ? "debian:686-pae" : "debian:cloud-amd64");
    const words = { cache: true, pull: "missing" } as const;
    const kernel = await supplyAsAsked(flavor, words, messages, signal);
    const machine = { disk, folder, preinst, count, kernel, progress, signal };
    const changes = await configurePackages(machine);
    try {
      const layer = await asLayer(changes, join(folder, "changes-layer"));
      try {
        applyLayer(tree.root, 1, layer);
        return await store(tree, options, parts, context);
      } finally {
        closeSync(layer.descriptor);
      }
    } finally {
      closeSync(changes.descriptor);
    }
  } finally {
    tree.close();
  }
}

/** What is neither a package's nor its scripts': where apt finds more. */
function addSettings(tree: PackageTree, { release, security, mirror, lists }: Parts): void {
  const { codename } = release;
  const places = [
    { base: mirror.base, suites: [codename] },
    ...(security ? [{ base: security.place.base, suites: [`${codename}-security`] }] : []),
  ];
  const stanzas = places.map(({ base, suites }) =>
    [
      "Types: deb",
      `URIs: ${base}`,
      `Suites: ${suites.join(" ")}`,
      "Components: main",
      "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg",
      "",
    ].join("\n"),
  );
  tree.file("etc/apt/sources.list.d/debian.sources", stanzas.join("\n"));
  tree.file("etc/apt/apt.conf.d/90hypolith", APT_SETTINGS);
  for (const { name, content } of lists) tree.file(`var/lib/apt/lists/${name}`, content);
}

/** Descriptions in other languages cost a download and minutes of unpacking; recommended packages are a matter of taste. */
const APT_SETTINGS = `# Written by hypo; remove what you do not like.
Acquire::Languages "none";
Acquire::Retries "2";
APT::Install-Recommends "false";
`;

function writeDisk({ root }: PackageTree, path: string): void {
  const descriptor = openSync(path, "w", 0o600);
  try {
    writeErofs(root, descriptor);
    fdatasyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

const FINGERPRINT = "org.hypolith.debian.packages";
/** Change it when the same packages give another image. */
const BUILD = "2";

/** The image of these packages, if it is there, under the name that was asked for. */
function knownImage(
  { shelf, platform, suite }: BuildOptions,
  packages: string,
  { codename }: Release,
): ImageContent | undefined {
  const names = [debianImageName(suite), debianImageName(codename)];
  for (const name of names) {
    const named = shelf.names.find(name, platform);
    if (!named) continue;
    const manifest = shelf.store.read(named.digest)?.toString("utf8");
    if (!manifest?.includes(`"${FINGERPRINT}":"${BUILD} ${packages}"`)) continue;
    const image = storedImage(named, shelf.store);
    if (!image) continue;
    for (const other of names) shelf.names.store({ ...named, name: other, pulled: Date.now() });
    return image;
  }
  return undefined;
}

/** One layer, its configuration, its manifest; then its names, that of the suite and that of the release. */
async function store(
  tree: PackageTree,
  { shelf, suite, platform }: BuildOptions,
  { release, packages }: Parts,
  { folder, progress, signal }: ArchiveContext,
): Promise<ImageContent> {
  progress.step("packing the image");
  const layer = await packLayer(tree, join(folder, "layer"), signal);
  const created = new Date().toISOString();
  const config = Buffer.from(
    JSON.stringify({
      created,
      os: platform.os,
      architecture: platform.architecture,
      config: {
        Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
        Cmd: ["bash"],
        WorkingDir: "/root",
      },
      rootfs: { type: "layers", diff_ids: [layer.diffId] },
    }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.MANIFEST,
      config: { mediaType: MediaType.CONFIG, digest: digestOf(config), size: config.length },
      layers: [{ mediaType: `${MediaType.LAYER}+gzip`, digest: layer.digest, size: layer.size }],
      annotations: {
        [FINGERPRINT]: `${BUILD} ${fingerprint(packages)}`,
        "org.opencontainers.image.version": release.version,
      },
    }),
  );
  const writer = shelf.store.begin(layer.digest, false);
  try {
    copyFile(layer.path, (bytes) => writer.write(bytes));
    writer.commit("the layer");
  } finally {
    writer.end();
  }
  const digest = digestOf(manifest);
  shelf.store.write(digestOf(config), config, "the configuration");
  shelf.store.write(digest, manifest, "the manifest");
  const named = {
    platform: formatPlatform(platform),
    ...{ digest, indexDigest: digest, blobs: [digest, digestOf(config), layer.digest] },
    size: config.length + layer.size,
    rootKey: rootKey({ config: { diffIds: [layer.diffId] } }, ROOT_FORMAT),
    ...{ created, pulled: Date.now() },
  };
  for (const name of new Set([release.codename, suite].map(debianImageName)))
    shelf.names.store({ ...named, name });
  const image = storedImage({ ...named, name: debianImageName(suite) }, shelf.store);
  if (!image) throw new HypolithError("image-incomplete", "the image is gone from the store");
  return image;
}

interface PackedLayer {
  readonly path: string;
  readonly digest: string;
  readonly diffId: string;
  readonly size: number;
}

async function packLayer(
  { root }: PackageTree,
  path: string,
  signal: AbortSignal,
): Promise<PackedLayer> {
  const plain = createHash("sha256");
  const packed = createHash("sha256");
  const descriptor = openSync(path, "w", 0o600);
  let size = 0;
  // Quick rather than small: it stays on this machine.
  const gzip = createGzip({ level: 1 });
  const written = (async (): Promise<void> => {
    for await (const part of gzip as AsyncIterable<Buffer>) {
      writeAll(descriptor, part);
      packed.update(part);
      size += part.length;
    }
  })();
  try {
    const parts: Buffer[] = [];
    // The tree is written by one call; what it gives goes on in between.
    writeTree(root, (bytes) => {
      plain.update(bytes);
      parts.push(Buffer.from(bytes));
    });
    for (const part of parts) {
      signal.throwIfAborted();
      if (!gzip.write(part)) await new Promise((resolve) => gzip.once("drain", resolve));
    }
    gzip.end();
    await written;
  } finally {
    closeSync(descriptor);
  }
  const hex = (hash: ReturnType<typeof createHash>): string => `sha256:${hash.digest("hex")}`;
  return { path, size, digest: hex(packed), diffId: hex(plain) };
}

function copyFile(path: string, write: (bytes: Uint8Array) => void): void {
  const descriptor = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(1 << 20);
    for (let got = 1; got > 0; ) {
      got = readSync(descriptor, buffer, 0, buffer.length, null);
      write(buffer.subarray(0, got));
    }
  } finally {
    closeSync(descriptor);
  }
}
