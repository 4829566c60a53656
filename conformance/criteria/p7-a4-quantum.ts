/** P7-A4: a quantum spent over 1,000 exits at random places, the rest of it saved at each: what the guest got of it adds up. */
import { Lab, TIERS } from "../../guests/lab.ts";
import { DeterministicClock } from "../../src/machine/clocks.ts";
import { type Assembler, imm } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { bl, ecx, r8, rbx } from "../../src/processor/isa/registers.ts";
import { ExitControl, Field, PinControl } from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const SHIFTS = [0, 5] as const;
const EXITS = 1000;
/** In counts of the timer; large enough that no rounding eats the quantum. */
const QUANTUM = 400_000;

/** Leaves by CPUID after between 1 and 256 turns of a loop. */
function leavingGuest(a: Assembler): void {
  a.emit("mov", rbx, imm(1));
  a.emit("mov", r8, imm(0x9e37_79b9_7f4a_7c15n));
  a.label("again").emit("imul", rbx, r8);
  a.emit("movzx", ecx, bl);
  a.emit("inc", ecx);
  a.label("turn").emit("dec", ecx);
  a.emit("jne", "turn");
  a.emit("cpuid");
  a.emit("jmp", "again");
}

function spend(
  engine: (typeof TIERS)[number],
  shift: number,
  random: Random,
  complaints: Complaints,
): string {
  const clock = new DeterministicClock();
  const lab = new Lab({ engine, build: leavingGuest, clock, preemptionShift: shift });
  const { vmcs } = lab;
  vmcs.set(Field.PIN_CONTROLS, PinControl.PREEMPTION_TIMER);
  vmcs.set(Field.EXIT_CONTROLS, ExitControl.SAVE_PREEMPTION_TIMER);
  vmcs.set(Field.PREEMPTION_TIMER, QUANTUM);
  let got = 0;
  let exits = 0;
  for (;;) {
    // In root mode time passes, and is nobody's quantum.
    clock.idle(lab.tsc + random.below(10_000), lab.retired);
    const before = lab.tsc;
    const reason = lab.enter();
    got += lab.tsc - before;
    exits++;
    if (reason === ExitReason.PREEMPTION_TIMER) break;
    if (reason !== ExitReason.CPUID) {
      complaints.check(false, () => `${engine}, X = ${shift}: exit ${reason}`);
      break;
    }
    lab.skip();
    lab.setRegister(3, BigInt(random.word()));
  }
  const quantum = QUANTUM * 2 ** shift;
  const slack = exits * 2 ** shift;
  const isSpent = vmcs.number(Field.PREEMPTION_TIMER) === 0;
  complaints.check(
    isSpent,
    () => `${engine}, X = ${shift}: ${vmcs.number(Field.PREEMPTION_TIMER)} saved at expiry`,
  );
  complaints.check(exits >= EXITS, () => `${engine}, X = ${shift}: only ${exits} exits`);
  complaints.check(
    Math.abs(got - quantum) <= slack,
    () => `${engine}, X = ${shift}: ${got} of ${quantum} ticks in ${exits} exits`,
  );
  return `${engine}, X = ${shift}: ${got} of ${quantum} ticks in ${exits} exits`;
}

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const details: string[] = [];
  for (const engine of TIERS)
    for (const shift of SHIFTS) {
      progress(`P7-A4: ${engine}, X = ${shift}`);
      details.push(spend(engine, shift, new Random(seed), complaints));
    }
  return complaints.verdict(details[details.length - 1]!, details);
}

export const savedQuantum: Criterion = {
  id: "P7-A4",
  title: "a quantum over more than 1,000 exits, saved at each",
  bar: "sum of TSC deltas in the guest = quantum ± (exits << X)",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: true,
  run,
};
