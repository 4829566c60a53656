/**
 * A new, empty qcow2 image: version 3, 16-bit refcounts, with or without a backing file.
 * The header comes last, after a flush, so that a half-made file is not an image.
 */
import { HypolithError } from "../../base/errors.ts";
import type { BlockPort, Io } from "../block-port.ts";
import { buildHeader, MAX_L1_BYTES, setWide, viewOf } from "./header.ts";

export interface NewImage {
  /** bytes; whole sectors */
  readonly size: number;
  readonly backing?: { readonly name: string; readonly format: "raw" | "qcow2" };
  /** default 16: 64 KiB */
  readonly clusterBits?: number;
}

const DEFAULT_CLUSTER_BITS = 16;

export function* createQcow2(port: BlockPort, image: NewImage): Io<void> {
  const { size, backing, clusterBits = DEFAULT_CLUSTER_BITS } = image;
  const cluster = 2 ** clusterBits;
  const l1Entries = Math.max(1, Math.ceil(size / (cluster * (cluster / 8))));
  if (!Number.isSafeInteger(size) || size < 0 || size % 512 !== 0 || l1Entries * 8 > MAX_L1_BYTES)
    throw new HypolithError("disk-size", `no qcow2 image can have ${size} bytes`, {
      hint: "the size is in whole sectors of 512 bytes",
    });
  // Clusters: header, refcount table, refcount blocks, L1 table.
  const l1Clusters = Math.ceil((l1Entries * 8) / cluster);
  const perBlock = cluster / 2;
  let blocks = 1;
  while (2 + blocks + l1Clusters > blocks * perBlock) blocks++;
  const used = 2 + blocks + l1Clusters;
  if (blocks * 8 > cluster)
    throw new HypolithError("disk-size", "the disk is too large for such small clusters");
  const counts = new Uint8Array(blocks * cluster);
  for (let i = 0; i < used; i++) viewOf(counts).setUint16(2 * i, 1);
  const table = new Uint8Array(cluster);
  for (let i = 0; i < blocks; i++) setWide(viewOf(table), 8 * i, (2 + i) * cluster);
  const l1Offset = (2 + blocks) * cluster;
  const header = buildHeader({
    ...{ clusterBits, size, l1Entries, l1Offset, refcountOffset: cluster, refcountClusters: 1 },
    ...(backing ? { backing } : {}),
  });
  const parts: [number, Uint8Array][] = [
    [l1Offset, new Uint8Array(l1Clusters * cluster)],
    [2 * cluster, counts],
    [cluster, table],
  ];
  let pending = port.truncate(0);
  if (pending) yield pending;
  for (const [offset, bytes] of parts) {
    pending = port.write(offset, bytes);
    if (pending) yield pending;
  }
  pending = port.flush();
  if (pending) yield pending;
  pending = port.write(0, header);
  if (pending) yield pending;
  pending = port.flush();
  if (pending) yield pending;
}
