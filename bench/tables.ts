/** The results of the benchmarks as text. */
import type { BootResult } from "./boot-bench.ts";
import type { ColdResult } from "./cold-bench.ts";
import { QEMU_NAME } from "./guests.ts";
import type { ProcessSample } from "./process-sample.ts";
import { BOOT_BAR, type ServicesResult } from "./services-bench.ts";
import { best, geometricMean, median } from "./statistics.ts";
import { clockIsRight } from "./suite.ts";
import { cpuOf, speedOf, summarize } from "./summary.ts";
import { NATIVE, type RowResult, type Sample } from "./workload.ts";

const FIRST_WIDTH = 15;
const WIDTH = 12;
/** Of an account of a failure. */
const FAILURE_LENGTH = 600;

interface Column {
  readonly title: string;
  readonly value: (row: RowResult) => number;
  readonly text: (value: number) => string;
  /** Seconds of different programs have no mean. */
  readonly hasMean: boolean;
}

export interface TableOptions {
  /** In the order of the columns. */
  readonly contestants: readonly string[];
  /** Who our engines are compared with, as far as they took part. */
  readonly peers: readonly string[];
}

const ratio = (value: number): string => {
  return `${value.toFixed(value < 0.1 ? 3 : value < 10 ? 2 : 1)}x`;
};

/** Guest instructions a second, in millions, of the best sample. */
function mips(samples: readonly Sample[] = []): number {
  return Math.max(...samples.map(({ retired, cpu }) => (retired ?? Number.NaN) / cpu / 1e6));
}

function enginesOf({ contestants, peers }: TableOptions): string[] {
  return contestants.filter((name) => name !== NATIVE && !peers.includes(name));
}

function columnsFor(options: TableOptions): Column[] {
  const { contestants, peers } = options;
  const engines = enginesOf(options);
  const columns = contestants.map((name): Column => {
    return { title: name, value: (r) => cpuOf(r, name), text: seconds, hasMean: false };
  });
  const ratios = (title: string, value: Column["value"]): void => {
    columns.push({ title, value, text: ratio, hasMean: true });
  };
  for (const name of contestants.includes(NATIVE) ? contestants.slice(1) : [])
    ratios(`${short(name)}/nat.`, (r) => cpuOf(r, name) / cpuOf(r, NATIVE));
  for (const peer of peers) {
    for (const name of engines) ratios(`${peer}/${short(name)}`, (r) => speedOf(r, name, peer));
  }
  for (const name of engines) {
    const value: Column["value"] = (r) => mips(r.samples[name]);
    columns.push({
      title: `${short(name)} MIPS`,
      value,
      text: (x) => x.toFixed(0),
      hasMean: true,
    });
  }
  return columns;
}

const seconds = (value: number): string => value.toFixed(3);

function short(name: string): string {
  return name.replace("interpreter", "int.");
}

function line(first: string, cells: readonly string[]): string {
  return first.padEnd(FIRST_WIDTH) + cells.map((cell) => cell.padStart(WIDTH)).join("");
}

export function printGroup(title: string, rows: readonly RowResult[], options: TableOptions): void {
  const columns = columnsFor(options);
  console.log(`\n${title}: CPU seconds, results verified`);
  console.log(
    line(
      "",
      columns.map((column) => column.title),
    ),
  );
  const cell = ({ text }: Column, value: number): string =>
    Number.isFinite(value) ? text(value) : "-";
  for (const row of rows)
    console.log(
      line(
        row.name,
        columns.map((column) => cell(column, column.value(row))),
      ),
    );
  const means = columns.map((column) => {
    const values = rows.map(column.value).filter(Number.isFinite);
    return column.hasMean && values.length > 0 ? cell(column, geometricMean(values)) : "";
  });
  console.log(line("geo. mean", means));
  printSummaries(title, rows, options);
  for (const row of rows) printNotes(row);
}

function printSummaries(title: string, rows: readonly RowResult[], options: TableOptions): void {
  for (const peer of options.peers) {
    for (const engine of enginesOf(options)) {
      const summary = summarize(rows, engine, peer);
      if (!summary) continue;
      const { meanSpeed, lowest } = summary;
      console.log(
        `${title}: ${engine} has ${ratio(meanSpeed)} the speed of ${peer} (geometric mean of ${summary.rows}); ` +
          `lowest: ${lowest.name} ${ratio(lowest.speed)}`,
      );
    }
  }
}

function printNotes({ name, group, samples, failures }: RowResult): void {
  for (const [contestant, why] of Object.entries(failures))
    console.log(`FAILED: ${name} on ${contestant}: ${why.slice(0, FAILURE_LENGTH)}`);
  // A process of the guest that sleeps or has children has another account.
  for (const [contestant, list] of group === "micro" ? Object.entries(samples) : []) {
    const odd = list.find((sample) => !clockIsRight(sample));
    if (!odd) continue;
    const [own, cpu] = [odd.own!.toFixed(2), odd.cpu.toFixed(2)];
    console.log(`note: ${name} took ${own} s by the clock of ${contestant}, ${cpu} s of CPU`);
  }
}

function printSamples(samples: Record<string, readonly ProcessSample[]>): void {
  const peer = samples[QEMU_NAME] && best(samples[QEMU_NAME].map(({ cpu }) => cpu));
  for (const [name, list] of Object.entries(samples)) {
    const cpu = list.map((sample) => sample.cpu);
    const wall = best(list.map((sample) => sample.wall));
    const isPeer = peer === undefined || name === QEMU_NAME;
    const compared = isPeer ? "" : `, ${ratio(peer / best(cpu))} the speed of QEMU`;
    console.log(
      `${name.padEnd(FIRST_WIDTH)} ${best(cpu).toFixed(2)} s of CPU (median ${median(cpu).toFixed(2)}), ` +
        `${wall.toFixed(2)} s by the clock${compared}`,
    );
  }
}

export function printBoot(result: BootResult): void {
  console.log("\nboot: process start to shell, Debian's cloud kernel");
  printSamples(result);
}

export function printCold({ command, samples, failures }: ColdResult): void {
  console.log(`\npython-cold: ${command}, the first command after boot`);
  printSamples(samples);
  for (const [name, why] of Object.entries(failures))
    console.log(`FAILED: python-cold on ${name}: ${why.slice(0, FAILURE_LENGTH)}`);
}

export function printServices({ exits, boots, workerCpuRatio, workerRatio }: ServicesResult): void {
  console.log("\nservices: one VM exit there and back, nanoseconds (best round)");
  console.log(line("", ["in all", "guest", "kernel", "service", "messages/s"]));
  for (const { placement, total, guest, kernel, service } of exits) {
    const perSecond = placement === "kernel" ? "-" : (1e9 / total).toFixed(0);
    const cells = [total, guest, kernel, service].map((ns) => ns.toFixed(0));
    console.log(line(placement, [...cells, perSecond]));
  }
  console.log("\nservices: Debian's boot to its end, seconds of CPU and by the clock");
  for (const {
    placement,
    cpu,
    seconds: times,
    exits: all,
    forwarded,
    servicesMs,
    activeMs,
  } of boots) {
    const share = `${((100 * forwarded) / all).toFixed(1)} % of ${all} exits`;
    const time = `${((100 * servicesMs) / activeMs).toFixed(1)} % of the time`;
    console.log(
      `${placement.padEnd(FIRST_WIDTH)}${best(cpu).toFixed(2)} and ${best(times).toFixed(2)}; ${forwarded} messages, ${share}; services take ${time}`,
    );
  }
  console.log(
    `all in workers: ${ratio(workerCpuRatio)} of inline in CPU time (${ratio(workerRatio)} by the clock), bar ${ratio(BOOT_BAR)}`,
  );
}
