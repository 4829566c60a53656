/** Registers kept as little-endian bytes, seen through accesses of any size and offset; outside reads as zero and takes no writes. */
import { toUnsigned } from "../mmio-access.ts";
import type { MmioSize } from "../model.ts";

export function readRegister(bytes: Uint8Array, offset: number, size: MmioSize): number | bigint {
  if (size === 8) {
    const low = readRegister(bytes, offset, 4) as number;
    return BigInt(low) | (BigInt(readRegister(bytes, offset + 4, 4)) << 32n);
  }
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + (bytes[offset + i] ?? 0);
  return value;
}

export function writeRegister(
  bytes: Uint8Array,
  access: { offset: number; size: MmioSize; value: number | bigint },
): void {
  const { offset, size } = access;
  let rest = toUnsigned(access.value, size);
  for (let i = 0; i < size; i++, rest >>= 8n) {
    if (offset + i < bytes.length) bytes[offset + i] = Number(rest & 0xffn);
  }
}
