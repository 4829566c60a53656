/**
 * Clusters of metadata in memory: L2 tables or refcount blocks, with the bytes that the file does not have yet.
 *
 * A table stays while it is dirty; clean ones go, oldest first, when there are more than `limit`. Nothing is written before `writeBack`:
 * its caller decides in which order the caches reach the file.
 */
import { invariant } from "../../base/invariant.ts";
import type { BlockPort, Io } from "../block-port.ts";
import { viewOf } from "./header.ts";
import type { LogPiece } from "./metadata-log.ts";

export interface Table {
  /** in the file */
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** bytes [dirtyFrom, dirtyTo) differ from the file; equal if none do */
  dirtyFrom: number;
  dirtyTo: number;
  /** bytes [newFrom, newTo) have changed since `takeNew` */
  newFrom: number;
  newTo: number;
}

/** Writes of metadata are whole sectors, so that a power failure cannot tear an entry. */
const SECTOR_BYTES = 512;

export class TableCache {
  readonly #port: BlockPort;
  readonly #clusterBytes: number;
  readonly #limit: number;
  readonly #tables = new Map<number, Table>();
  #dirty = 0;

  constructor(port: BlockPort, clusterBytes: number, limit: number) {
    this.#port = port;
    this.#clusterBytes = clusterBytes;
    this.#limit = limit;
  }

  get dirtyCount(): number {
    return this.#dirty;
  }

  *get(offset: number): Io<Table> {
    const cached = this.#tables.get(offset);
    if (cached) {
      // Most recently used last.
      this.#tables.delete(offset);
      this.#tables.set(offset, cached);
      return cached;
    }
    const bytes = new Uint8Array(this.#clusterBytes);
    const pending = this.#port.read(offset, bytes);
    if (pending) yield pending;
    return this.#insert(offset, bytes);
  }

  /** A new table, all of it dirty. */
  create(offset: number, bytes = new Uint8Array(this.#clusterBytes)): Table {
    const stale = this.#tables.get(offset);
    if (stale) this.drop(stale.offset);
    const table = this.#insert(offset, bytes);
    this.touch(table, 0, bytes.length);
    return table;
  }

  /** Bytes of a table were changed. */
  touch(table: Table, at: number, length: number): void {
    invariant(this.#tables.get(table.offset) === table, "a table that is not cached was changed");
    const from = at - (at % SECTOR_BYTES);
    const to = Math.ceil((at + length) / SECTOR_BYTES) * SECTOR_BYTES;
    if (table.newFrom === table.newTo) [table.newFrom, table.newTo] = [from, to];
    else {
      table.newFrom = Math.min(table.newFrom, from);
      table.newTo = Math.max(table.newTo, to);
    }
    if (table.dirtyFrom === table.dirtyTo) {
      this.#dirty++;
      table.dirtyFrom = from;
      table.dirtyTo = to;
    } else {
      table.dirtyFrom = Math.min(table.dirtyFrom, from);
      table.dirtyTo = Math.max(table.dirtyTo, to);
    }
  }

  /** What has changed since it was asked last: parts of tables, which go on changing. */
  takeNew(): LogPiece[] {
    const pieces: LogPiece[] = [];
    if (this.#dirty === 0) return pieces;
    for (const table of this.#tables.values()) {
      const { newFrom, newTo, offset, bytes } = table;
      if (newFrom === newTo) continue;
      pieces.push({ offset: offset + newFrom, bytes: bytes.subarray(newFrom, newTo) });
      table.newFrom = 0;
      table.newTo = 0;
    }
    return pieces;
  }

  /** The cluster is no longer a table. */
  drop(offset: number): void {
    const table = this.#tables.get(offset);
    if (table && table.dirtyFrom !== table.dirtyTo) this.#dirty--;
    this.#tables.delete(offset);
  }

  /** Answers whether anything was written. */
  *writeBack(): Io<boolean> {
    if (this.#dirty === 0) return false;
    for (const table of this.#tables.values()) {
      const { dirtyFrom, dirtyTo, offset, bytes } = table;
      if (dirtyFrom === dirtyTo) continue;
      const pending = this.#port.write(offset + dirtyFrom, bytes.subarray(dirtyFrom, dirtyTo));
      if (pending) yield pending;
      table.dirtyFrom = 0;
      table.dirtyTo = 0;
      this.#dirty--;
    }
    return true;
  }

  #insert(offset: number, bytes: Uint8Array): Table {
    this.#makeRoom();
    const table = {
      ...{ offset, bytes, view: viewOf(bytes), dirtyFrom: 0, dirtyTo: 0, newFrom: 0, newTo: 0 },
    };
    this.#tables.set(offset, table);
    return table;
  }

  #makeRoom(): void {
    if (this.#tables.size < this.#limit) return;
    for (const table of this.#tables.values()) {
      if (table.dirtyFrom !== table.dirtyTo) continue;
      this.#tables.delete(table.offset);
      if (this.#tables.size < this.#limit) return;
    }
  }
}
