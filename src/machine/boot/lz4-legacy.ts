/**
 * Decoder of the LZ4 legacy frame, in which Debian's cloud kernel carries its vmlinux.
 * Spec: LZ4 project, "LZ4 Frame Format", section "Legacy frame"; "LZ4 Block Format Description".
 *
 * Frame: magic 02 21 4C 18, then blocks of a 32-bit length and that many bytes, each giving 8 MiB except the last; blocks do not refer
 * to each other. Every length is checked before a copy, so hostile input ends in "kernel-damaged", never outside the two buffers.
 */
import { HypolithError } from "../../base/errors.ts";

const LEGACY_MAGIC = 0x184c_2102;
const BLOCK_BYTES = 8 * 1024 * 1024;
const MINIMUM_MATCH = 4;
/** From this length on the built-in copy is faster than a loop. */
const BULK_COPY = 32;

/** Decodes a frame that must give exactly `size` bytes. */
export function decodeLz4Legacy(source: Uint8Array, size: number): Uint8Array {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  if (source.length < 4 || view.getUint32(0, true) !== LEGACY_MAGIC) throw corrupt(0);
  const output = new Uint8Array(size);
  let read = 4;
  let written = 0;
  while (read < source.length) {
    if (read + 4 > source.length) throw corrupt(read);
    const length = view.getUint32(read, true);
    read += 4;
    if (length === LEGACY_MAGIC) continue; // concatenated frames
    if (length === 0 || read + length > source.length) throw corrupt(read);
    written = decodeBlock(source.subarray(0, read + length), read, output, written);
    read += length;
  }
  if (written !== size) throw corrupt(read);
  return output;
}

/** Decodes source[read..end) to output at `start`; returns the end of what it wrote. */
function decodeBlock(source: Uint8Array, read: number, output: Uint8Array, start: number): number {
  const end = source.length;
  const limit = Math.min(output.length, start + BLOCK_BYTES);
  let to = start;
  while (read < end) {
    const token = source[read++]!;
    let literals = token >> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255 && read < end) {
        more = source[read++]!;
        literals += more;
      }
    }
    if (read + literals > end || to + literals > limit) throw corrupt(read);
    copyLiterals(source, read, output, to, literals);
    read += literals;
    to += literals;
    if (read === end) break; // the last sequence has literals only

    if (read + 2 > end) throw corrupt(read);
    const distance = source[read]! | (source[read + 1]! << 8);
    read += 2;
    let length = token & 15;
    if (length === 15) {
      let more = 255;
      while (more === 255 && read < end) {
        more = source[read++]!;
        length += more;
      }
    }
    length += MINIMUM_MATCH;
    if (distance === 0 || to - distance < start || to + length > limit) throw corrupt(read);
    copyMatch(output, to, distance, length);
    to += length;
  }
  return to;
}

function copyLiterals(
  source: Uint8Array,
  from: number,
  output: Uint8Array,
  to: number,
  length: number,
): void {
  if (length >= BULK_COPY) {
    output.set(source.subarray(from, from + length), to);
    return;
  }
  for (let i = 0; i < length; i++) output[to + i] = source[from + i]!;
}

/** A match may overlap itself: then it repeats the last `distance` bytes. */
function copyMatch(output: Uint8Array, to: number, distance: number, length: number): void {
  if (length >= BULK_COPY && distance >= length) {
    output.copyWithin(to, to - distance, to - distance + length);
    return;
  }
  for (let i = 0; i < length; i++) output[to + i] = output[to + i - distance]!;
}

function corrupt(offset: number): HypolithError {
  return new HypolithError(
    "kernel-damaged",
    `the kernel's LZ4 payload is damaged near byte ${offset}`,
    { hint: "download or copy the kernel again" },
  );
}
