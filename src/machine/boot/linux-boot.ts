/**
 * The Linux boot protocol without firmware: boot_params, and entering a kernel at its 32-bit or 64-bit entry.
 * Spec: Linux Documentation/arch/x86/boot.rst, "32-bit BOOT PROTOCOL", "64-bit BOOT PROTOCOL"; zero-page.rst.
 *
 * Two ways in, with the same boot_params:
 * - a bzImage: its code unpacks and relocates the kernel in the guest. It is loaded where it prefers to run, and init_size bytes
 *   from there are kept free.
 * - an unpacked vmlinux ("direct"): entered as the bzImage's own code would enter it, at its ELF entry.
 *
 * There is no VGA, EFI, APM or EDD: those parts of boot_params stay zero.
 */
import { HypolithError } from "../../base/errors.ts";
import type { BootMemory } from "./boot-memory.ts";
import {
  type BootProtocol,
  type BootState,
  gdt32,
  gdt64,
  long64,
  type ProcessorState,
  protected32,
} from "./boot-state.ts";
import { type BzImage, HeaderField, LoadFlag } from "./bzimage.ts";
import { encodeCommandLine } from "./command-line.ts";
import { type ElfImage, physicalEntry } from "./elf.ts";
import { claimSegments, writeSegments } from "./elf-load.ts";
import { identityMap } from "./identity-map.ts";
import { type PlacedInitrd, placeInitrd } from "./initrd.ts";
import { BOOT_PARAMS, COMMAND_LINE, GDT, IDENTITY_MAP, STACK } from "./low-memory.ts";

/** What every boot protocol is given besides the kernel. */
export interface BootRequest {
  readonly memory: BootMemory;
  readonly initrd: Uint8Array | undefined;
  readonly commandLine: string;
  /** Guest-physical address of the ACPI RSDP; 0 when there is none. */
  readonly rsdpAddress: number;
  readonly notes: readonly string[];
}

/** Limits that a kernel states in its bzImage header and an ELF file does not. */
export interface KernelLimits {
  readonly initrdLimit: number;
  readonly commandLineLimit: number;
}

/** Fields of boot_params outside the setup header. */
const ParamsField = {
  ACPI_RSDP_ADDR: 0x070,
  E820_ENTRIES: 0x1e8,
  E820_TABLE: 0x2d0,
} as const;

const E820_ENTRY_BYTES = 20;
const LOAD_ADDRESS = 0x10_0000;
/** Offset of startup_64 in the protected-mode code. */
const ENTRY64_OFFSET = 0x200;
/** "No assigned boot loader id". */
const UNDEFINED_LOADER = 0xff;
const VID_MODE_NORMAL = 0xffff;

export function bootBzImage(request: BootRequest, image: BzImage): BootState {
  const { memory } = request;
  const loadAddress = claimKernel(memory, image);
  const prepared = prepare(request, image.entry64, image);
  memory.write(loadAddress, image.protectedCode);
  const params = bootParams(prepared, request, image.header);
  params.setUint32(HeaderField.CODE32_START, loadAddress, true);
  const rip = loadAddress + (image.entry64 ? ENTRY64_OFFSET : 0);
  return enter(prepared, params, image.entry64 ? "linux64" : "linux32", rip);
}

/** Enters an unpacked Linux kernel; `header` is the setup header of the bzImage it came from, if any. */
export function bootDirect(
  request: BootRequest,
  elf: ElfImage,
  limits: KernelLimits,
  header: Uint8Array = unpackedHeader(limits),
): BootState {
  const { memory } = request;
  const rip = physicalEntry(elf);
  claimSegments(memory, elf);
  const prepared = prepare(request, elf.bits === 64, limits);
  writeSegments(memory, elf);
  return enter(prepared, bootParams(prepared, request, header), "direct", rip);
}

/** Claims the loaded code and the kernel's working space; returns the load address. */
function claimKernel(memory: BootMemory, image: BzImage): number {
  const { protectedCode, entry64 } = image;
  if (entry64 && protectedCode.length <= ENTRY64_OFFSET) {
    throw new HypolithError(
      "kernel-damaged",
      "the Linux kernel image ends before its 64-bit entry",
    );
  }
  claimWorkingSpace(memory, image);
  const loadAddress = loadAddressOf(image);
  memory.claim("kernel", loadAddress, protectedCode.length);
  return loadAddress;
}

/** Claims init_size bytes from where the kernel will run: it uses them before it looks at the memory map. */
export function claimWorkingSpace(memory: BootMemory, image: BzImage): void {
  const { relocatable, preferredAddress, initSize } = image;
  // A kernel that cannot be relocated moves itself to its preferred address.
  const moves = !relocatable && preferredAddress !== 0;
  memory.claim("kernel", moves ? preferredAddress : loadAddressOf(image), initSize);
}

function loadAddressOf({ relocatable, preferredAddress, alignment }: BzImage): number {
  const wanted = relocatable && preferredAddress !== 0 ? preferredAddress : LOAD_ADDRESS;
  return Math.ceil(wanted / alignment) * alignment;
}

interface Prepared {
  readonly request: BootRequest;
  readonly long: boolean;
  readonly initrd: PlacedInitrd | undefined;
  readonly commandLine: Uint8Array;
}

/** All claims and checks besides the kernel's own. */
function prepare(request: BootRequest, long: boolean, limits: KernelLimits): Prepared {
  const { memory } = request;
  const commandLine = encodeCommandLine(request.commandLine, limits.commandLineLimit);
  for (const area of [GDT, BOOT_PARAMS, STACK, COMMAND_LINE]) memory.claimArea(area);
  if (long) memory.claimArea(IDENTITY_MAP);
  const initrd = placeInitrd(memory, request.initrd, limits.initrdLimit);
  return { request, long, initrd, commandLine };
}

function bootParams(prepared: Prepared, request: BootRequest, header: Uint8Array): DataView {
  const params = new DataView(new ArrayBuffer(BOOT_PARAMS.end - BOOT_PARAMS.start));
  new Uint8Array(params.buffer).set(header, HeaderField.SETUP_SECTS);
  params.setUint16(HeaderField.VID_MODE, VID_MODE_NORMAL, true);
  params.setUint8(HeaderField.TYPE_OF_LOADER, UNDEFINED_LOADER);
  params.setUint8(HeaderField.LOADFLAGS, LoadFlag.LOADED_HIGH | LoadFlag.CAN_USE_HEAP);
  params.setUint16(HeaderField.HEAP_END_PTR, 0xfe00, true);
  params.setUint16(HeaderField.EXT_LOADER_VER, 0, true); // and EXT_LOADER_TYPE
  params.setUint32(HeaderField.CMD_LINE_PTR, COMMAND_LINE.start, true);
  params.setUint32(HeaderField.RAMDISK_IMAGE, prepared.initrd?.address ?? 0, true);
  params.setUint32(HeaderField.RAMDISK_SIZE, prepared.initrd?.bytes.length ?? 0, true);
  params.setUint32(HeaderField.HARDWARE_SUBARCH, 0, true);
  params.setBigUint64(HeaderField.HARDWARE_SUBARCH_DATA, 0n, true);
  params.setBigUint64(HeaderField.SETUP_DATA, 0n, true);
  params.setBigUint64(ParamsField.ACPI_RSDP_ADDR, BigInt(request.rsdpAddress), true);

  const { e820 } = request.memory;
  params.setUint8(ParamsField.E820_ENTRIES, e820.length);
  e820.forEach(({ base, length, type }, i) => {
    const at = ParamsField.E820_TABLE + i * E820_ENTRY_BYTES;
    params.setBigUint64(at, BigInt(base), true);
    params.setBigUint64(at + 8, BigInt(length), true);
    params.setUint32(at + 16, type, true);
  });
  return params;
}

/** The setup header that a vmlinux without a bzImage around it expects to find in boot_params. */
function unpackedHeader(limits: KernelLimits): Uint8Array {
  const header = new Uint8Array(HeaderField.END - HeaderField.SETUP_SECTS);
  const view = new DataView(header.buffer);
  const at = (field: number) => field - HeaderField.SETUP_SECTS;
  view.setUint16(at(HeaderField.BOOT_FLAG), 0xaa55, true);
  view.setUint32(at(HeaderField.HEADER), 0x5372_6448, true);
  view.setUint16(at(HeaderField.VERSION), 0x20c, true);
  view.setUint32(at(HeaderField.KERNEL_ALIGNMENT), 0x100_0000, true);
  view.setUint32(at(HeaderField.CMDLINE_SIZE), limits.commandLineLimit, true);
  return header;
}

/** Writes what prepare() claimed and describes the processor. */
function enter(
  { request, long, initrd, commandLine }: Prepared,
  params: DataView,
  protocol: BootProtocol,
  rip: number,
): BootState {
  const { memory, notes } = request;
  memory.fillArea(GDT, long ? gdt64() : gdt32());
  memory.fillArea(BOOT_PARAMS, new Uint8Array(params.buffer));
  memory.fillArea(STACK, new Uint8Array(0));
  memory.fillArea(COMMAND_LINE, commandLine);
  if (long) memory.fillArea(IDENTITY_MAP, identityMap());
  if (initrd) memory.write(initrd.address, initrd.bytes);
  const registers = { rip, rsi: BOOT_PARAMS.start };
  const state: ProcessorState = long ? long64(registers) : protected32(registers);
  return { ...state, protocol, regions: memory.regions, notes };
}
