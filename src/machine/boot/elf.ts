/**
 * Executable ELF images for x86: load segments, entry, and the Xen note that names a PVH entry.
 * Spec: System V gABI, "ELF Header", "Program Header", "Note Section"; Xen public/elfnote.h.
 *
 * Reads program headers only. Every offset is checked against the file before it is used; addresses beyond 2^52 are refused, so all
 * that leaves this file is exact as a number (virtual addresses, which may be negative, stay bigint).
 */
import { HypolithError } from "../../base/errors.ts";
import { describeMachine } from "./file-kind.ts";

const ElfClass = { BITS32: 1, BITS64: 2 } as const;
const ElfType = { REL: 1, EXEC: 2, DYN: 3 } as const;
const ElfMachine = { I386: 3, X86_64: 62 } as const;
const SegmentType = { LOAD: 1, INTERPRETER: 3, NOTE: 4 } as const;

const XEN_ELFNOTE_PHYS32_ENTRY = 18;
/** Kernels have a handful; the bound keeps hostile tables cheap. */
const MAX_PROGRAM_HEADERS = 256;
const NAME_HINT = "the kernel is usually called vmlinuz or vmlinux";

export interface ElfSegment {
  readonly virtualAddress: bigint;
  readonly physicalAddress: number;
  readonly memorySize: number;
  /** The bytes in the file; shorter than memorySize where the rest is zero. */
  readonly bytes: Uint8Array;
}

export interface ElfImage {
  readonly bits: 32 | 64;
  /** e_entry as it is: physical for Linux, virtual for others. */
  readonly entry: bigint;
  readonly segments: readonly ElfSegment[];
  /** Physical address of the PVH entry, when the image has one. */
  readonly pvhEntry: number | undefined;
}

interface ProgramHeader {
  readonly type: number;
  readonly offset: number;
  readonly virtualAddress: bigint;
  readonly physicalAddress: number;
  readonly fileSize: number;
  readonly memorySize: number;
  readonly alignment: number;
}

export function isElf(file: Uint8Array): boolean {
  return file[0] === 0x7f && file[1] === 0x45 && file[2] === 0x4c && file[3] === 0x46;
}

export function parseElf(file: Uint8Array): ElfImage {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const bits = checkIdentity(file, view);
  const headers = programHeaders(file, view, bits);
  if (headers.some(({ type }) => type === SegmentType.INTERPRETER)) {
    throw new HypolithError(
      "kernel-unsupported",
      "the ELF file is a program for an operating system, not a kernel",
      { hint: NAME_HINT },
    );
  }
  const segments: ElfSegment[] = [];
  let pvhEntry: number | undefined;
  for (const header of headers) {
    if (header.type === SegmentType.LOAD && header.memorySize > 0) {
      segments.push(loadSegment(file, header));
    } else if (header.type === SegmentType.NOTE) {
      pvhEntry ??= findPvhEntry(segmentBytes(file, header), header.alignment);
    }
  }
  if (segments.length === 0) throw damaged("it has nothing to load");
  const entry = bits === 64 ? view.getBigUint64(24, true) : BigInt(view.getUint32(24, true));
  return { bits, entry, segments, pvhEntry };
}

/** Where e_entry is in physical memory: as it is if a segment lies there, else translated as a virtual address. */
export function physicalEntry(elf: ElfImage): number {
  for (const { physicalAddress, memorySize } of elf.segments) {
    const offset = elf.entry - BigInt(physicalAddress);
    if (offset >= 0n && offset < BigInt(memorySize)) return Number(elf.entry);
  }
  for (const { virtualAddress, physicalAddress, memorySize } of elf.segments) {
    const offset = elf.entry - virtualAddress;
    if (offset >= 0n && offset < BigInt(memorySize)) return physicalAddress + Number(offset);
  }
  throw damaged(`its entry point 0x${elf.entry.toString(16)} is outside its segments`);
}

/** Whether a physical address lies in a loaded segment. */
export function isLoaded(elf: ElfImage, address: number): boolean {
  return elf.segments.some(
    (s) => address >= s.physicalAddress && address < s.physicalAddress + s.memorySize,
  );
}

function checkIdentity(file: Uint8Array, view: DataView): 32 | 64 {
  if (file.length < 52) throw truncated(file.length, 52);
  const is64 = file[4] === ElfClass.BITS64;
  if (!is64 && file[4] !== ElfClass.BITS32) throw damaged(`it has class ${file[4]}`);
  if (file[5] !== 1) {
    throw new HypolithError("kernel-unsupported", "the ELF file is big-endian, not for x86", {
      hint: "use an x86 kernel",
    });
  }
  if (is64 && file.length < 64) throw truncated(file.length, 64);
  const machine = view.getUint16(18, true);
  if (machine !== (is64 ? ElfMachine.X86_64 : ElfMachine.I386)) {
    throw new HypolithError(
      "kernel-unsupported",
      `the ELF file is for ${describeMachine(machine)} (${is64 ? 64 : 32}-bit), not for x86`,
      { hint: "use an x86-64 or i386 kernel" },
    );
  }
  const type = view.getUint16(16, true);
  if (type === ElfType.REL) {
    throw new HypolithError(
      "kernel-unsupported",
      "the ELF file is an object file or a kernel module, not a kernel",
      { hint: NAME_HINT },
    );
  }
  if (type !== ElfType.EXEC && type !== ElfType.DYN) throw damaged(`it has type ${type}`);
  return is64 ? 64 : 32;
}

function programHeaders(file: Uint8Array, view: DataView, bits: 32 | 64): ProgramHeader[] {
  const is64 = bits === 64;
  const offset = is64 ? exact(view.getBigUint64(32, true)) : view.getUint32(28, true);
  const entrySize = view.getUint16(is64 ? 54 : 42, true);
  const count = view.getUint16(is64 ? 56 : 44, true);
  if (count === 0) throw damaged("it has no program headers");
  if (count > MAX_PROGRAM_HEADERS) throw damaged(`it has ${count} program headers`);
  if (entrySize < (is64 ? 56 : 32)) throw damaged(`its program headers have ${entrySize} bytes`);
  const end = offset + count * entrySize;
  if (end > file.length) throw truncated(file.length, end);
  const read = is64 ? readHeader64 : readHeader32;
  return Array.from({ length: count }, (_, i) => read(view, offset + i * entrySize));
}

function readHeader64(view: DataView, at: number): ProgramHeader {
  const type = view.getUint32(at, true);
  const wide = (offset: number) => view.getBigUint64(at + offset, true);
  // Other types (PT_GNU_STACK and the like) may hold anything; they are not looked at.
  const used = type === SegmentType.LOAD || type === SegmentType.NOTE;
  const number = (offset: number) => (used ? exact(wide(offset)) : 0);
  return {
    type,
    offset: number(8),
    virtualAddress: wide(16),
    physicalAddress: type === SegmentType.LOAD ? number(24) : 0,
    fileSize: number(32),
    memorySize: number(40),
    alignment: number(48),
  };
}

function readHeader32(view: DataView, at: number): ProgramHeader {
  const word = (index: number) => view.getUint32(at + index * 4, true);
  return {
    type: word(0),
    offset: word(1),
    virtualAddress: BigInt(word(2)),
    physicalAddress: word(3),
    fileSize: word(4),
    memorySize: word(5),
    alignment: word(7),
  };
}

function loadSegment(file: Uint8Array, header: ProgramHeader): ElfSegment {
  const { virtualAddress, physicalAddress, memorySize, fileSize } = header;
  if (fileSize > memorySize) throw damaged("a segment is larger in the file than in memory");
  if (physicalAddress + memorySize > 2 ** 32) {
    throw new HypolithError(
      "kernel-unsupported",
      `a segment of the ELF file loads at physical address 0x${physicalAddress.toString(16)}, ` +
        "outside the first 4 GiB",
      { hint: "link it with physical load addresses (AT in the linker script)" },
    );
  }
  return { virtualAddress, physicalAddress, memorySize, bytes: segmentBytes(file, header) };
}

function segmentBytes(file: Uint8Array, { offset, fileSize }: ProgramHeader): Uint8Array {
  if (offset + fileSize > file.length) throw truncated(file.length, offset + fileSize);
  return file.subarray(offset, offset + fileSize);
}

/** Walks the notes of one segment; a note that leaves the segment ends the walk. */
function findPvhEntry(notes: Uint8Array, alignment: number): number | undefined {
  const view = new DataView(notes.buffer, notes.byteOffset, notes.byteLength);
  const unit = alignment === 8 ? 8 : 4;
  const padded = (size: number) => Math.ceil(size / unit) * unit;
  let at = 0;
  while (at + 12 <= notes.length) {
    const nameSize = view.getUint32(at, true);
    const descriptorSize = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const descriptor = at + padded(12 + nameSize);
    if (descriptor + descriptorSize > notes.length) return undefined;
    if (type === XEN_ELFNOTE_PHYS32_ENTRY && isXenName(notes, at + 12, nameSize)) {
      if (descriptorSize === 4) return view.getUint32(descriptor, true);
      if (descriptorSize === 8) return exact(view.getBigUint64(descriptor, true));
      throw damaged(`its PVH entry note has ${descriptorSize} bytes`);
    }
    at = padded(descriptor + descriptorSize);
  }
  return undefined;
}

function isXenName(notes: Uint8Array, at: number, size: number): boolean {
  return size === 4 && [0x58, 0x65, 0x6e, 0].every((byte, i) => notes[at + i] === byte);
}

function exact(value: bigint): number {
  if (value >= 2n ** 52n) throw damaged(`0x${value.toString(16)} is no offset or physical address`);
  return Number(value);
}

function truncated(have: number, need: number): HypolithError {
  return new HypolithError(
    "kernel-truncated",
    `the ELF file is cut off: its headers speak of ${need} bytes, the file has ${have}`,
    { hint: "download or copy the file again" },
  );
}

function damaged(detail: string): HypolithError {
  return new HypolithError("kernel-damaged", `the ELF file is damaged: ${detail}`);
}
