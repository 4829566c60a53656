/**
 * Boot loading without firmware: finds out what the kernel file is, chooses how to enter it, and fills guest memory.
 *
 * bzImage -> unpacked here when its payload can be decoded: by PVH when the kernel has that entry, else at its ELF entry;
 *            otherwise by the Linux boot protocol, and it unpacks itself in the guest.
 * ELF     -> PVH entry, else Multiboot header, else as an unpacked Linux kernel.
 * other   -> Multiboot header with load addresses; anything else is refused with what it looks like instead.
 *
 * Answers a BootState or throws HypolithError; on refusal guest memory has not been touched.
 */
import { HypolithError } from "../../base/errors.ts";
import { BootMemory, type E820Entry, type GuestRam } from "./boot-memory.ts";
import type { BootState } from "./boot-state.ts";
import { type BzImage, isBzImage, parseBzImage } from "./bzimage.ts";
import { LINUX_COMMAND_LINE_LIMIT } from "./command-line.ts";
import { type ElfImage, isElf, parseElf } from "./elf.ts";
import { describeFile } from "./file-kind.ts";
import {
  type BootRequest,
  bootBzImage,
  bootDirect,
  claimWorkingSpace,
  type KernelLimits,
} from "./linux-boot.ts";
import { bootMultiboot, findMultibootHeader } from "./multiboot.ts";
import { type Decompressors, kernelPayload, unpackPayload } from "./payload.ts";
import { bootPvh } from "./pvh.ts";

/** "bzimage" and "pvh" force one way and refuse kernels that have not got it. */
export type BootMode = "auto" | "bzimage" | "pvh";

export interface KernelOptions {
  readonly ram: GuestRam;
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array | undefined;
  readonly cmdline: string;
  /** Size of the machine's memory; at most ram.size. */
  readonly memoryBytes: number;
  /** Guest-physical address of the ACPI RSDP; 0 when there is none. */
  readonly rsdpAddress: number;
  readonly e820: readonly E820Entry[];
  readonly mode?: BootMode | undefined;
  /** For payload formats that are not decoded here (gzip, zstd, bzip2, LZMA, LZO). */
  readonly decompressors?: Decompressors | undefined;
}

/** Without a bzImage header: what kernels of the last decade state in theirs. */
const ELF64_LIMITS: KernelLimits = {
  initrdLimit: 2 ** 31,
  commandLineLimit: LINUX_COMMAND_LINE_LIMIT,
};
const ELF32_LIMITS: KernelLimits = { ...ELF64_LIMITS, initrdLimit: 0x3800_0000 };

export function loadKernel(options: KernelOptions): BootState {
  const { kernel, mode = "auto" } = options;
  if (kernel.length === 0) {
    throw new HypolithError("kernel-empty", "the kernel file is empty", {
      hint: "check how the file was made or downloaded",
    });
  }
  if (isBzImage(kernel)) return loadBzImage(options, parseBzImage(kernel), mode);
  if (mode === "bzimage") throw notA("Linux bzImage", kernel);
  if (isElf(kernel)) return loadElf(options, parseElf(kernel), mode);
  if (mode === "pvh") throw notA("kernel with a PVH entry", kernel);
  const multiboot = findMultibootHeader(kernel);
  if (multiboot) return bootMultiboot(toRequest(options), kernel, multiboot, undefined);
  throw notA("kernel", kernel);
}

function loadBzImage(options: KernelOptions, image: BzImage, mode: BootMode): BootState {
  const request = toRequest(options);
  if (mode === "bzimage") return bootBzImage(request, image);
  // The kernel's own word on how much memory it needs holds in every mode, and is checked before the work of unpacking.
  claimWorkingSpace(request.memory, image);
  const { elf, why } = unpackKernel(options, image);
  if (elf?.pvhEntry !== undefined) return bootPvh(request, elf, image);
  if (mode === "pvh") {
    throw new HypolithError("kernel-unsupported", `the kernel cannot be entered by PVH: ${why}`, {
      hint: 'use mode "auto" or "bzimage"',
    });
  }
  const noted = { ...request, notes: [why] };
  return elf ? bootDirect(noted, elf, image, image.header) : bootBzImage(noted, image);
}

interface UnpackedKernel {
  readonly elf?: ElfImage;
  /** Why a faster way than what follows was not taken. */
  readonly why: string;
}

function unpackKernel(options: KernelOptions, image: BzImage): UnpackedKernel {
  const payload = kernelPayload(image);
  if (!payload) return { why: "it has no payload in a known format, so it unpacks itself" };
  if (payload.size > options.memoryBytes) return { why: "unpacked, it is larger than memory" };
  const file = unpackPayload(payload, options.decompressors ?? {});
  if (!file) return { why: `its ${payload.format} payload is left for it to unpack itself` };
  return { elf: parseElf(file), why: "it has no PVH entry" };
}

function loadElf(options: KernelOptions, elf: ElfImage, mode: BootMode): BootState {
  const limits = elf.bits === 64 ? ELF64_LIMITS : ELF32_LIMITS;
  if (elf.pvhEntry !== undefined) return bootPvh(toRequest(options), elf, limits);
  if (mode === "pvh") {
    throw new HypolithError("kernel-unsupported", "the ELF kernel has no PVH entry note", {
      hint: 'use mode "auto", or a Linux kernel built with CONFIG_PVH',
    });
  }
  const multiboot = findMultibootHeader(options.kernel);
  if (multiboot) return bootMultiboot(toRequest(options), options.kernel, multiboot, elf);
  return bootDirect(toRequest(options), elf, limits);
}

function toRequest(options: KernelOptions): BootRequest {
  return {
    memory: new BootMemory(options.ram, options.memoryBytes, options.e820),
    initrd: options.initrd,
    commandLine: options.cmdline,
    rsdpAddress: options.rsdpAddress,
    notes: [],
  };
}

function notA(wanted: string, kernel: Uint8Array): HypolithError {
  if (isElf(kernel)) {
    return new HypolithError(
      "kernel-unsupported",
      `the kernel file is an ELF image, not a ${wanted}`,
    );
  }
  const { what, hint } = describeFile(kernel);
  return new HypolithError(
    "kernel-unrecognized",
    `the kernel file is not a ${wanted}: it looks like ${what}`,
    { hint },
  );
}
