/**
 * Rows against v86, the peer in JavaScript: as 32-bit programs on Debian's 32-bit kernel, for v86 has no 64-bit mode.
 *
 * QEMU is there too: where this machine does not run 32-bit programs itself, it is whose results the others must have.
 */
import { SSE2_TERMS } from "./even-terms.ts";
import { benchImage, type Platform } from "./image-bench.ts";
import { programImage, realImage } from "./images.ts";
import type { BenchOptions } from "./options.ts";
import { type BenchProgram, workloadOf } from "./program-table.ts";
import { V86Machine } from "./v86-machine.ts";
import { v86Package } from "./v86-package.ts";
import type { RowResult, Workload } from "./workload.ts";

export const V86_NAME = "v86";

export async function benchV86(
  programs: readonly BenchProgram[],
  real: readonly Workload[],
  options: BenchOptions,
): Promise<RowResult[]> {
  const v86 = await v86Package();
  const platform: Platform = {
    flavor: "686-pae",
    terms: SSE2_TERMS,
    peers: { [V86_NAME]: (boot) => new V86Machine(boot, v86) },
  };
  const rows: RowResult[] = [];
  if (programs.length > 0) {
    const workloads = programs.map((program) => workloadOf(program, options.scale));
    const image = await programImage(programs, 32);
    rows.push(...(await benchImage(image, workloads, options, platform)));
  }
  if (real.length > 0) {
    const image = await realImage(32);
    rows.push(...(await benchImage(image, real, options, platform)));
  }
  return rows;
}
