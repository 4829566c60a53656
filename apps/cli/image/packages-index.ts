/**
 * Records of Debian package indexes.
 * Spec: Debian Policy, "Syntax of control files" and "Binary package control files"; Debian wiki, "DebianRepository/Format".
 */
import { HypolithError } from "../../../src/base/errors.ts";

export interface PackageRecord {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly depends: string;
  /** Below the mirror's base, "pool/main/b/busybox/…". */
  readonly filename: string;
  readonly size: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** One stanza as its fields; continuation lines stay in the value. */
export function parseStanza(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  let name = "";
  for (const line of text.split("\n")) {
    if (/^[ \t]/.test(line)) {
      fields.set(name, `${fields.get(name) ?? ""}\n${line.trim()}`);
      continue;
    }
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    name = line.slice(0, colon);
    fields.set(name, line.slice(colon + 1).trim());
  }
  return fields;
}

export function parseRecord(stanza: string): PackageRecord {
  const fields = parseStanza(stanza);
  const record = {
    name: fields.get("Package") ?? "",
    version: fields.get("Version") ?? "",
    architecture: fields.get("Architecture") ?? "",
    depends: fields.get("Depends") ?? "",
    filename: fields.get("Filename") ?? "",
    size: Number(fields.get("Size")),
    sha256: fields.get("SHA256")?.toLowerCase() ?? "",
  };
  const complete = record.name && record.version && record.filename && record.size > 0;
  if (!complete || !/^[0-9a-f]{64}$/.test(record.sha256)) {
    throw new HypolithError(
      "index-malformed",
      `the package index has an incomplete record for '${record.name || "?"}'`,
      { hint: "try another mirror with --mirror" },
    );
  }
  return record;
}

/** The record of a package in the text of a Packages file. Searches bytes: an index has 50 MB. */
export function findInIndex(index: Buffer, name: string): PackageRecord | undefined {
  const first = Buffer.from(`Package: ${name}\n`);
  let start = 0;
  if (!index.subarray(0, first.length).equals(first)) {
    start = index.indexOf(`\nPackage: ${name}\n`);
    if (start < 0) return undefined;
    start += 1;
  }
  const end = index.indexOf("\n\n", start);
  return parseRecord(index.toString("utf8", start, end < 0 ? index.length : end));
}

/** The kernel package that a kernel meta package stands for. */
export function kernelPackageOf(meta: PackageRecord): string {
  const found = /(?:^|[\s,])(linux-image-\d[^\s,(|]*)/.exec(meta.depends);
  if (found) return found[1]!;
  throw new HypolithError(
    "index-malformed",
    `the package ${meta.name} ${meta.version} names no kernel: Depends: ${meta.depends}`,
  );
}

/** Size and SHA-256 of a file as a Release file states them. */
export function findInRelease(
  release: string,
  path: string,
): { size: number; sha256: string } | undefined {
  const sums = parseStanza(release).get("SHA256") ?? "";
  for (const line of sums.split("\n")) {
    const [sha256, size, name] = line.trim().split(/\s+/);
    if (name === path && sha256) return { size: Number(size), sha256: sha256.toLowerCase() };
  }
  return undefined;
}
