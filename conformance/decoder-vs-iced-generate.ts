/**
 * Byte strings for the decoder comparison: a deterministic mix of noise and of things that look like instructions (prefixes, an opcode of
 * a random map, ModRM, SIB, operands with values at the edges), so that deep parts of the opcode maps are reached often.
 */
export const STRING_LENGTH = 16;

const SWEEP_PREFIXES = [[], [0x66], [0xf3], [0xf2], [0x66, 0xf3], [0x66, 0xf2], [0xf0], [0x67]];
const SWEEP_REX = [0, 0x40, 0x41, 0x42, 0x44, 0x48, 0x49, 0x4c];
const SWEEP_MAPS = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];

const PREFIXES = [0x66, 0xf2, 0xf3, 0x67, 0xf0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
const EDGE_BYTES = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x05, 0x25, 0xc0];

/** xorshift32: good enough to choose bytes, and the same everywhere. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) | 1;
    for (let i = 0; i < 8; i++) this.next();
  }

  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return Math.imul(x, 0x2545f491) >>> 0;
  }

  below(n: number): number {
    return (this.next() >>> 4) % n;
  }
}

/** Fills `out[at..at+STRING_LENGTH)` with one string. */
export function generateString(random: Random, is64: boolean, out: Uint8Array, at: number): void {
  for (let i = 0; i < STRING_LENGTH; i += 4) {
    const word = random.next();
    out[at + i] = word;
    out[at + i + 1] = word >>> 8;
    out[at + i + 2] = word >>> 16;
    out[at + i + 3] = word >>> 24;
  }
  if (random.below(4) === 0) return;
  const end = at + STRING_LENGTH;
  let pos = at;
  const run = random.below(64) === 0 ? random.below(STRING_LENGTH) : random.below(4);
  for (let i = 0; i < run; i++) {
    const choice = random.below(16);
    out[pos++] =
      is64 && choice > 12 ? 0x40 | random.below(16) : PREFIXES[choice % PREFIXES.length]!;
  }
  if (is64 && random.below(3) === 0 && pos < end) out[pos++] = 0x40 | random.below(16);
  const map = random.below(8);
  if (map >= 2 && pos < end) out[pos++] = 0x0f;
  if (map >= 6 && pos < end) out[pos++] = map === 6 ? 0x38 : 0x3a;
  pos += 1; // the opcode stays random
  for (let i = 1; pos + i < end; i++) {
    if (random.below(8) === 0) out[pos + i] = EDGE_BYTES[random.below(EDGE_BYTES.length)]!;
  }
}

/**
 * Every opcode of every map with every ModRM, under every set of prefixes that chooses rows; the bytes after are noise. Calls `each` with
 * one batch of strings at a time.
 */
export function sweepStrings(
  is64: boolean,
  batch: Uint8Array,
  each: (count: number) => void,
): void {
  const random = new Random(1);
  const capacity = batch.length / STRING_LENGTH;
  let count = 0;
  const put = (
    prefixes: readonly number[],
    map: readonly number[],
    opcode: number,
    modrm: number,
  ): void => {
    const at = count * STRING_LENGTH;
    for (let i = 0; i < STRING_LENGTH; i++) batch[at + i] = random.next();
    batch.set([...prefixes, ...map, opcode, modrm], at);
    if (++count < capacity) return;
    each(count);
    count = 0;
  };
  for (const legacy of SWEEP_PREFIXES) {
    for (const rex of is64 ? SWEEP_REX : [0]) {
      const prefixes = rex === 0 ? legacy : [...legacy, rex];
      for (const map of SWEEP_MAPS) {
        for (let i = 0; i < 0x10000; i++) put(prefixes, map, i >> 8, i & 255);
      }
    }
  }
  each(count);
}
