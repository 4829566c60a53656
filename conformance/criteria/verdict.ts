/** Complaints of a criterion, and what comes of them. */
import type { CriterionResult } from "./criterion.ts";

export class Complaints {
  readonly #list: string[] = [];
  #checks = 0;

  /** Counts a check; `text` says what is wrong if it fails. */
  check(holds: boolean, text: () => string): void {
    this.#checks++;
    if (!holds) this.#list.push(text());
  }

  equal(got: unknown, wanted: unknown, what: () => string): void {
    const [a, b] = [show(got), show(wanted)];
    this.check(a === b, () => `${what()}: ${a}, not ${b}`);
  }

  /** `measured` is what is said if there is none. */
  verdict(measured: string, details: readonly string[] = []): CriterionResult {
    const [first] = this.#list;
    const count = this.#list.length;
    return {
      passed: count === 0,
      measured:
        first === undefined
          ? `${measured} (${this.#checks} checks)`
          : `${count} of ${this.#checks} checks failed: ${first}`,
      details: [...this.#list.slice(0, 20), ...details],
    };
  }
}

function show(value: unknown): string {
  return JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `0x${v.toString(16)}` : v));
}
