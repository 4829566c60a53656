/** Bringing an ELF image's segments to their physical addresses. */
import { HypolithError } from "../../base/errors.ts";
import { type BootMemory, formatAddress } from "./boot-memory.ts";
import type { ElfImage, ElfSegment } from "./elf.ts";

/** Claims every segment. Overlapping ones are refused: they also bound the work of hostile files by the size of memory. */
export function claimSegments(memory: BootMemory, elf: ElfImage): void {
  // From the top down, so that a machine that is too small is told the full need.
  const descending = [...elf.segments].sort((a, b) => end(b) - end(a));
  let lowest = Infinity;
  for (const segment of descending) {
    if (end(segment) > lowest) {
      throw new HypolithError(
        "kernel-damaged",
        `segments of the ELF file overlap below ${formatAddress(end(segment))}`,
      );
    }
    memory.claim("kernel", segment.physicalAddress, segment.memorySize);
    lowest = segment.physicalAddress;
  }
}

export function writeSegments(memory: BootMemory, elf: ElfImage): void {
  for (const { physicalAddress, memorySize, bytes } of elf.segments) {
    memory.write(physicalAddress, bytes);
    memory.zero(physicalAddress + bytes.length, memorySize - bytes.length);
  }
}

function end({ physicalAddress, memorySize }: ElfSegment): number {
  return physicalAddress + memorySize;
}
