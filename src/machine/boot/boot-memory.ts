/**
 * Guest memory as the boot loaders see it: who lies where, and the only way to write.
 *
 * A range is claimed before it is written. A claim is refused when it leaves RAM, leaves the usable ranges of the memory map, or
 * meets a claim of another name; so no kernel file, however hostile, makes the loader write outside RAM or over its own tables.
 * Loaders claim everything first and write after the last check: a refused kernel leaves memory untouched.
 */
import { HypolithError } from "../../base/errors.ts";
import { invariant } from "../../base/invariant.ts";
import type { BootRegion } from "./boot-state.ts";
import type { FixedArea } from "./low-memory.ts";

/** Guest-physical memory from address 0. */
export interface GuestRam {
  readonly size: number;
  write(gpa: number, bytes: Uint8Array): void;
}

/** Address range types of the ACPI specification, "System Address Map Interfaces". */
export const E820Type = { RAM: 1, RESERVED: 2, ACPI: 3, NVS: 4, UNUSABLE: 5 } as const;

export interface E820Entry {
  readonly base: number;
  readonly length: number;
  /** One of E820Type. */
  readonly type: number;
}

/** What both boot_params and the kernel's PVH path can hold, less the entries that Linux adds itself. */
export const E820_MAX_ENTRIES = 120;

interface Range {
  readonly start: number;
  readonly end: number;
}

const MIB = 1024 * 1024;

/** "53.2 MiB", "2047 bytes": sizes in messages. */
export function formatSize(bytes: number): string {
  if (bytes >= MIB) return `${(bytes / MIB).toFixed(1)} MiB`;
  if (bytes >= 10 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${bytes} bytes`;
}

export function formatAddress(address: number): string {
  return `0x${address.toString(16)}`;
}

/** Advice that ends a "memory too small" message: whole MiB, rounded up. */
export function memoryHint(neededBytes: number): string {
  return `give the machine at least ${Math.ceil(neededBytes / MIB)} MiB of memory`;
}

function usableRanges(e820: readonly E820Entry[], top: number): Range[] {
  const ranges = e820
    .filter((entry) => entry.type === E820Type.RAM && entry.length > 0 && entry.base < top)
    .map(({ base, length }) => ({ start: base, end: Math.min(base + length, top) }))
    .sort((a, b) => a.start - b.start);
  const merged: Range[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last && range.start <= last.end) {
      merged[merged.length - 1] = { start: last.start, end: Math.max(last.end, range.end) };
    } else {
      merged.push(range);
    }
  }
  return merged;
}

export class BootMemory {
  /** First address past RAM. */
  readonly top: number;
  readonly e820: readonly E820Entry[];
  readonly #ram: GuestRam;
  readonly #usable: readonly Range[];
  readonly #regions: BootRegion[] = [];

  constructor(ram: GuestRam, memoryBytes: number, e820: readonly E820Entry[]) {
    invariant(memoryBytes <= ram.size, "boot memory is larger than guest RAM");
    invariant(e820.length <= E820_MAX_ENTRIES, "memory map has too many entries");
    this.#ram = ram;
    this.top = memoryBytes;
    this.e820 = e820;
    this.#usable = usableRanges(e820, memoryBytes);
  }

  get regions(): readonly BootRegion[] {
    return this.#regions;
  }

  /** Reserves [start, start + size). Claims of the same name may overlap: a kernel's file and its working space. */
  claim(name: string, start: number, size: number): void {
    if (size === 0) return;
    const end = start + size;
    invariant(start >= 0 && size > 0 && Number.isSafeInteger(end), "claim is not a range");
    if (end > this.top) {
      throw new HypolithError(
        "memory-too-small",
        `the ${name} needs memory up to ${formatSize(end)} (${formatAddress(end)}), ` +
          `the machine has ${formatSize(this.top)}`,
        { hint: memoryHint(end) },
      );
    }
    const where = `the ${name} at ${formatAddress(start)}-${formatAddress(end)}`;
    if (!this.#usable.some((range) => start >= range.start && end <= range.end)) {
      throw new HypolithError("memory-reserved", `${where} is not in usable memory`, {
        hint: `link it into one of: ${this.#describeUsable()}`,
      });
    }
    const other = this.#regions.find((r) => r.name !== name && overlaps(r, start, end));
    if (other) {
      const otherEnd = formatAddress(other.start + other.size);
      throw new HypolithError(
        "memory-overlap",
        `${where} overlaps the ${other.name} at ${formatAddress(other.start)}-${otherEnd}`,
        { hint: "load it at 1 MiB or above" },
      );
    }
    this.#regions.push({ name, start, size });
  }

  claimArea(area: FixedArea): void {
    this.claim(area.name, area.start, area.end - area.start);
  }

  write(gpa: number, bytes: Uint8Array): void {
    this.#checkClaimed(gpa, bytes.length);
    if (bytes.length > 0) this.#ram.write(gpa, bytes);
  }

  /** RAM may hold a previous run's data: what an image leaves to zero is written as zero. */
  zero(gpa: number, size: number): void {
    this.#checkClaimed(gpa, size);
    const zeros = new Uint8Array(Math.min(size, 64 * 1024));
    for (let done = 0; done < size; done += zeros.length) {
      this.#ram.write(gpa + done, zeros.subarray(0, Math.min(zeros.length, size - done)));
    }
  }

  /** Writes bytes at the start of a claimed area and zeroes its rest. */
  fillArea(area: FixedArea, bytes: Uint8Array): void {
    invariant(bytes.length <= area.end - area.start, `${area.name} overflows its area`);
    this.write(area.start, bytes);
    this.zero(area.start + bytes.length, area.end - area.start - bytes.length);
  }

  /** Highest page-aligned address of a free usable range of this size in [floor, limit), or undefined. */
  findHigh(size: number, floor: number, limit: number): number | undefined {
    for (const gap of this.#gaps(floor, limit)) {
      const start = gap.end - size - ((gap.end - size) % 4096);
      if (start >= gap.start) return start;
    }
    return undefined;
  }

  /** Size of the largest free usable range in [floor, limit), counted in whole pages. */
  largestFree(floor: number, limit: number): number {
    let best = 0;
    for (const gap of this.#gaps(floor, limit)) {
      const start = Math.ceil(gap.start / 4096) * 4096;
      best = Math.max(best, gap.end - start);
    }
    return best;
  }

  /** Free usable ranges, highest first. */
  #gaps(floor: number, limit: number): Range[] {
    const taken = [...this.#regions].sort((a, b) => a.start - b.start);
    const gaps: Range[] = [];
    for (const range of this.#usable) {
      let start = Math.max(range.start, floor);
      const end = Math.min(range.end, limit);
      for (const region of taken) {
        if (region.start >= end) break;
        if (region.start > start) gaps.push({ start, end: region.start });
        start = Math.max(start, region.start + region.size);
      }
      if (start < end) gaps.push({ start, end });
    }
    return gaps.reverse();
  }

  #checkClaimed(gpa: number, size: number): void {
    const inside = this.#regions.some((r) => gpa >= r.start && gpa + size <= r.start + r.size);
    invariant(size === 0 || inside, "boot loader writes what it has not claimed");
  }

  #describeUsable(): string {
    return this.#usable
      .map((range) => `${formatAddress(range.start)}-${formatAddress(range.end)}`)
      .join(", ");
  }
}

function overlaps(region: BootRegion, start: number, end: number): boolean {
  return start < region.start + region.size && region.start < end;
}
