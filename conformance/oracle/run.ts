/** One run of the oracle: generate, execute on both sides, compare, and account. */
import type { Difference } from "./compare.ts";
import { Coverage } from "./coverage.ts";
import type { DraftInstruction } from "./draft.ts";
import { Emulated, type OracleEngine } from "./emulated.ts";
import { Generator, type GeneratorOptions } from "./generator.ts";
import { judge, type Sides } from "./judge.ts";
import type { Native } from "./native.ts";
import { RECORD_BYTES, Records, Result } from "./records.ts";

export interface Finding {
  readonly index: number;
  readonly instructions: readonly DraftInstruction[];
  readonly differences: readonly Difference[];
  /** The test record. */
  readonly test: Uint8Array;
}

/** A difference as it was first met, with what our side said. */
interface Suspect extends Finding {
  readonly ours: Uint8Array;
}

/** Suspects that are looked at again; with more than that, something is wrong for good. */
const MAX_SUSPECTS = 256;
const REPETITIONS = 3;

interface Batch {
  readonly first: number;
  readonly count: number;
  readonly slot: number;
  readonly tests: Records;
  /** What each test is made of. */
  readonly plans: readonly (readonly DraftInstruction[])[];
}

export interface RunOptions extends GeneratorOptions {
  readonly count: number;
  readonly first?: number;
  readonly engine?: OracleEngine;
  /** Compare the native side with itself. */
  readonly selfCheck?: boolean;
  readonly onFinding: (finding: Finding) => void;
  readonly onProgress?: (done: number) => void;
}

export class Run {
  readonly coverage = new Coverage();
  /** Tests whose difference a rule of differences.ts excused, by rule. */
  readonly excused = new Map<string, number>();
  readonly emulated: Emulated;
  /**
   * Differences that did not come again when their test ran alone, three times, while our side said the same as before: a processor
   * gives one result, so what gave another is between it and us (interrupts, the hypervisor).
   */
  readonly unrepeated: Finding[] = [];
  tests = 0;
  /** Differences so far; when the run is over, those that came again. */
  findings = 0;
  readonly #suspects: Suspect[] = [];
  readonly #native: Native;
  readonly #options: RunOptions;
  readonly #generator: Generator;
  readonly #results: Records;
  readonly #ours: Records;
  readonly #buffers: readonly Records[];

  constructor(native: Native, options: RunOptions) {
    this.#native = native;
    this.#options = options;
    this.#generator = new Generator({ ...options, facts: native.facts });
    this.emulated = new Emulated(native.facts, options.engine);
    const { batch } = native;
    this.#results = new Records(batch);
    this.#ours = new Records(batch);
    this.#buffers = [new Records(batch), new Records(batch)];
  }

  /** Runs all tests. While the native side executes one batch, the previous one is emulated and compared. */
  async run(): Promise<void> {
    const { count, first = 0 } = this.#options;
    let pending: Batch | null = null;
    let running: Promise<void> | null = null;
    for (let done = 0, slot = 0; done < count; slot ^= 1) {
      const batch = this.#generate(first + done, Math.min(this.#native.batch, count - done), slot);
      await running;
      running = this.#native.run(slot, batch.tests, batch.count);
      if (pending) await this.#compare(pending, running);
      pending = batch;
      done += batch.count;
      this.#options.onProgress?.(this.tests);
    }
    await running;
    if (pending) await this.#compare(pending, null);
    for (const suspect of this.#suspects) await this.#lookAgain(suspect);
  }

  async #lookAgain(suspect: Suspect): Promise<void> {
    const { onFinding, selfCheck } = this.#options;
    if (selfCheck || !(await this.#isUnrepeated(suspect))) onFinding(suspect);
    else {
      this.findings--;
      this.unrepeated.push(suspect);
    }
  }

  async #isUnrepeated({ test, instructions, ours }: Suspect): Promise<boolean> {
    const { keepsNestedTask } = this.#native.facts;
    const tests = new Records(1);
    tests.bytes.set(test);
    const sides = { tests, native: this.#results, ours: this.#ours, keepsNestedTask };
    for (let i = 0; i < REPETITIONS; i++) {
      await this.#native.run(0, tests, 1);
      this.#native.results(0, this.#results, 1);
      this.emulated.run(tests, this.#ours, 1);
      if (Buffer.compare(this.#ours.record(0), ours) !== 0) return false;
      if (judge(sides, 0, instructions).left.length > 0) return false;
    }
    return true;
  }

  #generate(first: number, count: number, slot: number): Batch {
    const tests = this.#buffers[slot]!;
    const plans: (readonly DraftInstruction[])[] = [];
    const { draft } = this.#generator;
    for (let i = 0; i < count; i++) {
      this.#generator.generate(tests, i, first + i);
      plans.push(draft.instructions.slice());
    }
    return { first, count, slot, tests, plans };
  }

  /** `running`: what the native side is doing meanwhile. */
  async #compare(batch: Batch, running: Promise<void> | null): Promise<void> {
    this.#native.results(batch.slot, this.#results, batch.count);
    if (this.#options.selfCheck) {
      await running;
      await this.#native.run(batch.slot, batch.tests, batch.count);
      this.#native.results(batch.slot, this.#ours, batch.count);
    } else this.emulated.run(batch.tests, this.#ours, batch.count);
    const { keepsNestedTask } = this.#native.facts;
    const sides = { tests: batch.tests, native: this.#results, ours: this.#ours, keepsNestedTask };
    for (let i = 0; i < batch.count; i++) this.#compareOne(batch, sides, i);
    this.tests += batch.count;
  }

  #compareOne(batch: Batch, sides: Sides, i: number): void {
    const instructions = batch.plans[i]!;
    const status = sides.native.view.getUint32(i * RECORD_BYTES + Result.STATUS, true);
    this.coverage.add(instructions, status);
    const { left, rules } = judge(sides, i, instructions);
    for (const rule of rules) this.excused.set(rule, (this.excused.get(rule) ?? 0) + 1);
    if (left.length === 0) return;
    this.findings++;
    const test = batch.tests.record(i).slice();
    const ours = sides.ours.record(i).slice();
    const suspect = { index: batch.first + i, instructions, differences: left, test, ours };
    if (this.#suspects.length < MAX_SUSPECTS) this.#suspects.push(suspect);
    else this.#options.onFinding(suspect);
  }
}
