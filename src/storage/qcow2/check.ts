/**
 * Checking a qcow2 image: every cluster is counted as often as it is referred to. And repair of the counts.
 * Spec: QEMU docs/interop/qcow2.txt; what `qemu-img check` reports.
 *
 * Leaked clusters (counted more often than referred to) waste space; the death of a process can leave some. Clusters counted less often
 * are errors: they would be given away while in use. Both are cured by counting again; an entry that cannot be is not.
 */
import type { BlockPort, Io } from "../block-port.ts";
import { corrupt, getWide, HeaderAt, Incompatible, type Qcow2Header, viewOf } from "./header.ts";
import { readEntry } from "./l2-entry.ts";
import { readHeader } from "./qcow2-disk.ts";
import { Refcounts } from "./refcounts.ts";

export interface CheckReport {
  /** clusters counted more often than they are referred to */
  readonly leaks: number;
  /** clusters counted less often */
  readonly errors: number;
}

const ENTRY_BYTES = 8;
const SNAPSHOT_HEADER_BYTES = 40;
const MAX_SNAPSHOT_TABLE = 64 << 20;
const SLACK_BYTES = 64 << 20;

/** Throws HypolithError "qcow2-corrupt" for what counting cannot cure. */
export function* checkQcow2(port: BlockPort): Io<CheckReport> {
  const header = yield* readHeader(port);
  const counts = yield* Refcounts.open(port, header);
  return yield* compare(counts, yield* countReferences(port, header, counts), false);
}

/** Counts again, clears the mark of an image that was not closed; answers what was wrong. */
export function* repairQcow2(port: BlockPort): Io<CheckReport> {
  const header = yield* readHeader(port);
  const counts = yield* Refcounts.open(port, header);
  yield* extend(port, header);
  const references = yield* countReferences(port, header, counts);
  const report = yield* compare(counts, references, true);
  function* barrier(): Io<void> {
    const pending = port.flush();
    if (pending) yield pending;
  }
  yield* counts.writeBlocks();
  yield* barrier();
  yield* counts.writeTable(barrier);
  yield* barrier();
  if (header.version >= 3) {
    const low = new Uint8Array(4);
    viewOf(low).setUint32(0, header.isCorrupt ? Incompatible.CORRUPT : 0);
    const pending = port.write(HeaderAt.INCOMPATIBLE + 4, low);
    if (pending) yield pending;
    yield* barrier();
  }
  return report;
}

/**
 * A power failure can leave entries for clusters that the file does not reach yet: they hold nothing that was flushed. Not farther than an
 * image of the disk's size with all its metadata could reach.
 */
function* extend(port: BlockPort, header: Qcow2Header): Io<void> {
  const walk = new ReferenceWalk(port, header, port.size + header.size + SLACK_BYTES);
  yield* walk.table(header.l1Offset, header.l1Entries);
  if (walk.end <= port.size) return;
  const pending = port.truncate(walk.end);
  if (pending) yield pending;
}

function* compare(
  counts: Refcounts,
  references: Map<number, number>,
  repair: boolean,
): Io<CheckReport> {
  let leaks = 0;
  let errors = 0;
  function* judge(cluster: number): Io<void> {
    const referred = references.get(cluster) ?? 0;
    const counted = yield* counts.get(cluster);
    if (counted === referred) return;
    if (counted > referred) leaks++;
    else errors++;
    if (repair) yield* counts.set(cluster, referred);
  }
  // Counts beyond the end of the file are as real as others: a power failure can leave some.
  const ranges = [...counts.countedRanges()];
  for (const [from, to] of ranges)
    for (let cluster = from; cluster < to; cluster++) yield* judge(cluster);
  const uncounted = new Set<number>();
  for (const cluster of references.keys())
    if (!counts.isCounted(cluster)) uncounted.add(counts.firstOfBlock(cluster));
  for (const cluster of references.keys()) {
    if (!uncounted.has(counts.firstOfBlock(cluster))) continue;
    // A new block would lie in the first cluster that it counts.
    if (repair && references.has(counts.firstOfBlock(cluster)))
      throw corrupt("clusters in use that no refcount block counts");
    yield* judge(cluster);
  }
  return { leaks, errors };
}

function* countReferences(
  port: BlockPort,
  header: Qcow2Header,
  counts: Refcounts,
): Io<Map<number, number>> {
  const walk = new ReferenceWalk(port, header);
  walk.add(0, 1);
  walk.add(counts.tablePlace.offset, counts.tablePlace.length);
  for (const offset of counts.blockOffsets()) walk.add(offset, 1);
  yield* walk.table(header.l1Offset, header.l1Entries);
  if (header.snapshots > 0) yield* walk.snapshots();
  return walk.references;
}

class ReferenceWalk {
  readonly references = new Map<number, number>();
  readonly #port: BlockPort;
  readonly #header: Qcow2Header;
  readonly #clusterBytes: number;

  readonly #limit: number;
  /** end of the last cluster that is referred to */
  end = 0;

  /** References beyond `limit` bytes are refused; without it, beyond the file. */
  constructor(port: BlockPort, header: Qcow2Header, limit = port.size) {
    this.#limit = limit;
    this.#port = port;
    this.#header = header;
    this.#clusterBytes = 2 ** header.clusterBits;
  }

  add(offset: number, length: number): void {
    const end = Math.ceil(this.#limit / this.#clusterBytes) * this.#clusterBytes;
    if (offset + length > end) throw corrupt("a reference beyond the end of the file");
    this.end = Math.max(
      this.end,
      Math.ceil((offset + length) / this.#clusterBytes) * this.#clusterBytes,
    );
    const last = Math.floor((offset + length - 1) / this.#clusterBytes);
    for (let cluster = Math.floor(offset / this.#clusterBytes); cluster <= last; cluster++)
      this.references.set(cluster, (this.references.get(cluster) ?? 0) + 1);
  }

  /** An L1 table and all below it. */
  *table(offset: number, entries: number): Io<void> {
    if (entries === 0) return;
    this.add(offset, entries * ENTRY_BYTES);
    const l1 = viewOf(yield* this.#read(offset, entries * ENTRY_BYTES));
    for (let at = 0; at < l1.byteLength; at += ENTRY_BYTES) {
      const entry = readEntry(l1, at, this.#header);
      if (entry.kind === "absent") continue;
      if (entry.kind !== "data") throw corrupt("an L1 entry that cannot be");
      this.add(entry.offset, 1);
      yield* this.#l2(entry.offset);
    }
  }

  *#l2(offset: number): Io<void> {
    const table = viewOf(yield* this.#read(offset, this.#clusterBytes));
    for (let at = 0; at < this.#clusterBytes; at += ENTRY_BYTES) {
      if (table.getUint32(at) === 0 && table.getUint32(at + 4) === 0) continue;
      const entry = readEntry(table, at, this.#header);
      if (entry.kind === "absent" || entry.offset === 0) continue;
      if (entry.kind !== "compressed") this.add(entry.offset, 1);
      else this.#addCompressed(entry);
    }
  }

  /** The last sector of the file's last compressed cluster may be cut off. */
  #addCompressed({ offset, length }: { offset: number; length: number }): void {
    this.add(offset, Math.max(1, length));
  }

  *snapshots(): Io<void> {
    const { snapshots, snapshotsOffset } = this.#header;
    let at = snapshotsOffset;
    for (let i = 0; i < snapshots; i++) {
      const view = viewOf(yield* this.#read(at, SNAPSHOT_HEADER_BYTES));
      const names = view.getUint16(12) + view.getUint16(14);
      const length = SNAPSHOT_HEADER_BYTES + view.getUint32(36) + names;
      const l1Entries = view.getUint32(8);
      if (length > MAX_SNAPSHOT_TABLE || l1Entries * ENTRY_BYTES > MAX_SNAPSHOT_TABLE)
        throw corrupt("a snapshot that cannot be");
      yield* this.table(getWide(view, 0), l1Entries);
      at += Math.ceil(length / 8) * 8;
    }
    this.add(snapshotsOffset, at - snapshotsOffset);
  }

  *#read(offset: number, length: number): Io<Uint8Array> {
    const bytes = new Uint8Array(length);
    const pending = this.#port.read(offset, bytes);
    if (pending) yield pending;
    return bytes;
  }
}
