/**
 * Undoes the x86 branch filter of .xz: CALL and JMP operands were made absolute so that they repeat and compress better.
 * Spec: "The .xz File Format", "Branch/Call/Jump Filters for Executables"; the algorithm is defined by the LZMA SDK's code.
 *
 * An operand is converted if its top byte is 00 or FF and no opcode byte (E8, E9) among the three bytes before makes it doubtful.
 */

/** By the mask of opcode bytes seen in the last three positions: may this operand be converted at all? */
const IS_PLAUSIBLE = [true, true, true, false, true, false, false, false];
/** By the same mask: how many bytes of the operand belong to the nearest earlier candidate. */
const SHARED_BYTES = [0, 1, 2, 2, 3, 3, 3, 3];

/** Converts `bytes` in place; `start` is the address its first byte was given when filtering. */
export function undoX86Branches(bytes: Uint8Array, start: number): void {
  let previous = -1;
  let mask = 0;
  const last = bytes.length - 5;
  for (let i = 0; i <= last; i++) {
    if ((bytes[i]! & 0xfe) !== 0xe8) continue;
    const gap = i - previous;
    previous = i;
    mask = gap > 3 ? 0 : (mask << (gap - 1)) & 7;
    const isShared = mask !== 0 && isSignByte(bytes[i + 4 - SHARED_BYTES[mask]!]!);
    if (!IS_PLAUSIBLE[mask] || isShared || !isSignByte(bytes[i + 4]!)) {
      mask = (mask << 1) | 1;
      continue;
    }
    writeOperand(bytes, i + 1, toRelative(readOperand(bytes, i + 1), start + i + 5, mask));
    i += 4;
  }
}

function toRelative(absolute: number, next: number, mask: number): number {
  let value = (absolute - next) | 0;
  const sharedBits = SHARED_BYTES[mask]! * 8;
  // The filter skipped a value that would have looked like its own output; it flipped the bits once more.
  if (mask !== 0 && isSignByte((value >>> (24 - sharedBits)) & 0xff)) {
    value = ((value ^ (2 ** (32 - sharedBits) - 1)) - next) | 0;
  }
  return (value << 7) >> 7; // 25 bits, sign-extended
}

function isSignByte(byte: number): boolean {
  return byte === 0 || byte === 0xff;
}

function readOperand(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

function writeOperand(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}
