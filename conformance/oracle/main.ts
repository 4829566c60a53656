/**
 * `npm run oracle -- [--count N] [--seed S] [--rows add,shl] [--mode 64|32|16] [--first I] [--index I] [--json] [--engine jit] [--self-check]`
 *
 * Runs generated ring-3 tests on the processor of this machine and on ours, and reports what differs. Exit status 0: nothing differs, and
 * in a run of a million tests or more all rows were covered; 1: something differs or is not covered; 2: the oracle cannot run here.
 *   --index I     one test of the run, with both results in full
 *   --engine      our processor's engine: interpreter (default), or jit, which compiles every block when it is first entered
 *   --self-check  the native processor against itself: what differs then is no property of the processor
 */
import { parseArgs } from "node:util";
import type { Mode } from "../../src/processor/isa/instruction.ts";
import { formatDifference } from "./compare.ts";
import { RULES } from "./differences.ts";
import type { OracleEngine } from "./emulated.ts";
import { Generator, type GeneratorOptions, modesFor } from "./generator.ts";
import { kindOf, Minimiser } from "./minimise.ts";
import { missingForNative, Native } from "./native.ts";
import { Records } from "./records.ts";
import { codeOf, formatCoverage, formatFinding, inputOf, rowsOf } from "./report.ts";
import { type Finding, Run } from "./run.ts";

const BATCH = 2048;
const DEFAULT_COUNT = 100_000;
const COVERAGE_COUNT = 1_000_000;
const MAX_KINDS = 40;
const PROGRESS_MS = 10_000;

const { values } = parseArgs({
  options: {
    count: { type: "string", default: `${DEFAULT_COUNT}` },
    seed: { type: "string", default: "1" },
    first: { type: "string", default: "0" },
    rows: { type: "string" },
    mode: { type: "string" },
    index: { type: "string" },
    json: { type: "boolean", default: false },
    engine: { type: "string", default: "interpreter" },
    "self-check": { type: "boolean", default: false },
  },
});

function number(name: "count" | "seed" | "first" | "index"): number {
  const n = Number(values[name]);
  if (Number.isSafeInteger(n) && n >= 0) return n;
  console.error(`--${name} wants a whole number`);
  process.exit(2);
}

function mode(): Mode | undefined {
  const n = Number(values.mode);
  if (values.mode === undefined) return undefined;
  if (n === 16 || n === 32 || n === 64) return n;
  console.error("--mode wants 16, 32 or 64");
  process.exit(2);
}

function engine(): OracleEngine {
  if (values.engine === "interpreter" || values.engine === "jit") return values.engine;
  console.error("--engine wants interpreter or jit");
  process.exit(2);
}

const missing = missingForNative();
if (missing !== null) {
  console.error(`oracle: ${missing}`);
  process.exit(2);
}
const native = await Native.start(BATCH);
const seed = number("seed");
const wantedMode = mode();
const options: GeneratorOptions = {
  seed,
  facts: native.facts,
  ...(wantedMode ? { mode: wantedMode } : {}),
  ...(values.rows ? { rows: values.rows.toLowerCase().split(",") } : {}),
};
const modes = [...new Set(modesFor(options))];
if (
  modes.some(
    (m) => (m === 32 && !native.facts.hasCode32) || (m === 16 && !native.facts.hasLocalTable),
  )
) {
  console.error(`oracle: this machine offers no ${wantedMode}-bit code`);
  process.exit(2);
}
process.exitCode = values.index === undefined ? await runAll() : await showOne(number("index"));
native.close();

async function runAll(): Promise<number> {
  const count = number("count");
  // One example of each kind of difference for each row.
  const examples = new Map<string, { finding: Finding; count: number }>();
  let printed = performance.now();
  const run = new Run(native, {
    ...options,
    count,
    first: number("first"),
    selfCheck: values["self-check"],
    engine: engine(),
    onFinding: (finding) => {
      const rows = finding.instructions.length === 1 ? rowsOf(finding) : "sequence";
      const key = `${rows}: ${kindOf(finding.differences)}`;
      const known = examples.get(key);
      if (known) known.count++;
      else examples.set(key, { finding, count: 1 });
    },
    onProgress: (done) => {
      if (performance.now() - printed < PROGRESS_MS) return;
      printed = performance.now();
      console.error(`${done} tests, ${run.findings} different`);
    },
  });
  const start = performance.now();
  await run.run();
  const seconds = (performance.now() - start) / 1000;
  const coverage = run.coverage.report(modes);
  const minimiser = new Minimiser(native, run.emulated);
  const findings: string[] = [];
  for (const [, { finding, count: n }] of [...examples].slice(0, MAX_KINDS)) {
    const small = values["self-check"] ? finding : await minimiser.minimise(finding);
    findings.push(`${n} x ${formatFinding(small, seed)}`);
  }
  const excused = Object.fromEntries([...run.excused].sort((a, b) => b[1] - a[1]));
  if (values.json) {
    console.log(
      JSON.stringify(
        {
          ...{ seed, tests: run.tests, different: run.findings, findings },
          unrepeated: run.unrepeated.map((f) => formatFinding(f, seed)),
          ...{ modes, coverage, excused },
        },
        null,
        2,
      ),
    );
  } else {
    const rate = Math.round(run.tests / seconds);
    console.log(
      `${run.tests} tests, seed ${seed}, ${modes.join("/")}-bit code: ${run.findings} different (${rate} tests/s)`,
    );
    for (const line of findings) console.log(line);
    for (const f of run.unrepeated) console.log(`not repeated: ${formatFinding(f, seed)}`);
    if (examples.size > MAX_KINDS) console.log(`... ${examples.size - MAX_KINDS} more kinds`);
    console.log(formatCoverage(coverage));
    console.log("explained differences:");
    for (const [name, n] of Object.entries(excused)) {
      console.log(`  ${n} ${name}: ${RULES.find((r) => r.name === name)!.why}`);
    }
  }
  const isComplete =
    coverage.missing.length === 0 || values.rows !== undefined || count < COVERAGE_COUNT;
  return run.findings === 0 && isComplete ? 0 : 1;
}

/** One test in full. */
async function showOne(index: number): Promise<number> {
  const generator = new Generator(options);
  const tests = new Records(1);
  generator.generate(tests, 0, index);
  const { instructions } = generator.draft;
  const { Emulated } = await import("./emulated.ts");
  const minimiser = new Minimiser(native, new Emulated(native.facts, engine()));
  const differences = await minimiser.check(tests.bytes, instructions);
  console.log(`rows: ${rowsOf({ instructions })}`);
  console.log(`code: ${codeOf({ test: tests.bytes, instructions })}`);
  console.log(`in:   ${inputOf(tests.bytes)}`);
  for (const d of differences) console.log(`differs: ${formatDifference(d)}`);
  if (differences.length === 0) console.log("nothing differs that is not explained");
  return differences.length === 0 ? 0 : 1;
}
