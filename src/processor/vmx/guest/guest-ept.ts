/**
 * EPT of a guest hypervisor: its tables lie in its memory, and lead to its guest-physical addresses. SDM Vol. 3C, "The Extended Page Table
 * Mechanism (EPT)", "EPT Misconfigurations", "Accessed and Dirty Flags for EPT", "Page-Modification Logging".
 *
 * A walk with intent sets accessed and dirty flags; without, it only tells. What it has found is cached in the second physical map until INVEPT.
 */

const PRESENT = 7n;
const READ = 1n;
const WRITE = 2n;
const EXECUTE = 4n;
const LARGE = 1n << 7n;
const ACCESSED = 1n << 8n;
const DIRTY = 1n << 9n;
const FRAME = 0x000f_ffff_ffff_f000n;
const LEVEL_SHIFT = [12n, 21n, 30n, 39n] as const;
const EPTP_ACCESSED_DIRTY = 1n << 6n;
const TABLE_RESERVED = 0xf8n;
const TOP_RESERVED = 0xf8n;
const RIGHTS = { READ: 1, WRITE: 2, EXECUTE: 4 } as const;

export interface EptMemory {
  /** Host address of guest RAM at a guest-physical address, 0 if there is none. */
  hostOf(physical: bigint): number;
  readonly view: DataView;
}

/** Appends to the page-modification log; answers false if it is full. */
export type PageLog = (physical: bigint) => boolean;

export const EptResult = { OK: 0, VIOLATION: 1, MISCONFIGURATION: 2, LOG_FULL: 3 } as const;

export class GuestEpt {
  readonly #memory: EptMemory;
  readonly #tooWide: bigint;
  /** Of the last walk: rights of all entries passed, where it leads, and whether a write need not come back for the dirty flag. */
  rights = 0;
  physical = 0n;
  isDirty = false;

  constructor(memory: EptMemory, physicalBits: number) {
    this.#memory = memory;
    this.#tooWide = FRAME & ~((1n << BigInt(physicalBits)) - 1n);
  }

  /** Walks for an access with `need` (rights). `log`: where it is a real access, flags are set, and the log is told of pages made dirty. */
  walk(eptp: bigint, address: bigint, need: number, log: PageLog | null): number {
    const { view } = this.#memory;
    const hasFlags = (eptp & EPTP_ACCESSED_DIRTY) !== 0n;
    let table = eptp & FRAME;
    let rights = PRESENT;
    this.rights = 0;
    if (address >> 48n !== 0n) return EptResult.VIOLATION;
    const passed: number[] = [];
    for (let level = 3; level >= 0; level--) {
      const at = this.#memory.hostOf(table + ((address >> LEVEL_SHIFT[level]!) & 511n) * 8n);
      if (at === 0) return EptResult.MISCONFIGURATION;
      const entry = view.getBigUint64(at, true);
      if ((entry & PRESENT) === 0n) {
        this.rights = 0;
        return EptResult.VIOLATION;
      }
      const isLeaf = level === 0 || ((entry & LARGE) !== 0n && level < 3);
      if (this.#isMisconfigured(entry, level, isLeaf)) return EptResult.MISCONFIGURATION;
      rights &= entry;
      passed.push(at);
      if (!isLeaf) {
        table = entry & FRAME;
        continue;
      }
      this.rights = Number(rights & PRESENT);
      if ((this.rights & need) !== need) return EptResult.VIOLATION;
      const offset = (1n << LEVEL_SHIFT[level]!) - 1n;
      this.physical = (entry & FRAME & ~offset) | (address & offset);
      this.isDirty = !hasFlags || (entry & DIRTY) !== 0n;
      if (!hasFlags || log === null) return EptResult.OK;
      return this.#mark(passed, address, need, log);
    }
    return EptResult.VIOLATION;
  }

  /** An address that leads to itself, with all rights. */
  pass(address: bigint): void {
    this.rights = Number(PRESENT);
    this.physical = address;
    this.isDirty = true;
  }

  #mark(passed: readonly number[], address: bigint, need: number, log: PageLog): number {
    const { view } = this.#memory;
    const leaf = passed.at(-1)!;
    const dirties = (need & RIGHTS.WRITE) !== 0 && !this.isDirty;
    if (dirties && !log(address)) return EptResult.LOG_FULL;
    for (const at of passed) {
      const entry = view.getBigUint64(at, true);
      const wanted = at === leaf && dirties ? ACCESSED | DIRTY : ACCESSED;
      if ((entry & wanted) !== wanted) view.setBigUint64(at, entry | wanted, true);
    }
    if (dirties) this.isDirty = true;
    return EptResult.OK;
  }

  #isMisconfigured(entry: bigint, level: number, isLeaf: boolean): boolean {
    // Writable but not readable; execute-only is offered.
    if ((entry & (READ | WRITE)) === WRITE) return true;
    if ((entry & this.#tooWide) !== 0n) return true;
    if (!isLeaf) return (entry & (level === 3 ? TOP_RESERVED : TABLE_RESERVED)) !== 0n;
    const type = (entry >> 3n) & 7n;
    if (type === 2n || type === 3n || type === 7n) return true;
    const offset = ((1n << LEVEL_SHIFT[level]!) - 1n) & FRAME;
    return (entry & offset) !== 0n;
  }
}

/** Bits 6:0 of the exit qualification are the access and what the entries allow. */
export function violationRights(rights: number): number {
  return (rights & Number(READ | WRITE | EXECUTE)) << 3;
}
