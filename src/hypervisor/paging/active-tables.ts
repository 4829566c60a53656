/**
 * Active page tables: what the processor walks in place of the guest's tables where EPT is off. 4-level tables in the hypervisor's part of
 * the VM's memory, filled like a TLB: they may know less than the guest's tables at any time, and are emptied instead of kept in step.
 *
 * Leaves are 4 KiB and name host-physical pages; entries above them are open, rights are the leaf's alone. An entry above pieces of a large
 * page of the guest is marked, so that dropping one address of it drops all of them. When pages run out, everything is dropped.
 * Not here: what may be mapped and why (virtual-tlb.ts).
 */
import { invariant } from "../../base/invariant.ts";

const PAGE = 4096;
const PRESENT = 1n;
/** Present, writable, for users, accessed. */
const OPEN = 0x27n;
/** Ignored by the processor: below are pieces of a large page. */
const PIECES = 1n << 9n;
const FRAME = 0x000f_ffff_ffff_f000n;
const TOP = 3;

export class ActiveTables {
  readonly #view: DataView;
  readonly #start: number;
  readonly #end: number;
  #next: number;
  #free: number[] = [];
  readonly #roots = new Map<number, number>();

  /** Uses host-physical [start, end) of the VM's memory. */
  constructor(view: DataView, start: number, end: number) {
    invariant(end - start >= 16 * PAGE, "room for active tables");
    this.#view = view;
    this.#start = start;
    this.#end = end;
    this.#next = start;
  }

  #allocate(): number {
    const at = this.#free.pop() ?? this.#next;
    if (at === this.#next) {
      if (at >= this.#end) return 0;
      this.#next += PAGE;
    }
    new Uint8Array(this.#view.buffer, at, PAGE).fill(0);
    return at;
  }

  /** Top table of an address space; an empty one if there was none. */
  root(space: number): number {
    let root = this.#roots.get(space) ?? 0;
    if (root !== 0) return root;
    root = this.#allocate();
    if (root === 0) {
      this.dropAll();
      root = this.#allocate();
    }
    this.#roots.set(space, root);
    return root;
  }

  /** Maps a page; `large` is the level of the guest's page (0: 4 KiB). False if that takes pages that are not there: drop, try again. */
  map(root: number, linear: bigint, leaf: bigint, large: number): boolean {
    let table = root;
    for (let level = TOP; level > 0; level--) {
      const at = entryAt(table, linear, level);
      let entry = this.#view.getBigUint64(at, true);
      if ((entry & PRESENT) === 0n) {
        const below = this.#allocate();
        if (below === 0) return false;
        entry = BigInt(below) | OPEN;
      }
      if (level <= large) entry |= PIECES;
      this.#view.setBigUint64(at, entry, true);
      table = Number(entry & FRAME);
    }
    this.#view.setBigUint64(entryAt(table, linear, 0), leaf, true);
    return true;
  }

  /** INVLPG: an address, in all address spaces, with the large page it may be part of. */
  drop(linear: bigint): void {
    for (const root of this.#roots.values()) this.#dropIn(root, linear);
  }

  #dropIn(root: number, linear: bigint): void {
    let table = root;
    for (let level = TOP; level > 0; level--) {
      const at = entryAt(table, linear, level);
      const entry = this.#view.getBigUint64(at, true);
      if ((entry & PRESENT) === 0n) return;
      table = Number(entry & FRAME);
      if ((entry & PIECES) === 0n) continue;
      this.#view.setBigUint64(at, 0n, true);
      this.#release(table, level - 1);
      return;
    }
    this.#view.setBigUint64(entryAt(table, linear, 0), 0n, true);
  }

  #release(table: number, level: number): void {
    if (level > 0)
      for (let at = table; at < table + PAGE; at += 8) {
        const entry = this.#view.getBigUint64(at, true);
        if ((entry & PRESENT) !== 0n) this.#release(Number(entry & FRAME), level - 1);
      }
    this.#free.push(table);
  }

  /** Forgets an address space. */
  dropSpace(space: number): void {
    const root = this.#roots.get(space);
    if (root === undefined) return;
    this.#roots.delete(space);
    this.#release(root, TOP);
  }

  dropAll(): void {
    this.#roots.clear();
    this.#free = [];
    this.#next = this.#start;
  }
}

function entryAt(table: number, linear: bigint, level: number): number {
  return table + Number((linear >> BigInt(12 + 9 * level)) & 511n) * 8;
}
