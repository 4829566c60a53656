/**
 * Guest memory as a device reaches it: by guest-physical address, inside ranges that were granted, and no other way.
 *
 * Refusal is a value, since every address comes from a hostile driver. Addresses and lengths are exact integers; whoever parses a 64-bit
 * address makes one above 2^53 unreachable first (guestAddress).
 * A device does not rely on reading back what it wrote: writes may be held until the event that caused them is over.
 * Not here: who grants what (the service ABI), and the decoded code that a write makes stale (whoever implements `write`).
 */
export interface GuestMemory {
  /** Whether all of a range, of 0 bytes or more, is granted. */
  contains(gpa: number, length: number): boolean;
  /** Fills `into`; false, with nothing promised about `into`, if not all granted. */
  read(gpa: number, into: Uint8Array): boolean;
  /** False, with nothing written, if not all granted. */
  write(gpa: number, bytes: Uint8Array): boolean;
}

/** Above all physical addresses: no grant reaches it. */
export const NOWHERE = Number.MAX_SAFE_INTEGER;

const HIGHEST_EXACT = 2 ** 20;

/** A 64-bit address from two halves; one that no physical address space has becomes NOWHERE. */
export function guestAddress(low: number, high: number): number {
  const upper = high >>> 0;
  return upper < HIGHEST_EXACT ? upper * 2 ** 32 + (low >>> 0) : NOWHERE;
}

/** One contiguous range of memory that starts at guest-physical `base`: what most machines and all tests have. */
export class FlatMemory implements GuestMemory {
  readonly #base: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, base = 0) {
    this.#bytes = bytes;
    this.#base = base;
  }

  contains(gpa: number, length: number): boolean {
    const offset = gpa - this.#base;
    return offset >= 0 && length >= 0 && offset <= this.#bytes.length - length;
  }

  read(gpa: number, into: Uint8Array): boolean {
    if (!this.contains(gpa, into.length)) return false;
    const offset = gpa - this.#base;
    into.set(this.#bytes.subarray(offset, offset + into.length));
    return true;
  }

  write(gpa: number, bytes: Uint8Array): boolean {
    if (!this.contains(gpa, bytes.length)) return false;
    this.#bytes.set(bytes, gpa - this.#base);
    return true;
  }
}
