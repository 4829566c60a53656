/** The verdict on one test: what differs beyond undefined flags and what differences.ts explains. */
import { Case } from "./case.ts";
import { comparedFlags, type Difference, differences, isEqual } from "./compare.ts";
import { excuse } from "./differences.ts";
import type { DraftInstruction } from "./draft.ts";
import { RECORD_BYTES, type Records, Result, Status, Test } from "./records.ts";
import { branches } from "./rows.ts";
import { CODE } from "./world.ts";

/** Tests and both results of a batch, record by record. */
export interface Sides {
  readonly tests: Records;
  readonly native: Records;
  readonly ours: Records;
  /** RFLAGS.NT survives on the native side. */
  readonly keepsNestedTask: boolean;
}

export interface Verdict {
  readonly left: readonly Difference[];
  /** Rules that explained others. */
  readonly rules: readonly string[];
}

const EQUAL: Verdict = { left: [], rules: [] };

/**
 * RFLAGS bits without meaning when a test has ended at `rip`, relative to its code: before an instruction that faulted or is not finished,
 * or after the last one. A branch may lead to the start of another; where repetitions take steps too, nothing tells whether it has.
 */
function undefinedAt(
  instructions: readonly DraftInstruction[],
  rip: number,
  status: number,
): number {
  const last = instructions.at(-1);
  const isBranch = last?.row != null && branches(last.row.sem);
  const mayHaveJumped = isBranch && status === Status.DONE;
  const jumped = mayHaveJumped && !instructions.some((x) => x.repeats);
  const i = jumped ? -1 : instructions.findIndex((x) => x.start === rip);
  const atEnd = last?.undefinedFlags ?? 0;
  if (i < 0) return atEnd;
  return (instructions[i - 1]?.undefinedFlags ?? 0) | (mayHaveJumped ? atEnd : 0);
}

/** Compares both results of test i. Hot path: nearly all are equal. */
export function judge(sides: Sides, i: number, instructions: readonly DraftInstruction[]): Verdict {
  const { tests, native, ours } = sides;
  const at = i * RECORD_BYTES;
  const start = CODE + tests.view.getUint16(at + Test.OFFSET, true);
  const rip = Number(native.view.getBigUint64(at + Result.RIP, true)) - start;
  const status = native.view.getUint32(at + Result.STATUS, true);
  const undefinedFlags = undefinedAt(instructions, rip, status);
  const flags = comparedFlags(undefinedFlags, sides.keepsNestedTask);
  if (isEqual(native, ours, i, flags)) return EQUAL;
  const records = { test: tests.record(i), native: native.record(i), ours: ours.record(i) };
  return excuse(differences(native, ours, i, flags), new Case(instructions, records));
}
