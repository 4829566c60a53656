/**
 * Multiboot 1: kernels that carry its header, such as bare-metal test guests.
 * Spec: Multiboot Specification 0.6.96, "OS image format", "Boot information format", "Machine state".
 *
 * ELF images are loaded by their segments; an image whose header gives load addresses (flag 16) is loaded as the header says, whatever
 * its format. Multiboot has no field for the RSDP: the kernel searches for it. Video modes are not offered.
 */
import { HypolithError } from "../../base/errors.ts";
import { type BootMemory, E820Type } from "./boot-memory.ts";
import { type BootState, gdt32, protected32 } from "./boot-state.ts";
import { encodeCommandLine } from "./command-line.ts";
import { type ElfImage, physicalEntry } from "./elf.ts";
import { claimSegments, writeSegments } from "./elf-load.ts";
import { type PlacedInitrd, placeInitrd } from "./initrd.ts";
import type { BootRequest } from "./linux-boot.ts";
import { COMMAND_LINE, GDT, MEMORY_MAP, STACK, START_INFO } from "./low-memory.ts";

const HEADER_MAGIC = 0x1bad_b002;
const LOADER_MAGIC = 0x2bad_b002;
/** The header lies within this many bytes of the file's start. */
const SEARCH_BYTES = 8192;

const HeaderFlag = {
  PAGE_ALIGN: 1,
  MEMORY_INFO: 2,
  VIDEO_MODE: 4,
  LOAD_ADDRESSES: 0x1_0000,
} as const;
/** Bits 0-15 are requirements; those not in here cannot be met. */
const KNOWN_REQUIREMENTS = HeaderFlag.PAGE_ALIGN | HeaderFlag.MEMORY_INFO;

const InfoFlag = {
  MEMORY: 1,
  COMMAND_LINE: 4,
  MODULES: 8,
  MEMORY_MAP: 0x40,
  LOADER_NAME: 0x200,
} as const;
const MODULES_OFFSET = 0x80;
const LOADER_NAME_OFFSET = 0xa0;
const EMPTY_STRING_OFFSET = 0xb0;
const MAP_ENTRY_BYTES = 24;

export interface MultibootHeader {
  /** Offset in the file. */
  readonly offset: number;
  readonly loadAddresses: LoadAddresses | undefined;
}

interface LoadAddresses {
  readonly header: number;
  readonly load: number;
  readonly loadEnd: number;
  readonly bssEnd: number;
  readonly entry: number;
}

export function findMultibootHeader(file: Uint8Array): MultibootHeader | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const word = (at: number) => view.getUint32(at, true);
  const last = Math.min(file.length, SEARCH_BYTES) - 12;
  for (let at = 0; at <= last; at += 4) {
    if (word(at) !== HEADER_MAGIC) continue;
    const flags = word(at + 4);
    if ((word(at) + flags + word(at + 8)) % 2 ** 32 !== 0) continue;
    rejectUnknownFlags(flags);
    if ((flags & HeaderFlag.LOAD_ADDRESSES) === 0) return { offset: at, loadAddresses: undefined };
    if (at + 32 > file.length) throw damaged("its header is cut off");
    const [header, load, loadEnd, bssEnd, entry] = [12, 16, 20, 24, 28].map((o) => word(at + o));
    return {
      offset: at,
      loadAddresses: {
        header: header!,
        load: load!,
        loadEnd: loadEnd!,
        bssEnd: bssEnd!,
        entry: entry!,
      },
    };
  }
  return undefined;
}

export function bootMultiboot(
  request: BootRequest,
  file: Uint8Array,
  header: MultibootHeader,
  elf: ElfImage | undefined,
): BootState {
  const { memory, notes } = request;
  const image = header.loadAddresses
    ? flatImage(file, header.offset, header.loadAddresses)
    : elfImage(elf);
  image.claim(memory);
  const commandLine = encodeCommandLine(request.commandLine);
  for (const area of [GDT, START_INFO, STACK, MEMORY_MAP, COMMAND_LINE]) memory.claimArea(area);
  const initrd = placeInitrd(memory, request.initrd, 2 ** 32);

  image.write(memory);
  memory.fillArea(GDT, gdt32());
  memory.fillArea(START_INFO, bootInformation(memory, initrd));
  memory.fillArea(STACK, new Uint8Array(0));
  memory.fillArea(MEMORY_MAP, memoryMap(memory));
  memory.fillArea(COMMAND_LINE, commandLine);
  if (initrd) memory.write(initrd.address, initrd.bytes);
  const state = protected32({ rip: image.entry, rax: LOADER_MAGIC, rbx: START_INFO.start });
  return { ...state, protocol: "multiboot", regions: memory.regions, notes };
}

interface LoadableImage {
  readonly entry: number;
  claim(memory: BootMemory): void;
  write(memory: BootMemory): void;
}

function elfImage(elf: ElfImage | undefined): LoadableImage {
  if (!elf) throw damaged("it is no ELF file and its header gives no load addresses");
  return {
    entry: physicalEntry(elf),
    claim: (memory) => claimSegments(memory, elf),
    write: (memory) => writeSegments(memory, elf),
  };
}

/** The header's own addresses; it says where in memory it lies itself, and so where the file's start would. */
function flatImage(file: Uint8Array, offset: number, at: LoadAddresses): LoadableImage {
  const fileStart = offset - (at.header - at.load);
  const end = at.loadEnd === 0 ? at.load + file.length - fileStart : at.loadEnd;
  const size = end - at.load;
  const memoryEnd = Math.max(at.bssEnd, end);
  if (at.header < at.load || fileStart < 0 || size <= 0)
    throw damaged("its addresses contradict each other");
  if (fileStart + size > file.length) {
    throw damaged(`its header speaks of ${fileStart + size} bytes, the file has ${file.length}`);
  }
  if (at.entry < at.load || at.entry >= end) throw damaged("its entry point is outside the image");
  return {
    entry: at.entry,
    claim: (memory) => memory.claim("kernel", at.load, memoryEnd - at.load),
    write: (memory) => {
      memory.write(at.load, file.subarray(fileStart, fileStart + size));
      memory.zero(end, memoryEnd - end);
    },
  };
}

/** The Multiboot information, with the module list and two strings behind it. */
function bootInformation(memory: BootMemory, initrd: PlacedInitrd | undefined): Uint8Array {
  const image = new Uint8Array(0x100);
  const view = new DataView(image.buffer);
  const word = (at: number, value: number) => view.setUint32(at, value, true);
  const { MEMORY, MODULES, LOADER_NAME } = InfoFlag;
  word(0, MEMORY | InfoFlag.COMMAND_LINE | MODULES | InfoFlag.MEMORY_MAP | LOADER_NAME);
  word(4, contiguousFrom(memory, 0) / 1024);
  word(8, contiguousFrom(memory, 0x10_0000) / 1024);
  word(16, COMMAND_LINE.start);
  word(20, initrd ? 1 : 0);
  word(24, START_INFO.start + MODULES_OFFSET);
  word(44, memory.e820.length * MAP_ENTRY_BYTES);
  word(48, MEMORY_MAP.start);
  word(64, START_INFO.start + LOADER_NAME_OFFSET);
  if (initrd) {
    word(MODULES_OFFSET, initrd.address);
    word(MODULES_OFFSET + 4, initrd.address + initrd.bytes.length);
    word(MODULES_OFFSET + 8, START_INFO.start + EMPTY_STRING_OFFSET);
  }
  image.set(encodeCommandLine("hypolith"), LOADER_NAME_OFFSET);
  return image;
}

/** Bytes of usable memory from `start` on: mem_lower and mem_upper. */
function contiguousFrom(memory: BootMemory, start: number): number {
  const entry = memory.e820.find(
    ({ base, length, type }) => type === E820Type.RAM && base <= start && start < base + length,
  );
  return entry ? Math.floor(entry.base + entry.length - start) : 0;
}

function memoryMap(memory: BootMemory): Uint8Array {
  const image = new Uint8Array(memory.e820.length * MAP_ENTRY_BYTES);
  const view = new DataView(image.buffer);
  memory.e820.forEach(({ base, length, type }, i) => {
    const at = i * MAP_ENTRY_BYTES;
    view.setUint32(at, MAP_ENTRY_BYTES - 4, true); // the size field does not count itself
    view.setBigUint64(at + 4, BigInt(base), true);
    view.setBigUint64(at + 12, BigInt(length), true);
    view.setUint32(at + 20, type, true);
  });
  return image;
}

function rejectUnknownFlags(flags: number): void {
  if (flags & HeaderFlag.VIDEO_MODE) {
    throw new HypolithError("kernel-unsupported", "the Multiboot kernel demands a video mode", {
      hint: "this machine has no display: build the kernel for a serial console",
    });
  }
  const unknown = flags & 0xffff & ~KNOWN_REQUIREMENTS;
  if (unknown === 0) return;
  throw new HypolithError(
    "kernel-unsupported",
    `the Multiboot kernel demands features unknown here (flags 0x${unknown.toString(16)})`,
  );
}

function damaged(detail: string): HypolithError {
  return new HypolithError("kernel-damaged", `the Multiboot kernel is damaged: ${detail}`);
}
