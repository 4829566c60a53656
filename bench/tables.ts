/** The results of the benchmarks as text. */
import type { BootResult } from "./boot-bench.ts";
import { clockIsRight, type ProgramResult, type Sample } from "./program-bench.ts";
import { best, geometricMean, median } from "./statistics.ts";

const PEER = "QEMU";
const FIRST_WIDTH = 12;
const WIDTH = 13;

interface Column {
  readonly title: string;
  readonly value: (result: ProgramResult) => number;
  readonly text: (value: number) => string;
  /** Seconds of different programs have no mean. */
  readonly hasMean: boolean;
}

const cpuOf = (samples: readonly Sample[] | undefined): number =>
  samples?.length ? best(samples.map(({ cpu }) => cpu)) : Number.NaN;

const ratio = (value: number): string => `${value.toFixed(value < 10 ? 2 : 1)}x`;

/** Guest instructions a second, in millions, of the best sample. */
export function mips(samples: readonly Sample[] = []): number {
  return Math.max(...samples.map(({ retired, cpu }) => (retired ?? Number.NaN) / cpu / 1e6));
}

function columnsFor(guests: readonly string[]): Column[] {
  const engines = guests.filter((name) => name !== PEER);
  const seconds = (title: string, value: Column["value"]): Column => {
    return { title, value, text: (x) => x.toFixed(3), hasMean: false };
  };
  const ratios = (title: string, value: Column["value"]): Column => {
    return { title, value, text: ratio, hasMean: true };
  };
  const against = guests.includes(PEER) ? engines : [];
  return [
    seconds("native", (r) => cpuOf(r.native)),
    ...guests.map((name) => seconds(name, (r) => cpuOf(r.guests[name]))),
    ...guests.map((name) =>
      ratios(`${short(name)}/nat.`, (r) => cpuOf(r.guests[name]) / cpuOf(r.native)),
    ),
    ...against.map((name) =>
      ratios(`${short(name)}/QEMU`, (r) => cpuOf(r.guests[name]) / cpuOf(r.guests[PEER])),
    ),
    ...engines.map((name): Column => {
      const value: Column["value"] = (r) => mips(r.guests[name]);
      return { title: `${short(name)} MIPS`, value, text: (x) => x.toFixed(0), hasMean: true };
    }),
  ];
}

function short(name: string): string {
  return name.replace("interpreter", "int.");
}

function row(first: string, cells: readonly string[]): string {
  return first.padEnd(FIRST_WIDTH) + cells.map((cell) => cell.padStart(WIDTH)).join("");
}

export function printPrograms(results: readonly ProgramResult[]): void {
  const guests = Object.keys(results[0]?.guests ?? {});
  const columns = columnsFor(guests);
  const titles = columns.map(({ title }) => title);
  console.log("\nCPU seconds, checksums verified");
  console.log(row("", titles));
  for (const result of results) {
    const cells = columns.map(({ value, text }) => text(value(result)));
    console.log(row(result.program.name, cells));
  }
  const means = columns.map(({ value, text, hasMean }) =>
    hasMean ? text(geometricMean(results.map(value))) : "",
  );
  console.log(row("geo. mean", means));
  for (const result of results) noteClocks(result);
}

function noteClocks({ program, guests }: ProgramResult): void {
  for (const [name, samples] of Object.entries(guests)) {
    const odd = samples.find((sample) => !clockIsRight(sample));
    if (!odd) continue;
    const [own, cpu] = [odd.own.toFixed(2), odd.cpu.toFixed(2)];
    console.log(`note: ${program.name} took ${own} s by the clock of ${name}, ${cpu} s of CPU`);
  }
}

export function printBoot(result: BootResult): void {
  console.log("\nprocess start to shell, Debian's cloud kernel");
  const peer = result[PEER] && best(result[PEER].map(({ cpu }) => cpu));
  for (const [name, samples] of Object.entries(result)) {
    const cpu = samples.map((sample) => sample.cpu);
    const wall = best(samples.map((sample) => sample.wall));
    const compared =
      peer === undefined || name === PEER ? "" : `, ${ratio(best(cpu) / peer)} of QEMU's CPU time`;
    console.log(
      `${name.padEnd(FIRST_WIDTH)} ${best(cpu).toFixed(2)} s of CPU (median ${median(cpu).toFixed(2)}), ` +
        `${wall.toFixed(2)} s by the clock${compared}`,
    );
  }
}
