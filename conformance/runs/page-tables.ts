/** Paging against the reference walker: random steps on page tables in each mode, by the guest itself. */
import { chosenEngine } from "../harness/engine.ts";
import type { Report } from "../harness/report.ts";
import { RandomSteps } from "../page-tables/random-steps.ts";

const STEPS_OF_A_SEED = 200_000;
/** Paging mode, and where translations of guest-physical addresses come from. */
const MODES = [
  ["4-level", "ept"],
  ["PAE", "ept"],
  ["32-bit", "ept"],
  ["4-level", "active"],
] as const;

/** `steps` in each paging mode. */
export const pageTables =
  (steps: number, seed: number) =>
  (report: Report): Promise<void> => {
    const engine = chosenEngine() === "jit" ? "jit" : "interpreter";
    for (const [mode, source] of MODES) {
      const sums: Record<string, number> = {};
      let done = 0;
      let problem = "";
      for (let n = seed; done < steps && problem === ""; n++) {
        const count = Math.min(STEPS_OF_A_SEED, steps - done);
        try {
          const run = new RandomSteps(mode, engine, n, source);
          run.run(count);
          for (const [name, value] of Object.entries(run.machine.counts))
            sums[name] = (sums[name] ?? 0) + value;
          sums.exits = (sums.exits ?? 0) + run.target.exits;
          done += count;
        } catch (error) {
          problem = `seed ${n}: ${error instanceof Error ? error.message : String(error)}`;
        }
      }
      const facts = Object.entries(sums).map(([name, value]) => `${value} ${name}`);
      report.fact(`${mode}, ${engine}, ${source}, seeds from ${seed}: ${facts.join(", ")}`);
      report.check(problem === "", problem || `${mode}, ${source}: ${done} steps, 0 differences`);
    }
    report.fact(
      "active tables in PAE and 32-bit paging: not tried, they serve 4-level paging alone",
    );
    return Promise.resolve();
  };
