/**
 * The Internet checksum. RFC 1071; the pseudo-header is RFC 9293, "Checksum" and RFC 768.
 *
 * Sums are kept unfolded in a number: 64 KiB of 16-bit words stay below 2^32. Hot path.
 */

/** Adds the 16-bit words of b[from, to) to `sum`; an odd last byte counts as the high half of a word. */
export function addWords(sum: number, b: Uint8Array, from: number, to: number): number {
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
