/**
 * Refcounts of the clusters of an image file, and allocation by them.
 * Spec: QEMU docs/interop/qcow2.txt, "Host cluster management".
 *
 * Changes stay in memory until `writeBlocks` and `writeTable`; the disk decides when, so that nothing in the file ever refers to a cluster
 * whose refcount the file does not have. What is freed by `release` keeps its count until `applyReleases`, after the file has
 * stopped referring to it, so it cannot be reused too early.
 */
import { HypolithError } from "../../base/errors.ts";
import type { BlockPort, Io } from "../block-port.ts";
import { corrupt, getWide, HeaderAt, type Qcow2Header, setWide, viewOf } from "./header.ts";
import type { LogPiece } from "./metadata-log.ts";
import { type Table, TableCache } from "./table-cache.ts";

const CACHED_BLOCKS = 32;
const MAX_TABLE_BYTES = 8 << 20;

export class Refcounts {
  readonly #port: BlockPort;
  readonly clusterBytes: number;
  readonly #order: number;
  readonly #entriesPerBlock: number;
  readonly #blocks: TableCache;
  /** offsets of the blocks, as the file's refcount table has them */
  #table: Uint8Array;
  #tableOffset: number;
  #dirtyEntries: number[] = [];
  #isMoved = false;
  /** no cluster below this is free */
  #firstFree = 1;
  #releases: number[] = [];
  /** end of the last cluster that was allocated */
  #allocatedEnd = 0;
  /** clusters that hold metadata: the allocator must never meet one */
  readonly metadata = new Set<number>();

  private constructor(port: BlockPort, header: Qcow2Header, table: Uint8Array) {
    this.#port = port;
    this.clusterBytes = 2 ** header.clusterBits;
    this.#order = header.refcountOrder;
    this.#entriesPerBlock = (this.clusterBytes * 8) / 2 ** this.#order;
    this.#blocks = new TableCache(port, this.clusterBytes, CACHED_BLOCKS);
    this.#table = table;
    this.#tableOffset = header.refcountOffset;
  }

  static *open(port: BlockPort, header: Qcow2Header): Io<Refcounts> {
    const clusterBytes = 2 ** header.clusterBits;
    const table = new Uint8Array(header.refcountClusters * clusterBytes);
    const pending = port.read(header.refcountOffset, table);
    if (pending) yield pending;
    const counts = new Refcounts(port, header, table);
    counts.#mark(header.refcountOffset, table.length);
    for (const offset of counts.blockOffsets()) {
      if (offset % clusterBytes !== 0 || offset >= port.size)
        throw corrupt("a refcount block that is not on a cluster of the file");
      if (counts.metadata.has(offset / clusterBytes)) throw corrupt("a refcount block that is two");
      counts.#mark(offset, clusterBytes);
    }
    return counts;
  }

  /** Where the file ends, with what was allocated and not written yet. */
  get fileEnd(): number {
    return Math.max(this.#port.size, this.#allocatedEnd);
  }

  get isDirty(): boolean {
    return this.#blocks.dirtyCount > 0 || this.#dirtyEntries.length > 0 || this.#isMoved;
  }

  get dirtyBlocks(): number {
    return this.#blocks.dirtyCount;
  }

  get hasReleases(): boolean {
    return this.#releases.length > 0;
  }

  /** Offsets of all refcount blocks. */
  *blockOffsets(): Generator<number> {
    const view = viewOf(this.#table);
    for (let at = 0; at < this.#table.length; at += 8) {
      const offset = getWide(view, at);
      if (offset !== 0) yield offset;
    }
  }

  /** Clusters that have a count, by block: first, and behind the last. */
  *countedRanges(): Generator<readonly [from: number, to: number]> {
    const view = viewOf(this.#table);
    for (let index = 0; 8 * index < this.#table.length; index++) {
      if (getWide(view, 8 * index) === 0) continue;
      yield [index * this.#entriesPerBlock, (index + 1) * this.#entriesPerBlock];
    }
  }

  /** Whether there is a block for the cluster. */
  isCounted(cluster: number): boolean {
    return this.#blockOffset(Math.floor(cluster / this.#entriesPerBlock)) !== 0;
  }

  /** The first cluster that the cluster's block counts. */
  firstOfBlock(cluster: number): number {
    return cluster - (cluster % this.#entriesPerBlock);
  }

  /** Where the refcount table is. */
  get tablePlace(): { offset: number; length: number } {
    return { offset: this.#tableOffset, length: this.#table.length };
  }

  *get(cluster: number): Io<number> {
    const block = yield* this.#block(cluster);
    return block ? this.#entry(block.view, cluster % this.#entriesPerBlock) : 0;
  }

  /** For repair. */
  *set(cluster: number, count: number): Io<void> {
    yield* this.#ensureBlock(cluster);
    yield* this.#put(cluster, count);
    if (count === 0) this.#firstFree = Math.min(this.#firstFree, cluster);
  }

  /** Adds to a count, for a cluster in use. */
  *increase(cluster: number): Io<void> {
    yield* this.#put(cluster, (yield* this.get(cluster)) + 1);
  }

  /** Takes up to `wanted` free clusters in one run, with count 1; answers the first byte and how many clusters. */
  *allocate(wanted: number): Io<{ offset: number; count: number }> {
    let first = this.#firstFree;
    for (;;) {
      yield* this.#ensureBlock(first);
      if ((yield* this.get(first)) === 0) break;
      first++;
    }
    let count = 0;
    while (count < wanted) {
      const cluster = first + count;
      yield* this.#ensureBlock(cluster);
      if ((yield* this.get(cluster)) !== 0) break;
      if (this.metadata.has(cluster)) throw corrupt("metadata that is not counted as used");
      yield* this.#put(cluster, 1);
      count++;
    }
    this.#firstFree = first + count;
    return { offset: first * this.clusterBytes, count };
  }

  /** One reference to the cluster at `offset` goes away, as soon as the file no longer has it. */
  release(offset: number): void {
    this.#releases.push(offset / this.clusterBytes);
  }

  *applyReleases(): Io<void> {
    const releases = this.#releases;
    this.#releases = [];
    for (const cluster of releases) {
      const count = yield* this.get(cluster);
      if (count === 0) throw corrupt("a cluster in use that is counted as free");
      yield* this.#put(cluster, count - 1);
      if (count > 1) continue;
      this.metadata.delete(cluster);
      this.#firstFree = Math.min(this.#firstFree, cluster);
    }
  }

  /** Parts of blocks that have changed since it was asked last. */
  takeNew(): LogPiece[] {
    return this.#blocks.takeNew();
  }

  writeBlocks(): Io<boolean> {
    return this.#blocks.writeBack();
  }

  get isTableDirty(): boolean {
    return this.#dirtyEntries.length > 0 || this.#isMoved;
  }

  /** After the blocks are safe: entries of new blocks, or the whole table in its new place and then the header. */
  *writeTable(barrier: () => Io<void>): Io<void> {
    if (this.#isMoved) {
      let pending = this.#port.write(this.#tableOffset, this.#table);
      if (pending) yield pending;
      yield* barrier();
      const place = new Uint8Array(12);
      setWide(viewOf(place), 0, this.#tableOffset);
      viewOf(place).setUint32(8, this.#table.length / this.clusterBytes);
      pending = this.#port.write(HeaderAt.REFCOUNT_OFFSET, place);
      if (pending) yield pending;
      this.#isMoved = false;
    } else {
      for (const index of this.#dirtyEntries) {
        const entry = this.#table.subarray(8 * index, 8 * index + 8);
        const pending = this.#port.write(this.#tableOffset + 8 * index, entry);
        if (pending) yield pending;
      }
    }
    this.#dirtyEntries = [];
  }

  #mark(offset: number, length: number): void {
    for (let at = 0; at < length; at += this.clusterBytes)
      this.metadata.add((offset + at) / this.clusterBytes);
  }

  #blockOffset(index: number): number {
    return 8 * index < this.#table.length ? getWide(viewOf(this.#table), 8 * index) : 0;
  }

  *#block(cluster: number): Io<Table | undefined> {
    const offset = this.#blockOffset(Math.floor(cluster / this.#entriesPerBlock));
    return offset === 0 ? undefined : yield* this.#blocks.get(offset);
  }

  /** A new block lies in the first of the clusters it counts: without it they are all free. */
  *#ensureBlock(cluster: number): Io<void> {
    const index = Math.floor(cluster / this.#entriesPerBlock);
    if (this.#blockOffset(index) !== 0) return;
    if (8 * index >= this.#table.length) yield* this.#growTable(index);
    if (this.#blockOffset(index) !== 0) return;
    const first = index * this.#entriesPerBlock;
    const offset = first * this.clusterBytes;
    this.#blocks.create(offset);
    setWide(viewOf(this.#table), 8 * index, offset);
    this.#dirtyEntries.push(index);
    this.metadata.add(first);
    yield* this.#put(first, 1);
  }

  /**
   * A larger table, in the clusters from the first that no block counts: first the blocks for those clusters, then the table.
   * All clusters from there on are free.
   */
  *#growTable(index: number): Io<void> {
    const perBlock = this.#entriesPerBlock;
    let blocks = 1;
    let clusters = 0;
    for (let before = 0; before !== blocks + clusters; ) {
      before = blocks + clusters;
      const entries = Math.max((2 * this.#table.length) / 8, index + blocks + 1);
      clusters = Math.ceil((8 * entries) / this.clusterBytes);
      blocks = Math.ceil((blocks + clusters) / perBlock);
    }
    const length = clusters * this.clusterBytes;
    if (length > MAX_TABLE_BYTES)
      throw new HypolithError("disk-full", "the qcow2 image cannot grow");
    const old = this.tablePlace;
    const table = new Uint8Array(length);
    table.set(this.#table);
    const first = index * perBlock;
    for (let i = 0; i < blocks; i++) {
      const offset = (first + i) * this.clusterBytes;
      this.#blocks.create(offset);
      setWide(viewOf(table), 8 * (index + i), offset);
    }
    this.#table = table;
    this.#tableOffset = (first + blocks) * this.clusterBytes;
    this.#isMoved = true;
    for (let i = 0; i < blocks + clusters; i++) yield* this.#put(first + i, 1);
    this.#mark(first * this.clusterBytes, (blocks + clusters) * this.clusterBytes);
    for (let at = 0; at < old.length; at += this.clusterBytes) this.release(old.offset + at);
  }

  *#put(cluster: number, count: number): Io<void> {
    const block = yield* this.#block(cluster);
    if (!block) throw corrupt("a cluster in use that is counted as free");
    if (count > 0)
      this.#allocatedEnd = Math.max(this.#allocatedEnd, (cluster + 1) * this.clusterBytes);
    const bits = 2 ** this.#order;
    if (bits < 53 && count >= 2 ** bits)
      throw new HypolithError("disk-full", "a cluster of the qcow2 image has too many references");
    const index = cluster % this.#entriesPerBlock;
    const { view } = block;
    const at = Math.floor((index * bits) / 8);
    if (bits === 64) setWide(view, at, count);
    else if (bits === 32) view.setUint32(at, count);
    else if (bits === 16) view.setUint16(at, count);
    else {
      const shift = (index * bits) % 8;
      const mask = (2 ** bits - 1) << shift;
      view.setUint8(at, (view.getUint8(at) & ~mask) | (count << shift));
    }
    this.#blocks.touch(block, at, Math.ceil(bits / 8));
  }

  #entry(view: DataView, index: number): number {
    const bits = 2 ** this.#order;
    const at = Math.floor((index * bits) / 8);
    if (bits === 64) return getWide(view, at);
    if (bits === 32) return view.getUint32(at);
    if (bits === 16) return view.getUint16(at);
    return (view.getUint8(at) >> ((index * bits) % 8)) & (2 ** bits - 1);
  }
}
