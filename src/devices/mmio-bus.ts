/**
 * The memory-mapped device windows of the guest-physical space.
 *
 * Windows are disjoint and fixed; what moves at the guest's will (PCI BARs) is decoded behind one window of its bridge. An access
 * that is not wholly in one window meets nobody: reads give all ones, writes are dropped. There are few windows, so a linear
 * search that starts from the last hit is as fast as anything.
 */
import { invariant } from "../base/invariant.ts";
import { allOnes, type MmioDevice, type MmioSize } from "./model.ts";

interface Window {
  readonly base: number;
  readonly end: number;
  readonly device: MmioDevice;
}

export class MmioBus {
  readonly #windows: Window[] = [];
  #last: Window | undefined;

  map(base: number, length: number, device: MmioDevice): void {
    const end = base + length;
    invariant(Number.isSafeInteger(end) && base >= 0 && length > 0, "bad MMIO window");
    const overlap = this.#windows.some((other) => base < other.end && other.base < end);
    invariant(!overlap, `MMIO window ${base.toString(16)} overlaps another`);
    this.#windows.push({ base, end, device });
  }

  read(gpa: number, size: MmioSize): number | bigint {
    const window = this.#find(gpa, size);
    return window ? window.device.readMmio(gpa - window.base, size) : allOnes(size);
  }

  write(gpa: number, size: MmioSize, value: number | bigint): void {
    const window = this.#find(gpa, size);
    window?.device.writeMmio(gpa - window.base, size, value);
  }

  /** The windows, for whoever marks them as device memory in the second-level page tables. */
  windows(): { base: number; length: number }[] {
    return this.#windows.map(({ base, end }) => ({ base, length: end - base }));
  }

  #find(gpa: number, size: MmioSize): Window | undefined {
    const end = gpa + size;
    if (this.#last && gpa >= this.#last.base && end <= this.#last.end) return this.#last;
    this.#last = this.#windows.find((window) => gpa >= window.base && end <= window.end);
    return this.#last;
  }
}
