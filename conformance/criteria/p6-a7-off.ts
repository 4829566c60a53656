/**
 * P6-A7: with the control zero, the guest is the same as with a processor that does not have it: the instruction trace of all transitions,
 * the clock at each, the exit log of a boot of Debian, and the memory at its end.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import type { BuildRecord } from "./p6-a7-run.ts";
import { Complaints } from "./verdict.ts";

const RUN = join(import.meta.dirname, "p6-a7-run.ts");

async function record(build: "with" | "without"): Promise<BuildRecord> {
  const { stdout } = await promisify(execFile)(process.execPath, [RUN, build], {
    maxBuffer: 1 << 20,
  });
  return JSON.parse(stdout.trim().split("\n").at(-1)!) as BuildRecord;
}

async function run({ progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  progress("P6-A7: with");
  const present = await record("with");
  progress("P6-A7: without");
  const absent = await record("without");
  for (const part of ["traces", "boots", "instructions", "exits"] as const)
    complaints.equal(present[part], absent[part], () => part);
  return complaints.verdict(
    `equal traces, and equal logs of ${present.exits} entries and exits over ${present.instructions} instructions`,
    Object.keys(present.cpuMs).map(
      (engine) =>
        `${engine}: boot ${present.cpuMs[engine]} ms of CPU time with, ${absent.cpuMs[engine]} ms without`,
    ),
  );
}

export const nothingWhileOff: Criterion = {
  id: "P6-A7",
  title: "the control is zero: nothing is different from a build without it",
  bar: "instruction trace, clock, exit log and memory identical",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: false,
  run,
};
