/**
 * LZMA2 decoder, whole buffers in and out.
 * Spec: "The .xz File Format", "LZMA2"; LZMA SDK, lzma-specification.txt.
 *
 * The output buffer is its own dictionary. All adaptive probabilities are one array of 11-bit numbers, laid out by `Prob`; range and
 * code are kept as int32 and compared unsigned, so that the engine keeps them as small integers. Reading past the input gives zeros
 * and is noticed at the end of the chunk; writing and copying are bounded by the chunk's stated size.
 */
import { HypolithError } from "../../base/errors.ts";

const STATES = 12;
const POSITION_STATES = 16;
const LENGTH_CODER = 2 + 2 * POSITION_STATES * 8 + 256;

/** Offsets in the probability array. */
const Prob = (() => {
  let next = 0;
  const take = (count: number) => {
    next += count;
    return next - count;
  };
  return {
    IS_MATCH: take(STATES * POSITION_STATES),
    IS_REP: take(STATES),
    IS_REP_G0: take(STATES),
    IS_REP_G1: take(STATES),
    IS_REP_G2: take(STATES),
    IS_REP0_LONG: take(STATES * POSITION_STATES),
    DISTANCE_SLOT: take(4 * 64),
    DISTANCE_SPECIAL: take(128),
    DISTANCE_ALIGN: take(16),
    MATCH_LENGTH: take(LENGTH_CODER),
    REP_LENGTH: take(LENGTH_CODER),
    LITERAL: take(16 * 0x300),
    COUNT: next,
  };
})();

/** Offsets in a length coder. */
const Length = { CHOICE: 0, CHOICE2: 1, LOW: 2, MID: 2 + 128, HIGH: 2 + 256 } as const;

const HALF = 1024;
const Control = { END: 0, COPY_RESET: 1, COPY: 2, LZMA: 0x80 } as const;

export interface Lzma2Result {
  /** End of the chunks in the source. */
  readonly read: number;
  /** End of the output. */
  readonly written: number;
}

/** Decodes chunks from source[read] until the end marker, into output from `written` on. */
export function decodeLzma2(
  source: Uint8Array,
  read: number,
  output: Uint8Array,
  written: number,
): Lzma2Result {
  const decoder = new LzmaDecoder(source, output, written);
  return decoder.run(read);
}

class LzmaDecoder {
  readonly #source: Uint8Array;
  readonly #output: Uint8Array;
  readonly #probs = new Uint16Array(Prob.COUNT);
  #at = 0;
  #end = 0;
  #range = 0;
  #code = 0;
  #to: number;
  #dictionaryStart: number;
  #state = 0;
  #rep0 = 0;
  #rep1 = 0;
  #rep2 = 0;
  #rep3 = 0;
  #lc = 0;
  #literalMask = 0;
  #positionMask = 0;

  constructor(source: Uint8Array, output: Uint8Array, to: number) {
    this.#source = source;
    this.#output = output;
    this.#to = to;
    this.#dictionaryStart = to;
  }

  run(read: number): Lzma2Result {
    this.#at = read;
    let needs: "dictionary" | "properties" | "nothing" = "dictionary";
    for (;;) {
      const control = this.#byte();
      if (control === Control.END) return { read: this.#at, written: this.#to };
      const resetsDictionary = control === Control.COPY_RESET || control >= 0xe0;
      if (needs === "dictionary" && !resetsDictionary) throw this.#corrupt();
      if (resetsDictionary) {
        this.#dictionaryStart = this.#to;
        needs = "properties";
      }
      if (control >= Control.LZMA) {
        if (needs === "properties" && control < 0xc0) throw this.#corrupt();
        this.#lzmaChunk(control);
        needs = "nothing";
      } else {
        if (control > Control.COPY) throw this.#corrupt();
        this.#copyChunk();
      }
    }
  }

  #copyChunk(): void {
    const size = this.#bigEndian16() + 1;
    if (this.#at + size > this.#source.length || this.#to + size > this.#output.length) {
      throw this.#corrupt();
    }
    this.#output.set(this.#source.subarray(this.#at, this.#at + size), this.#to);
    this.#at += size;
    this.#to += size;
  }

  #lzmaChunk(control: number): void {
    const unpacked = ((control & 0x1f) << 16) + this.#bigEndian16() + 1;
    const packed = this.#bigEndian16() + 1;
    if (control >= 0xc0) this.#setProperties(this.#byte());
    if (control >= 0xa0) this.#resetState();
    this.#end = this.#at + packed;
    const limit = this.#to + unpacked;
    if (packed < 5 || this.#end > this.#source.length || limit > this.#output.length) {
      throw this.#corrupt();
    }
    this.#startRange();
    this.#decode(limit);
    if (this.#at !== this.#end || this.#code !== 0) throw this.#corrupt();
  }

  #setProperties(byte: number): void {
    const lc = byte % 9;
    const lp = Math.floor(byte / 9) % 5;
    const pb = Math.floor(byte / 45);
    if (lc + lp > 4 || pb > 4) throw this.#corrupt();
    this.#lc = lc;
    this.#literalMask = (1 << lp) - 1;
    this.#positionMask = (1 << pb) - 1;
  }

  #resetState(): void {
    this.#state = 0;
    this.#rep0 = 0;
    this.#rep1 = 0;
    this.#rep2 = 0;
    this.#rep3 = 0;
    this.#probs.fill(HALF);
  }

  #startRange(): void {
    if (this.#byte() !== 0) throw this.#corrupt();
    const high = this.#bigEndian16();
    this.#code = (high << 16) | this.#bigEndian16();
    this.#range = -1;
  }

  /** Literals and matches until `limit`. */
  #decode(limit: number): void {
    while (this.#to < limit) {
      const state = this.#state;
      const positionState = (this.#to - this.#dictionaryStart) & this.#positionMask;
      if (this.#bit(Prob.IS_MATCH + state * POSITION_STATES + positionState) === 0) {
        this.#literal();
        continue;
      }
      let length: number;
      if (this.#bit(Prob.IS_REP + state) === 0) {
        this.#rep3 = this.#rep2;
        this.#rep2 = this.#rep1;
        this.#rep1 = this.#rep0;
        length = this.#length(Prob.MATCH_LENGTH, positionState);
        this.#rep0 = this.#distance(length);
        this.#state = state < 7 ? 7 : 10;
      } else if (this.#takeRepeat(positionState)) {
        length = this.#length(Prob.REP_LENGTH, positionState);
        this.#state = state < 7 ? 8 : 11;
      } else {
        length = 1;
        this.#state = state < 7 ? 9 : 11;
      }
      this.#copyMatch(length, limit);
    }
  }

  #literal(): void {
    const output = this.#output;
    const to = this.#to;
    const position = to - this.#dictionaryStart;
    const previous = position > 0 ? output[to - 1]! : 0;
    const context = ((position & this.#literalMask) << this.#lc) + (previous >> (8 - this.#lc));
    const base = Prob.LITERAL + context * 0x300;
    let symbol = 1;
    if (this.#state >= 7) {
      // After a match the byte that the last distance points at predicts, until the first bit that differs.
      if (this.#rep0 >= position) throw this.#corrupt();
      let matched = output[to - this.#rep0 - 1]! << 1;
      do {
        const expected = matched & 0x100;
        const bit = this.#bit(base + 0x100 + expected + symbol);
        symbol = (symbol << 1) | bit;
        matched <<= 1;
        if (expected >> 8 !== bit) break;
      } while (symbol < 0x100);
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(base + symbol);
    output[to] = symbol;
    this.#to = to + 1;
    const state = this.#state;
    this.#state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
  }

  /** Moves the chosen earlier distance to the front; false for a single-byte repeat. */
  #takeRepeat(positionState: number): boolean {
    const state = this.#state;
    if (this.#bit(Prob.IS_REP_G0 + state) === 0) {
      return this.#bit(Prob.IS_REP0_LONG + state * POSITION_STATES + positionState) === 1;
    }
    let distance: number;
    if (this.#bit(Prob.IS_REP_G1 + state) === 0) {
      distance = this.#rep1;
    } else {
      if (this.#bit(Prob.IS_REP_G2 + state) === 0) {
        distance = this.#rep2;
      } else {
        distance = this.#rep3;
        this.#rep3 = this.#rep2;
      }
      this.#rep2 = this.#rep1;
    }
    this.#rep1 = this.#rep0;
    this.#rep0 = distance;
    return true;
  }

  #length(coder: number, positionState: number): number {
    if (this.#bit(coder + Length.CHOICE) === 0) {
      return 2 + this.#tree(coder + Length.LOW + positionState * 8, 3);
    }
    if (this.#bit(coder + Length.CHOICE2) === 0) {
      return 10 + this.#tree(coder + Length.MID + positionState * 8, 3);
    }
    return 18 + this.#tree(coder + Length.HIGH, 8);
  }

  #distance(length: number): number {
    const slots = Prob.DISTANCE_SLOT + Math.min(length - 2, 3) * 64;
    const slot = this.#tree(slots, 6);
    if (slot < 4) return slot;
    const footerBits = (slot >> 1) - 1;
    const high = (2 | (slot & 1)) << footerBits;
    if (slot < 14) {
      return high + this.#reverseTree(Prob.DISTANCE_SPECIAL + high - slot, footerBits);
    }
    const direct = this.#direct(footerBits - 4);
    const distance = high + (direct << 4) + this.#reverseTree(Prob.DISTANCE_ALIGN, 4);
    return distance >>> 0;
  }

  #copyMatch(length: number, limit: number): void {
    const output = this.#output;
    const to = this.#to;
    const distance = this.#rep0 + 1;
    if (distance > to - this.#dictionaryStart || to + length > limit) throw this.#corrupt();
    for (let i = to; i < to + length; i++) output[i] = output[i - distance]!;
    this.#to = to + length;
  }

  /** One adaptive bit. */
  #bit(index: number): number {
    const probs = this.#probs;
    const p = probs[index]!;
    const bound = Math.imul(this.#range >>> 11, p);
    let bit: number;
    if (this.#code >>> 0 < bound >>> 0) {
      this.#range = bound;
      probs[index] = p + ((2048 - p) >> 5);
      bit = 0;
    } else {
      this.#range = (this.#range - bound) | 0;
      this.#code = (this.#code - bound) | 0;
      probs[index] = p - (p >> 5);
      bit = 1;
    }
    if (this.#range >>> 24 === 0) this.#normalize();
    return bit;
  }

  #normalize(): void {
    this.#range <<= 8;
    const next = this.#at < this.#end ? this.#source[this.#at]! : 0;
    this.#code = (this.#code << 8) | next;
    this.#at++;
  }

  #tree(base: number, bits: number): number {
    let symbol = 1;
    for (let i = 0; i < bits; i++) symbol = (symbol << 1) | this.#bit(base + symbol);
    return symbol - (1 << bits);
  }

  #reverseTree(base: number, bits: number): number {
    let symbol = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const bit = this.#bit(base + symbol);
      symbol = (symbol << 1) | bit;
      value |= bit << i;
    }
    return value;
  }

  /** Bits of even chance. */
  #direct(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) {
      this.#range >>>= 1;
      const isOne = this.#code >>> 0 >= this.#range >>> 0;
      if (isOne) this.#code = (this.#code - this.#range) | 0;
      value = (value << 1) | (isOne ? 1 : 0);
      if (this.#range >>> 24 === 0) this.#normalize();
    }
    return value;
  }

  #byte(): number {
    if (this.#at >= this.#source.length) throw this.#corrupt();
    return this.#source[this.#at++]!;
  }

  #bigEndian16(): number {
    const high = this.#byte();
    return (high << 8) | this.#byte();
  }

  #corrupt(): HypolithError {
    return new HypolithError(
      "kernel-damaged",
      `the kernel's LZMA2 payload is damaged near byte ${this.#at}`,
      { hint: "download or copy the kernel again" },
    );
  }
}
