/**
 * Is a file that was dropped on the page a kernel or an initial root file system? By its first bytes: boot header of Linux, ELF, or a
 * Multiboot header; all else is taken for an initrd. The machine looks closer, and says what it does not like.
 */
import type { FileRole } from "./boot-file.ts";

/** As much of a file as roleOf() wants to see: a Multiboot header lies in the first 8 KiB. */
export const HEAD_BYTES = 8192;

const LINUX_HEADER = 0x202;
const HDRS = 0x5372_6448;
const ELF = 0x464c_457f;
const MULTIBOOT = 0x1bad_b002;

export function roleOf(head: Uint8Array): FileRole {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const word = (at: number): number => (at + 4 <= head.length ? view.getUint32(at, true) : 0);
  if (word(0) === ELF || word(LINUX_HEADER) === HDRS) return "kernel";
  for (let at = 0; at + 12 <= head.length; at += 4) {
    const isHeader = word(at) === MULTIBOOT && ((word(at) + word(at + 4) + word(at + 8)) | 0) === 0;
    if (isHeader) return "kernel";
  }
  return "initrd";
}
