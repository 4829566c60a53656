/**
 * With the deterministic clock two boots are the same: every VM exit at the same instruction and time, the same state at the end.
 * Two runs: `deterministic` boots twice on the chosen engine, `engines` once on each.
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ENGINES, type EngineName } from "../../src/control/protocol.ts";
import { bootFiles } from "../harness/boot.ts";
import { digest, outputFolder } from "../harness/cache.ts";
import { chosenEngine } from "../harness/engine.ts";
import type { BootFiles } from "../harness/guest-machine.ts";
import { guestKernel } from "../harness/kernels.ts";
import { NESTED_CPU, nestedFiles } from "../harness/nested-guest.ts";
import { ProcessMachine } from "../harness/process-machine.ts";
import type { Report } from "../harness/report.ts";

/** Timers, processes, random numbers and files, so that there is something to differ in. */
const COMMANDS = [
  "uname -a",
  "cat /proc/uptime /proc/interrupts",
  "for i in $(seq 30); do echo $i $(date +%s%N) | sha256sum; done",
  "dd if=/dev/urandom bs=4k count=64 2>/dev/null | sha256sum",
  "sleep 1.3",
  "find /sys /proc/sys -type f 2>/dev/null | sort | sha256sum",
  "cat /proc/uptime",
  "dmesg",
];

const NESTED_VMS = 3;
const NESTED_COMMANDS = [
  ...Array.from({ length: NESTED_VMS }, () => "/lab/kvm-hello"),
  "cat /proc/uptime /proc/interrupts",
  "dmesg",
];
const CPU_MODEL = "x86-64-v2";
const LEAST_EXITS = 1000;
const NEWLINE = 10;

interface Outcome {
  readonly console: string;
  readonly trace: Uint8Array;
  readonly stateHash: string;
}

export async function deterministic(report: Report): Promise<void> {
  await compareBoots(report, [chosenEngine(), chosenEngine()], await plain());
}

export async function engines(report: Report): Promise<void> {
  await compareBoots(report, ENGINES, await plain());
}

/** The same with KVM in the guest, and VMs in it: once on the interpreter, twice on the region tier. */
export async function deterministicNested(report: Report): Promise<void> {
  const machine = { files: await nestedFiles(NESTED_COMMANDS), cpuModel: NESTED_CPU };
  const [first] = await compareBoots(report, ["interpreter", "jit", "jit"], machine);
  const vms = first!.console.match(/real mode\r?\nhalted/g)?.length ?? 0;
  report.check(
    vms === NESTED_VMS,
    `${vms} of ${NESTED_VMS} virtual machines have run in the guest`,
  );
}

interface DeterministicMachine {
  readonly files: BootFiles;
  readonly cpuModel: string;
}

async function plain(): Promise<DeterministicMachine> {
  const files = bootFiles(await guestKernel("cloud"), { commands: COMMANDS });
  return { files, cpuModel: CPU_MODEL };
}

async function compareBoots(
  report: Report,
  choice: readonly EngineName[],
  machine: DeterministicMachine,
): Promise<readonly Outcome[]> {
  const outcomes = await inTurn(choice, (engine) => bootOnce(report, machine, engine));
  const [first, ...others] = outcomes;
  const lines = first!.trace.reduce((count, byte) => count + (byte === NEWLINE ? 1 : 0), 0);
  report.fact(`exit log: ${lines} lines, SHA-256 ${digest(first!.trace).slice(0, 16)}`);
  report.check(lines > LEAST_EXITS, "the exit log has been written");
  for (const other of others) {
    report.check(Buffer.compare(first!.trace, other.trace) === 0, "the exit logs are equal");
    report.equal(other.stateHash, first!.stateHash, "the state hashes are equal");
    report.check(first!.console === other.console, "the consoles are equal");
    const place = firstDifference(first!.trace, other.trace);
    if (place) report.fact(`they part at: ${place}`);
  }
  return outcomes;
}

async function bootOnce(
  report: Report,
  { files, cpuModel }: DeterministicMachine,
  engine: EngineName,
): Promise<Outcome> {
  const tracePath = join(outputFolder("deterministic"), `${process.pid}.log`);
  const machine = new ProcessMachine({
    ...files,
    clock: "deterministic",
    cpuModel,
    engine,
    tracePath,
  });
  const { kind, message = "", dump = "" } = await machine.stopped;
  const end = await machine.report;
  report.equal(kind, "poweroff", `${engine}: ends by poweroff (${message})${dump}`);
  report.fact(`${engine}: ${end?.retired} instructions, state ${end?.stateHash}`);
  const trace = readFileSync(tracePath);
  rmSync(tracePath);
  return { console: machine.consoleText(), trace, stateHash: end?.stateHash ?? "none" };
}

async function inTurn<T, R>(items: readonly T[], act: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (const item of items) results.push(await act(item));
  return results;
}

function firstDifference(a: Uint8Array, b: Uint8Array): string | undefined {
  const left = Buffer.from(a).toString("latin1").split("\n");
  const right = Buffer.from(b).toString("latin1").split("\n");
  const at = left.findIndex((line, index) => line !== right[index]);
  return at < 0 ? undefined : `line ${at + 1}: ${left[at]} | ${right[at]}`;
}
