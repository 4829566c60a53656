/**
 * The header of a qcow2 image: parsed with every check that needs no other part of the file, and written.
 * Spec: QEMU docs/interop/qcow2.txt, "Header", "Header extensions".
 *
 * An image may come from anyone. Sizes are bounded before anything is allocated by them, unknown incompatible features are refused.
 * Not supported, and said so: encryption, external data files, extended L2 entries, compression other than zlib.
 */
import { HypolithError } from "../../base/errors.ts";

export const MAGIC = 0x5146_49fb;
export const V2_BYTES = 72;
export const V3_BYTES = 104;
/** L1 tables of more than 32 MiB are refused, as QEMU does. */
export const MAX_L1_BYTES = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES = 8 << 20;
const MIN_CLUSTER_BITS = 9;
const MAX_CLUSTER_BITS = 21;
const MAX_NAME_BYTES = 1023;
const MAX_SNAPSHOTS = 65_536;

export const HeaderAt = {
  MAGIC: 0,
  VERSION: 4,
  BACKING_OFFSET: 8,
  BACKING_BYTES: 16,
  CLUSTER_BITS: 20,
  SIZE: 24,
  CRYPT: 32,
  L1_ENTRIES: 36,
  L1_OFFSET: 40,
  REFCOUNT_OFFSET: 48,
  REFCOUNT_CLUSTERS: 56,
  SNAPSHOTS: 60,
  SNAPSHOTS_OFFSET: 64,
  INCOMPATIBLE: 72,
  COMPATIBLE: 80,
  AUTOCLEAR: 88,
  REFCOUNT_ORDER: 96,
  HEADER_BYTES: 100,
} as const;

/** Low word of the incompatible features; all others must be clear. */
export const Incompatible = {
  DIRTY: 1,
  CORRUPT: 2,
  EXTERNAL_DATA: 4,
  COMPRESSION: 8,
  EXTENDED_L2: 16,
} as const;

const Extension = {
  END: 0,
  BACKING_FORMAT: 0xe279_2aca,
  ENCRYPTION: 0x0537_be77,
} as const;

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** virtual size in bytes */
  readonly size: number;
  readonly l1Entries: number;
  readonly l1Offset: number;
  readonly refcountOffset: number;
  readonly refcountClusters: number;
  /** log2 of the bits of a refcount */
  readonly refcountOrder: number;
  readonly snapshots: number;
  readonly snapshotsOffset: number;
  readonly isDirty: boolean;
  readonly isCorrupt: boolean;
  /** feature bits that whoever changes the image must clear */
  readonly hasAutoclear: boolean;
  readonly backingName?: string;
  readonly backingFormat?: string;
}

export function corrupt(what: string): HypolithError {
  return new HypolithError("qcow2-corrupt", `the qcow2 image is inconsistent: ${what}`, {
    hint: "qemu-img check -r all may repair it",
  });
}

function unsupported(what: string): HypolithError {
  return new HypolithError("qcow2-unsupported", `the qcow2 image uses ${what}`, {
    hint: "qemu-img convert -O qcow2 makes a plain copy",
  });
}

export function isQcow2(start: Uint8Array): boolean {
  return start.length >= 4 && viewOf(start).getUint32(0) === MAGIC;
}

export const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A 64-bit number, or Infinity where it is not exact: then it is larger than any file. */
export function getWide(view: DataView, at: number): number {
  const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  return Number.isSafeInteger(value) ? value : Number.POSITIVE_INFINITY;
}

export function setWide(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value >>> 0);
}

/** `bytes`: the first cluster of the file or more, or all of a shorter file. */
export function parseHeader(bytes: Uint8Array, fileBytes: number): Qcow2Header {
  if (!isQcow2(bytes) || bytes.length < V2_BYTES)
    throw new HypolithError("disk-not-qcow2", "this is not a qcow2 image");
  const firstCluster = 2 ** Math.min(viewOf(bytes).getUint32(HeaderAt.CLUSTER_BITS), 31);
  const start = bytes.subarray(0, Math.max(firstCluster, V3_BYTES));
  const view = viewOf(start);
  const version = view.getUint32(HeaderAt.VERSION);
  if (version !== 2 && version !== 3) throw unsupported(`version ${version} of the format`);
  if (version === 3 && start.length < V3_BYTES) throw corrupt("it ends inside its header");
  const clusterBits = view.getUint32(HeaderAt.CLUSTER_BITS);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS)
    throw corrupt(`clusters of 2^${clusterBits} bytes`);
  if (view.getUint32(HeaderAt.CRYPT) !== 0) throw unsupported("encryption");
  const features = version === 3 ? parseFeatures(view) : V2_FEATURES;
  const header = {
    version,
    clusterBits,
    size: getWide(view, HeaderAt.SIZE),
    l1Entries: view.getUint32(HeaderAt.L1_ENTRIES),
    l1Offset: getWide(view, HeaderAt.L1_OFFSET),
    refcountOffset: getWide(view, HeaderAt.REFCOUNT_OFFSET),
    refcountClusters: view.getUint32(HeaderAt.REFCOUNT_CLUSTERS),
    snapshots: view.getUint32(HeaderAt.SNAPSHOTS),
    snapshotsOffset: getWide(view, HeaderAt.SNAPSHOTS_OFFSET),
    ...features,
  } as const;
  checkTables(header, fileBytes);
  return { ...header, ...parseBacking(start, header) };
}

const V2_FEATURES = {
  isDirty: false,
  isCorrupt: false,
  hasAutoclear: false,
  refcountOrder: 4,
  headerBytes: V2_BYTES,
} as const;

function parseFeatures(view: DataView) {
  const low = view.getUint32(HeaderAt.INCOMPATIBLE + 4);
  if (low & Incompatible.EXTERNAL_DATA) throw unsupported("an external data file");
  if (low & Incompatible.COMPRESSION) throw unsupported("a compression other than zlib");
  if (low & Incompatible.EXTENDED_L2) throw unsupported("extended L2 entries");
  const known = Incompatible.DIRTY | Incompatible.CORRUPT;
  if (view.getUint32(HeaderAt.INCOMPATIBLE) || low & ~known)
    throw unsupported("features that are not known here");
  const refcountOrder = view.getUint32(HeaderAt.REFCOUNT_ORDER);
  if (refcountOrder > 6) throw corrupt(`refcounts of 2^${refcountOrder} bits`);
  const headerBytes = view.getUint32(HeaderAt.HEADER_BYTES);
  if (headerBytes < V3_BYTES || headerBytes % 8 !== 0 || headerBytes > view.byteLength)
    throw corrupt(`a header of ${headerBytes} bytes`);
  return {
    isDirty: (low & Incompatible.DIRTY) !== 0,
    isCorrupt: (low & Incompatible.CORRUPT) !== 0,
    hasAutoclear: view.getBigUint64(HeaderAt.AUTOCLEAR) !== 0n,
    refcountOrder,
    headerBytes,
  };
}

type Tables = Omit<Qcow2Header, "backingName" | "backingFormat">;

function checkTables(header: Tables, fileBytes: number): void {
  const cluster = 2 ** header.clusterBits;
  const l2Reach = cluster * (cluster / 8);
  const needed = Math.ceil(header.size / l2Reach);
  if (!Number.isSafeInteger(header.size)) throw corrupt("a disk of more than 8 PiB");
  if (header.l1Entries < needed) throw corrupt("the L1 table is too small for the disk");
  if (header.l1Entries * 8 > MAX_L1_BYTES) throw corrupt("an L1 table of more than 32 MiB");
  if (header.refcountClusters * cluster > MAX_REFCOUNT_TABLE_BYTES)
    throw corrupt("a refcount table of more than 8 MiB");
  if (header.refcountClusters === 0) throw corrupt("no refcount table");
  if (header.snapshots > MAX_SNAPSHOTS) throw corrupt("too many snapshots");
  const parts: [string, number, number][] = [
    ["the L1 table", header.l1Offset, header.l1Entries * 8],
    ["the refcount table", header.refcountOffset, header.refcountClusters * cluster],
    ["the snapshot table", header.snapshotsOffset, header.snapshots],
  ];
  const end = Math.ceil(fileBytes / cluster) * cluster;
  for (const [name, offset, length] of parts) {
    if (length === 0) continue;
    if (offset % cluster !== 0 || offset === 0) throw corrupt(`${name} is not on a cluster`);
    if (offset + length > end) throw corrupt(`${name} is outside the file`);
  }
}

function parseBacking(
  start: Uint8Array,
  header: { readonly version: number; readonly headerBytes: number },
): { backingName?: string; backingFormat?: string } {
  const view = viewOf(start);
  const offset = getWide(view, HeaderAt.BACKING_OFFSET);
  const length = view.getUint32(HeaderAt.BACKING_BYTES);
  const extensionsEnd = offset > 0 ? Math.min(offset, start.length) : start.length;
  const extensions = parseExtensions(start, header.headerBytes, extensionsEnd);
  if (offset === 0) return {};
  if (length < 1 || length > MAX_NAME_BYTES || offset + length > start.length)
    throw corrupt("the name of the backing file is outside the first cluster");
  const backingName = text(start.subarray(offset, offset + length));
  return { backingName, ...extensions };
}

function parseExtensions(start: Uint8Array, from: number, end: number): { backingFormat?: string } {
  const view = viewOf(start);
  let found: { backingFormat?: string } = {};
  for (let at = from; at + 8 <= end; ) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === Extension.END) break;
    if (length > end - at - 8) throw corrupt("a header extension is too long");
    if (type === Extension.ENCRYPTION) throw unsupported("encryption");
    if (type === Extension.BACKING_FORMAT)
      found = { backingFormat: text(start.subarray(at + 8, at + 8 + length)) };
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return found;
}

function text(bytes: Uint8Array): string {
  // Percent escapes: the one UTF-8 decoder of the language itself.
  const escaped = Array.from(bytes, (byte) => `%${byte.toString(16).padStart(2, "0")}`);
  try {
    return decodeURIComponent(escaped.join(""));
  } catch {
    throw corrupt("a name that is not UTF-8");
  }
}

function textBytes(value: string): Uint8Array {
  const escaped = encodeURIComponent(value);
  const bytes = escaped.match(/%[0-9A-F]{2}|[^%]/g) ?? [];
  return Uint8Array.from(bytes, (part) =>
    part.length === 3 ? Number.parseInt(part.slice(1), 16) : part.charCodeAt(0),
  );
}

export interface NewHeader {
  readonly clusterBits: number;
  readonly size: number;
  readonly l1Entries: number;
  readonly l1Offset: number;
  readonly refcountOffset: number;
  readonly refcountClusters: number;
  readonly backing?: { readonly name: string; readonly format: string };
}

/** The first cluster of a version 3 image. */
export function buildHeader(header: NewHeader): Uint8Array {
  const bytes = new Uint8Array(2 ** header.clusterBits);
  const view = viewOf(bytes);
  view.setUint32(HeaderAt.MAGIC, MAGIC);
  view.setUint32(HeaderAt.VERSION, 3);
  view.setUint32(HeaderAt.CLUSTER_BITS, header.clusterBits);
  setWide(view, HeaderAt.SIZE, header.size);
  view.setUint32(HeaderAt.L1_ENTRIES, header.l1Entries);
  setWide(view, HeaderAt.L1_OFFSET, header.l1Offset);
  setWide(view, HeaderAt.REFCOUNT_OFFSET, header.refcountOffset);
  view.setUint32(HeaderAt.REFCOUNT_CLUSTERS, header.refcountClusters);
  view.setUint32(HeaderAt.REFCOUNT_ORDER, 4);
  view.setUint32(HeaderAt.HEADER_BYTES, V3_BYTES);
  if (!header.backing) return bytes;
  const format = textBytes(header.backing.format);
  const name = textBytes(header.backing.name);
  const nameAt = V3_BYTES + 8 + Math.ceil(format.length / 8) * 8 + 8;
  if (name.length > MAX_NAME_BYTES || nameAt + name.length > bytes.length)
    throw new HypolithError("disk-backing-name", "the name of the backing file is too long");
  view.setUint32(V3_BYTES, Extension.BACKING_FORMAT);
  view.setUint32(V3_BYTES + 4, format.length);
  bytes.set(format, V3_BYTES + 8);
  bytes.set(name, nameAt);
  setWide(view, HeaderAt.BACKING_OFFSET, nameAt);
  view.setUint32(HeaderAt.BACKING_BYTES, name.length);
  return bytes;
}
