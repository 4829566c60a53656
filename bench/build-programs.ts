/** Compiles the programs of the suite: one static binary each, the same for the native run and every guest. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CHECKOUT, cachedFile, digest } from "../conformance/harness/cache.ts";
import { HypolithError } from "../src/base/errors.ts";
import type { BenchProgram } from "./program-table.ts";

export type Bits = 64 | 32;

const COMMON_FLAGS = ["-O2", "-fno-math-errno", "-static", "-std=gnu11"];
/** The oldest processors that the suite is for; a compiler's own default could be newer. */
const FLAGS: Readonly<Record<Bits, readonly string[]>> = {
  64: [...COMMON_FLAGS, "-march=x86-64"],
  32: [...COMMON_FLAGS, "-m32", "-march=pentium4", "-mfpmath=sse"],
};
const FOLDER = join(CHECKOUT, "bench/programs");

export interface BuiltProgram {
  readonly name: string;
  readonly path: string;
}

export async function buildPrograms(
  programs: readonly BenchProgram[],
  bits: Bits = 64,
): Promise<BuiltProgram[]> {
  const built: BuiltProgram[] = [];
  for (const { name } of programs) {
    const source = join(FOLDER, `${name}.c`);
    const path = await compile(source, FLAGS[bits], [join(FOLDER, "bench.h")]);
    built.push({ name, path });
  }
  return built;
}

/** Of one C file, by way of the cache; `headers` are what it includes. */
export function compile(
  source: string,
  flags: readonly string[],
  headers: readonly string[] = [],
): Promise<string> {
  const inputs = [source, ...headers].map((path) => readFileSync(path));
  const recipe = digest(...inputs, compilerVersion(), ...flags).slice(0, 12);
  const name = source.replace(/^.*\//, "").replace(/\.c$/, "");
  return cachedFile(`bench/${name}-${recipe}`, (target) => {
    try {
      execFileSync("gcc", [...flags, "-o", target, source], {
        stdio: ["ignore", "inherit", "pipe"],
      });
    } catch (cause) {
      const why = String((cause as { stderr?: Buffer }).stderr ?? cause).slice(0, 2000);
      throw new HypolithError("compiler-failed", `gcc could not build ${source}: ${why}`, {
        cause,
        hint: flags.includes("-m32") ? "apt-get install gcc-multilib" : "apt-get install libc6-dev",
      });
    }
  });
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
