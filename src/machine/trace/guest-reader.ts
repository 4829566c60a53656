/**
 * Reads a guest's memory by linear address, as a spectator: no accessed bits, no TLB, no faults. 64-bit paging with four levels.
 * SDM Vol. 3A, "4-Level Paging and 5-Level Paging".
 *
 * Host addresses are in the VM's memory; -1: there is nothing.
 */
const PRESENT = 1;
const LARGE = 0x80;
const PAGE = 4096;
const ENTRIES = 512;
const LEVELS = 4;
const FOUR_GIB = 0x1_0000_0000;
/** Pages whose place is remembered. */
const MAX_KNOWN = 1 << 14;

export interface GuestRam {
  readonly view: DataView;
  /** Host address of guest-physical 0. */
  readonly base: number;
  readonly bytes: number;
  /** Guest-physical memory is about to be read. */
  ensure(address: number, length: number): void;
}

export class GuestReader {
  readonly #ram: GuestRam;
  readonly #bytes: Uint8Array;
  /** Kernel pages stay where they are while a kernel runs. */
  readonly #kernelPages = new Map<bigint, number>();
  readonly #text = new TextDecoder("utf-8");

  constructor(ram: GuestRam) {
    this.#ram = ram;
    this.#bytes = new Uint8Array(ram.view.buffer);
  }

  get ram(): GuestRam {
    return this.#ram;
  }

  /** Host address of a linear address. */
  host(root: number, linear: bigint): number {
    let table = root;
    let rest = Number(BigInt.asUintN(48, linear) >> 12n);
    for (let level = LEVELS - 1; level >= 0; level--) {
      const span = ENTRIES ** level;
      const index = Math.floor(rest / span);
      rest -= index * span;
      const at = this.#entryAt(table + 8 * index);
      if (at < 0) return -1;
      const low = this.#ram.view.getUint32(at, true);
      if ((low & PRESENT) === 0) return -1;
      const frame = this.#frameAt(at, low);
      if (level > 0 && (low & LARGE) === 0) {
        table = frame;
        continue;
      }
      const inside = rest * PAGE + Number(linear & 0xfffn);
      const size = span * PAGE;
      return this.#physical(Math.floor(frame / size) * size + inside);
    }
    return -1;
  }

  /** As `host`, for an address of the kernel's, which is remembered. */
  kernelHost(root: number, linear: bigint): number {
    const page = linear >> 12n;
    let known = this.#kernelPages.get(page);
    if (known === undefined) {
      known = this.host(root, page << 12n);
      if (known < 0) return -1;
      if (this.#kernelPages.size >= MAX_KNOWN) this.#kernelPages.clear();
      this.#kernelPages.set(page, known);
    }
    return known + Number(linear & 0xfffn);
  }

  #frameAt(at: number, low: number): number {
    const high = this.#ram.view.getUint32(at + 4, true) & 0xf_ffff;
    return high * FOUR_GIB + ((low & 0xffff_f000) >>> 0);
  }

  #entryAt(physical: number): number {
    return this.#physical(Math.floor(physical / 8) * 8);
  }

  #physical(address: number): number {
    if (address >= this.#ram.bytes) return -1;
    this.#ram.ensure(address - (address % PAGE), PAGE);
    return this.#ram.base + address;
  }

  /** Copies at most `length` bytes; shorter where memory ends. */
  bytes(root: number, linear: bigint, length: number): Uint8Array {
    const out = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const at = linear + BigInt(done);
      const host = this.host(root, at);
      if (host < 0) break;
      const part = Math.min(length - done, PAGE - Number(at & 0xfffn));
      out.set(this.#bytes.subarray(host, host + part), done);
      done += part;
    }
    return out.subarray(0, done);
  }

  /** Text up to a zero byte: at most `limit` bytes of it, and whether there is more. null: it cannot be read. */
  text(root: number, linear: bigint, limit: number): { text: string; isCut: boolean } | null {
    const raw = this.bytes(root, linear, limit + 1);
    if (raw.length === 0) return null;
    const end = raw.indexOf(0);
    const isCut = end < 0;
    return { text: this.#text.decode(raw.subarray(0, isCut ? limit : end)), isCut };
  }

  /** 64 bits, or null. */
  word(root: number, linear: bigint): bigint | null {
    const raw = this.bytes(root, linear, 8);
    return raw.length < 8
      ? null
      : new DataView(raw.buffer, raw.byteOffset, 8).getBigUint64(0, true);
  }
}
