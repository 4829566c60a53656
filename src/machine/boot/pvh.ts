/**
 * The PVH entry: an uncompressed kernel entered in flat 32-bit protected mode with its start information in EBX.
 * Spec: Xen docs/misc/pvh, "x86/HVM direct boot ABI"; public/arch-x86/hvm/start_info.h.
 *
 * Linux builds its own boot_params from this: command line, first module as initrd (32-bit address and size), memory map, RSDP. All
 * structures lie in the first MiB: the kernel reads them through page tables that map the first GiB only.
 */
import { HypolithError } from "../../base/errors.ts";
import { type BootState, gdt32, protected32 } from "./boot-state.ts";
import { encodeCommandLine } from "./command-line.ts";
import { type ElfImage, isLoaded } from "./elf.ts";
import { claimSegments, writeSegments } from "./elf-load.ts";
import { type PlacedInitrd, placeInitrd } from "./initrd.ts";
import type { BootRequest, KernelLimits } from "./linux-boot.ts";
import { COMMAND_LINE, GDT, MEMORY_MAP, STACK, START_INFO } from "./low-memory.ts";

/** "xEn3" with bit 7 of the "E" set. */
const START_MAGIC = 0x336e_c578;
/** Version 1 has the memory map. */
const START_VERSION = 1;
const MODULE_LIST = START_INFO.start + 0x40;
const MEMORY_MAP_ENTRY_BYTES = 24;

export function bootPvh(request: BootRequest, elf: ElfImage, limits: KernelLimits): BootState {
  const { memory, notes } = request;
  const entry = elf.pvhEntry;
  if (entry === undefined || !isLoaded(elf, entry)) {
    throw new HypolithError(
      "kernel-damaged",
      entry === undefined
        ? "the kernel has no PVH entry"
        : `the kernel's PVH entry 0x${entry.toString(16)} is outside its segments`,
    );
  }
  claimSegments(memory, elf);
  const commandLine = encodeCommandLine(request.commandLine, limits.commandLineLimit);
  const areas = [GDT, START_INFO, STACK, MEMORY_MAP, COMMAND_LINE];
  for (const area of areas) memory.claimArea(area);
  const initrd = placeInitrd(memory, request.initrd, limits.initrdLimit);

  writeSegments(memory, elf);
  memory.fillArea(GDT, gdt32());
  memory.fillArea(START_INFO, startInfo(request, initrd));
  memory.fillArea(STACK, new Uint8Array(0));
  memory.fillArea(MEMORY_MAP, memoryMap(request));
  memory.fillArea(COMMAND_LINE, commandLine);
  if (initrd) memory.write(initrd.address, initrd.bytes);
  const state = protected32({ rip: entry, rbx: START_INFO.start });
  return { ...state, protocol: "pvh", regions: memory.regions, notes };
}

/** hvm_start_info, and behind it a hvm_modlist_entry for the initrd. */
function startInfo(request: BootRequest, initrd: PlacedInitrd | undefined): Uint8Array {
  const image = new Uint8Array(0x60);
  const view = new DataView(image.buffer);
  const wide = (at: number, value: number) => view.setBigUint64(at, BigInt(value), true);
  view.setUint32(0, START_MAGIC, true);
  view.setUint32(4, START_VERSION, true);
  view.setUint32(12, initrd ? 1 : 0, true);
  wide(16, initrd ? MODULE_LIST : 0);
  wide(24, COMMAND_LINE.start);
  wide(32, request.rsdpAddress);
  wide(40, MEMORY_MAP.start);
  view.setUint32(48, request.memory.e820.length, true);
  if (initrd) {
    const module = MODULE_LIST - START_INFO.start;
    wide(module, initrd.address);
    wide(module + 8, initrd.bytes.length);
  }
  return image;
}

/** hvm_memmap_table_entry records; their types are those of the ACPI memory map. */
function memoryMap({ memory }: BootRequest): Uint8Array {
  const image = new Uint8Array(memory.e820.length * MEMORY_MAP_ENTRY_BYTES);
  const view = new DataView(image.buffer);
  memory.e820.forEach(({ base, length, type }, i) => {
    const at = i * MEMORY_MAP_ENTRY_BYTES;
    view.setBigUint64(at, BigInt(base), true);
    view.setBigUint64(at + 8, BigInt(length), true);
    view.setUint32(at + 16, type, true);
  });
  return image;
}
