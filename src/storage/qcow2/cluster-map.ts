/**
 * Which cluster of the file holds which cluster of the disk: the L1 table and its L2 tables.
 * Spec: QEMU docs/interop/qcow2.txt, "Cluster mapping".
 *
 * The L1 table is in memory as a whole; L2 tables are cached. Changes reach the file by `writeTables` and then `writeL1`; the disk decides when.
 */
import type { BlockPort, Io } from "../block-port.ts";
import { corrupt, type Qcow2Header, viewOf } from "./header.ts";
import { ABSENT, type Mapping, readEntry, writeEntry } from "./l2-entry.ts";
import type { LogPiece } from "./metadata-log.ts";
import type { Refcounts } from "./refcounts.ts";
import { type Table, TableCache } from "./table-cache.ts";

const CACHED_TABLES = 64;
const ENTRY_BYTES = 8;

export class ClusterMap {
  readonly #port: BlockPort;
  readonly #header: Qcow2Header;
  readonly #counts: Refcounts;
  readonly #clusterBytes: number;
  readonly #perTable: number;
  readonly #l1: Uint8Array;
  readonly #tables: TableCache;
  readonly #dirtyL1 = new Set<number>();

  private constructor(port: BlockPort, header: Qcow2Header, counts: Refcounts, l1: Uint8Array) {
    this.#port = port;
    this.#header = header;
    this.#counts = counts;
    this.#clusterBytes = 2 ** header.clusterBits;
    this.#perTable = this.#clusterBytes / ENTRY_BYTES;
    this.#l1 = l1;
    this.#tables = new TableCache(port, this.#clusterBytes, CACHED_TABLES);
  }

  static *open(port: BlockPort, header: Qcow2Header, counts: Refcounts): Io<ClusterMap> {
    const l1 = new Uint8Array(header.l1Entries * ENTRY_BYTES);
    const pending = port.read(header.l1Offset, l1);
    if (pending) yield pending;
    const map = new ClusterMap(port, header, counts, l1);
    const clusterBytes = 2 ** header.clusterBits;
    for (let at = 0; at < l1.length; at += clusterBytes)
      counts.metadata.add((header.l1Offset + at) / clusterBytes);
    for (let index = 0; index < header.l1Entries; index++) {
      const entry = map.#l1Entry(index);
      if (entry) counts.metadata.add(entry.offset / clusterBytes);
    }
    return map;
  }

  get isDirty(): boolean {
    return this.#tables.dirtyCount > 0 || this.#dirtyL1.size > 0;
  }

  get dirtyTables(): number {
    return this.#tables.dirtyCount;
  }

  get isL1Dirty(): boolean {
    return this.#dirtyL1.size > 0;
  }

  /** What holds cluster `index` of the disk. */
  *lookUp(index: number): Io<Mapping> {
    const table = yield* this.#tableOf(index);
    if (!table) return ABSENT;
    const mapping = readEntry(table.view, this.#entryAt(index), this.#header);
    if (mapping.kind !== "absent" && mapping.offset >= this.#counts.fileEnd && mapping.offset > 0)
      throw corrupt("an L2 entry that leads outside the file");
    return mapping;
  }

  /** Makes the table of cluster `index` one that may be changed; before `assign`. */
  *prepare(index: number): Io<void> {
    const l1Index = Math.floor(index / this.#perTable);
    const entry = this.#l1Entry(l1Index);
    if (entry?.isOwn) return;
    const old = entry && (yield* this.#tables.get(entry.offset));
    const { offset } = yield* this.#counts.allocate(1);
    this.#counts.metadata.add(offset / this.#clusterBytes);
    this.#tables.create(offset, old?.bytes.slice());
    if (old) this.#counts.release(old.offset);
    writeEntry(viewOf(this.#l1), l1Index * ENTRY_BYTES, { kind: "data", offset, isOwn: true });
    this.#dirtyL1.add(l1Index);
  }

  /** What the old entry referred to stays referenced: release it. */
  *assign(index: number, mapping: Mapping): Io<void> {
    const table = yield* this.#tableOf(index);
    if (!table) throw corrupt("an L2 table went away");
    const at = this.#entryAt(index);
    writeEntry(table.view, at, mapping);
    this.#tables.touch(table, at, ENTRY_BYTES);
  }

  /** Parts of tables that have changed since it was asked last. */
  takeNew(): LogPiece[] {
    return this.#tables.takeNew();
  }

  writeTables(): Io<boolean> {
    return this.#tables.writeBack();
  }

  /** After the tables are safe. */
  *writeL1(): Io<void> {
    for (const index of this.#dirtyL1) {
      const at = index * ENTRY_BYTES;
      const pending = this.#port.write(
        this.#header.l1Offset + at,
        this.#l1.subarray(at, at + ENTRY_BYTES),
      );
      if (pending) yield pending;
    }
    this.#dirtyL1.clear();
  }

  #entryAt(index: number): number {
    return (index % this.#perTable) * ENTRY_BYTES;
  }

  #l1Entry(index: number): { offset: number; isOwn: boolean } | undefined {
    const mapping = readEntry(viewOf(this.#l1), index * ENTRY_BYTES, this.#header);
    if (mapping.kind === "absent") return undefined;
    if (mapping.kind !== "data" || mapping.offset >= this.#counts.fileEnd)
      throw corrupt("an L1 entry that cannot be");
    return mapping;
  }

  *#tableOf(index: number): Io<Table | undefined> {
    const entry = this.#l1Entry(Math.floor(index / this.#perTable));
    return entry && (yield* this.#tables.get(entry.offset));
  }
}
