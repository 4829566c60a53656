/**
 * Constants and power-series coefficients of the transcendental functions, computed exactly with big integers when the module is built.
 * A fixed-point number with n fraction bits is an integer scaled by 2^n.
 */

/** Guard bits of intermediate sums. */
const GUARD = 32n;
const WORK = 128n + GUARD;

/** sum of (sign)^k x^(2k+1) / (2k+1) for x = n/d: artanh (sign 1) or arctan (sign -1). WORK fraction bits. */
function oddSeries(n: bigint, d: bigint, sign: 1n | -1n): bigint {
  let power = (n << WORK) / d;
  let sum = 0n;
  for (let k = 1n; power !== 0n; k += 2n) {
    sum += power / k;
    power = (sign * power * n * n) / (d * d);
  }
  return sum;
}

const round = (work: bigint, fractionBits: bigint): bigint => {
  const drop = WORK - fractionBits;
  return (work + (1n << (drop - 1n))) >> drop;
};

// Machin's formula.
const PI_WORK = 16n * oddSeries(1n, 5n, -1n) - 4n * oddSeries(1n, 239n, -1n);
const LN2_WORK = 2n * oddSeries(1n, 3n, 1n);

/** pi with 126 fraction bits (bit 127 is set). */
export const PI = round(PI_WORK, 126n);
/** ln 2 with 128 fraction bits (bit 127 is set). */
export const LN2 = round(LN2_WORK, 128n);
/** 2 / ln 2 with 126 fraction bits (bit 127 is set). */
export const TWO_OVER_LN2 = round((1n << (2n * WORK + 1n)) / LN2_WORK, 126n);

/** arctan(j/8) for j = 0..8, 128 fraction bits. The series converges too slowly at 1, where it is pi/4. */
export const ARCTAN_EIGHTHS: readonly bigint[] = Array.from({ length: 9 }, (_, j) =>
  round(j === 8 ? PI_WORK / 4n : oddSeries(BigInt(j), 8n, -1n), 128n),
);

/** pi/2 as the trigonometric instructions have it: 66 significant bits of pi, 65 fraction bits. */
export const REDUCTION_HALF_PI = 0x3_243f_6a88_85a3_08d3n;

const ONE = 1n << 127n;

function factorials(first: number, step: number, count: number): bigint[] {
  const out: bigint[] = [];
  let f = 1n;
  let n = 1;
  for (let k = 0; k < count; k++) {
    const target = first + k * step;
    for (; n <= target; n++) f *= BigInt(n);
    out.push(ONE / f);
  }
  return out;
}

/** Coefficients with 127 fraction bits, lowest power first, as many as matter for 2^-127 in the range they are used for. */
export const SINE = factorials(1, 2, 16);
export const COSINE = factorials(0, 2, 17);
/** (e^t - 1) / t, t <= ln 2. */
export const EXPONENTIAL = factorials(1, 1, 31);
/** 1, 1/3, 1/5, ...: artanh(s)/s for s^2 <= 0.03, arctan(u)/u for u <= 1/16. */
export const reciprocals = (count: number): bigint[] =>
  Array.from({ length: count }, (_, k) => ONE / BigInt(2 * k + 1));
