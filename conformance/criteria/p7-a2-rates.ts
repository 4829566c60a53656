/**
 * P7-A2: the timer at three rates, with small and largest values, while TSC offset and scaling change between the entries of a quantum: the
 * exit comes at the first boundary at which the TSC has reached the deadline computed from the real TSC.
 */
import { Lab, TIERS } from "../../guests/lab.ts";
import { DeterministicClock } from "../../src/machine/clocks.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import {
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { stampingGuest } from "./timer-guest.ts";
import { Complaints } from "./verdict.ts";

const SHIFTS = [0, 5, 31] as const;
const RUNS = 2000;
const LARGEST = 0xffff_ffff;
/** A deadline is at most so many instructions away; longer ones are waited for in HLT. */
const NEAR = 500;

/** Takes the clock to within NEAR of the next count of the timer at times, and changes what the guest sees of it. */
function disturb(lab: Lab, clock: DeterministicClock, shift: number, random: Random): void {
  const tick = 2 ** shift;
  if (random.chance(50) && tick > NEAR) {
    const next = (Math.floor(lab.tsc / tick) + 1) * tick;
    clock.idle(next - 1 - random.below(NEAR), lab.retired);
  } else clock.idle(lab.tsc + random.below(1000), lab.retired);
  const { vmcs } = lab;
  vmcs.setBig(Field.TSC_OFFSET, BigInt(random.word()) - 0x8000_0000n);
  vmcs.setBig(Field.TSC_MULTIPLIER, (1n << 47n) + (BigInt(random.word()) << 17n));
}

function tryRate(
  engine: (typeof TIERS)[number],
  shift: number,
  random: Random,
  complaints: Complaints,
): number {
  const clock = new DeterministicClock();
  const lab = new Lab({ engine, build: stampingGuest, clock, preemptionShift: shift });
  const { vmcs } = lab;
  const { TSC_OFFSETTING, SECONDARY } = PrimaryControl;
  vmcs.set(Field.PRIMARY_CONTROLS, (TSC_OFFSETTING | SECONDARY) >>> 0);
  vmcs.set(
    Field.SECONDARY_CONTROLS,
    SecondaryControl.EPT | SecondaryControl.UNRESTRICTED_GUEST | SecondaryControl.TSC_SCALING,
  );
  vmcs.set(Field.PIN_CONTROLS, PinControl.PREEMPTION_TIMER);
  const tick = 2 ** shift;
  let runs = 0;
  for (let i = 0; i < RUNS; i++) {
    disturb(lab, clock, shift, random);
    const isLargest = i % 50 === 0;
    const value = isLargest
      ? LARGEST
      : random.pick([1, 1, 2, random.below(NEAR) >> Math.min(shift, 8)]);
    const deadline = (Math.floor(lab.tsc / tick) + value) * tick;
    // What is far away is waited for without instructions.
    vmcs.set(Field.GUEST_ACTIVITY, deadline - lab.tsc > NEAR ? 1 : 0);
    vmcs.set(Field.PREEMPTION_TIMER, value);
    const before = lab.tsc;
    const reason = lab.enter();
    const wanted = Math.max(before, deadline);
    complaints.check(
      reason === ExitReason.PREEMPTION_TIMER && lab.tsc === wanted,
      () =>
        `${engine}, X = ${shift}, value ${value} from ${before}: exit ${reason} at ${lab.tsc}, not ${wanted}`,
    );
    runs++;
  }
  return runs;
}

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  let runs = 0;
  for (const engine of TIERS)
    for (const shift of SHIFTS) {
      progress(`P7-A2: ${engine}, X = ${shift}`);
      runs += tryRate(engine, shift, new Random(seed + shift), complaints);
    }
  return complaints.verdict(`${runs} exits, each at the first boundary with TSC >= deadline`);
}

export const timerRates: Criterion = {
  id: "P7-A2",
  title:
    "rates 0, 5 and 31; values 1 and 0xFFFFFFFF; TSC offset and scaling changed between entries",
  bar: "exit at the first boundary with TSC >= deadline, no later, no earlier",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: true,
  run,
};
