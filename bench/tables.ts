/** The results of the benchmarks as text. */
import type { BootResult } from "./boot-bench.ts";
import { clockIsRight, type ProgramResult, type Sample } from "./program-bench.ts";
import { best, geometricMean, median } from "./statistics.ts";

const cpuOf = (samples: readonly Sample[]): number => best(samples.map(({ cpu }) => cpu));
const ratio = (value: number): string => `${value.toFixed(value < 10 ? 2 : 1)}x`;

/** Guest instructions a second, in millions, of the best sample. */
export function mips(samples: readonly Sample[]): number {
  return Math.max(...samples.map(({ retired, cpu }) => (retired ?? Number.NaN) / cpu / 1e6));
}

const WIDTHS = [10, 9, 9, 9, 11, 11, 11, 7];

function row(...cells: readonly string[]): string {
  return cells
    .map((cell, i) => (i === 0 ? cell.padEnd(WIDTHS[i]!) : cell.padStart(WIDTHS[i]!)))
    .join("");
}

export function printPrograms(results: readonly ProgramResult[]): void {
  console.log("\nCPU seconds, checksums verified");
  console.log(row("", "native", "QEMU", "ours", "QEMU/nat.", "ours/nat.", "ours/QEMU", "MIPS"));
  for (const { program, native, qemu, ours } of results) {
    const [n, q, o] = [cpuOf(native), cpuOf(qemu), cpuOf(ours)];
    console.log(
      row(
        program.name,
        ...[n, q, o].map((seconds) => (Number.isFinite(seconds) ? seconds.toFixed(3) : "-")),
        ...[q / n, o / n, o / q].map((value) =>
          Number.isFinite(value) && value > 0 ? ratio(value) : "-",
        ),
        mips(ours).toFixed(0),
      ),
    );
  }
  const mean = (of: (result: ProgramResult) => number): number => geometricMean(results.map(of));
  const hasQemu = results.every(({ qemu }) => qemu.length > 0);
  console.log(
    row(
      "geo. mean",
      ...["", "", ""],
      hasQemu ? ratio(mean((r) => cpuOf(r.qemu) / cpuOf(r.native))) : "-",
      ratio(mean((r) => cpuOf(r.ours) / cpuOf(r.native))),
      hasQemu ? ratio(mean((r) => cpuOf(r.ours) / cpuOf(r.qemu))) : "-",
      mean((r) => mips(r.ours)).toFixed(0),
    ),
  );
  for (const { program, qemu, ours } of results) {
    for (const [name, samples] of Object.entries({ QEMU: qemu, ours })) {
      const odd = samples.find((sample) => !clockIsRight(sample));
      if (!odd) continue;
      const [own, cpu] = [odd.own.toFixed(2), odd.cpu.toFixed(2)];
      console.log(
        `note: ${program.name} took ${own} s by its guest's clock on ${name}, ${cpu} s of CPU`,
      );
    }
  }
}

export function printBoot({ ours, qemu }: BootResult): void {
  console.log("\nprocess start to shell, Debian's cloud kernel");
  for (const [name, samples] of Object.entries({ ours, QEMU: qemu })) {
    if (samples.length === 0) continue;
    const cpu = samples.map((sample) => sample.cpu);
    const wall = best(samples.map((sample) => sample.wall));
    console.log(
      `${name.padEnd(6)} ${best(cpu).toFixed(2)} s of CPU (median ${median(cpu).toFixed(2)}), ` +
        `${wall.toFixed(2)} s by the clock`,
    );
  }
  if (qemu.length === 0) return;
  const of = (samples: BootResult["ours"]): number => best(samples.map(({ cpu }) => cpu));
  console.log(`ours/QEMU ${ratio(of(ours) / of(qemu))}`);
}
