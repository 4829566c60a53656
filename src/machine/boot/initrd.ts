/**
 * Placing the initial ramdisk: as high as the kernel allows, so that it stays clear of a kernel that moves or grows.
 */
import { HypolithError } from "../../base/errors.ts";
import { type BootMemory, formatAddress, formatSize, memoryHint } from "./boot-memory.ts";

export interface PlacedInitrd {
  readonly address: number;
  readonly bytes: Uint8Array;
}

const FLOOR = 0x10_0000;

/** Claims space for the initrd below `limit`, after all else has been claimed. Writes nothing. */
export function placeInitrd(
  memory: BootMemory,
  initrd: Uint8Array | undefined,
  limit: number,
): PlacedInitrd | undefined {
  if (!initrd) return undefined;
  if (initrd.length === 0) {
    throw new HypolithError("initrd-empty", "the initrd is empty", {
      hint: "boot without an initrd, or check how the file was made",
    });
  }
  const address = memory.findHigh(initrd.length, FLOOR, limit);
  if (address === undefined) throw doesNotFit(memory, initrd.length, limit);
  memory.claim("initrd", address, initrd.length);
  return { address, bytes: initrd };
}

function doesNotFit(memory: BootMemory, size: number, limit: number): HypolithError {
  const free = memory.largestFree(FLOOR, limit);
  const below = limit < memory.top ? ` below ${formatAddress(limit)}` : "";
  const hint =
    limit < memory.top
      ? "use a smaller initrd: this kernel cannot reach one above that address"
      : memoryHint(memory.top - free + size);
  return new HypolithError(
    "initrd-too-large",
    `the initrd of ${formatSize(size)} does not fit: of ${formatSize(memory.top)} of memory, ` +
      `${formatSize(free)} are free in one piece beside the kernel${below}`,
    { hint },
  );
}
