/** Random and special values for tests of SIMD instructions; deterministic from a seed. */

/** xorshift32. */
export class Rng {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761) | 1;
  }

  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  below(n: number): number {
    return this.next() % n;
  }

  quad(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

export const SINGLES = [
  0, 0x80000000, 0x3f800000, 0xbf800000, 0x3fc00000, 0x00800000, 0x80800000, 0x007fffff, 0x807fffff,
  1, 0x80000001, 0x00400000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001,
  0x7fc12345, 0x7f800001, 0xff923456, 0x7fbfffff, 0x4f000000, 0xcf000000, 0x4effffff, 0xcf000001,
  0x5f000000, 0xdf000000, 0x5effffff, 0x3f000000, 0xbf000000, 0x40200000, 0x4b000001, 0x4b800000,
  0x3effffff, 0x34000000, 0x33800000, 0x00ffffff, 0x7f000000, 0x00000003, 0x41200000,
];

const F64_SPECIALS = [
  "0000000000000000",
  "8000000000000000",
  "3ff0000000000000",
  "bff0000000000000",
  "3ff8000000000000",
  "0010000000000000",
  "8010000000000000",
  "000fffffffffffff",
  "800fffffffffffff",
  "0000000000000001",
  "8000000000000001",
  "0008000000000000",
  "7fefffffffffffff",
  "ffefffffffffffff",
  "7ff0000000000000",
  "fff0000000000000",
  "7ff8000000000000",
  "fff8000000000001",
  "7ff8123456789abc",
  "7ff0000000000001",
  "fff1234567812345",
  "7ff0000012345678",
  "41e0000000000000",
  "c1e0000000000000",
  "41dfffffffc00000",
  "41dfffffffffffff",
  "c1e0000000200000",
  "c1e00000001fffff",
  "43e0000000000000",
  "c3e0000000000000",
  "43dfffffffffffff",
  "3fe0000000000000",
  "bfe0000000000000",
  "4004000000000000",
  "4330000000000001",
  "3fdfffffffffffff",
  "3cb0000000000000",
  "3ca0000000000000",
  "001fffffffffffff",
  "47efffffe0000000",
  "47efffffefffffff",
  "47effffff0000000",
  "3810000000000000",
  "380fffffe0000000",
  "380fffffffffffff",
  "36a0000000000000",
  "369fffffffffffff",
  "3690000000000000",
  "3690000000000001",
  "380fffffeffffffe",
  "41e0000000100000",
  "7fe0000000000000",
  "0000000000000003",
];
export const DOUBLES = F64_SPECIALS.map((s) => BigInt(`0x${s}`));

function single(rng: Rng): number {
  switch (rng.below(6)) {
    case 0:
    case 1:
      return rng.pick(SINGLES);
    case 2:
      return rng.next();
    case 3: // near one, so that sums overlap
      return ((rng.below(2) << 31) | ((120 + rng.below(16)) << 23) | (rng.next() & 0x7fffff)) >>> 0;
    case 4: // few significant bits
      return (
        ((rng.below(2) << 31) | ((100 + rng.below(56)) << 23) | ((rng.next() & 0x7f) << 16)) >>> 0
      );
    default: // near the ends of the exponent range
      return (
        ((rng.below(2) << 31) |
          (rng.pick([0, 1, 2, 3, 12, 63, 64, 190, 191, 252, 253, 254, 255]) << 23) |
          (rng.next() & 0x7fffff)) >>>
        0
      );
  }
}

function double(rng: Rng): bigint {
  const compose = (exponent: number, fraction: bigint): bigint =>
    (BigInt(rng.below(2)) << 63n) | (BigInt(exponent) << 52n) | (fraction & 0xf_ffff_ffff_ffffn);
  switch (rng.below(7)) {
    case 0:
    case 1:
      return rng.pick(DOUBLES);
    case 2:
      return rng.quad();
    case 3:
      return compose(1016 + rng.below(16), rng.quad());
    case 4:
      return compose(960 + rng.below(128), BigInt(rng.below(256)) << 44n);
    case 5: // around the range of binary32, and of 32- and 64-bit integers
      return compose(
        rng.pick([870, 873, 874, 880, 896, 897, 1023, 1053, 1054, 1055, 1085, 1086, 1150, 1151]),
        rng.quad(),
      );
    default:
      return compose(
        rng.pick([0, 1, 2, 3, 25, 52, 53, 54, 511, 512, 1534, 1535, 2044, 2045, 2046, 2047]),
        rng.quad(),
      );
  }
}

/** Sixteen bytes of some nature. `like`: another vector to take elements from now and then. */
export function randomVector(rng: Rng, like: Uint8Array | null): Uint8Array {
  const out = new Uint8Array(16);
  const view = new DataView(out.buffer);
  switch (rng.below(9)) {
    case 0:
    case 1:
    case 2:
      for (let i = 0; i < 16; i += 4) view.setUint32(i, single(rng), true);
      break;
    case 3:
    case 4:
    case 5:
      for (let i = 0; i < 16; i += 8) view.setBigUint64(i, double(rng), true);
      break;
    case 6: // letters with an end
      for (let i = 0; i < 16; i++) out[i] = rng.below(12) === 0 ? 0 : 97 + rng.below(4);
      break;
    case 7: // small integers
      for (let i = 0; i < 16; i += 4) view.setInt32(i, rng.below(64) - 20, true);
      break;
    default:
      for (let i = 0; i < 16; i++)
        out[i] = rng.below(4) ? rng.below(256) : rng.pick([0, 0x7f, 0x80, 0xff]);
  }
  if (like) {
    const step = rng.pick([1, 2, 4, 8]);
    for (let i = 0; i < 16; i += step) {
      if (rng.below(5) === 0) out.set(like.subarray(i, i + step), i);
    }
    // Now and then its negation in one of the formats.
    if (rng.below(12) === 0) {
      out.set(like);
      for (let i = 3; i < 16; i += rng.pick([4, 8])) out[i] = out[i]! ^ 0x80;
    }
  }
  return out;
}

export function randomMxcsr(rng: Rng): number {
  const sticky = rng.pick([0, 0x20, 0x20, 0x3f, rng.below(64)]);
  const masks = rng.below(4) === 0 ? rng.below(64) << 7 : 0x1f80;
  const rounding = rng.below(2) ? 0 : rng.below(4) << 13;
  const zeros = rng.below(2) ? 0 : rng.pick([0x40, 0x8000, 0x8040]);
  return sticky | masks | rounding | zeros;
}
