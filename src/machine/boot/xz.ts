/**
 * Decoder of .xz streams as kernels use them: LZMA2, optionally behind the x86 branch filter, with a CRC32 check.
 * Spec: "The .xz File Format", version 1.1.0.
 *
 * Header and block checks are verified; CRC64 and SHA-256 are accepted unverified, and the index after the last block is not read,
 * for the caller knows the size.
 */
import { HypolithError } from "../../base/errors.ts";
import { decodeLzma2 } from "./lzma2.ts";
import { undoX86Branches } from "./x86-branch-filter.ts";

const MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
const STREAM_HEADER_BYTES = 12;
const FilterId = { X86: 0x04, LZMA2: 0x21 } as const;
const Check = { NONE: 0, CRC32: 1 } as const;
/** Size of the check by its type. */
const CHECK_BYTES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];

/** Decodes a stream that must give exactly `size` bytes. */
export function decodeXz(source: Uint8Array, size: number): Uint8Array {
  if (source.length < STREAM_HEADER_BYTES || !MAGIC.every((byte, i) => source[i] === byte)) {
    throw corrupt("it has no stream header");
  }
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const check = source[7]! & 0xf;
  if (source[6] !== 0 || source[7]! > 0xf || crc32(source, 6, 8) !== view.getUint32(8, true)) {
    throw corrupt("its stream header is wrong");
  }
  const output = new Uint8Array(size);
  let read = STREAM_HEADER_BYTES;
  let written = 0;
  // A zero byte where a block header would begin starts the index.
  while (read < source.length && source[read] !== 0) {
    const header = parseBlockHeader(source, view, read);
    const block = decodeLzma2(source, header.end, output, written);
    if (header.hasX86Filter) {
      undoX86Branches(output.subarray(written, block.written), header.x86Start);
    }
    // Blocks are padded to four bytes, counted from the stream's start, itself a multiple of four.
    const checkAt = Math.ceil(block.read / 4) * 4;
    if (checkAt + CHECK_BYTES[check]! > source.length) throw corrupt("it is cut off");
    if (check === Check.CRC32) {
      const actual = crc32(output, written, block.written);
      if (actual !== view.getUint32(checkAt, true)) throw corrupt("its checksum does not match");
    }
    read = checkAt + CHECK_BYTES[check]!;
    written = block.written;
  }
  if (written !== size) throw corrupt(`it gives ${written} bytes instead of ${size}`);
  return output;
}

interface BlockHeader {
  readonly end: number;
  readonly hasX86Filter: boolean;
  readonly x86Start: number;
}

function parseBlockHeader(source: Uint8Array, view: DataView, at: number): BlockHeader {
  const crcAt = at + source[at]! * 4;
  if (crcAt + 4 > source.length) throw corrupt("it is cut off in a block header");
  if (crc32(source, at, crcAt) !== view.getUint32(crcAt, true)) {
    throw corrupt("a block header is wrong");
  }
  const cursor = { at: at + 2, end: crcAt };
  const flags = source[at + 1]!;
  if (flags & 0x40) readVariableInteger(source, cursor); // compressed size
  if (flags & 0x80) readVariableInteger(source, cursor); // uncompressed size
  const filterCount = (flags & 3) + 1;
  let hasX86Filter = false;
  let x86Start = 0;
  for (let i = 0; i < filterCount; i++) {
    const id = readVariableInteger(source, cursor);
    const propertyBytes = readVariableInteger(source, cursor);
    if (cursor.at + propertyBytes > cursor.end) throw corrupt("a block header is wrong");
    const isLast = i === filterCount - 1;
    if (isLast ? id !== FilterId.LZMA2 : id !== FilterId.X86 || hasX86Filter) {
      throw corrupt(`it uses filter ${id}, which is not supported`);
    }
    if (!isLast) {
      hasX86Filter = true;
      if (propertyBytes === 4) x86Start = view.getUint32(cursor.at, true);
    }
    cursor.at += propertyBytes;
  }
  return { end: crcAt + 4, hasX86Filter, x86Start };
}

/** Little-endian groups of seven bits; those above 2^49 do not occur in headers that fit a kernel. */
function readVariableInteger(source: Uint8Array, cursor: { at: number; end: number }): number {
  let value = 0;
  for (let weight = 1; weight < 2 ** 49; weight *= 128) {
    if (cursor.at >= cursor.end) break;
    const byte = source[cursor.at++]!;
    value += (byte & 0x7f) * weight;
    if (byte < 0x80) return value;
  }
  throw corrupt("a block header is wrong");
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb8_8320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes: Uint8Array, start: number, end: number): number {
  let crc = -1;
  for (let i = start; i < end; i++) crc = CRC_TABLE[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

function corrupt(detail: string): HypolithError {
  return new HypolithError("kernel-damaged", `the kernel's xz payload is damaged: ${detail}`, {
    hint: "download or copy the kernel again",
  });
}
