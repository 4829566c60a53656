/** Little-endian fields, headers and checksums of ACPI tables. Spec: ACPI Specification 6.x, "System Description Table Header". */
import { invariant } from "../../base/invariant.ts";

const HEADER_SIZE = 36;
const SPACE_SYSTEM_IO = 1;

export class TableWriter {
  readonly bytes: Uint8Array;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
  }

  u8(offset: number, value: number): void {
    this.#put(offset, 1, value);
  }

  u16(offset: number, value: number): void {
    this.#put(offset, 2, value);
  }

  u32(offset: number, value: number): void {
    this.#put(offset, 4, value);
  }

  /** `value` below 2^53: a guest-physical address. */
  u64(offset: number, value: number): void {
    this.#put(offset, 8, value);
  }

  /** Padded with spaces to `length`. */
  ascii(offset: number, text: string, length: number): void {
    const padded = text.padEnd(length, " ");
    invariant(padded.length === length, "text too long for its field");
    for (let i = 0; i < length; i++) this.bytes[offset + i] = padded.charCodeAt(i);
  }

  /** A generic address structure for a register block in port space. */
  ioRegister(offset: number, port: number, bytes: number, accessBytes = bytes): void {
    this.u8(offset, SPACE_SYSTEM_IO);
    this.u8(offset + 1, bytes * 8);
    // Access size is coded 1 byte, 2 word, 3 dword.
    this.u8(offset + 3, Math.log2(accessBytes) + 1);
    this.u64(offset + 4, port);
  }

  /** Sets the byte at `offset` so that the first `length` bytes sum to zero. */
  checksum(offset: number, length = this.bytes.length): void {
    this.bytes[offset] = 0;
    this.bytes[offset] = -sumBytes(this.bytes.subarray(0, length));
  }

  #put(offset: number, size: number, value: number): void {
    invariant(offset + size <= this.bytes.length, "field outside its table");
    for (let i = 0; i < size; i++) this.bytes[offset + i] = Math.floor(value / 2 ** (8 * i)) % 256;
  }
}

export function sumBytes(bytes: Uint8Array): number {
  return bytes.reduce((sum, byte) => (sum + byte) & 0xff, 0);
}

/** Fills in the common header, last of all the checksum. */
export function writeHeader(table: TableWriter, signature: string, revision: number): Uint8Array {
  invariant(table.bytes.length >= HEADER_SIZE, "table without room for its header");
  table.ascii(0, signature, 4);
  table.u32(4, table.bytes.length);
  table.u8(8, revision);
  table.ascii(10, "HYPO", 6);
  table.ascii(16, "HYPOLITH", 8);
  table.u32(24, 1);
  table.ascii(28, "HYPO", 4);
  table.u32(32, 1);
  table.checksum(9);
  return table.bytes;
}
