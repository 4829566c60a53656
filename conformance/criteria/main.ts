/**
 * `npm run criteria -- P1 | P1-A3 | all [--json] [--seed N]`: the acceptance criteria of the mechanisms.
 *
 * One line each: id, verdict, measured value, bar, time base, seed, run mode. The exit status is the verdict of all of them: 0 passed,
 * 1 not, 2 nothing like that to be tried.
 */
import { parseArgs } from "node:util";
import { HypolithError } from "../../src/base/errors.ts";
import { CRITERIA } from "./all.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { selectCriteria } from "./select.ts";

const DEFAULT_SEED = 1;

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    seed: { type: "string", default: String(DEFAULT_SEED) },
    verbose: { type: "boolean", default: false },
  },
});

async function main(): Promise<number> {
  const seed = Number(values.seed);
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new HypolithError("usage", `'${values.seed}' is no seed`);
  const chosen = selectCriteria(positionals, CRITERIA);
  const results = [];
  for (const criterion of chosen) {
    const started = performance.now();
    const result = await attempt(criterion, { seed, progress });
    progress("");
    const seconds = (performance.now() - started) / 1000;
    results.push({ ...describe(criterion, seed), ...result, seconds });
    if (!values.json) print(criterion, result, seed, seconds);
  }
  const failed = results.filter(({ passed }) => !passed);
  if (values.json)
    console.log(JSON.stringify({ passed: failed.length === 0, results }, undefined, 1));
  else console.log(`${results.length - failed.length} of ${results.length} criteria passed`);
  return failed.length === 0 ? 0 : 1;
}

async function attempt(criterion: Criterion, context: CriterionContext): Promise<CriterionResult> {
  try {
    return await criterion.run(context);
  } catch (error) {
    const isExpected = error instanceof HypolithError;
    const { message, stack = "" } = error as Error;
    return {
      passed: false,
      measured: `not tried: ${message}`,
      details: isExpected ? (error.hint ? [`try: ${error.hint}`] : []) : stack.split("\n"),
    };
  }
}

function describe({ id, title, bar, timeBase, runMode, isSeeded }: Criterion, seed: number) {
  return { id, title, bar, timeBase, seed: isSeeded ? seed : null, runMode };
}

function print(
  { id, title, bar, timeBase, runMode, isSeeded }: Criterion,
  { passed, measured, details = [] }: CriterionResult,
  seed: number,
  seconds: number,
): void {
  const parts = [
    `${id} ${passed ? "pass" : "FAIL"}`,
    measured,
    `bar: ${bar}`,
    `time: ${timeBase}`,
    `seed: ${isSeeded ? seed : "-"}`,
    `mode: ${runMode}`,
    `${seconds.toFixed(1)} s`,
  ];
  console.log(parts.join(" | "));
  if (passed && !values.verbose) return;
  console.log(`  ${title}`);
  for (const line of details) console.log(`  ${line}`);
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

try {
  process.exit(await main());
} catch (error) {
  if (!(error instanceof HypolithError)) throw error;
  console.error(error.message);
  if (error.hint) console.error(`  try: ${error.hint}`);
  process.exit(2);
}
