/** Which benchmarks a person asked for: by group or by row, all without a name. */
import { HypolithError } from "../src/base/errors.ts";
import { IO_ROWS, type IoRow } from "./io-table.ts";
import { type BenchProgram, PROGRAMS } from "./program-table.ts";
import { REAL } from "./real-table.ts";
import type { Workload } from "./workload.ts";

export interface Selection {
  readonly programs: readonly BenchProgram[];
  readonly real: readonly Workload[];
  /** Against v86, as 32-bit programs. */
  readonly v86Programs: readonly BenchProgram[];
  readonly v86Real: readonly Workload[];
  readonly hasBoot: boolean;
  readonly hasCold: boolean;
  readonly hasServices: boolean;
  readonly hasSnapshot: boolean;
  readonly io: readonly IoRow[];
  readonly hasVmx: boolean;
}

const BOOT = "boot";
const COLD = "python-cold";
const SERVICES = "services";
const SNAPSHOT = "snapshot";
const IO = "io";
const VMX = "vmx";
const V86 = "v86";
const V86_MICRO = "v86-micro";
const V86_REAL = "v86-real";

/** Group by group, for a person to read. */
export const NAMES: readonly (readonly [group: string, names: readonly string[]])[] = [
  ["micro", namesOf("micro")],
  ["system", namesOf("system")],
  ["real", REAL.map(({ name }) => name)],
  [COLD, []],
  [BOOT, []],
  [SERVICES, []],
  [VMX, []],
  [SNAPSHOT, []],
  [IO, IO_ROWS.map(({ name }) => name)],
  [V86, [V86_MICRO, V86_REAL]],
];

function namesOf(wanted: BenchProgram["group"]): string[] {
  return PROGRAMS.filter(({ group }) => group === wanted).map(({ name }) => name);
}

export function select(asked: readonly string[]): Selection {
  const known = NAMES.flatMap(([group, names]) => [group, ...names]);
  const unknown = asked.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    const hint = `there are: ${known.join(", ")}`;
    throw new HypolithError("usage", `no benchmark is called ${unknown.join(", ")}`, { hint });
  }
  const wanted = new Set(asked.length > 0 ? asked : known);
  const isWanted = (row: { name: string; group: string }): boolean =>
    wanted.has(row.name) || wanted.has(row.group);
  return {
    programs: PROGRAMS.filter(isWanted),
    real: REAL.filter(isWanted),
    v86Programs:
      wanted.has(V86) || wanted.has(V86_MICRO)
        ? PROGRAMS.filter(({ group }) => group === "micro")
        : [],
    v86Real: wanted.has(V86) || wanted.has(V86_REAL) ? REAL : [],
    hasBoot: wanted.has(BOOT),
    hasCold: wanted.has(COLD),
    hasServices: wanted.has(SERVICES),
    hasVmx: wanted.has(VMX),
    hasSnapshot: wanted.has(SNAPSHOT),
    io: IO_ROWS.filter(({ name }) => wanted.has(name) || wanted.has(IO)),
  };
}
