/**
 * `npm run bench -- [NAME...]`: speed, measured here and now against native code and QEMU's TCG, in CPU time.
 *
 * Prints tables and writes the same as JSON. The exit status is 1 if something failed or gave another result than it gives natively.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { outputFolder } from "../conformance/harness/cache.ts";
import { engineNamed } from "../conformance/harness/engine.ts";
import { QEMU } from "../conformance/harness/qemu-machine.ts";
import { HypolithError } from "../src/base/errors.ts";
import { ENGINES } from "../src/control/protocol.ts";
import { benchBoot } from "./boot-bench.ts";
import { compilerVersion } from "./build-programs.ts";
import { benchCold } from "./cold-bench.ts";
import { V2_TERMS } from "./even-terms.ts";
import { QEMU_NAME } from "./guests.ts";
import { benchImage } from "./image-bench.ts";
import { programImage, realImage } from "./images.ts";
import { benchIo, printIo } from "./io-bench.ts";
import type { BenchOptions } from "./options.ts";
import { workloadOf } from "./program-table.ts";
import { NAMES, type Selection, select } from "./selection.ts";
import { benchServices } from "./services-bench.ts";
import { benchSnapshot, printSnapshot } from "./snapshot-bench.ts";
import { type Summary, summarize } from "./summary.ts";
import { printBoot, printCold, printGroup, printServices } from "./tables.ts";
import { benchV86, V86_NAME } from "./v86-bench.ts";
import { benchVmx, printVmx } from "./vmx-bench.ts";
import { GROUPS, NATIVE, type RowResult } from "./workload.ts";

const HELP = `npm run bench -- [OPTIONS] [NAME...]
  NAME              a group or rows of it; default: all
${NAMES.map(([group, names]) => `    ${group.padEnd(12)}    ${names.join(" ")}`.trimEnd()).join("\n")}
  --rounds N        measure N times, take the best of each (default 3)
  --scale F         F times the work in the rows of micro and system (default 1)
  --memory MIB      memory of the guests (default 512, with a userland at least 1024)
  --qemu-cpu MODEL  QEMU's processor model (default: as near to ours as it goes)
  --no-qemu         leave QEMU out
  --engine NAMES    our engines, with commas: ${ENGINES.join(", ")} (default interpreter)
  --node OPTIONS    options for our machine's node, like "--cpu-prof"
  --json FILE       where the JSON goes (default .cache/bench/latest.json)`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  allowNegative: true,
  options: {
    rounds: { type: "string", default: "3" },
    scale: { type: "string", default: "1" },
    memory: { type: "string", default: "512" },
    "qemu-cpu": { type: "string" },
    qemu: { type: "boolean", default: true },
    engine: { type: "string", default: "interpreter" },
    node: { type: "string", default: "" },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

async function main(): Promise<void> {
  if (values.help) return console.log(HELP);
  const selection = select(positionals);
  const options = chosenOptions();
  const machine = describeMachine(options);
  for (const text of Object.values(machine)) console.log(text);
  const rows: RowResult[] = [];
  const { programs, real } = selection;
  if (programs.length > 0) {
    const workloads = programs.map((program) => workloadOf(program, options.scale));
    rows.push(...(await benchImage(await programImage(programs), workloads, options)));
  }
  if (real.length > 0) rows.push(...(await benchImage(await realImage(), real, options)));
  const cold = selection.hasCold ? await benchCold(options) : undefined;
  const boot = selection.hasBoot ? await benchBoot(options) : undefined;
  const services = selection.hasServices ? await benchServices(options) : undefined;
  const vmx = selection.hasVmx ? benchVmx(options) : undefined;
  const snapshot = selection.hasSnapshot
    ? await benchSnapshot(options.rounds, options.memoryMib, options.progress)
    : undefined;
  const io = selection.io.length > 0 ? await benchIo(selection.io, options) : undefined;
  const v86Rows = await v86RowsOf(selection, options);
  options.progress("");
  const qemu = options.withQemu ? [QEMU_NAME] : [];
  const groups = [
    ...printGroups(rows, qemu, "", options),
    ...printGroups(v86Rows, [...qemu, V86_NAME], "v86-", options),
  ];
  if (cold) printCold(cold);
  if (boot) printBoot(boot);
  if (services) printServices(services);
  if (vmx) printVmx(vmx);
  if (snapshot) printSnapshot(snapshot);
  if (io) printIo(io, options);
  const path = values.json ?? join(outputFolder("bench"), "latest.json");
  const results = { cold, boot, services, vmx, snapshot, io };
  const report = { date: new Date().toISOString(), machine, groups, ...results };
  writeFileSync(path, `${JSON.stringify(report, undefined, 1)}\n`);
  console.log(`\nJSON: ${path}`);
  const failures = [...rows, ...(cold ? [cold] : []), ...(io ?? [])].flatMap((row) =>
    Object.keys(row.failures),
  );
  // What v86 itself cannot run is its own affair.
  failures.push(...v86Rows.flatMap((row) => Object.keys(row.failures).filter(isNotV86)));
  if (failures.length > 0) process.exitCode = 1;
}

const isNotV86 = (name: string): boolean => name !== V86_NAME;

/** It needs more than the others do of the system it runs on; without that the rest still counts. */
async function v86RowsOf(
  { v86Programs, v86Real }: Selection,
  options: BenchOptions,
): Promise<readonly RowResult[]> {
  if (v86Programs.length === 0 && v86Real.length === 0) return [];
  try {
    return await benchV86(v86Programs, v86Real, options);
  } catch (error) {
    if (!(error instanceof HypolithError) || positionals.length > 0) throw error;
    console.error(`without v86: ${error.message}${error.hint ? ` (${error.hint})` : ""}`);
    return [];
  }
}

interface GroupReport {
  readonly name: string;
  readonly rows: readonly RowResult[];
  readonly summaries: readonly Summary[];
}

/** Prints `all` by their groups; `prefix` goes before the groups' names. */
function printGroups(
  all: readonly RowResult[],
  peers: readonly string[],
  prefix: string,
  { engines }: BenchOptions,
): GroupReport[] {
  return GROUPS.flatMap((group) => {
    const rows = all.filter((row) => row.group === group);
    if (rows.length === 0) return [];
    const tookPart = (name: string): boolean =>
      rows.some(({ samples, failures }) => name in samples || name in failures);
    const contestants = [NATIVE, ...peers, ...engines].filter(tookPart);
    const name = prefix + group;
    printGroup(name, rows, { contestants, peers });
    const summaries = peers.flatMap((peer) =>
      engines.flatMap((engine) => summarize(rows, engine, peer) ?? []),
    );
    return [{ name, rows, summaries }];
  });
}

function chosenOptions(): BenchOptions {
  return {
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
}

function positive(name: "rounds" | "scale" | "memory"): number {
  const value = Number(values[name]);
  if (value > 0) return value;
  throw new HypolithError("usage", `--${name} takes a positive number, not '${values[name]}'`);
}

function qemuVersion(): string {
  return execFileSync(QEMU, ["--version"], { encoding: "utf8", stdio: "pipe" }).split("\n")[0]!;
}

function hasQemu(): boolean {
  try {
    qemuVersion();
    return true;
  } catch {
    console.error(`without QEMU: there is no ${QEMU} here`);
    return false;
  }
}

function describeMachine(options: BenchOptions): Readonly<Record<string, string>> {
  const [cpu] = cpus();
  return {
    processor: `${cpus().length} x ${cpu?.model.trim()}`,
    node: `Node ${process.version}, V8 ${process.versions.v8}`,
    qemu: options.withQemu
      ? `${qemuVersion()}, -cpu ${options.qemuCpu ?? V2_TERMS.qemuCpu}`
      : "no QEMU",
    compiler: compilerVersion(),
  };
}

// By way of exit, where machines are ended and what they were booted from is removed.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    console.error(`ended by ${signal}`);
    process.exit(130);
  });
}
try {
  await main();
} catch (error) {
  if (!(error instanceof HypolithError)) throw error;
  console.error(error.message);
  if (error.hint) console.error(`  try: ${error.hint}`);
  process.exitCode = 1;
}
