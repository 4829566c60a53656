/** CRC-32 (ISO 3309, as in gzip), eight bytes at a time. Embedders that have a faster one pass theirs. */

/** The checksum of what `before` is the checksum of, followed by `bytes`. */
export type Checksum = (bytes: Uint8Array, before: number) => number;

const POLYNOMIAL = 0xedb8_8320;
const SLICES = 8;
const TABLES = new Uint32Array(SLICES * 256);
for (let i = 0; i < 256; i++) {
  let c = i;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ POLYNOMIAL : c >>> 1;
  TABLES[i] = c;
}
for (let i = 256; i < SLICES * 256; i++) {
  const c = TABLES[i - 256]!;
  TABLES[i] = TABLES[c & 0xff]! ^ (c >>> 8);
}

export const crc32: Checksum = (bytes, before) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const whole = bytes.length - (bytes.length % SLICES);
  let crc = ~before;
  for (let at = 0; at < whole; at += SLICES) {
    const low = crc ^ view.getUint32(at, true);
    const high = view.getUint32(at + 4, true);
    crc =
      TABLES[1792 + (low & 0xff)]! ^
      TABLES[1536 + ((low >>> 8) & 0xff)]! ^
      TABLES[1280 + ((low >>> 16) & 0xff)]! ^
      TABLES[1024 + (low >>> 24)]! ^
      TABLES[768 + (high & 0xff)]! ^
      TABLES[512 + ((high >>> 8) & 0xff)]! ^
      TABLES[256 + ((high >>> 16) & 0xff)]! ^
      TABLES[high >>> 24]!;
  }
  for (let at = whole; at < bytes.length; at++)
    crc = TABLES[(crc ^ bytes[at]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
};
