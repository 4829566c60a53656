/**
 * A profile of the guest: where it is at every so many retired instructions. Weights are instructions, not time.
 * Format: speedscope's file format, type "sampled" (https://www.speedscope.app/file-format-schema.json).
 *
 * A sample is a stack of two frames, kernel or user (by CPL) and the symbol. Code without a symbol is named by its page. RIP is taken as the
 * linear address, which it is wherever the base of CS is 0.
 *
 * Fewer than MAX_SAMPLES are kept: when there are as many, every other one is forgotten and the interval doubles, so a profile of days has
 * the size of one of minutes.
 */
import { invariant } from "../base/invariant.ts";
import type { ProfileConfig, SymbolList } from "../control/protocol.ts";
import type { Sampler } from "../processor/vmx/processor.ts";

export const MAX_SAMPLES = 1 << 20;
const PAGE_MASK = 0xffff_ffff_ffff_f000n;
const RINGS = ["kernel", "user"] as const;
const USER_CPL = 3;

interface Frame {
  readonly name: string;
}

export class Profile implements Sampler {
  /** Retired instructions between two samples. */
  every: number;
  readonly #symbols: SymbolList | undefined;
  readonly #frames: Frame[] = RINGS.map((name) => ({ name }));
  readonly #frameOfName = new Map<string, number>();
  /** Two per sample: the frame of the ring, the frame of the symbol. */
  #stacks: Uint32Array<ArrayBuffer> = new Uint32Array(2 * 1024);
  #count = 0;

  constructor({ every, symbols }: ProfileConfig) {
    invariant(Number.isSafeInteger(every) && every >= 1, "a sampling interval from 1 on");
    this.every = every;
    this.#symbols = symbols;
  }

  take(rip: bigint, cpl: number): void {
    if (2 * this.#count === this.#stacks.length) this.#grow();
    this.#stacks[2 * this.#count] = cpl === USER_CPL ? 1 : 0;
    this.#stacks[2 * this.#count + 1] = this.#frameOf(this.#nameOf(rip));
    this.#count++;
    if (this.#count === MAX_SAMPLES) this.#thin();
  }

  get samples(): number {
    return this.#count;
  }

  toJson(): string {
    const { every } = this;
    const samples: [number, number][] = [];
    for (let i = 0; i < this.#count; i++)
      samples.push([this.#stacks[2 * i]!, this.#stacks[2 * i + 1]!]);
    const name = `guest, every ${every} instructions (weights are instructions, not time)`;
    return JSON.stringify({
      $schema: "https://www.speedscope.app/file-format-schema.json",
      exporter: "hypolith",
      name,
      activeProfileIndex: 0,
      shared: { frames: this.#frames },
      profiles: [
        {
          type: "sampled",
          name,
          unit: "none",
          startValue: 0,
          endValue: every * samples.length,
          samples,
          weights: samples.map(() => every),
        },
      ],
    });
  }

  #grow(): void {
    const larger = new Uint32Array(2 * this.#stacks.length);
    larger.set(this.#stacks);
    this.#stacks = larger;
  }

  /** Keeps the samples that the doubled interval would have taken: the second, the fourth and so on. */
  #thin(): void {
    const stacks = this.#stacks;
    for (let i = 0; i < MAX_SAMPLES / 2; i++)
      stacks.copyWithin(2 * i, 2 * (2 * i + 1), 2 * (2 * i + 2));
    this.#count = MAX_SAMPLES / 2;
    this.every *= 2;
  }

  #frameOf(name: string): number {
    const known = this.#frameOfName.get(name);
    if (known !== undefined) return known;
    const frame = this.#frames.push({ name }) - 1;
    this.#frameOfName.set(name, frame);
    return frame;
  }

  #nameOf(rip: bigint): string {
    const symbol = this.#symbols && findSymbol(this.#symbols, rip);
    return symbol ?? `0x${(rip & PAGE_MASK).toString(16)}`;
  }
}

/** The name of the last symbol that starts at or before `address`, if it reaches there. */
export function findSymbol(
  { starts, ends, names }: SymbolList,
  address: bigint,
): string | undefined {
  let low = 0;
  let high = starts.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (starts[middle]! <= address) low = middle + 1;
    else high = middle;
  }
  return low > 0 && address < ends[low - 1]! ? names[low - 1] : undefined;
}
