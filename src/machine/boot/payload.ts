/**
 * The compressed vmlinux inside a bzImage, and unpacking it outside the guest.
 * Spec: Linux Documentation/arch/x86/boot.rst, "payload_offset"; scripts/Makefile.lib (the appended size).
 *
 * A stock bzImage begins by unpacking itself, which costs a guest in software more than the rest of early boot. LZ4 and xz (all of
 * Debian's kernels) are decoded here; other formats by decompressors that the embedder passes in; what nobody decodes is left to
 * the kernel's own code in the guest. Relocation belongs to that code too, so an unpacked kernel runs where it is linked, without KASLR.
 *
 * The payload's last four bytes are the unpacked size. For gzip they are also part of the stream; otherwise they follow it.
 */
import { HypolithError } from "../../base/errors.ts";
import type { BzImage } from "./bzimage.ts";
import { isElf } from "./elf.ts";
import { decodeLz4Legacy } from "./lz4-legacy.ts";
import { decodeXz } from "./xz.ts";

export type PayloadFormat = "none" | "gzip" | "bzip2" | "lzma" | "xz" | "lzo" | "lz4" | "zstd";

export interface KernelPayload {
  readonly format: PayloadFormat;
  /** The compressed stream without appended bytes. */
  readonly stream: Uint8Array;
  /** Unpacked size by the kernel's word: check it before allocating. */
  readonly size: number;
}

/**
 * Unpacks one stream to exactly `size` bytes, or throws. An embedder that can only decompress asynchronously unpacks kernelPayload()'s
 * stream beforehand and passes a decompressor that answers the result.
 */
export type Decompressor = (stream: Uint8Array, size: number) => Uint8Array;
export type Decompressors = Readonly<Partial<Record<PayloadFormat, Decompressor>>>;

const MAGICS: readonly (readonly [PayloadFormat, readonly number[]])[] = [
  ["none", [0x7f, 0x45, 0x4c, 0x46]],
  ["gzip", [0x1f, 0x8b]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["lzma", [0x5d, 0x00, 0x00]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["lzo", [0x89, 0x4c, 0x5a, 0x4f]],
  ["lz4", [0x02, 0x21, 0x4c, 0x18]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
];

const OWN_DECODERS: Decompressors = {
  none: (stream) => stream,
  lz4: decodeLz4Legacy,
  xz: decodeXz,
};

/** The payload of a parsed bzImage, or undefined when it has none or in a format unknown here. */
export function kernelPayload({ payload }: BzImage): KernelPayload | undefined {
  const format = MAGICS.find(([, magic]) => magic.every((byte, i) => payload[i] === byte))?.[0];
  if (format === undefined || payload.length < 8) return undefined;
  if (format === "none") return { format, stream: payload, size: payload.length };
  const sizeAt = payload.length - 4;
  const size = new DataView(payload.buffer, payload.byteOffset + sizeAt, 4).getUint32(0, true);
  const stream = format === "gzip" ? payload : payload.subarray(0, sizeAt);
  return { format, stream, size };
}

/** The vmlinux ELF, or undefined when no decoder for its format is at hand. Damaged streams throw. */
export function unpackPayload(
  payload: KernelPayload,
  decompressors: Decompressors,
): Uint8Array | undefined {
  const decoder = decompressors[payload.format] ?? OWN_DECODERS[payload.format];
  if (!decoder) return undefined;
  const elf = decodeGuarded(decoder, payload);
  if (!isElf(elf) || (payload.format !== "none" && elf.length !== payload.size)) {
    throw damaged(payload, `it unpacks to ${elf.length} bytes that are not the expected ELF image`);
  }
  return elf;
}

function decodeGuarded(decoder: Decompressor, payload: KernelPayload): Uint8Array {
  try {
    return decoder(payload.stream, payload.size);
  } catch (cause) {
    if (cause instanceof HypolithError) throw cause;
    throw damaged(payload, cause instanceof Error ? cause.message : String(cause), cause);
  }
}

function damaged({ format }: KernelPayload, detail: string, cause?: unknown): HypolithError {
  return new HypolithError(
    "kernel-damaged",
    `the kernel's ${format} payload is damaged: ${detail}`,
    {
      cause,
      hint: "download or copy the kernel again",
    },
  );
}
