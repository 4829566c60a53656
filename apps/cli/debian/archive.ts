/**
 * A mirror of Debian: its suites' indexes and packages, each checked against the SHA-256 that what is above it states, up to the signature.
 */
import { createHash } from "node:crypto";
import { HypolithError } from "../../../src/base/errors.ts";
import { findInRelease, parseStanza } from "../image/packages-index.ts";
import type { Progress } from "../image/progress.ts";
import type { Transport } from "../image/transport.ts";
import { decompressXz } from "../image/xz.ts";
import type { IndexedPackage, PackageIndex } from "./package-index.ts";
import { checkRelease, type Keyrings } from "./signed-release.ts";

export interface ArchiveContext {
  readonly transport: Transport;
  readonly keyrings: Keyrings;
  /** For half-done work. */
  readonly folder: string;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** Where a suite is. */
export interface SuitePlace {
  /** "http://deb.debian.org/debian", without "dists". */
  readonly base: string;
  readonly suite: string;
}

export interface Release {
  readonly place: SuitePlace;
  readonly text: string;
  readonly codename: string;
  /** "13.2"; empty for suites that have none. */
  readonly version: string;
  /** Milliseconds since 1970. */
  readonly date: number;
  readonly isSigned: boolean;
  /** As it came. */
  readonly file: Uint8Array;
}

/** By the release's name, whatever it was asked by: mirrors and what lies before them may have the two from different days. */
export async function fetchByCodename(
  place: SuitePlace,
  context: ArchiveContext,
): Promise<Release> {
  const release = await fetchRelease(place, context);
  if (release.codename === place.suite) return release;
  return fetchRelease({ ...place, suite: release.codename }, context);
}

export async function fetchRelease(
  place: SuitePlace,
  { transport, keyrings, folder, signal }: ArchiveContext,
): Promise<Release> {
  const url = `${place.base}/dists/${place.suite}/InRelease`;
  const bytes = await transport.download(url, { signal });
  const { text, isSigned } = checkRelease(bytes, { url, keyrings, folder });
  const fields = parseStanza(text);
  const codename = fields.get("Codename") ?? "";
  const names = [fields.get("Suite"), codename, `${codename}-security`];
  // An old release under a new name is a way to bring old holes back.
  if (!/^[a-z-]+$/.test(codename) || !names.includes(place.suite)) {
    throw new HypolithError("release-mismatch", `${url} is of the suite '${names[0]}'`, {
      hint: "the mirror serves something else than what was asked for: try another --mirror",
    });
  }
  const until = Date.parse(fields.get("Valid-Until") ?? "");
  if (until < Date.now()) {
    throw new HypolithError("release-expired", `${url} has expired`, {
      hint: "the mirror is not up to date, or this machine's clock is wrong",
    });
  }
  const date = Date.parse(fields.get("Date") ?? "");
  return {
    place,
    text,
    codename,
    version: fields.get("Version") ?? "",
    date,
    isSigned,
    file: bytes,
  };
}

/** Adds what a suite has for an architecture; answers the index as it is. */
export async function addIndex(
  index: PackageIndex,
  release: Release,
  architecture: string,
  context: ArchiveContext,
): Promise<Uint8Array> {
  const { place, text } = release;
  const path = `main/binary-${architecture}/Packages.xz`;
  const expected = findInRelease(text, path);
  const dist = `${place.base}/dists/${place.suite}`;
  if (!expected) {
    throw new HypolithError("mirror-refused", `${dist} has no packages for ${architecture}`, {
      hint: "choose another suite, or another --platform",
    });
  }
  const { transport, progress, signal } = context;
  // By its hash a file is there as long as a release names it, also while the mirror is being updated.
  const byHash = parseStanza(text).get("Acquire-By-Hash") === "yes";
  const name = byHash
    ? `${path.replace("Packages.xz", "by-hash/SHA256")}/${expected.sha256}`
    : path;
  const bar = progress.bar(`downloading the package index of ${place.suite}`, expected.size);
  try {
    const onProgress = (bytes: number): void => bar.update(bytes);
    const packed = await transport.download(`${dist}/${name}`, { expected, onProgress, signal });
    const parts: Uint8Array[] = [];
    for await (const part of decompressXz(packed)) {
      signal.throwIfAborted();
      parts.push(part);
    }
    const bytes = Buffer.concat(parts);
    index.add(bytes.toString("utf8"), place.base);
    return bytes;
  } finally {
    bar.end();
  }
}

const PARALLEL = 4;

/** Downloads packages, several at once; `take` gets each as it comes, one at a time. */
export async function downloadPackages(
  packages: readonly IndexedPackage[],
  { transport, progress, signal }: ArchiveContext,
  take: (found: IndexedPackage, deb: Uint8Array) => Promise<void>,
): Promise<void> {
  const total = packages.reduce((sum, { size }) => sum + size, 0);
  const bar = progress.bar(`downloading ${packages.length} packages`, total);
  const queue = [...packages].sort((a, b) => b.size - a.size);
  let done = 0;
  let turn = Promise.resolve();
  const work = async (): Promise<void> => {
    for (let found = queue.shift(); found; found = queue.shift()) {
      signal.throwIfAborted();
      const next = found;
      const url = `${next.base}/${next.filename.split("/").map(encodeURIComponent).join("/")}`;
      const deb = await transport.download(url, { expected: next, signal });
      done += next.size;
      bar.update(done);
      turn = turn.then(() => take(next, deb));
      await turn;
    }
  };
  try {
    const workers = Array.from({ length: PARALLEL }, () =>
      work().catch((error) => {
        queue.length = 0;
        throw error;
      }),
    );
    const failure = (await Promise.allSettled(workers)).find(({ status }) => status === "rejected");
    if (failure) throw (failure as PromiseRejectedResult).reason;
  } finally {
    bar.end();
  }
}

/** Says which packages in which versions something is made of. */
export function fingerprint(packages: readonly IndexedPackage[]): string {
  const hash = createHash("sha256");
  for (const { name, version, sha256 } of packages) hash.update(`${name} ${version} ${sha256}\n`);
  return hash.digest("hex");
}
