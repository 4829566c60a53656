/**
 * Makes a finding smaller: fewer instructions, fewer registers, less memory, as long as the same kind of difference stays.
 * Greedy and in a fixed order, so the outcome is reproducible.
 */
import type { Difference } from "./compare.ts";
import type { DraftInstruction } from "./draft.ts";
import type { Emulated } from "./emulated.ts";
import { judge } from "./judge.ts";
import type { Native } from "./native.ts";
import { Fx, Records, Test } from "./records.ts";
import type { Finding } from "./run.ts";
import { WINDOW_BYTES } from "./world.ts";

const DEFAULT_FCW = 0x37f;
const DEFAULT_MXCSR = 0x1f80;
const INT3 = 0xcc;

/** Fields without their numbers: what kind of difference it is. */
export function kindOf(differences: readonly Difference[]): string {
  const kinds = differences.map((d) =>
    d.field.startsWith("[")
      ? "memory"
      : d.field.replace(/^(xmm|st)\d+$/, "$1").replace(/^r([a-d]x|[sd]i|bp|\d+)$/, "gpr"),
  );
  return [...new Set(kinds)].join(" ");
}

export class Minimiser {
  readonly #native: Native;
  readonly #emulated: Emulated;
  readonly #tests = new Records(1);
  readonly #results = new Records(1);
  readonly #ours = new Records(1);

  constructor(native: Native, emulated: Emulated) {
    this.#native = native;
    this.#emulated = emulated;
  }

  /** Runs one test on both sides. */
  async check(
    test: Uint8Array,
    instructions: readonly DraftInstruction[],
  ): Promise<readonly Difference[]> {
    this.#tests.bytes.set(test);
    await this.#native.run(0, this.#tests, 1);
    this.#native.results(0, this.#results, 1);
    this.#emulated.run(this.#tests, this.#ours, 1);
    const { keepsNestedTask } = this.#native.facts;
    const sides = { tests: this.#tests, native: this.#results, ours: this.#ours, keepsNestedTask };
    return judge(sides, 0, instructions).left;
  }

  /** Both results of the last check. */
  get results(): { native: Uint8Array; ours: Uint8Array } {
    return { native: this.#results.bytes, ours: this.#ours.bytes };
  }

  async minimise(finding: Finding): Promise<Finding> {
    const kind = kindOf(finding.differences);
    let best = finding;
    const attempt = async (
      test: Uint8Array,
      instructions: readonly DraftInstruction[],
    ): Promise<boolean> => {
      const differences = await this.check(test, instructions);
      if (differences.length === 0 || kindOf(differences) !== kind) return false;
      best = { ...best, test, instructions, differences };
      return true;
    };
    for (let i = finding.instructions.length - 1; i >= 0 && best.instructions.length > 1; i--) {
      const without = removeInstruction(best, i);
      if (without) await attempt(without.test, without.instructions);
    }
    for (const simplify of simplifications()) {
      const test = best.test.slice();
      simplify(new DataView(test.buffer), test);
      if (Buffer.compare(test, best.test) !== 0) await attempt(test, best.instructions);
    }
    return best;
  }
}

function removeInstruction(f: Finding, i: number): Pick<Finding, "test" | "instructions"> | null {
  const gone = f.instructions[i];
  if (!gone) return null;
  const test = f.test.slice();
  const length = test[Test.LENGTH]!;
  test.copyWithin(Test.CODE + gone.start, Test.CODE + gone.start + gone.length, Test.CODE + length);
  test.fill(INT3, Test.CODE + length - gone.length, Test.CODE + length);
  test[Test.LENGTH] = length - gone.length;
  test[Test.STEPS] = f.instructions.length - 1;
  const instructions = f.instructions
    .filter((_, k) => k !== i)
    .map((x) => (x.start > gone.start ? { ...x, start: x.start - gone.length } : x));
  return { test, instructions };
}

type Simplify = (view: DataView, bytes: Uint8Array) => void;

function simplifications(): Simplify[] {
  const list: Simplify[] = [];
  const zero = (from: number, count: number): void => {
    list.push((_, bytes) => bytes.fill(0, from, from + count));
  };
  list.push((view) => view.setBigUint64(Test.RFLAGS, 0n, true));
  for (let n = 0; n < 16; n++) if (n !== 4) zero(Test.GPR + 8 * n, 8);
  zero(Test.FX + Fx.XMM, 256);
  for (let n = 0; n < 16; n++) zero(Test.FX + Fx.XMM + 16 * n, 16);
  zero(Test.FX + Fx.ST, 128);
  for (let n = 0; n < 8; n++) zero(Test.FX + Fx.ST + 16 * n, 16);
  zero(Test.FX + Fx.FOP, 18);
  list.push((view) => view.setUint16(Test.FX + Fx.FCW, DEFAULT_FCW, true));
  zero(Test.FX + Fx.FSW, 2);
  list.push((view) => view.setUint8(Test.FX + Fx.FTW, 0xff));
  list.push((view) => view.setUint32(Test.FX + Fx.MXCSR, DEFAULT_MXCSR, true));
  zero(Test.WINDOW, WINDOW_BYTES);
  for (const step of [128, 8])
    for (let k = 0; k < WINDOW_BYTES; k += step) zero(Test.WINDOW + k, step);
  return list;
}
