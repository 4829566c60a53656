/** The account of one conformance run: facts and checks as they come, a verdict at the end. */
export class Report {
  readonly #name: string;
  readonly #started = performance.now();
  #checks = 0;
  #failures = 0;

  constructor(name: string) {
    this.#name = name;
    console.log(`== ${name}`);
  }

  fact(text: string): void {
    console.log(`   ${text}`);
  }

  check(condition: boolean, what: string): void {
    this.#checks++;
    if (!condition) this.#failures++;
    console.log(`${condition ? " ok" : "NOT OK"} ${what}`);
  }

  equal(actual: string, expected: string, what: string): void {
    const isEqual = actual === expected;
    this.check(isEqual, isEqual ? what : `${what}: ${brief(actual)}, expected ${brief(expected)}`);
  }

  /** True if nothing failed and something was checked. */
  finish(): boolean {
    const passed = this.#failures === 0 && this.#checks > 0;
    const seconds = ((performance.now() - this.#started) / 1000).toFixed(1);
    const score = `${this.#checks - this.#failures} of ${this.#checks} checks, ${seconds} s`;
    console.log(`== ${this.#name}: ${passed ? "pass" : "FAIL"} (${score})\n`);
    return passed;
  }
}

function brief(text: string): string {
  const quoted = JSON.stringify(text);
  return quoted.length > 300 ? `${quoted.slice(0, 300)}...` : quoted;
}
