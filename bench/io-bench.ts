/**
 * Disk and network, against QEMU's TCG with the same kernel, devices and user-mode network: CPU time of the machine's process and time by
 * the clock, row by row in turns. Servers and clients outside are in this process, and count for nobody.
 */
import { cpuSeconds } from "../conformance/harness/cpu-time.ts";
import { QEMU_NAME } from "./guests.ts";
import { bootIoGuests, type IoGuest } from "./io-guests.ts";
import { getAll, startPeers } from "./io-peers.ts";
import type { IoPeers, IoRow } from "./io-table.ts";
import type { BenchOptions } from "./options.ts";
import type { ProcessSample } from "./process-sample.ts";
import { add, best, geometricMean } from "./statistics.ts";

const ROW_SECONDS = 300;

export interface IoResult extends Omit<IoRow, "work"> {
  readonly samples: Record<string, ProcessSample[]>;
  readonly failures: Record<string, string>;
}

export async function benchIo(
  rows: readonly IoRow[],
  options: BenchOptions,
): Promise<readonly IoResult[]> {
  const peers = await startPeers();
  const guests = await bootIoGuests(options);
  const results = rows.map(({ work, ...row }): IoResult => ({ ...row, samples: {}, failures: {} }));
  try {
    for (let round = 1; round <= options.rounds; round++) {
      for (const [i, row] of rows.entries()) {
        const printed = new Map<string, string>();
        for (const [name, guest] of Object.entries(guests)) {
          options.progress(`io: round ${round} of ${options.rounds}: ${row.name} on ${name}`);
          try {
            const { output, ...sample } = await measure(row, guest, round, peers);
            add(results[i]!.samples, name, sample);
            printed.set(name, output);
          } catch (error) {
            results[i]!.failures[name] = (error as Error).message;
          }
        }
        if (new Set(printed.values()).size > 1)
          results[i]!.failures[QEMU_NAME] = `results differ: ${[...printed.values()].join(" | ")}`;
      }
    }
  } finally {
    for (const { guest } of Object.values(guests)) guest.kill();
  }
  return results;
}

async function measure(
  { work, amount }: IoRow,
  { guest, httpPort }: IoGuest,
  round: number,
  peers: IoPeers,
): Promise<ProcessSample & { output: string }> {
  if (work.kind === "guest") {
    const ran = await guest.run(work.command(round, peers), ROW_SECONDS);
    if (ran.status !== 0) throw new Error(`status ${ran.status}: ${ran.output.slice(-300).trim()}`);
    return { cpu: ran.cpuSeconds, wall: ran.wallSeconds, output: ran.output };
  }
  const { pid } = guest.session.machine;
  const before = cpuSeconds(pid!);
  const started = performance.now();
  await getAll(httpPort, { count: amount, ...work });
  const wall = (performance.now() - started) / 1000;
  return { cpu: cpuSeconds(pid!) - before, wall, output: "" };
}

/** CPU seconds, or seconds by the clock, of the best round; NaN if there is none. */
function bestOf({ samples }: IoResult, name: string, what: "cpu" | "wall"): number {
  const list = samples[name];
  return list?.length ? best(list.map((sample) => Math.max(sample[what], 0.005))) : Number.NaN;
}

export interface IoSummary {
  readonly engine: string;
  /** QEMU's time by ours, geometric means. */
  readonly cpu: number;
  readonly wall: number;
}

export function summarizeIo(results: readonly IoResult[], engine: string): IoSummary | undefined {
  const ratios = (what: "cpu" | "wall"): number[] =>
    results
      .map((row) => bestOf(row, QEMU_NAME, what) / bestOf(row, engine, what))
      .filter(Number.isFinite);
  const cpu = ratios("cpu");
  if (cpu.length === 0) return undefined;
  return { engine, cpu: geometricMean(cpu), wall: geometricMean(ratios("wall")) };
}

const NAME_WIDTH = 14;
const WIDTH = 13;

export function printIo(results: readonly IoResult[], { engines, withQemu }: BenchOptions): void {
  const names = [...(withQemu ? [QEMU_NAME] : []), ...engines];
  const line = (first: string, cells: readonly string[]): void =>
    console.log(first.padEnd(NAME_WIDTH) + cells.map((cell) => cell.padStart(WIDTH)).join(""));
  console.log(
    "\nio: a second by the clock, CPU milliseconds each, and how many times QEMU's speed",
  );
  const titles = names.flatMap((name) => [`${name}/s`, "CPU ms"]);
  line("", [
    ...["unit", ...titles],
    ...(withQemu ? engines.flatMap((engine) => [`${engine} CPU`, "clock"]) : []),
  ]);
  for (const row of results) {
    const own = names.flatMap((name) => [
      (row.amount / bestOf(row, name, "wall")).toFixed(row.unit === "MiB" ? 1 : 0),
      ((bestOf(row, name, "cpu") * 1000) / row.amount).toFixed(3),
    ]);
    const ratio = (engine: string, what: "cpu" | "wall"): string =>
      `${(bestOf(row, QEMU_NAME, what) / bestOf(row, engine, what)).toFixed(2)}x`;
    const compared = withQemu
      ? engines.flatMap((engine) => [ratio(engine, "cpu"), ratio(engine, "wall")])
      : [];
    line(row.name, [row.unit, ...own, ...compared]);
  }
  for (const engine of engines) {
    const summary = summarizeIo(results, engine);
    if (!summary) continue;
    const { cpu, wall } = summary;
    console.log(
      `io: ${engine} has ${cpu.toFixed(2)}x the speed of QEMU in CPU time, ${wall.toFixed(2)}x by the clock (geometric means)`,
    );
  }
  for (const { name, failures } of results)
    for (const [contestant, why] of Object.entries(failures))
      console.log(`FAILED: ${name} on ${contestant}: ${why.slice(0, 600)}`);
}
