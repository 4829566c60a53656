/** The internet checksum over part of a frame. Spec: RFC 1071. */

/** One's complement sum of 16-bit big-endian words from `from` on, an odd last byte padded with zero; complemented. */
export function internetChecksum(bytes: Uint8Array, from: number): number {
  let sum = 0;
  const even = bytes.length - ((bytes.length - from) & 1);
  for (let at = from; at < even; at += 2) sum += (bytes[at] << 8) | bytes[at + 1];
  if (even < bytes.length) sum += bytes[even] << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
  return ~sum & 0xffff;
}
