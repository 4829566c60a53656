/**
 * Register files of 32-bit or 64-bit cells seen through accesses of any size.
 * A narrow write becomes a masked write of its cell, so a device describes each register once.
 */
import type { MmioSize } from "./model.ts";

const BITS_32 = 0xffff_ffff;

/** `value` truncated to `size` bytes, as an unsigned bigint. */
export function toUnsigned(value: number | bigint, size: MmioSize): bigint {
  if (typeof value === "number" && !Number.isFinite(value)) return 0n;
  return BigInt.asUintN(8 * size, typeof value === "number" ? BigInt(Math.trunc(value)) : value);
}

/** Reads through 64-bit cells at offsets that are multiples of 8; an access across cells is made of both. */
export function readCells(
  cell: (offset: number) => bigint,
  offset: number,
  size: MmioSize,
): number | bigint {
  const base = offset & ~7;
  const shift = BigInt(8 * (offset - base));
  let bits = cell(base) >> shift;
  if (offset + size > base + 8) bits |= cell(base + 8) << (64n - shift);
  const value = BigInt.asUintN(8 * size, bits);
  return size === 8 ? value : Number(value);
}

/** Writes through 64-bit cells: `write(offset, value, mask)` has the written bytes in place and a mask of them. */
export function writeCells(
  write: (offset: number, value: bigint, mask: bigint) => void,
  access: { offset: number; size: MmioSize; value: number | bigint },
): void {
  const base = access.offset & ~7;
  const shift = BigInt(8 * (access.offset - base));
  const bits = toUnsigned(access.value, access.size) << shift;
  const mask = ((1n << BigInt(8 * access.size)) - 1n) << shift;
  write(base, BigInt.asUintN(64, bits), BigInt.asUintN(64, mask));
  if (mask >> 64n) write(base + 8, bits >> 64n, mask >> 64n);
}

/** The low 32 bits of a written value as an unsigned number. */
export function toDword(value: number | bigint): number {
  return typeof value === "bigint" ? Number(BigInt.asUintN(32, value)) : (value & BITS_32) >>> 0;
}
