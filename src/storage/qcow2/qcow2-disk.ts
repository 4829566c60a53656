/**
 * A qcow2 image as a disk: reads through backing files, writes by copy, versions 2 and 3, images with internal snapshots.
 * Spec: QEMU docs/interop/qcow2.txt.
 *
 * What the file says is true at every moment. Data goes to the file at once, into clusters that nothing in it refers to yet; then, at a
 * flush, refcounts, L2 tables and L1 entries follow in that order with a flush of the port between each, and at last what is no
 * longer referred to is given back. So whichever writes a power failure keeps, the image is consistent and has all that was written
 * before the last flush; at worst some clusters are leaked. With `writeThrough` entries and refcounts follow each operation in the same
 * order but without flushes between, and the image is marked as open until `close`: the death of the process loses nothing, and after a
 * power failure refcounts are counted again when the image is opened (open-image.ts). What that can lose is in ADR 17. With a `log` what is held back
 * is kept there meanwhile, and neither loses anything.
 *
 * Not here: one operation at a time (disk.ts), which file a backing name means (open-image.ts), repair (check.ts).
 */
import { HypolithError } from "../../base/errors.ts";
import type { BlockPort, Io } from "../block-port.ts";
import { checkRange, checkWritable, type Disk } from "../disk.ts";
import { inflate } from "../inflate.ts";
import { ClusterMap } from "./cluster-map.ts";
import { corrupt, HeaderAt, Incompatible, parseHeader, type Qcow2Header } from "./header.ts";
import { ABSENT, type Mapping } from "./l2-entry.ts";
import type { MetadataLog } from "./metadata-log.ts";
import { Refcounts } from "./refcounts.ts";

export interface Qcow2Options {
  readonly readOnly?: boolean;
  /** Required if the header names one. */
  readonly backing?: Disk;
  /** Metadata follows each operation at once. */
  readonly writeThrough?: boolean;
  /** Keeps what is held back. What it kept before has been written by `replay`. */
  readonly log?: MetadataLog | undefined;
}

/** Dirty tables in memory before they are written without being asked. */
const MAX_DIRTY = 24;

export class Qcow2Disk implements Disk {
  readonly header: Qcow2Header;
  readonly size: number;
  readonly readOnly: boolean;
  readonly #port: BlockPort;
  readonly #clusterBytes: number;
  readonly #counts: Refcounts;
  readonly #map: ClusterMap;
  readonly #backing: Disk | undefined;
  readonly #writeThrough: boolean;
  readonly #log: MetadataLog | undefined;
  #mustClearFeatures: boolean;
  #isMarked = false;
  /** found while running: nothing is changed any more */
  #isCorrupt = false;
  #inflated: { offset: number; bytes: Uint8Array } | undefined;

  private constructor(
    port: BlockPort,
    header: Qcow2Header,
    parts: { counts: Refcounts; map: ClusterMap },
    options: Qcow2Options,
  ) {
    this.#port = port;
    this.header = header;
    this.size = header.size;
    this.readOnly = port.readOnly || options.readOnly === true;
    this.#clusterBytes = 2 ** header.clusterBits;
    this.#counts = parts.counts;
    this.#map = parts.map;
    this.#backing = options.backing;
    this.#log = options.log;
    this.#writeThrough = options.writeThrough === true && !options.log;
    this.#mustClearFeatures = header.hasAutoclear;
  }

  static *open(port: BlockPort, options: Qcow2Options = {}): Io<Qcow2Disk> {
    const header = yield* readHeader(port);
    const isWritten = !port.readOnly && options.readOnly !== true;
    if (header.isCorrupt && isWritten) throw corrupt("it is marked as corrupt");
    if (header.isDirty && isWritten)
      throw corrupt("it was not closed, and its refcounts have to be rebuilt");
    if (header.backingName !== undefined && !options.backing)
      throw new HypolithError(
        "disk-backing-missing",
        `the image needs its backing file ${header.backingName}`,
      );
    if (header.size % 512 !== 0) throw corrupt("a disk that is not whole sectors");
    const counts = yield* Refcounts.open(port, header);
    counts.metadata.add(0);
    if (header.snapshots > 0)
      counts.metadata.add(Math.floor(header.snapshotsOffset / 2 ** header.clusterBits));
    const map = yield* ClusterMap.open(port, header, counts);
    if (options.log) yield* options.log.clear();
    return new Qcow2Disk(port, header, { counts, map }, options);
  }

  // ---- reading ----

  *read(offset: number, into: Uint8Array): Io<void> {
    checkRange(this, offset, into.length);
    for (let done = 0; done < into.length; ) {
      const at = offset + done;
      const run = yield* this.#run(at, into.length - done);
      const part = into.subarray(done, done + run.length);
      yield* this.#readRun(run.mapping, at, part);
      done += part.length;
    }
  }

  /** How far from `at` on, at most `limit` bytes, one mapping goes: contiguous data, or all absent, or all zero. */
  *#run(at: number, limit: number): Io<{ mapping: Mapping; length: number }> {
    const first = Math.floor(at / this.#clusterBytes);
    const mapping = yield* this.#map.lookUp(first);
    let length = this.#clusterBytes - (at % this.#clusterBytes);
    if (mapping.kind === "compressed") return { mapping, length: Math.min(length, limit) };
    for (let n = 1; length < limit; n++, length += this.#clusterBytes) {
      const next = yield* this.#map.lookUp(first + n);
      if (next.kind !== mapping.kind) break;
      const isAdjacent =
        mapping.kind !== "data" ||
        (next.kind === "data" && next.offset === mapping.offset + n * this.#clusterBytes);
      if (!isAdjacent) break;
    }
    return { mapping, length: Math.min(length, limit) };
  }

  *#readRun(mapping: Mapping, at: number, into: Uint8Array): Io<void> {
    const inside = at % this.#clusterBytes;
    if (mapping.kind === "zero") into.fill(0);
    else if (mapping.kind === "absent") yield* this.#readBacking(at, into);
    else if (mapping.kind === "data") {
      const pending = this.#port.read(mapping.offset + inside, into);
      if (pending) yield pending;
    } else {
      const bytes = yield* this.#decompress(mapping);
      into.set(bytes.subarray(inside, inside + into.length));
    }
  }

  /** A shorter backing disk goes on with zeros. */
  *#readBacking(at: number, into: Uint8Array): Io<void> {
    const there = Math.min(into.length, Math.max(0, (this.#backing?.size ?? 0) - at));
    if (this.#backing && there > 0) yield* this.#backing.read(at, into.subarray(0, there));
    into.fill(0, there);
  }

  *#decompress(mapping: { offset: number; length: number }): Io<Uint8Array> {
    if (this.#inflated?.offset === mapping.offset) return this.#inflated.bytes;
    const packed = new Uint8Array(mapping.length);
    const pending = this.#port.read(mapping.offset, packed);
    if (pending) yield pending;
    try {
      const bytes = inflate(packed, this.#clusterBytes);
      this.#inflated = { offset: mapping.offset, bytes };
      return bytes;
    } catch (cause) {
      throw new HypolithError("qcow2-corrupt", "a compressed cluster cannot be decompressed", {
        cause,
      });
    }
  }

  // ---- writing ----

  *write(offset: number, bytes: Uint8Array): Io<void> {
    yield* this.#change(offset, bytes.length, () => this.#write(offset, bytes));
  }

  *#write(offset: number, bytes: Uint8Array): Io<void> {
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const run = yield* this.#run(at, bytes.length - done);
      const part = bytes.subarray(done, done + run.length);
      if (run.mapping.kind === "data" && (yield* this.#isOwnRun(at, part.length))) {
        const host = run.mapping.offset + (at % this.#clusterBytes);
        this.#guardMetadata(host, part.length);
        const pending = this.#port.write(host, part);
        if (pending) yield pending;
        done += part.length;
      } else done += yield* this.#writeNew(at, part);
    }
  }

  *#isOwnRun(at: number, length: number): Io<boolean> {
    const first = Math.floor(at / this.#clusterBytes);
    const last = Math.floor((at + length - 1) / this.#clusterBytes);
    for (let index = first; index <= last; index++) {
      const mapping = yield* this.#map.lookUp(index);
      if (mapping.kind !== "data" || !mapping.isOwn) return false;
    }
    return true;
  }

  /** Writes into new clusters as far as one run of them goes; answers how many bytes. */
  *#writeNew(at: number, bytes: Uint8Array): Io<number> {
    const first = Math.floor(at / this.#clusterBytes);
    const last = Math.floor((at + bytes.length - 1) / this.#clusterBytes);
    const old = yield* this.#map.lookUp(first);
    yield* this.#map.prepare(first);
    // A zero cluster with room reserved for it is used where it is.
    const isReserved = old.kind === "zero" && old.offset !== 0 && old.isOwn;
    const place = isReserved
      ? { offset: old.offset, count: 1 }
      : yield* this.#counts.allocate(last - first + 1);
    this.#guardMetadata(place.offset, place.count * this.#clusterBytes);
    const start = first * this.#clusterBytes;
    const end = Math.min((first + place.count) * this.#clusterBytes, at + bytes.length);
    const taken = end - at;
    yield* this.#fill(
      { start, count: place.count, host: place.offset },
      at,
      bytes.subarray(0, taken),
    );
    for (let i = 0; i < place.count; i++) {
      if (i > 0) yield* this.#map.prepare(first + i);
      const before = isReserved ? ABSENT : yield* this.#map.lookUp(first + i);
      const offset = place.offset + i * this.#clusterBytes;
      yield* this.#map.assign(first + i, { kind: "data", offset, isOwn: true });
      this.#release(before);
    }
    return taken;
  }

  /** Whole clusters for new places: what is written, and around it what was there. */
  *#fill(
    place: { start: number; count: number; host: number },
    at: number,
    bytes: Uint8Array,
  ): Io<void> {
    const total = place.count * this.#clusterBytes;
    let whole = bytes;
    if (bytes.length < total) {
      whole = new Uint8Array(total);
      const head = at - place.start;
      const tail = head + bytes.length;
      if (head > 0) yield* this.#readClipped(place.start, whole.subarray(0, head));
      whole.set(bytes, head);
      if (tail < total) yield* this.#readClipped(at + bytes.length, whole.subarray(tail));
    }
    const pending = this.#port.write(place.host, whole);
    if (pending) yield pending;
  }

  /** The last cluster may reach beyond the disk. */
  *#readClipped(offset: number, into: Uint8Array): Io<void> {
    const length = Math.min(into.length, Math.max(0, this.size - offset));
    if (length > 0) yield* this.read(offset, into.subarray(0, length));
  }

  *writeZeroes(offset: number, length: number, unmap: boolean): Io<void> {
    yield* this.#change(offset, length, () => this.#writeZeroes(offset, length, unmap));
  }

  *#writeZeroes(offset: number, length: number, unmap: boolean): Io<void> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, (Math.floor(at / this.#clusterBytes) + 1) * this.#clusterBytes);
      const isWhole = this.#isWholeCluster(at, next);
      if (!(isWhole && (yield* this.#zeroCluster(at / this.#clusterBytes, unmap))))
        yield* this.#zeroBytes(at, next - at);
      at = next;
    }
  }

  *discard(offset: number, length: number): Io<void> {
    yield* this.#change(offset, length, () => this.#discard(offset, length));
  }

  /** Whole clusters alone; what remains keeps its contents. */
  *#discard(offset: number, length: number): Io<void> {
    const end = offset + length;
    let at = Math.ceil(offset / this.#clusterBytes) * this.#clusterBytes;
    for (; at < end; at += this.#clusterBytes) {
      const isWhole = this.#isWholeCluster(at, Math.min(end, at + this.#clusterBytes));
      if (isWhole) yield* this.#zeroCluster(at / this.#clusterBytes, true);
    }
  }

  #isWholeCluster(at: number, end: number): boolean {
    const isEnd = end % this.#clusterBytes === 0 || end === this.size;
    return at % this.#clusterBytes === 0 && isEnd;
  }

  /** Makes a cluster read as zeros by its entry; false if the format has no entry for that. */
  *#zeroCluster(index: number, unmap: boolean): Io<boolean> {
    const before = yield* this.#map.lookUp(index);
    if (before.kind === "zero" && (before.offset === 0 || !unmap)) return true;
    const hasBacking = (this.#backing?.size ?? 0) > index * this.#clusterBytes;
    if (before.kind === "absent" && !hasBacking) return true;
    if (this.header.version < 3 && hasBacking) return false;
    yield* this.#map.prepare(index);
    const keeps = !unmap && before.kind === "data" && before.isOwn && this.header.version >= 3;
    const reserved = keeps ? before.offset : 0;
    const isAbsent = !hasBacking && reserved === 0;
    yield* this.#map.assign(
      index,
      isAbsent ? ABSENT : { kind: "zero", offset: reserved, isOwn: true },
    );
    if (!keeps) this.#release(before);
    return true;
  }

  *#zeroBytes(at: number, length: number): Io<void> {
    const { mapping } = yield* this.#run(at, length);
    const isZero =
      mapping.kind === "zero" || (mapping.kind === "absent" && (this.#backing?.size ?? 0) <= at);
    if (!isZero) yield* this.#write(at, new Uint8Array(length));
  }

  /** The entry no longer refers to what `before` says. */
  #release(before: Mapping): void {
    if (before.kind === "absent" || before.offset === 0) return;
    if (before.kind !== "compressed") {
      this.#counts.release(before.offset);
      return;
    }
    // Compressed bytes count in every cluster that they touch.
    const first = Math.floor(before.offset / this.#clusterBytes);
    const last = Math.floor((before.offset + before.length - 1) / this.#clusterBytes);
    for (let cluster = first; cluster <= last; cluster++)
      this.#counts.release(cluster * this.#clusterBytes);
    this.#inflated = undefined;
  }

  /** An image made to have its guest overwrite its own metadata. */
  #guardMetadata(host: number, length: number): void {
    const last = Math.floor((host + length - 1) / this.#clusterBytes);
    for (let cluster = Math.floor(host / this.#clusterBytes); cluster <= last; cluster++)
      if (this.#counts.metadata.has(cluster)) throw corrupt("data that overlaps metadata");
  }

  // ---- what reaches the file, and when ----

  *flush(): Io<void> {
    const hasMetadata = !this.readOnly && !this.#isCorrupt && this.#isDirty();
    if (!hasMetadata) yield* this.#barrier();
    else yield* this.#writeAll();
  }

  *#writeAll(): Io<void> {
    while (this.#isDirty()) yield* this.#writeMetadata(() => this.#barrier());
    if (this.#log) yield* this.#log.clear();
  }

  #isDirty(): boolean {
    return this.#counts.isDirty || this.#map.isDirty || this.#counts.hasReleases;
  }

  *#change(offset: number, length: number, work: () => Io<void>): Io<void> {
    checkWritable(this);
    checkRange(this, offset, length);
    if (this.#isCorrupt) throw corrupt("changes have been stopped");
    try {
      if (this.#mustClearFeatures) yield* this.#clearFeatures();
      if (this.#writeThrough || this.#log) yield* this.#mark(true);
      yield* work();
      const isMuch = this.#map.dirtyTables + this.#counts.dirtyBlocks > MAX_DIRTY;
      if (this.#log) {
        yield* this.#log.append([...this.#counts.takeNew(), ...this.#map.takeNew()]);
        if (isMuch || this.#log.isFull || this.#hasNewTables()) yield* this.#writeAll();
      } else if (this.#writeThrough) {
        while (this.#isDirty())
          yield* this.#writeMetadata(this.#hasNewTables() ? () => this.#barrier() : noBarrier);
      } else if (isMuch) yield* this.#writeMetadata(() => this.#barrier());
    } catch (error) {
      if (error instanceof HypolithError && error.code === "qcow2-corrupt") this.#isCorrupt = true;
      throw error;
    }
  }

  /** Nothing else will be done. The image is as a flush leaves it, and not marked as open. */
  *close(): Io<void> {
    yield* this.flush();
    if (!this.#isCorrupt) yield* this.#mark(false);
  }

  /** A table that nobody has written yet must not be found by a reader: too rare to save the flush. */
  #hasNewTables(): boolean {
    return this.#map.isL1Dirty || this.#counts.isTableDirty;
  }

  /** The mark of an image whose refcounts may be behind. Version 2 has none. */
  *#mark(isOpen: boolean): Io<void> {
    if (this.#isMarked === isOpen || this.header.version < 3) return;
    const low = new Uint8Array(4);
    low[3] = isOpen ? Incompatible.DIRTY : 0;
    const pending = this.#port.write(HeaderAt.INCOMPATIBLE + 4, low);
    if (pending) yield pending;
    yield* this.#barrier();
    this.#isMarked = isOpen;
  }

  *#barrier(): Io<void> {
    const pending = this.#port.flush();
    if (pending) yield pending;
  }

  /** Each step relies on those before it being safe. */
  *#writeMetadata(barrier: () => Io<void>): Io<void> {
    const counts = this.#counts;
    yield* barrier();
    if (yield* counts.writeBlocks()) yield* barrier();
    if (counts.isTableDirty) {
      yield* counts.writeTable(barrier);
      yield* barrier();
    }
    if (yield* this.#map.writeTables()) yield* barrier();
    if (this.#map.isL1Dirty) {
      yield* this.#map.writeL1();
      yield* barrier();
    }
    yield* counts.applyReleases();
  }

  /** Bits that say of other parts of the file that they fit the data: not after we change it. */
  *#clearFeatures(): Io<void> {
    const pending = this.#port.write(HeaderAt.AUTOCLEAR, new Uint8Array(8));
    if (pending) yield pending;
    this.#mustClearFeatures = false;
  }
}

function* noBarrier(): Io<void> {}

/** Reads and parses the header of an image. */
export function* readHeader(port: BlockPort): Io<Qcow2Header> {
  const start = new Uint8Array(Math.min(port.size, 1 << 16));
  const pending = port.read(0, start);
  if (pending) yield pending;
  return parseHeader(start, port.size);
}
