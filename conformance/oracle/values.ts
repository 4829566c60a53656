/**
 * Operand values that find bugs: edges and specials mixed with random ones, in pools made once. A pool is a run of values of one kind, from
 * which tests copy at random places; pools are the same in every run.
 */
import { Random } from "./random.ts";

const random = new Random(0x0bac1e, 0);

const INT_EDGES = [
  0n,
  1n,
  2n,
  3n,
  7n,
  8n,
  9n,
  0x0fn,
  0x10n,
  0x1fn,
  0x20n,
  0x3fn,
  0x40n,
  0x7fn,
  0x80n,
  0xffn,
  0x100n,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x1_0000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_ffffn,
  0xffff_ffff_ffff_fffen,
  0xffff_ffff_8000_0000n,
  0xffff_ffff_7fff_ffffn,
  0x5555_5555_5555_5555n,
  0xaaaa_aaaa_aaaa_aaaan,
  0x99n,
  0x9999n,
];

/** An integer of up to 64 bits: an edge, a random pattern, a short number or one with few bits. */
export function randomInteger(r: Random): bigint {
  switch (r.below(8)) {
    case 0:
    case 1:
      return r.pick(INT_EDGES);
    case 2:
      return BigInt.asUintN(64, r.pick(INT_EDGES) + BigInt(r.between(-3, 3)));
    case 3:
      return r.u64() >> BigInt(r.below(64));
    case 4:
      return (1n << BigInt(r.below(64))) | (1n << BigInt(r.below(64)));
    case 5:
      return BigInt.asUintN(64, BigInt.asIntN(64, r.u64()) >> BigInt(r.below(64)));
    default:
      return r.u64();
  }
}

interface FloatFormat {
  readonly exponentBits: number;
  /** Fraction bits without the integer bit. */
  readonly fractionBits: number;
}

const F32: FloatFormat = { exponentBits: 8, fractionBits: 23 };
const F64: FloatFormat = { exponentBits: 11, fractionBits: 52 };
const F80: FloatFormat = { exponentBits: 15, fractionBits: 63 };

function randomFraction(r: Random, bits: number): bigint {
  const mask = (1n << BigInt(bits)) - 1n;
  switch (r.below(8)) {
    case 0:
      return 0n;
    case 1:
      return mask;
    case 2:
      return 1n << BigInt(r.below(bits));
    case 3:
      return (mask << BigInt(r.below(bits))) & mask;
    case 4:
      return BigInt(r.below(4));
    case 5:
      // Near the middle between two values of a shorter format.
      return (
        (((r.u64() & mask) >> 29n) << 29n) ^
        BigInt(r.pick([0, 1 << 28, (1 << 28) - 1, (1 << 28) + 1]))
      );
    default:
      return r.u64() & mask;
  }
}

function randomExponent(r: Random, bits: number): number {
  const max = (1 << bits) - 1;
  const bias = max >> 1;
  switch (r.below(10)) {
    case 0:
      return r.below(max + 1);
    case 1:
      return r.pick([0, 1, 2, max - 1, max - 2]);
    case 2:
      return Math.max(0, Math.min(max - 1, bias + r.between(-150, 150)));
    case 3:
      return bias + r.between(0, 70);
    case 4:
      return Math.max(1, (bias >> 1) + r.between(-40, 40));
    case 5:
      return Math.min(max - 1, bias + (bias >> 1) + r.between(-40, 40));
    default:
      return bias + r.between(-12, 12);
  }
}

/** Sign, exponent and fraction of a float: zero, denormal, infinity, quiet and signalling NaN, or a number. */
function randomFloat(
  r: Random,
  f: FloatFormat,
): { sign: bigint; exponent: number; fraction: bigint } {
  const max = (1 << f.exponentBits) - 1;
  const quiet = 1n << BigInt(f.fractionBits - 1);
  const sign = BigInt(r.below(2));
  const payload = r.chance(50) ? BigInt(r.below(8)) : r.u64() & (quiet - 1n);
  switch (r.below(16)) {
    case 0:
      return { sign, exponent: 0, fraction: 0n };
    case 1:
      return { sign, exponent: 0, fraction: randomFraction(r, f.fractionBits) || 1n };
    case 2:
      return { sign, exponent: max, fraction: 0n };
    case 3:
      return { sign, exponent: max, fraction: quiet | payload };
    case 4:
      return { sign, exponent: max, fraction: payload || 1n };
    case 5:
    case 6: {
      // A small integer, perhaps with a half.
      const n = BigInt(r.between(1, 200));
      const exponent = n.toString(2).length - 1;
      const fraction =
        (n << BigInt(f.fractionBits - exponent)) & ((1n << BigInt(f.fractionBits)) - 1n);
      return { sign, exponent: (max >> 1) + exponent - r.below(3), fraction };
    }
    default:
      return {
        sign,
        exponent: randomExponent(r, f.exponentBits),
        fraction: randomFraction(r, f.fractionBits),
      };
  }
}

function encodeFloat(r: Random, f: FloatFormat): bigint {
  const { sign, exponent, fraction } = randomFloat(r, f);
  return (
    (sign << BigInt(f.exponentBits + f.fractionBits)) |
    (BigInt(exponent) << BigInt(f.fractionBits)) |
    fraction
  );
}

const POOL_BYTES = 1 << 16;

/** Values of one size, one after the other. */
export class Pool {
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;
  /** Words from one value to the next. */
  readonly stride: number;

  constructor(stride: number, write: (view: DataView, at: number) => void) {
    this.words = new Uint32Array(POOL_BYTES / 4);
    this.bytes = new Uint8Array(this.words.buffer);
    this.stride = stride;
    const view = new DataView(this.words.buffer);
    for (let at = 0; at < POOL_BYTES; at += stride * 4) write(view, at);
  }

  /** Copies `count` bytes (a multiple of 4 or less than a value) from a random value to `to`. */
  copy(r: Random, to: Uint8Array, at: number, count: number): void {
    const values = POOL_BYTES / (4 * this.stride) - Math.ceil(count / (4 * this.stride));
    let from = r.below(values) * 4 * this.stride;
    for (let i = 0; i < count; i++) to[at + i] = this.bytes[from++]!;
  }
}

const F80_INTEGER_BIT = 1n << 63n;

function writeF80(view: DataView, at: number): void {
  const { sign, exponent, fraction } = randomFloat(random, F80);
  // Unnormals, pseudo-denormals, pseudo-NaNs and pseudo-infinities have the other integer bit.
  const isOdd = random.chance(8);
  const integer = (exponent !== 0) !== isOdd ? F80_INTEGER_BIT : 0n;
  view.setBigUint64(at, integer | fraction, true);
  view.setUint16(at + 8, (Number(sign) << 15) | exponent, true);
}

export const INTS = new Pool(2, (view, at) => view.setBigUint64(at, randomInteger(random), true));
export const BYTES = new Pool(1, (view, at) => view.setUint32(at, random.u32(), true));
export const F32S = new Pool(1, (view, at) =>
  view.setUint32(at, Number(encodeFloat(random, F32)), true),
);
export const F64S = new Pool(2, (view, at) =>
  view.setBigUint64(at, encodeFloat(random, F64), true),
);
/** Sixteen bytes each, the upper six zero. */
export const F80S = new Pool(4, writeF80);
/** Small edges in every 8-, 16- or 32-bit lane: for saturation, comparison and string instructions. */
export const LANES = new Pool(4, (view, at) => {
  const size = random.pick([1, 2, 4]);
  const edge = [
    0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
  ];
  for (let i = 0; i < 16; i += size) {
    const v = random.chance(60) ? random.pick(edge) : random.u32();
    for (let k = 0; k < size; k++) view.setUint8(at + i + k, v >>> (8 * k));
  }
});
/** Text-like bytes with zeros: for the string comparisons. */
export const TEXT = new Pool(4, (view, at) => {
  const alphabet = random.pick(["abcABC", "aaaab", "09azAZ", "\u0001\u0080\u00ff"]);
  for (let i = 0; i < 16; i++)
    view.setUint8(
      at + i,
      random.chance(12) ? 0 : alphabet.charCodeAt(random.below(alphabet.length)),
    );
});
/** What memory is full of before a test puts its operands there. */
export const MIXED = new Pool(4, (view, at) => {
  const pool = random.pick([INTS, INTS, BYTES, F32S, F64S, F80S, LANES]);
  pool.copy(random, new Uint8Array(view.buffer), at, 16);
});
