/**
 * Raw DEFLATE streams, decompressed to a known size.
 * Spec: RFC 1951.
 *
 * The input is hostile: output never grows beyond the size asked for, distances never reach before it, codes must be complete or
 * have one symbol. Bytes after the end of the stream are ignored, since compressed clusters are padded.
 */
import { HypolithError } from "../base/errors.ts";

const MAX_BITS = 15;
const END_OF_BLOCK = 256;
const LENGTH_BASE = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
  163, 195, 227, 258,
];
const LENGTH_EXTRA = [
  0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];
const DISTANCE_BASE = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049,
  3073, 4097, 6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];
const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** Canonical Huffman code: how many codes of each length, and the symbols in the order of their codes. */
interface Code {
  readonly counts: Uint16Array;
  readonly symbols: Uint16Array;
}

function bad(what: string): HypolithError {
  return new HypolithError("deflate", `not a DEFLATE stream: ${what}`);
}

function createCode(lengths: Uint8Array): Code {
  const counts = new Uint16Array(MAX_BITS + 1);
  for (const length of lengths) counts[length]++;
  const used = lengths.length - counts[0];
  counts[0] = 0;
  let left = 1;
  for (let length = 1; length <= MAX_BITS; length++) left = 2 * left - counts[length];
  if (left < 0) throw bad("too many codes");
  const isSingle = used === 1 && counts[1] === 1;
  if (left > 0 && used > 0 && !isSingle) throw bad("an incomplete code");
  const offsets = new Uint16Array(MAX_BITS + 2);
  for (let length = 1; length <= MAX_BITS; length++)
    offsets[length + 1] = offsets[length] + counts[length];
  const symbols = new Uint16Array(used);
  for (const [symbol, length] of lengths.entries())
    if (length > 0) symbols[offsets[length]++] = symbol;
  return { counts, symbols };
}

let fixedCodes: { literals: Code; distances: Code } | undefined;

function fixed(): { literals: Code; distances: Code } {
  fixedCodes ??= {
    literals: createCode(
      Uint8Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8)),
    ),
    distances: createCode(new Uint8Array(32).fill(5)),
  };
  return fixedCodes;
}

class Inflater {
  readonly #input: Uint8Array;
  readonly #output: Uint8Array;
  #at = 0;
  #bits = 0;
  #bitCount = 0;
  #length = 0;

  constructor(input: Uint8Array, size: number) {
    this.#input = input;
    this.#output = new Uint8Array(size);
  }

  run(): Uint8Array {
    for (let isLast = false; !isLast; ) {
      isLast = this.#take(1) === 1;
      const type = this.#take(2);
      if (type === 0) this.#stored();
      else if (type === 1) this.#compressed(fixed());
      else if (type === 2) this.#compressed(this.#dynamic());
      else throw bad("block type 3");
    }
    if (this.#length !== this.#output.length) throw bad("it ends early");
    return this.#output;
  }

  #take(count: number): number {
    while (this.#bitCount < count) {
      if (this.#at >= this.#input.length) throw bad("it is cut off");
      this.#bits |= this.#input[this.#at++] << this.#bitCount;
      this.#bitCount += 8;
    }
    const value = this.#bits & ((1 << count) - 1);
    this.#bits >>>= count;
    this.#bitCount -= count;
    return value;
  }

  #symbol({ counts, symbols }: Code): number {
    let code = 0;
    let first = 0;
    let index = 0;
    for (let length = 1; length <= MAX_BITS; length++) {
      code |= this.#take(1);
      const count = counts[length];
      if (code - first < count) return symbols[index + code - first];
      index += count;
      first = (first + count) << 1;
      code <<= 1;
    }
    throw bad("an unknown code");
  }

  #stored(): void {
    this.#bits = 0;
    this.#bitCount = 0;
    const length = this.#take(16);
    if ((this.#take(16) ^ 0xffff) !== length) throw bad("a stored length that is not confirmed");
    if (this.#at + length > this.#input.length) throw bad("it is cut off");
    if (this.#length + length > this.#output.length) throw bad("it is too long");
    this.#output.set(this.#input.subarray(this.#at, this.#at + length), this.#length);
    this.#at += length;
    this.#length += length;
  }

  #compressed({ literals, distances }: { literals: Code; distances: Code }): void {
    const output = this.#output;
    for (;;) {
      const symbol = this.#symbol(literals);
      if (symbol === END_OF_BLOCK) return;
      if (symbol < END_OF_BLOCK) {
        if (this.#length >= output.length) throw bad("it is too long");
        output[this.#length++] = symbol;
        continue;
      }
      const index = symbol - END_OF_BLOCK - 1;
      if (index >= LENGTH_BASE.length) throw bad("an unknown length");
      const length = LENGTH_BASE[index] + this.#take(LENGTH_EXTRA[index]);
      const place = this.#symbol(distances);
      if (place >= DISTANCE_BASE.length) throw bad("an unknown distance");
      const distance = DISTANCE_BASE[place] + this.#take(DISTANCE_EXTRA[place]);
      if (distance > this.#length) throw bad("a distance before the beginning");
      if (this.#length + length > output.length) throw bad("it is too long");
      for (let i = 0; i < length; i++, this.#length++)
        output[this.#length] = output[this.#length - distance];
    }
  }

  #dynamic(): { literals: Code; distances: Code } {
    const literalCount = this.#take(5) + 257;
    const distanceCount = this.#take(5) + 1;
    const orderCount = this.#take(4) + 4;
    if (literalCount > 286 || distanceCount > 30) throw bad("too many symbols");
    const orders = new Uint8Array(CODE_LENGTH_ORDER.length);
    for (let i = 0; i < orderCount; i++) orders[CODE_LENGTH_ORDER[i]] = this.#take(3);
    const code = createCode(orders);
    const lengths = new Uint8Array(literalCount + distanceCount);
    for (let i = 0; i < lengths.length; ) {
      const symbol = this.#symbol(code);
      if (symbol < 16) {
        lengths[i++] = symbol;
        continue;
      }
      if (symbol === 16 && i === 0) throw bad("a repetition of nothing");
      const value = symbol === 16 ? lengths[i - 1] : 0;
      const count =
        symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7);
      if (i + count > lengths.length) throw bad("too many code lengths");
      lengths.fill(value, i, i + count);
      i += count;
    }
    if (lengths[END_OF_BLOCK] === 0) throw bad("no end of block");
    return {
      literals: createCode(lengths.subarray(0, literalCount)),
      distances: createCode(lengths.subarray(literalCount)),
    };
  }
}

/** Exactly `size` bytes. Throws HypolithError "deflate". */
export function inflate(input: Uint8Array, size: number): Uint8Array {
  return new Inflater(input, size).run();
}
