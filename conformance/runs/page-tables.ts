/** Paging against the reference walker: random steps on page tables in each mode, by the guest itself. */
import { chosenEngine } from "../harness/engine.ts";
import type { Report } from "../harness/report.ts";
import { RandomSteps } from "../page-tables/random-steps.ts";

const STEPS_OF_A_SEED = 200_000;
const MODES = ["4-level", "PAE", "32-bit"] as const;

/** `steps` in each paging mode. */
export const pageTables =
  (steps: number, seed: number) =>
  (report: Report): Promise<void> => {
    const engine = chosenEngine() === "jit" ? "jit" : "interpreter";
    for (const mode of MODES) {
      const sums: Record<string, number> = {};
      let done = 0;
      let problem = "";
      for (let n = seed; done < steps && problem === ""; n++) {
        const count = Math.min(STEPS_OF_A_SEED, steps - done);
        try {
          const run = new RandomSteps(mode, engine, n);
          run.run(count);
          for (const [name, value] of Object.entries(run.machine.counts))
            sums[name] = (sums[name] ?? 0) + value;
          done += count;
        } catch (error) {
          problem = `seed ${n}: ${error instanceof Error ? error.message : String(error)}`;
        }
      }
      const facts = Object.entries(sums).map(([name, value]) => `${value} ${name}`);
      report.fact(`${mode}, ${engine}, EPT, seeds from ${seed}: ${facts.join(", ")}`);
      report.check(problem === "", problem || `${mode}: ${done} steps, 0 differences`);
    }
    report.fact("active tables (EPT off): not tried, there are none yet");
    return Promise.resolve();
  };
