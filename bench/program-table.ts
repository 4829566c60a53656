/**
 * The programs of the suite. A row is a program; `npm run bench` builds, runs, checks and prints every row, so a new one needs a source
 * in bench/programs/ and a line here.
 *
 * Rounds give about 0.2 s of native CPU time on a machine of 2025, less where software machines are slowest.
 */
import type { Workload } from "./workload.ts";

export interface BenchProgram {
  /** Its source is programs/NAME.c. */
  readonly name: string;
  /** Computation alone, or the operating system's services. */
  readonly group: "micro" | "system";
  readonly rounds: number;
  readonly description: string;
}

type Row = readonly [name: string, rounds: number, description: string];

const MICRO: readonly Row[] = [
  ["integer", 3400, "integer mix, unpredictable branches"],
  ["calls", 800, "calls and returns (Fibonacci)"],
  ["sha256", 800, "SHA-256, 32-bit rotations"],
  ["multiply", 12000, "64-bit multiply, 128-bit products"],
  ["copy", 1200, "memcpy by words and REP MOVSB"],
  ["strided", 170, "loads at strides up to a page"],
  ["random", 13, "dependent random loads, 16 MiB"],
  ["sort", 65, "quicksort of random numbers"],
  ["bytecode", 700, "bytecode interpreter loop"],
  ["crc", 1100, "CRC-32 by table"],
  ["nbody", 2000, "bodies under gravity, double"],
  ["mandelbrot", 200, "Mandelbrot set, double"],
  ["sse", 12000, "packed integers, SSE2 to SSE4.1"],
  ["x87", 4000, "long double, chaotic maps"],
  ["generated", 5000, "code written, called and rewritten"],
];

const SYSTEM: readonly Row[] = [
  ["syscall", 500, "500000 getppid"],
  ["pipe", 100, "10000 times to another process and back"],
  ["fork", 400, "400 processes made and ended"],
  ["exec", 150, "150 processes that run a static program"],
  ["faults", 120, "30720 pages mapped, touched, unmapped"],
];

const rows = (group: BenchProgram["group"], list: readonly Row[]): BenchProgram[] =>
  list.map(([name, rounds, description]) => ({ name, group, rounds, description }));

export const PROGRAMS: readonly BenchProgram[] = [
  ...rows("micro", MICRO),
  ...rows("system", SYSTEM),
];

export function workloadOf(
  { name, group, rounds, description }: BenchProgram,
  scale: number,
): Workload {
  const count = Math.max(1, Math.round(rounds * scale));
  return { name, group, description, command: `/lab/${name} ${count}` };
}
