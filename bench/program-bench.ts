/**
 * The program suite: every program natively, in a guest on QEMU's TCG and in a guest on our processor, one after the other, round by
 * round, so that whatever else the machine does meets all three.
 *
 * Measured is the CPU time of the whole machine's process, all threads, from the program's start to its end. The guest's own account
 * of its CPU time is the check: a process that took much less than its guest says has a clock that is wrong.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { bootFiles } from "../conformance/harness/boot.ts";
import { GuestSession } from "../conformance/harness/guest-session.ts";
import { guestKernel } from "../conformance/harness/kernels.ts";
import { ProcessMachine } from "../conformance/harness/process-machine.ts";
import { QemuMachine } from "../conformance/harness/qemu-machine.ts";
import { HypolithError } from "../src/base/errors.ts";
import type { EngineName } from "../src/control/protocol.ts";
import { type BuiltProgram, buildPrograms } from "./build-programs.ts";
import type { BenchProgram } from "./program-table.ts";

export interface Sample {
  /** CPU seconds of the process. */
  readonly cpu: number;
  /** CPU seconds by the program's own account. */
  readonly own: number;
  readonly retired: number | undefined;
}

export interface ProgramResult {
  readonly program: BenchProgram;
  readonly checksum: string;
  readonly native: Sample[];
  /** By contestant: "QEMU" and the names of our engines. */
  readonly guests: Record<string, Sample[]>;
}

export interface ProgramBenchOptions {
  readonly rounds: number;
  /** More or less work in each program. */
  readonly scale: number;
  readonly qemuCpu: string;
  readonly memoryMib: number;
  readonly withQemu: boolean;
  readonly engines: readonly EngineName[];
  readonly nodeOptions: readonly string[];
  readonly progress: (text: string) => void;
}

const BOOT_SECONDS = 300;
const PROGRAM_SECONDS = 600;
/** Tick-based accounts of short programs differ by some hundredths; a wrong clock differs by factors. */
const CLOCK_TOLERANCE = 0.25;

type Contestants = Record<string, GuestSession>;

export async function benchPrograms(
  programs: readonly BenchProgram[],
  options: ProgramBenchOptions,
): Promise<ProgramResult[]> {
  const built = await buildPrograms(programs);
  const contestants = await bootContestants(built, options);
  const results = built.map((program): ProgramResult => {
    return { program, checksum: native(program, 0).checksum, native: [], guests: {} };
  });
  try {
    for (let round = 1; round <= options.rounds; round++) {
      for (const [i, program] of built.entries()) {
        options.progress(`round ${round} of ${options.rounds}: ${program.name}`);
        results[i] = await oneRound(program, results[i]!, contestants, options);
      }
    }
  } finally {
    killAll(contestants);
  }
  return results;
}

async function bootContestants(
  built: readonly BuiltProgram[],
  options: ProgramBenchOptions,
): Promise<Contestants> {
  const kernel = await guestKernel("cloud");
  const programs = built.map(({ name, path }) => {
    return { path: `lab/${name}`, content: readFileSync(path), executable: true };
  });
  const files = bootFiles(kernel, {
    files: programs,
    memoryMib: options.memoryMib,
    append: "quiet",
  });
  options.progress("booting the machines");
  const { nodeOptions, withQemu, qemuCpu, engines } = options;
  const contestants: Contestants = {};
  if (withQemu) contestants.QEMU = new GuestSession(new QemuMachine(files, qemuCpu));
  for (const engine of engines) {
    const config = { ...files, clock: "wall", cpuModel: "x86-64-v2", engine, nodeOptions } as const;
    contestants[engine] = new GuestSession(new ProcessMachine(config));
  }
  try {
    await Promise.all(Object.values(contestants).map((session) => session.ready(BOOT_SECONDS)));
  } catch (error) {
    killAll(contestants);
    throw error;
  }
  return contestants;
}

function killAll(contestants: Contestants): void {
  for (const { machine } of Object.values(contestants)) machine.kill();
}

async function oneRound(
  program: BuiltProgram,
  result: ProgramResult,
  contestants: Contestants,
  { scale }: ProgramBenchOptions,
): Promise<ProgramResult> {
  const rounds = Math.max(1, Math.round(program.rounds * scale));
  const here = native(program, rounds);
  result.native.push(here);
  for (const [name, session] of Object.entries(contestants)) {
    const { output, cpuSeconds, retired } = await session.run(
      `/lab/${program.name} ${rounds}`,
      PROGRAM_SECONDS,
    );
    const { checksum, own } = parse(program, output);
    if (checksum !== here.checksum) {
      throw new HypolithError(
        "checksum-wrong",
        `${program.name} on ${name}: checksum ${checksum}, native ${here.checksum}`,
      );
    }
    result.guests[name] ??= [];
    result.guests[name].push({ cpu: cpuSeconds, own, retired });
  }
  return { ...result, checksum: here.checksum };
}

function native(program: BuiltProgram, rounds: number): Sample & { checksum: string } {
  const output = execFileSync(program.path, [String(rounds)], { encoding: "latin1" });
  const { checksum, own } = parse(program, output);
  return { checksum, cpu: own, own, retired: undefined };
}

function parse({ name }: BenchProgram, output: string): { checksum: string; own: number } {
  const [, checksum, seconds] = /checksum=([0-9a-f]+) seconds=([\d.]+)/.exec(output) ?? [];
  if (checksum === undefined)
    throw new HypolithError("program-failed", `${name} printed: ${output}`);
  return { checksum, own: Number(seconds) };
}

/**
 * Does the process's CPU time agree with the guest's account? The guest's is at least as much when the machine had to wait for a
 * core (its clock went on), so only too little of it tells of a wrong clock.
 */
export function clockIsRight({ cpu, own }: Sample): boolean {
  return own >= cpu * (1 - CLOCK_TOLERANCE) - 0.1;
}
