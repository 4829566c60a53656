/**
 * The Internet checksum. RFC 1071; the pseudo-header is RFC 9293, "Checksum" and RFC 768.
 *
 * Sums are kept unfolded in a number: 64 KiB of 16-bit words stay below 2^32. Long ranges are added 32 bits at a time in the order of bytes
 * that processors under JavaScript have, little endian, and the sum is turned around at the end: a sum of swapped words is the swapped sum.
 * Hot path.
 */

/** A view of 32-bit words costs as much as adding so many bytes. */
const LONG = 128;

/** Adds the 16-bit words of b[from, to) to `sum`; an odd last byte counts as the high half of a word. */
export function addWords(sum: number, b: Uint8Array, from: number, to: number): number {
  const place = b.byteOffset + from;
  if (to - from < LONG || place % 2 !== 0) return addBytes(sum, b, from, to);
  const start = from + (place % 4);
  const count = (to - start) >> 2;
  const folded = fold(sumOfHalves(new Uint32Array(b.buffer, b.byteOffset + start, count)));
  const head = addBytes(sum, b, from, start);
  return addBytes(head + (((folded & 0xff) << 8) | (folded >>> 8)), b, start + 4 * count, to);
}

function sumOfHalves(words: Uint32Array): number {
  let low = 0;
  let high = 0;
  const whole = words.length & ~3;
  let i = 0;
  for (; i < whole; i += 4) {
    const a = words[i]!;
    const b = words[i + 1]!;
    const c = words[i + 2]!;
    const d = words[i + 3]!;
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
  }
  for (; i < words.length; i++) {
    low += words[i]! & 0xffff;
    high += words[i]! >>> 16;
  }
  return low + high;
}

function addBytes(sum: number, b: Uint8Array, from: number, to: number): number {
  const even = to - ((to - from) & 1);
  let at = from;
  for (; at + 8 <= even; at += 8) {
    sum +=
      ((b[at]! + b[at + 2]! + b[at + 4]! + b[at + 6]!) << 8) +
      (b[at + 1]! + b[at + 3]! + b[at + 5]! + b[at + 7]!);
  }
  for (; at < even; at += 2) sum += (b[at]! << 8) | b[at + 1]!;
  return even < to ? sum + (b[even]! << 8) : sum;
}

export function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
  return sum;
}

/** The checksum of b[from, to), where its own field holds 0; over a range with a right checksum it is 0. */
export function checksum(b: Uint8Array, from: number, to: number, sum = 0): number {
  return ~fold(addWords(sum, b, from, to)) & 0xffff;
}

/** Sum of the IPv4 pseudo-header. */
export function pseudoHeaderSum(
  source: number,
  destination: number,
  protocol: number,
  length: number,
): number {
  return (
    (source >>> 16) +
    (source & 0xffff) +
    (destination >>> 16) +
    (destination & 0xffff) +
    protocol +
    length
  );
}
