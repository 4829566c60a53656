/**
 * The programs of the suite. A row is a program; `npm run bench` builds, runs, checks and prints every row, so a new one needs a source
 * in bench/programs/ and a line here.
 *
 * Rounds give about 0.2 s of native CPU time on a machine of 2025.
 */
export interface BenchProgram {
  /** Its source is programs/NAME.c. */
  readonly name: string;
  readonly group: "integer";
  readonly rounds: number;
  readonly description: string;
}

export const PROGRAMS: readonly BenchProgram[] = [
  {
    name: "integer",
    group: "integer",
    rounds: 3400,
    description: "integer mix, unpredictable branches",
  },
  { name: "calls", group: "integer", rounds: 800, description: "calls and returns (Fibonacci)" },
  { name: "sha256", group: "integer", rounds: 800, description: "SHA-256, 32-bit rotations" },
  {
    name: "multiply",
    group: "integer",
    rounds: 12000,
    description: "64-bit multiply, 128-bit products",
  },
  { name: "copy", group: "integer", rounds: 1200, description: "memcpy by words and REP MOVSB" },
  { name: "strided", group: "integer", rounds: 170, description: "loads at strides up to a page" },
  { name: "random", group: "integer", rounds: 13, description: "dependent random loads, 16 MiB" },
  { name: "sort", group: "integer", rounds: 65, description: "quicksort of random numbers" },
  { name: "bytecode", group: "integer", rounds: 700, description: "bytecode interpreter loop" },
  { name: "crc", group: "integer", rounds: 1100, description: "CRC-32 by table" },
];
