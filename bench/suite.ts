/**
 * Workloads on all contestants, one after the other, round by round, so that whatever else this machine does meets all alike.
 *
 * Measured is CPU time: of a guest, the whole machine's process with all its threads, from the command's start to its end. The guest's
 * own account counts for nothing but a check: a process that took much less than its guest says has a clock that is wrong.
 *
 * The first contestant's result is the one that the others must have. One that fails loses its sample, the rest goes on.
 */
import { createHash } from "node:crypto";
import { add } from "./statistics.ts";
import type { Contestant, Contestants, RowResult, Sample, Workload } from "./workload.ts";

export interface SuiteOptions {
  readonly rounds: number;
  readonly progress: (text: string) => void;
}

interface Outcome {
  readonly sample: Sample;
  readonly checksum: string;
}

const WORKLOAD_SECONDS = 600;
const AROUND_SECONDS = 300;
/** Longer results are shown by their hash. */
const CHECKSUM_LENGTH = 40;
/** Tick-based accounts of short programs differ by some hundredths; a wrong clock differs by factors. */
const CLOCK_TOLERANCE = 0.25;

export async function runSuite(
  workloads: readonly Workload[],
  contestants: Contestants,
  { rounds, progress }: SuiteOptions,
): Promise<RowResult[]> {
  const results = workloads.map(({ name, group, description }): RowResult => {
    return { name, group, description, checksum: "", samples: {}, failures: {} };
  });
  for (let round = 1; round <= rounds; round++) {
    for (const [i, workload] of workloads.entries()) {
      const label = `round ${round} of ${rounds}: ${workload.name}`;
      results[i] = await oneRound(workload, results[i]!, contestants, (name) =>
        progress(`${label} on ${name}`),
      );
    }
  }
  return results;
}

async function oneRound(
  workload: Workload,
  result: RowResult,
  contestants: Contestants,
  turnOf: (name: string) => void,
): Promise<RowResult> {
  const { samples, failures } = result;
  let { checksum } = result;
  for (const [name, contestant] of Object.entries(contestants)) {
    turnOf(name);
    try {
      const outcome = await measure(workload, contestant);
      checksum ||= outcome.checksum;
      if (outcome.checksum === checksum) add(samples, name, outcome.sample);
      else failures[name] = `result ${outcome.checksum}, elsewhere ${checksum}`;
    } catch (error) {
      failures[name] = (error as Error).message;
    }
  }
  return { ...result, checksum };
}

async function measure(workload: Workload, contestant: Contestant): Promise<Outcome> {
  const { prepare, command, result } = workload;
  if (prepare !== undefined) await succeed(contestant, prepare, AROUND_SECONDS);
  const ran = await succeed(contestant, command, WORKLOAD_SECONDS);
  const printed = result ? await succeed(contestant, result, AROUND_SECONDS) : ran;
  const { text, own } = withoutSeconds(printed.output);
  const { cpuSeconds: cpu, wallSeconds: wall, retired } = ran;
  return { sample: { cpu, wall, own, retired }, checksum: checksumOf(text) };
}

async function succeed(
  contestant: Contestant,
  command: string,
  timeoutSeconds: number,
): ReturnType<Contestant["run"]> {
  const outcome = await contestant.run(command, timeoutSeconds);
  if (outcome.status === 0) return outcome;
  throw new Error(`status ${outcome.status}: ${outcome.output.slice(-500).trim()}`);
}

/** The programs of bench/programs say what they think they took. */
function withoutSeconds(output: string): { text: string; own: number | undefined } {
  const [, seconds] = / seconds=([\d.]+)/.exec(output) ?? [];
  const text = output.replace(/^checksum=| seconds=[\d.]+/gm, "").trim();
  return { text, own: seconds === undefined ? undefined : Number(seconds) };
}

function checksumOf(text: string): string {
  if (text === "") throw new Error("it printed nothing");
  if (text.length <= CHECKSUM_LENGTH && !text.includes("\n")) return text;
  return createHash("sha256").update(text).digest("hex").slice(0, CHECKSUM_LENGTH);
}

/**
 * Does the process's CPU time agree with the guest's account? The guest's is at least as much when the machine had to wait for a
 * core (its clock went on), so only too little of it tells of a wrong clock.
 */
export function clockIsRight({ cpu, own }: Sample): boolean {
  return own === undefined || own >= cpu * (1 - CLOCK_TOLERANCE) - 0.1;
}
