/**
 * P8-A5: a notification whose posted-interrupt requests are empty changes nothing, in any state of the virtual APIC: on the way through random
 * operations, all of which are compared with a reference model as well.
 */
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";
import { VirtualApicBench } from "./virtual-apic-bench.ts";

const STATES = 300;
const STEPS = 300;

async function run({ seed }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const random = new Random(seed);
  for (let i = 0; i < STATES; i++) {
    const exits = Array.from({ length: random.below(20) }, () => 16 + random.below(240));
    const bench = new VirtualApicBench(exits);
    bench.apic.enter();
    for (let n = 0; n < STEPS; n++) {
      const problem = bench.step(random) ?? bench.difference();
      complaints.check(problem === null, () => `state ${i}, step ${n}: ${problem}`);
      const before = JSON.stringify([
        bench.vmcs.number(0x810),
        bench.apic.read(0x200),
        [...bench.model.irr],
      ]);
      const isLeft = bench.post([]);
      const after = JSON.stringify([
        bench.vmcs.number(0x810),
        bench.apic.read(0x200),
        [...bench.model.irr],
      ]);
      complaints.check(
        isLeft && before === after,
        () => `state ${i}, step ${n}: changed by nothing`,
      );
      const rest = bench.difference();
      complaints.check(rest === null, () => `state ${i}, step ${n}, empty notification: ${rest}`);
    }
  }
  return complaints.verdict(
    `${STATES * STEPS} empty notifications: RVI, VIRR and all the rest as the model has it`,
  );
}

export const emptyNotification: Criterion = {
  id: "P8-A5",
  title: "a notification without posted requests",
  bar: "RVI, VIRR and guest unaffected",
  timeBase: "none",
  runMode: "nested",
  isSeeded: true,
  run,
};
