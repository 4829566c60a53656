/** With the deterministic clock two boots are the same: every VM exit at the same instruction and time, the same state at the end. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { bootFiles } from "../harness/boot.ts";
import { digest, outputFolder } from "../harness/cache.ts";
import { guestKernel } from "../harness/kernels.ts";
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

interface Outcome {
  readonly console: string;
  readonly trace: Uint8Array;
  readonly stateHash: string;
}

export async function deterministic(report: Report): Promise<void> {
  const kernel = await guestKernel("cloud");
  const files = bootFiles(kernel, { commands: COMMANDS });
  const run = async (name: string): Promise<Outcome> => {
    const tracePath = join(outputFolder("deterministic"), `${process.pid}-${name}.log`);
    const machine = new ProcessMachine({
      ...files,
      clock: "deterministic",
      cpuModel: "x86-64-v2",
      tracePath,
    });
    const { kind, message, dump } = await machine.stopped;
    const end = await machine.report;
    report.equal(kind, "poweroff", `${name}: ends by poweroff ${message ?? ""}${dump ?? ""}`);
    report.fact(`${name}: ${end?.retired} instructions, state ${end?.stateHash}`);
    const trace = readFileSync(tracePath);
    rmSync(tracePath);
    return { console: machine.consoleText(), trace, stateHash: end?.stateHash ?? name };
  };
  const first = await run("first boot");
  const second = await run("second boot");
  const lines = first.trace.reduce((count, byte) => count + (byte === 10 ? 1 : 0), 0);
  report.fact(`exit log: ${lines} lines, SHA-256 ${digest(first.trace).slice(0, 16)}`);
  report.check(lines > 1000, "the exit log has been written");
  report.check(Buffer.compare(first.trace, second.trace) === 0, "the exit logs are equal");
  report.equal(second.stateHash, first.stateHash, "the state hashes are equal");
  report.check(first.console === second.console, "the consoles are equal");
  const place = firstDifference(first.trace, second.trace);
  if (place) report.fact(`they part at: ${place}`);
}

function firstDifference(a: Uint8Array, b: Uint8Array): string | undefined {
  const left = Buffer.from(a).toString("latin1").split("\n");
  const right = Buffer.from(b).toString("latin1").split("\n");
  const at = left.findIndex((line, index) => line !== right[index]);
  return at < 0 ? undefined : `line ${at + 1}: ${left[at]} | ${right[at]}`;
}
