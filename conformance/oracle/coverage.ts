/** Which rows the tests of a run have executed natively, and in which forms. */
import type { Mode } from "../../src/processor/isa/instruction.ts";
import type { Row } from "../../src/processor/isa/row.ts";
import type { DraftInstruction } from "./draft.ts";
import { Status } from "./records.ts";
import { EXCLUDED_ROWS, exclusion, existsIn, rowName, TESTED_ROWS } from "./rows.ts";

/** Rows of which ring 3 sees only a fault: privileged ones, and those that mean one. */
const FAULTS_ONLY = new Set([
  "ud",
  "int",
  "int3",
  "into",
  "in",
  "out",
  "ins",
  "outs",
  "cli",
  "sti",
  "rdpmc",
  "xgetbv",
  "bound",
]);

export interface CoverageReport {
  /** Rows that the machine can run, and those of them that have run. */
  readonly rows: number;
  readonly covered: number;
  readonly missing: readonly string[];
  /** Rows of modes that the native machine does not offer. */
  readonly unavailable: readonly string[];
  readonly excluded: readonly { readonly row: string; readonly reason: string }[];
}

export class Coverage {
  /** By row id: tests with the row, and tests that ran to their end with it. */
  readonly #seen = new Map<Row, number>();
  readonly #completed = new Map<Row, number>();

  add(instructions: readonly DraftInstruction[], status: number): void {
    for (const { row } of instructions) {
      if (!row) continue;
      this.#seen.set(row, (this.#seen.get(row) ?? 0) + 1);
      if (status === Status.DONE) this.#completed.set(row, (this.#completed.get(row) ?? 0) + 1);
    }
  }

  /** A row is covered once it has run to completion natively, or has faulted if it can do nothing else. */
  isCovered(row: Row): boolean {
    if (this.#completed.has(row)) return true;
    return (row.cpl0 || FAULTS_ONLY.has(row.sem)) && this.#seen.has(row);
  }

  /** `modes`: those of the run. */
  report(modes: readonly Mode[]): CoverageReport {
    const possible = TESTED_ROWS.filter((row) => modes.some((mode) => existsIn(row, mode)));
    const missing = possible.filter((row) => !this.isCovered(row));
    return {
      rows: possible.length,
      covered: possible.length - missing.length,
      missing: missing.map(rowName),
      unavailable: TESTED_ROWS.filter((row) => !possible.includes(row)).map(rowName),
      excluded: EXCLUDED_ROWS.map((row) => ({ row: rowName(row), reason: exclusion(row)! })),
    };
  }
}
