/** Compiles the programs of the suite: one static binary each, the same for the native run and every guest. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CHECKOUT, cachedFile, digest } from "../conformance/harness/cache.ts";
import { HypolithError } from "../src/base/errors.ts";
import type { BenchProgram } from "./program-table.ts";

/** The oldest processors that the suite is for; a compiler's own default could be newer. */
const FLAGS = ["-O2", "-static", "-march=x86-64", "-std=gnu11"];
const FOLDER = join(CHECKOUT, "bench/programs");

export interface BuiltProgram extends BenchProgram {
  readonly path: string;
}

export async function buildPrograms(programs: readonly BenchProgram[]): Promise<BuiltProgram[]> {
  const compiler = compilerVersion();
  const built: BuiltProgram[] = [];
  for (const program of programs) {
    const source = join(FOLDER, `${program.name}.c`);
    const frame = readFileSync(join(FOLDER, "bench.h"));
    const recipe = digest(readFileSync(source), frame, compiler, ...FLAGS).slice(0, 12);
    const path = await cachedFile(`bench/${program.name}-${recipe}`, (target) => {
      execFileSync("gcc", [...FLAGS, "-o", target, source], { stdio: "inherit" });
    });
    built.push({ ...program, path });
  }
  return built;
}

export function compilerVersion(): string {
  try {
    return execFileSync("gcc", ["--version"], { encoding: "utf8" }).split("\n")[0]!;
  } catch (cause) {
    throw new HypolithError("compiler-absent", "the benchmark programs need gcc", {
      cause,
      hint: "apt-get install gcc libc6-dev",
    });
  }
}
