/**
 * Guest memory in a snapshot's file: pages of zeros are left out, the others lie one behind the other in the order of their addresses.
 *
 * The unit of reading is a granule of 16 KiB. The table has an entry for each granule that has a page: its number, a bit for each page that is
 * there, the place of the first in the file, and a CRC-32 over its pages; 16 bytes, four u32. Memory that goes on from a file stays
 * there until somebody is about to look at it (Pager): the processor when it fills its physical map, the kernel when a service reads
 * or writes. A WebAssembly memory cannot map a file; what is not touched costs nothing and is shared with all who use the same file.
 * For the same reason it is known which granules nobody has ever touched: looking whether they are zero would have the system make pages for them.
 */
import type { Pager } from "../../hypervisor/kernel/vm.ts";
import type { BlockPort } from "../../storage/block-port.ts";
import type { Checksum } from "./crc32.ts";
import { corrupt, type SnapshotFile } from "./snapshot-file.ts";

export const PAGE = 4096;
const PAGE_WORDS = PAGE / 4;
export const GRANULE_PAGES = 4;
export const GRANULE = PAGE * GRANULE_PAGES;
const ENTRY_WORDS = 4;
const ALL_PAGES = (1 << GRANULE_PAGES) - 1;
/** Of one write. */
const MAX_RUN = 4 << 20;

/** Writes what is not zero of `memory`, all of which is here, to `port` from `offset` on. Answers the table and the bytes written. */
export function storeMemory(
  memory: StoredMemory,
  port: BlockPort,
  offset: number,
  checksum: Checksum,
): { readonly table: Uint8Array; readonly length: number } {
  const { ram } = memory;
  const words = new Int32Array(ram.buffer, ram.byteOffset, ram.length >>> 2);
  const table: number[] = [];
  let pages = 0;
  /** The run of pages that has been found and not written yet: [from, to) of RAM. */
  let from = 0;
  let to = 0;
  const flush = (): void => {
    if (to > from) {
      const at = offset + pages * PAGE - (to - from);
      void port.write(at, ram.subarray(from, to));
    }
  };
  for (let granule = 0; granule * GRANULE < ram.length; granule++) {
    if (!memory.isTouched(granule)) continue;
    let bits = 0;
    let crc = 0;
    const first = pages;
    for (let i = 0; i < GRANULE_PAGES; i++) {
      const at = granule * GRANULE + i * PAGE;
      if (isZero(words, at >>> 2)) continue;
      if (at !== to || to - from >= MAX_RUN) {
        flush();
        from = at;
      }
      to = at + PAGE;
      bits |= 1 << i;
      pages++;
      crc = checksum(ram.subarray(at, to), crc);
    }
    if (bits !== 0) table.push(granule, bits, first, crc);
  }
  flush();
  return { table: new Uint8Array(Uint32Array.from(table).buffer), length: pages * PAGE };
}

function isZero(words: Int32Array, from: number): boolean {
  for (let i = from; i < from + PAGE_WORDS; i += 8) {
    const some =
      words[i]! |
      words[i + 1]! |
      words[i + 2]! |
      words[i + 3]! |
      (words[i + 4]! | words[i + 5]! | words[i + 6]! | words[i + 7]!);
    if (some !== 0) return false;
  }
  return true;
}

/** Where a granule is. */
const UNTOUCHED = 0;
const HERE = 1;
const IN_FILE = 2;

export class StoredMemory implements Pager {
  readonly ram: Uint8Array;
  readonly #file: SnapshotFile | undefined;
  #table: Uint32Array = new Uint32Array(0);
  readonly #state: Uint8Array;
  /** By granule in the file: its place in the table. */
  #places: Uint32Array = new Uint32Array(0);
  readonly #scratch = new Uint8Array(GRANULE);
  #left = 0;

  /** `ram` is zeros. `file`: what it shall be. Throws HypolithError "snapshot-corrupt". */
  constructor(ram: Uint8Array, file?: SnapshotFile) {
    this.ram = ram;
    this.#file = file;
    this.#state = new Uint8Array(ram.length / GRANULE);
    if (file) this.#readTable(file);
  }

  #readTable(file: SnapshotFile): void {
    const bytes = file.read("granules");
    const granules = this.#state.length;
    this.#places = new Uint32Array(granules);
    if (bytes.length % (4 * ENTRY_WORDS) !== 0) throw corrupt("its table of memory");
    this.#table = new Uint32Array(bytes.buffer);
    const pages = file.pages.length / PAGE;
    for (let at = 0; at < this.#table.length; at += ENTRY_WORDS) {
      const [granule, bits, first] = this.#table.subarray(at, at + 3);
      const isGood =
        granule! < granules &&
        this.#state[granule!] === UNTOUCHED &&
        bits! !== 0 &&
        bits! <= ALL_PAGES &&
        first! + count(bits!) <= pages;
      if (!isGood) throw corrupt("its table of memory");
      this.#places[granule!] = at;
      this.#state[granule!] = IN_FILE;
      this.#left++;
    }
  }

  /** Granules that are still in the file. */
  get left(): number {
    return this.#left;
  }

  /** Somebody may have written to it. */
  isTouched(granule: number): boolean {
    return this.#state[granule] !== UNTOUCHED;
  }

  ensure(address: number, length: number): void {
    if (length === 0) return;
    const last = Math.floor((address + length - 1) / GRANULE);
    for (let granule = Math.floor(address / GRANULE); granule <= last; granule++) {
      const state = this.#state[granule];
      if (state === IN_FILE) this.#load(granule);
      else if (state === UNTOUCHED) this.#state[granule] = HERE;
    }
  }

  loadAll(): void {
    for (let granule = 0; this.#left > 0 && granule < this.#state.length; granule++)
      if (this.#state[granule] === IN_FILE) this.#load(granule);
  }

  #load(granule: number): void {
    const file = this.#file!;
    const at = this.#places[granule]!;
    const bits = this.#table[at + 1]!;
    const offset = file.pages.offset + this.#table[at + 2]! * PAGE;
    const length = count(bits) * PAGE;
    const base = granule * GRANULE;
    const firstPage = 31 - Math.clz32(bits & -bits);
    const isOneRun = bits >>> firstPage === (1 << (length / PAGE)) - 1;
    const start = base + firstPage * PAGE;
    const into = isOneRun
      ? this.ram.subarray(start, start + length)
      : this.#scratch.subarray(0, length);
    void file.port.read(offset, into);
    if (file.checksum(into, 0) !== this.#table[at + 3]!) {
      into.fill(0);
      throw corrupt(`memory at ${base.toString(16)}`);
    }
    if (!isOneRun) this.#scatter(base, bits, into);
    this.#state[granule] = HERE;
    this.#left--;
  }

  #scatter(base: number, bits: number, pages: Uint8Array): void {
    let from = 0;
    for (let i = 0; i < GRANULE_PAGES; i++) {
      if ((bits & (1 << i)) === 0) continue;
      this.ram.set(pages.subarray(from, from + PAGE), base + i * PAGE);
      from += PAGE;
    }
  }
}

function count(bits: number): number {
  let n = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) n++;
  return n;
}
