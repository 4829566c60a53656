/**
 * What one L2 entry says about a guest cluster.
 * Spec: QEMU docs/interop/qcow2.txt, "Cluster mapping".
 *
 * Entries are read as two 32-bit words. Reserved bits that are set, or an offset off a cluster, mean that the image is corrupt or that we would
 * misread it: neither is read further.
 */
import { corrupt } from "./header.ts";

const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const OFFSET_HIGH = 0x00ff_ffff;
const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1fe;
const ZERO = 1;
const SECTOR_BYTES = 512;

export type Mapping =
  /** the backing file's, or zeros without one */
  | { readonly kind: "absent" }
  /** zeros; `offset` 0 if no cluster is reserved */
  | { readonly kind: "zero"; readonly offset: number; readonly isOwn: boolean }
  | { readonly kind: "data"; readonly offset: number; readonly isOwn: boolean }
  /** `offset` and `length` of the compressed bytes */
  | { readonly kind: "compressed"; readonly offset: number; readonly length: number };

export const ABSENT: Mapping = { kind: "absent" };

export interface EntryFormat {
  readonly clusterBits: number;
  readonly version: number;
}

export function readEntry(view: DataView, at: number, format: EntryFormat): Mapping {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if (high & COMPRESSED) return compressed(view.getBigUint64(at), format.clusterBits);
  const isZero = (low & ZERO) !== 0;
  const offset = (high & OFFSET_HIGH) * 2 ** 32 + ((low & ~0x1ff) >>> 0);
  const isReserved = high & RESERVED_HIGH || low & RESERVED_LOW || (isZero && format.version < 3);
  if (isReserved || offset % 2 ** format.clusterBits !== 0 || !Number.isSafeInteger(offset))
    throw corrupt("an L2 entry that cannot be");
  // A cluster is "own" if nothing else refers to it, so it may be written in place.
  const isOwn = (high & COPIED) !== 0;
  if (isZero) return { kind: "zero", offset, isOwn };
  return offset === 0 ? ABSENT : { kind: "data", offset, isOwn };
}

function compressed(entry: bigint, clusterBits: number): Mapping {
  const shift = BigInt(62 - (clusterBits - 8));
  const offset = Number(entry & ((1n << shift) - 1n));
  const sectors = Number((entry & ((1n << 62n) - 1n)) >> shift) + 1;
  if (!Number.isSafeInteger(offset)) throw corrupt("an L2 entry that cannot be");
  return { kind: "compressed", offset, length: sectors * SECTOR_BYTES - (offset % SECTOR_BYTES) };
}

/** Writes an entry for a cluster that only this entry refers to. `compressed` entries are never written. */
export function writeEntry(view: DataView, at: number, mapping: Mapping): void {
  const offset = mapping.kind === "zero" || mapping.kind === "data" ? mapping.offset : 0;
  const high = Math.floor(offset / 2 ** 32) | (offset === 0 ? 0 : COPIED);
  view.setUint32(at, high >>> 0);
  view.setUint32(at + 4, ((offset >>> 0) | (mapping.kind === "zero" ? ZERO : 0)) >>> 0);
}
