/**
 * Test support: pseudo-random x87 operands with a taste for edges, and states made of them.
 */
export class Random {
  readonly #s = new Uint32Array(4);

  constructor(seed: number) {
    this.#s.set([seed, 0x9e37_79b9, 0x7f4a_7c15, 0xf39c_c060]);
    for (let i = 0; i < 20; i++) this.next();
  }

  /** 32 random bits (xorshift128). */
  next(): number {
    const s = this.#s;
    let t = s[3]!;
    const first = s[0]!;
    s[3] = s[2]!;
    s[2] = s[1]!;
    s[1] = first;
    t ^= t << 11;
    t ^= t >>> 8;
    s[0] = t ^ first ^ (first >>> 19);
    return Math.imul(s[0]!, 0x2c1b_3c6d) >>> 0;
  }

  bits(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }

  below(n: number): number {
    return (this.next() >>> 1) % n;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
}

export interface Extended {
  /** Sign and exponent. */
  se: number;
  sig: bigint;
}

const TOP_BIT = 1n << 63n;
const ALL = (1n << 64n) - 1n;

const SPECIAL_SIGNIFICANDS = [
  0n,
  1n,
  2n,
  TOP_BIT,
  TOP_BIT | 1n,
  ALL,
  ALL - 1n,
  TOP_BIT - 1n,
  0xc000_0000_0000_0000n,
  0xc000_0000_0000_0001n,
  0xa000_0000_0000_0000n,
  0x8000_0000_0000_0400n,
  0x8000_0000_0000_0200n,
  0xffff_ffff_ffff_fc00n,
  0xffff_ffff_ffff_fbffn,
  0xffff_ff00_0000_0000n,
  0xffff_ff7f_ffff_ffffn,
  0xffff_ff80_0000_0000n,
  0x8000_0080_0000_0000n,
  0x8000_0100_0000_0000n,
  0x4000_0000_0000_0000n,
];
const SPECIAL_EXPONENTS = [
  0, 0, 0, 1, 2, 3, 63, 64, 65, 0x3f7f, 0x3f80, 0x3f81, 0x3f82, 0x3c00, 0x3c01, 0x3c02, 0x3ffe,
  0x3fff, 0x3fff, 0x4000, 0x400e, 0x401e, 0x403d, 0x403e, 0x403f, 0x407e, 0x407f, 0x43fe, 0x43ff,
  0x7ffd, 0x7ffe, 0x7fff, 0x7fff, 0x7fff,
];

export function significand(r: Random): bigint {
  switch (r.below(8)) {
    case 0:
      return SPECIAL_SIGNIFICANDS[r.below(SPECIAL_SIGNIFICANDS.length)]!;
    case 1:
      return (r.bits() >> BigInt(r.below(64))) | TOP_BIT;
    case 2:
      return ((r.bits() << BigInt(r.below(64))) & ALL) | TOP_BIT;
    case 3:
      return ((ALL << BigInt(r.below(64))) & ALL) | TOP_BIT;
    case 4:
      return TOP_BIT | (1n << BigInt(r.below(64))) | (1n << BigInt(r.below(64)));
    default:
      return r.bits() | TOP_BIT;
  }
}

/** An 80-bit value: mostly normal numbers, often extreme ones, sometimes every kind of special. */
export function extended(r: Random): Extended {
  const sign = r.below(2) << 15;
  const kind = r.below(100);
  if (kind < 50) return { se: sign | (0x3fff - 70 + r.below(140)), sig: significand(r) | TOP_BIT };
  if (kind < 60) return { se: sign | (0x3fff - 3 + r.below(6)), sig: significand(r) | TOP_BIT };
  if (kind < 70) return { se: sign | r.below(0x8000), sig: significand(r) | TOP_BIT };
  if (kind < 75) return { se: sign | r.below(130), sig: significand(r) | TOP_BIT };
  if (kind < 80) return { se: sign | (0x7ffe - r.below(130)), sig: significand(r) | TOP_BIT };
  if (kind < 84) return { se: sign, sig: r.bits() >> BigInt(r.below(64)) };
  const exponent = SPECIAL_EXPONENTS[r.below(SPECIAL_EXPONENTS.length)]!;
  const sig = SPECIAL_SIGNIFICANDS[r.below(SPECIAL_SIGNIFICANDS.length)]!;
  return { se: sign | exponent, sig };
}

/** A value that stands in some relation to x: cancellation, equality, NaN pairs. */
export function related(r: Random, x: Extended): Extended {
  switch (r.below(6)) {
    case 0:
      return { se: x.se ^ 0x8000, sig: x.sig };
    case 1:
      return { se: x.se ^ (r.below(2) << 15), sig: (x.sig + BigInt(r.below(5) - 2)) & ALL };
    case 2:
      return { se: x.se ^ (r.below(2) << 15) ^ r.below(2), sig: significand(r) };
    case 3:
      return {
        se: (x.se & 0x8000) | Math.min(0x7fff, Math.max(0, (x.se & 0x7fff) + r.below(140) - 70)),
        sig: significand(r) | TOP_BIT,
      };
    case 4:
      return { se: r.bits() & 1n ? 0x7fff : 0xffff, sig: significand(r) };
    default:
      return { se: x.se ^ (r.below(2) << 15), sig: x.sig ^ (1n << BigInt(r.below(64))) };
  }
}

/** Encodings of a binary interchange format of 4 or 8 bytes. */
export function binary(r: Random, bytes: 4 | 8): bigint {
  const [exponentBits, fractionBits] = bytes === 4 ? [8, 23] : [11, 52];
  const max = (1 << exponentBits) - 1;
  const exponents = [0, 0, 1, 2, max >> 1, (max >> 1) + 1, max - 1, max, max];
  const exponent = r.chance(40) ? exponents[r.below(exponents.length)]! : r.below(max + 1);
  const fraction = ((significand(r) << 1n) & ALL) >> BigInt(64 - fractionBits);
  const sign = BigInt(r.below(2));
  return (
    (sign << BigInt(fractionBits + exponentBits)) |
    (BigInt(exponent) << BigInt(fractionBits)) |
    (r.chance(10) ? 0n : fraction)
  );
}

export function integer(r: Random): bigint {
  const v = r.bits() >> BigInt(r.below(64));
  return r.chance(50) ? v : -v & ALL;
}
