/**
 * The header of a Linux bzImage: what the file says of itself, checked against its length.
 * Spec: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields".
 *
 * File: boot sector and setup code (setup_sects + 1 sectors), then the protected-mode code, in which the payload (the compressed
 * vmlinux) lies. Fields are read only where the protocol version has them. Not here: placing and entering it (linux-boot.ts).
 */
import { HypolithError } from "../../base/errors.ts";
import { formatSize } from "./boot-memory.ts";

const HDRS_MAGIC = 0x5372_6448;
const SECTOR = 512;

/** Offsets in the file, the same as in boot_params. */
export const HeaderField = {
  SETUP_SECTS: 0x1f1,
  SYSSIZE: 0x1f4,
  VID_MODE: 0x1fa,
  BOOT_FLAG: 0x1fe,
  JUMP_LENGTH: 0x201,
  HEADER: 0x202,
  VERSION: 0x206,
  TYPE_OF_LOADER: 0x210,
  LOADFLAGS: 0x211,
  CODE32_START: 0x214,
  RAMDISK_IMAGE: 0x218,
  RAMDISK_SIZE: 0x21c,
  HEAP_END_PTR: 0x224,
  EXT_LOADER_VER: 0x226,
  EXT_LOADER_TYPE: 0x227,
  CMD_LINE_PTR: 0x228,
  INITRD_ADDR_MAX: 0x22c,
  KERNEL_ALIGNMENT: 0x230,
  RELOCATABLE_KERNEL: 0x234,
  XLOADFLAGS: 0x236,
  CMDLINE_SIZE: 0x238,
  HARDWARE_SUBARCH: 0x23c,
  HARDWARE_SUBARCH_DATA: 0x240,
  PAYLOAD_OFFSET: 0x248,
  PAYLOAD_LENGTH: 0x24c,
  SETUP_DATA: 0x250,
  PREF_ADDRESS: 0x258,
  INIT_SIZE: 0x260,
  /** First byte that no header may reach: boot_params has other fields there. */
  END: 0x290,
} as const;

export const LoadFlag = { LOADED_HIGH: 0x01, CAN_USE_HEAP: 0x80 } as const;
export const XLoadFlag = { KERNEL_64: 0x1, CAN_BE_LOADED_ABOVE_4G: 0x2 } as const;

/** cmdline_size came with 2.06; no kernel of the last decade is older than 2.10. */
const OLDEST_VERSION = 0x206;

export interface BzImage {
  readonly version: number;
  /** The setup header as it lies in the file, from SETUP_SECTS on. */
  readonly header: Uint8Array;
  readonly protectedCode: Uint8Array;
  /** The compressed vmlinux, empty when the header names none. */
  readonly payload: Uint8Array;
  readonly entry64: boolean;
  readonly relocatable: boolean;
  /** Power of two. */
  readonly alignment: number;
  /** 0 when the kernel has no preference. */
  readonly preferredAddress: number;
  /** Bytes from the run-time start that the kernel needs free; 0 when unknown. */
  readonly initSize: number;
  /** First address past the initrd's allowed space. */
  readonly initrdLimit: number;
  readonly commandLineLimit: number;
}

export function isBzImage(file: Uint8Array): boolean {
  return file.length >= HeaderField.VERSION && viewOf(file).getUint32(0x202, true) === HDRS_MAGIC;
}

export function parseBzImage(file: Uint8Array): BzImage {
  const view = viewOf(file);
  const setupBytes = ((file[HeaderField.SETUP_SECTS] || 4) + 1) * SECTOR;
  if (file.length < setupBytes || file.length < HeaderField.END) {
    throw truncated(file.length, Math.max(setupBytes, HeaderField.END));
  }
  const version = view.getUint16(HeaderField.VERSION, true);
  rejectUnsupported(version, file[HeaderField.LOADFLAGS]!);

  const codeBytes = view.getUint32(HeaderField.SYSSIZE, true) * 16;
  // syssize counts whole paragraphs; the file may end inside the last one.
  if (file.length + 15 < setupBytes + codeBytes) {
    throw truncated(file.length, setupBytes + codeBytes);
  }
  const protectedCode = file.subarray(setupBytes);
  if (codeBytes === 0 || protectedCode.length === 0) throw damaged("it has no protected-mode code");

  const since = (minimum: number, read: () => number, otherwise: number) =>
    version >= minimum ? read() : otherwise;
  const xloadflags = since(0x20c, () => view.getUint16(HeaderField.XLOADFLAGS, true), 0);
  const alignment = view.getUint32(HeaderField.KERNEL_ALIGNMENT, true);
  const relocatable = file[HeaderField.RELOCATABLE_KERNEL] !== 0;
  if (relocatable && !isPowerOfTwo(alignment)) {
    throw damaged(`its alignment 0x${alignment.toString(16)} is not a power of two`);
  }
  const above4g = (xloadflags & XLoadFlag.CAN_BE_LOADED_ABOVE_4G) !== 0;
  const initrdMax = view.getUint32(HeaderField.INITRD_ADDR_MAX, true);
  return {
    version,
    header: setupHeader(file),
    protectedCode,
    payload: version >= 0x208 ? payloadOf(view, protectedCode) : new Uint8Array(0),
    entry64: (xloadflags & XLoadFlag.KERNEL_64) !== 0,
    relocatable,
    alignment: relocatable ? alignment : 1,
    preferredAddress: since(0x20a, () => readAddress(view, HeaderField.PREF_ADDRESS), 0),
    initSize: since(0x20a, () => view.getUint32(HeaderField.INIT_SIZE, true), 0),
    // Kernels that may lie above 4 GiB state 2 GiB here only for the sake of old boot loaders.
    initrdLimit: above4g ? 2 ** 32 : initrdMax + 1,
    commandLineLimit: view.getUint32(HeaderField.CMDLINE_SIZE, true),
  };
}

function rejectUnsupported(version: number, loadflags: number): void {
  const name = `${version >> 8}.${String(version & 0xff).padStart(2, "0")}`;
  if (version < OLDEST_VERSION) {
    throw new HypolithError(
      "kernel-unsupported",
      `this Linux kernel uses boot protocol ${name}; 2.06 (Linux 2.6.22) is the oldest supported`,
      { hint: "use a newer kernel" },
    );
  }
  if ((loadflags & LoadFlag.LOADED_HIGH) === 0) {
    throw new HypolithError(
      "kernel-unsupported",
      "this Linux kernel is a zImage, which is loaded below 1 MiB",
      { hint: "build it as a bzImage" },
    );
  }
}

/** The header's end is given by the jump over it, whose operand is at JUMP_LENGTH. */
function setupHeader(file: Uint8Array): Uint8Array {
  const end = HeaderField.HEADER + file[HeaderField.JUMP_LENGTH]!;
  if (end < HeaderField.HARDWARE_SUBARCH) {
    throw damaged(`its setup header ends at 0x${end.toString(16)}, before its fields do`);
  }
  return file.slice(HeaderField.SETUP_SECTS, Math.min(end, HeaderField.END));
}

function payloadOf(view: DataView, code: Uint8Array): Uint8Array {
  const offset = view.getUint32(HeaderField.PAYLOAD_OFFSET, true);
  const length = view.getUint32(HeaderField.PAYLOAD_LENGTH, true);
  if (offset === 0 || length === 0) return new Uint8Array(0);
  if (offset + length > code.length) {
    throw damaged(
      `its payload of ${formatSize(length)} at offset 0x${offset.toString(16)} ` +
        `leaves the ${formatSize(code.length)} of code`,
    );
  }
  return code.subarray(offset, offset + length);
}

function readAddress(view: DataView, offset: number): number {
  const value = view.getBigUint64(offset, true);
  if (value >= 2n ** 32n) {
    throw new HypolithError(
      "kernel-unsupported",
      `this Linux kernel wants to run at 0x${value.toString(16)}, above 4 GiB`,
    );
  }
  return Number(value);
}

function truncated(have: number, need: number): HypolithError {
  return new HypolithError(
    "kernel-truncated",
    `the Linux kernel image is cut off: its header speaks of ${need} bytes, the file has ${have}`,
    { hint: "download or copy the file again" },
  );
}

function damaged(detail: string): HypolithError {
  return new HypolithError("kernel-damaged", `the Linux kernel image is damaged: ${detail}`);
}

function isPowerOfTwo(n: number): boolean {
  return n > 0 && (n & (n - 1)) === 0;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
