/**
 * A disk as a guest sees it: a range of bytes, whatever the format below.
 *
 * One operation at a time: who has several starts the next when the last has ended. A failure leaves the
 * disk as consistent as it was. Ranges beyond the end are refused with HypolithError "disk-range".
 */
import { HypolithError } from "../base/errors.ts";
import type { Io } from "./block-port.ts";

export interface Disk {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  read(offset: number, into: Uint8Array): Io<void>;
  write(offset: number, bytes: Uint8Array): Io<void>;
  /** Afterwards the range reads as zeros; with `unmap` its space may be given back. */
  writeZeroes(offset: number, length: number, unmap: boolean): Io<void>;
  /** A hint: the contents of the range are no longer needed. */
  discard(offset: number, length: number): Io<void>;
  /** What was written before survives a power failure when it is done. */
  flush(): Io<void>;
  /** Flushes; nothing is done with the disk afterwards. Without it nothing is lost, but the next to open it may have more to do. */
  close(): Io<void>;
}

export function checkRange(disk: Disk, offset: number, length: number): void {
  const fits = Number.isSafeInteger(offset) && offset >= 0 && length >= 0;
  if (!fits || offset > disk.size - length)
    throw new HypolithError(
      "disk-range",
      `${length} bytes at ${offset} are not inside a disk of ${disk.size}`,
    );
}

export function checkWritable(disk: Disk): void {
  if (disk.readOnly) throw new HypolithError("disk-read-only", "the disk is read-only");
}
