/**
 * Page tables that map the first 4 GiB to themselves, for kernels entered in 64-bit mode.
 * Spec: SDM Vol. 3A, "4-Level Paging". 2 MiB pages: every processor has them, 1 GiB pages are a CPUID feature.
 */
import { invariant } from "../../base/invariant.ts";
import { IDENTITY_MAP } from "./low-memory.ts";

const PRESENT_WRITABLE = 0x3;
const PAGE_SIZE = 0x80;
const TABLE_BYTES = 4096;
const DIRECTORIES = 4;

/** The six tables, to be written at IDENTITY_MAP: PML4, PDPT, then one directory for each GiB. */
export function identityMap(): Uint8Array {
  const image = new Uint8Array((2 + DIRECTORIES) * TABLE_BYTES);
  invariant(image.length === IDENTITY_MAP.end - IDENTITY_MAP.start, "identity map fits its area");
  const view = new DataView(image.buffer);
  const setEntry = (index: number, value: number) =>
    view.setBigUint64(index * 8, BigInt(value), true);

  setEntry(0, IDENTITY_MAP.start + TABLE_BYTES + PRESENT_WRITABLE);
  for (let gib = 0; gib < DIRECTORIES; gib++) {
    setEntry(512 + gib, IDENTITY_MAP.start + (2 + gib) * TABLE_BYTES + PRESENT_WRITABLE);
  }
  for (let page = 0; page < DIRECTORIES * 512; page++) {
    setEntry(1024 + page, page * 0x20_0000 + PAGE_SIZE + PRESENT_WRITABLE);
  }
  return image;
}
