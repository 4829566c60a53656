/**
 * Extended page tables: guest-physical to host-physical translation. SDM Vol. 3C, "The Extended Page Table Mechanism (EPT)".
 *
 * Tables are real 4-level tables in the VM's memory, built by the hypervisor and read by the processor (walkEpt). Host-physical addresses are
 * addresses in that memory. The processor caches walks in the physical map (state/layout.ts); INVEPT empties it.
 * Vendor bit 52 of a not-present entry marks a device page: its violations carry access assist. The frame of such an entry counts if it is the
 * APIC-access page (vmx/own-apic.ts).
 */
import { invariant } from "../../base/invariant.ts";

export const EptEntry = {
  READ: 1n,
  WRITE: 2n,
  EXECUTE: 4n,
  WRITE_BACK: 6n << 3n,
  LARGE: 1n << 7n,
  DEVICE: 1n << 52n,
} as const;
const PRESENT = 7n;
const FRAME = 0x000f_ffff_ffff_f000n;
const PAGE = 4096;
const LARGE_PAGE = 0x20_0000;
const HUGE_PAGE = 0x4000_0000;
const LEVEL_SHIFT = [12n, 21n, 30n, 39n] as const;

/** Result of a walk: the leaf entry and its level (0 = 4 KiB, 1 = 2 MiB, 2 = 1 GiB). A missing entry is 0. */
export interface EptLeaf {
  readonly entry: bigint;
  readonly level: number;
}

/** Walks the tables that an EPTP names. Reads at most four entries. */
export function walkEpt(view: DataView, eptp: bigint, physical: bigint): EptLeaf {
  let table = Number(eptp & FRAME);
  for (let level = 3; level >= 0; level--) {
    const index = Number((physical >> LEVEL_SHIFT[level]!) & 511n);
    const entry = view.getBigUint64(table + index * 8, true);
    const isLeaf = level === 0 || (entry & EptEntry.LARGE) !== 0n;
    if ((entry & PRESENT) === 0n || (isLeaf && level < 3)) return { entry, level };
    table = Number(entry & FRAME);
  }
  return { entry: 0n, level: 0 };
}

/** Host-physical address of the 4 KiB page `page` under the leaf that a walk of it has found. */
export function frameOf({ entry, level }: EptLeaf, page: number): number {
  const inside = level === 0 ? 0 : page & ((1 << (9 * level)) - 1);
  return Number(entry & FRAME) + inside * PAGE;
}

/** A builder of tables in a region of the VM's memory that no guest can reach. */
export class EptTables {
  readonly #view: DataView;
  readonly #end: number;
  #next: number;
  readonly #root: number;

  constructor(view: DataView, start: number, end: number) {
    this.#view = view;
    this.#next = start;
    this.#end = end;
    this.#root = this.#allocate();
  }

  /** EPTP: write-back, walk length 4. */
  get eptp(): bigint {
    return BigInt(this.#root) | (3n << 3n) | 6n;
  }

  #allocate(): number {
    const at = this.#next;
    invariant(at + PAGE <= this.#end, "room for EPT tables");
    this.#next += PAGE;
    for (let i = 0; i < PAGE; i += 8) this.#view.setBigUint64(at + i, 0n, true);
    return at;
  }

  #set(physical: number, level: number, leaf: bigint): void {
    let table = this.#root;
    for (let l = 3; l > level; l--) {
      const at = table + Number((BigInt(physical) >> LEVEL_SHIFT[l]!) & 511n) * 8;
      let entry = this.#view.getBigUint64(at, true);
      if ((entry & PRESENT) === 0n || (entry & EptEntry.LARGE) !== 0n) {
        entry = BigInt(this.#split(entry, l)) | PRESENT;
        this.#view.setBigUint64(at, entry, true);
      }
      table = Number(entry & FRAME);
    }
    this.#view.setBigUint64(
      table + Number((BigInt(physical) >> LEVEL_SHIFT[level]!) & 511n) * 8,
      leaf,
      true,
    );
  }

  /** A table that says the same as the leaf (or empty entry) it replaces at `level`. */
  #split(entry: bigint, level: number): number {
    const table = this.#allocate();
    if (entry === 0n) return table;
    const step = 1n << LEVEL_SHIFT[level - 1]!;
    const isPresent = (entry & PRESENT) !== 0n;
    for (let i = 0; i < 512; i++) {
      let piece = entry;
      if (isPresent) {
        piece += step * BigInt(i);
        if (level === 1) piece &= ~EptEntry.LARGE;
      }
      this.#view.setBigUint64(table + i * 8, piece, true);
    }
    return table;
  }

  /** Maps `bytes` (page multiple) of guest-physical space to host-physical memory with `rights` (READ | WRITE | EXECUTE). */
  map(physical: number, host: number, bytes: number, rights: bigint): void {
    invariant(
      physical % PAGE === 0 && host % PAGE === 0 && bytes % PAGE === 0,
      "page-aligned mapping",
    );
    for (let done = 0; done < bytes; ) {
      const gpa = physical + done;
      const hpa = host + done;
      const large = gpa % LARGE_PAGE === 0 && hpa % LARGE_PAGE === 0 && bytes - done >= LARGE_PAGE;
      const leaf = BigInt(hpa) | rights | EptEntry.WRITE_BACK;
      this.#set(gpa, large ? 1 : 0, large ? leaf | EptEntry.LARGE : leaf);
      done += large ? LARGE_PAGE : PAGE;
    }
  }

  /** Marks a page of guest-physical space as that of a device at `host`: the APIC-access page. */
  markApic(physical: number, host: number): void {
    this.#set(physical, 0, EptEntry.DEVICE | BigInt(host));
  }

  /** Marks guest-physical space as devices. */
  markDevice(physical: number, bytes: number): void {
    invariant(physical % PAGE === 0 && bytes % PAGE === 0, "page-aligned device range");
    for (let done = 0; done < bytes; ) {
      const gpa = physical + done;
      const fits = (size: number): boolean => gpa % size === 0 && bytes - done >= size;
      const level = fits(HUGE_PAGE) ? 2 : fits(LARGE_PAGE) ? 1 : 0;
      this.#set(gpa, level, EptEntry.DEVICE);
      done += level === 2 ? HUGE_PAGE : level === 1 ? LARGE_PAGE : PAGE;
    }
  }

  unmap(physical: number, bytes: number): void {
    for (let done = 0; done < bytes; done += PAGE) this.#set(physical + done, 0, 0n);
  }
}
