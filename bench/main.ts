/**
 * `npm run bench -- [NAME...]`: speed, measured here and now against native code and QEMU's TCG, in CPU time.
 *
 * A name is a program (program-table.ts) or "boot"; without names, all of them. Prints a table and writes the same as JSON.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { outputFolder } from "../conformance/harness/cache.ts";
import { engineNamed } from "../conformance/harness/engine.ts";
import { HypolithError } from "../src/base/errors.ts";
import { benchBoot } from "./boot-bench.ts";
import { compilerVersion } from "./build-programs.ts";
import { benchPrograms } from "./program-bench.ts";
import { PROGRAMS } from "./program-table.ts";
import { printBoot, printPrograms } from "./tables.ts";

const HELP = `npm run bench -- [OPTIONS] [NAME...]
  NAME              boot, ${PROGRAMS.map(({ name }) => name).join(", ")}; default: all
  --rounds N        measure N times, take the best of each (default 3)
  --scale F         F times the work in each program (default 1)
  --memory MIB      memory of the guests (default 512)
  --qemu-cpu MODEL  QEMU's processor model (default max)
  --no-qemu         leave QEMU out
  --engine NAMES    our engines: interpreter, jit, or both with a comma (default interpreter)
  --node OPTIONS    options for our machine's node, like "--cpu-prof"
  --json FILE       where the JSON goes (default .cache/bench/latest.json)`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  allowNegative: true,
  options: {
    rounds: { type: "string", default: "3" },
    scale: { type: "string", default: "1" },
    memory: { type: "string", default: "512" },
    "qemu-cpu": { type: "string", default: "max" },
    qemu: { type: "boolean", default: true },
    engine: { type: "string", default: "interpreter" },
    node: { type: "string", default: "" },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const options = {
  rounds: positive("rounds"),
  scale: positive("scale"),
  memoryMib: positive("memory"),
  qemuCpu: values["qemu-cpu"],
  withQemu: values.qemu && hasQemu(),
  engines: values.engine.split(",").map(engineNamed),
  nodeOptions: values.node.split(" ").filter((word) => word !== ""),
  progress: (text: string): void => {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  },
};

async function main(): Promise<void> {
  if (values.help) return console.log(HELP);
  const known = ["boot", ...PROGRAMS.map(({ name }) => name)];
  const unknown = positionals.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    const hint = `there are: ${known.join(", ")}`;
    throw new HypolithError("usage", `no benchmark is called ${unknown.join(", ")}`, { hint });
  }
  const wanted = new Set(positionals.length > 0 ? positionals : known);
  const machine = describeMachine();
  for (const line of Object.values(machine)) console.log(line);
  const programs = PROGRAMS.filter(({ name }) => wanted.has(name));
  const programResults = programs.length > 0 ? await benchPrograms(programs, options) : [];
  const boot = wanted.has("boot") ? await benchBoot(options) : undefined;
  options.progress("");
  if (programResults.length > 0) printPrograms(programResults);
  if (boot) printBoot(boot);
  const path = values.json ?? join(outputFolder("bench"), "latest.json");
  const report = { date: new Date().toISOString(), machine, programs: programResults, boot };
  writeFileSync(path, `${JSON.stringify(report, undefined, 1)}\n`);
  console.log(`\nJSON: ${path}`);
}

function positive(name: "rounds" | "scale" | "memory"): number {
  const value = Number(values[name]);
  if (value > 0) return value;
  throw new HypolithError("usage", `--${name} takes a positive number, not '${values[name]}'`);
}

function hasQemu(): boolean {
  try {
    execFileSync("qemu-system-x86_64", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    console.error("without QEMU: there is no qemu-system-x86_64 here");
    return false;
  }
}

function describeMachine(): Readonly<Record<string, string>> {
  const [cpu] = cpus();
  const qemu = options.withQemu
    ? execFileSync("qemu-system-x86_64", ["--version"], { encoding: "utf8" }).split("\n")[0]!
    : "no QEMU";
  return {
    processor: `${cpus().length} x ${cpu?.model.trim()}`,
    node: `Node ${process.version}, V8 ${process.versions.v8}`,
    qemu: `${qemu}, -cpu ${options.qemuCpu}`,
    compiler: compilerVersion(),
  };
}

try {
  await main();
} catch (error) {
  if (!(error instanceof HypolithError)) throw error;
  console.error(error.message);
  if (error.hint) console.error(`  try: ${error.hint}`);
  process.exitCode = 1;
}
