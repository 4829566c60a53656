/** One run of the oracle: generate, execute on both sides, compare, and account. */
import { Case } from "./case.ts";
import { comparedFlags, type Difference, differences, isEqual } from "./compare.ts";
import { Coverage } from "./coverage.ts";
import { excuse } from "./differences.ts";
import type { DraftInstruction } from "./draft.ts";
import { Emulated } from "./emulated.ts";
import { Generator, type GeneratorOptions } from "./generator.ts";
import type { Native } from "./native.ts";
import { RECORD_BYTES, Records, Result, Status, Test } from "./records.ts";
import { branches } from "./rows.ts";
import { CODE } from "./world.ts";

export interface Finding {
  readonly index: number;
  readonly instructions: readonly DraftInstruction[];
  readonly differences: readonly Difference[];
  readonly undefinedFlags: number;
  /** The test record. */
  readonly test: Uint8Array;
}

/** What a test is made of, kept while its batch is under way. */
interface Plan {
  readonly instructions: readonly DraftInstruction[];
}

interface Batch {
  readonly first: number;
  readonly count: number;
  readonly slot: number;
  readonly tests: Records;
  readonly plans: Plan[];
}

export interface RunOptions extends GeneratorOptions {
  readonly count: number;
  readonly first?: number;
  /** Compare the native side with itself. */
  readonly selfCheck?: boolean;
  readonly onFinding: (finding: Finding) => void;
  readonly onProgress?: (done: number) => void;
}

/**
 * RFLAGS bits without meaning when a test has ended at `rip`, relative to its code: before an instruction that faulted or is not finished,
 * or after the last one.
 */
function undefinedAt(
  instructions: readonly DraftInstruction[],
  rip: number,
  status: number,
): number {
  const last = instructions.at(-1);
  const jumped = status === Status.DONE && last?.row != null && branches(last.row.sem);
  const i = jumped ? -1 : instructions.findIndex((x) => x.start === rip);
  return (i < 0 ? last : instructions[i - 1])?.undefinedFlags ?? 0;
}

export class Run {
  readonly coverage = new Coverage();
  /** Tests whose difference a rule of differences.ts excused, by rule. */
  readonly excused = new Map<string, number>();
  tests = 0;
  findings = 0;
  readonly #native: Native;
  readonly #emulated: Emulated;
  readonly #options: RunOptions;
  readonly #generator: Generator;
  readonly #results: Records;
  readonly #ours: Records;
  readonly #buffers: readonly Records[];

  constructor(native: Native, options: RunOptions) {
    this.#native = native;
    this.#options = options;
    this.#generator = new Generator({ ...options, facts: native.facts });
    this.#emulated = new Emulated(native.facts);
    const { batch } = native;
    this.#results = new Records(batch);
    this.#ours = new Records(batch);
    this.#buffers = [new Records(batch), new Records(batch)];
  }

  get emulated(): Emulated {
    return this.#emulated;
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
      if (pending) await this.#compare(pending);
      pending = batch;
      done += batch.count;
      this.#options.onProgress?.(this.tests);
    }
    await running;
    if (pending) await this.#compare(pending);
  }

  #generate(first: number, count: number, slot: number): Batch {
    const tests = this.#buffers[slot]!;
    const plans: Plan[] = [];
    const { draft } = this.#generator;
    for (let i = 0; i < count; i++) {
      this.#generator.generate(tests, i, first + i);
      plans.push({ instructions: draft.instructions.slice() });
    }
    return { first, count, slot, tests, plans };
  }

  async #compare(batch: Batch): Promise<void> {
    this.#native.results(batch.slot, this.#results, batch.count);
    if (this.#options.selfCheck) {
      await this.#native.run(batch.slot, batch.tests, batch.count);
      this.#native.results(batch.slot, this.#ours, batch.count);
    } else this.#emulated.run(batch.tests, this.#ours, batch.count);
    for (let i = 0; i < batch.count; i++) this.#compareOne(batch, i);
    this.tests += batch.count;
  }

  #compareOne(batch: Batch, i: number): void {
    const plan = batch.plans[i]!;
    this.coverage.add(
      plan.instructions,
      this.#results.view.getUint32(i * RECORD_BYTES + Result.STATUS, true),
      this.#executed(i),
    );
    const at = i * RECORD_BYTES;
    const rip = this.#executed(i) - CODE - batch.tests.view.getUint16(at + Test.OFFSET, true);
    const undefinedFlags = undefinedAt(
      plan.instructions,
      rip,
      this.#results.view.getUint32(at + Result.STATUS, true),
    );
    const flags = comparedFlags(undefinedFlags, this.#native.facts.keepsNestedTask);
    if (isEqual(this.#results, this.#ours, i, flags)) return;
    const test = batch.tests.record(i);
    const records = { test, native: this.#results.record(i), ours: this.#ours.record(i) };
    const found = differences(this.#results, this.#ours, i, flags);
    const { left, rules } = excuse(found, new Case(plan.instructions, records));
    for (const rule of rules) this.excused.set(rule, (this.excused.get(rule) ?? 0) + 1);
    if (left.length === 0) return;
    this.findings++;
    this.#options.onFinding({
      index: batch.first + i,
      instructions: plan.instructions,
      differences: left,
      undefinedFlags,
      test: test.slice(),
    });
  }

  /** RIP after the test on the native side. */
  #executed(i: number): number {
    return Number(this.#results.view.getBigUint64(i * RECORD_BYTES + Result.RIP, true));
  }
}
