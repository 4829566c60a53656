/**
 * P6-A1: every transition between levels, by every instruction or event that makes it: the exit comes if its criterion is on, with the exact
 * qualification and the state that the guest has where, without the control, it would execute the first instruction of the new level.
 */
import { Lab, TIERS } from "../../guests/lab.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { CplExit, VendorExit, VendorField } from "../../src/processor/isa/vendor.ts";
import { Field, SecondaryControl } from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { type LevelTransition, TRANSITIONS, transitionGuest } from "./transitions.ts";
import { Complaints } from "./verdict.ts";

const COMPARED = [
  ...["RIP", "RSP", "RFLAGS", "CS_SELECTOR", "CS_RIGHTS", "SS_SELECTOR", "SS_RIGHTS"],
  ...["INTERRUPTIBILITY", "PENDING_DEBUG", "CR0", "ACTIVITY"],
] as const;
const GPRS = 16;
const ALL_OF_MATRIX = 0xffff_0000;
/** Bits of the criteria in the qualification, in the order of the control's. */
const MATRIX_MET = 1 << 6;

/** What the guest is: registers, and how far it has come. */
function stateOf(lab: Lab, from: number): string {
  const fields = COMPARED.map((name) =>
    lab.vmcs.big(Field[`GUEST_${name}` as keyof typeof Field]).toString(16),
  );
  const registers = Array.from({ length: GPRS }, (_, n) => lab.register(n).toString(16));
  return [...fields, ...registers, lab.cpl, lab.retired - from].join(" ");
}

interface Outcome {
  readonly reason: number;
  readonly qualification: number;
  readonly state: string;
}

function attempt(lab: Lab, transition: LevelTransition, control: number): Outcome {
  lab.vmcs.set(Field.GUEST_CR0, lab.isLong ? 0x8000_0031 : 0x31);
  for (let n = 0; n < GPRS; n++) if (n !== 4) lab.setRegister(n, 0n);
  transition.prepare(lab);
  lab.vmcs.set(VendorField.CPL_EXIT_CONTROLS, control >>> 0);
  const before = lab.retired;
  const reason = lab.enter();
  return {
    reason,
    qualification: lab.vmcs.number(Field.EXIT_QUALIFICATION),
    state: stateOf(lab, before),
  };
}

/** Controls with one criterion each, and whether it holds: [bits, bit of the qualification, holds]. */
function criteria({ from, to }: LevelTransition): [number, number, boolean][] {
  const { CHANGE, INCREASE, DECREASE, MATCH, GREATER, LESS, TARGET_SHIFT, MATRIX_SHIFT } = CplExit;
  const matrix = 1 << (MATRIX_SHIFT + 4 * from + to);
  const list: [number, number, boolean][] = [
    [CHANGE, CHANGE, from !== to],
    [INCREASE, INCREASE, to < from],
    [DECREASE, DECREASE, to > from],
    [matrix, MATRIX_MET, true],
    [ALL_OF_MATRIX & ~matrix, MATRIX_MET, false],
  ];
  for (const target of [0, 1, 2, 3]) {
    const level = target << TARGET_SHIFT;
    list.push([MATCH | level, MATCH, to === target]);
    list.push([GREATER | level, GREATER, to > target]);
    list.push([LESS | level, LESS, to < target]);
  }
  return list;
}

function tryOne(
  engine: string,
  lab: Lab,
  transition: LevelTransition,
  complaints: Complaints,
): void {
  const { name, from, to, cause, vector } = transition;
  const what = (text: string): string =>
    `${engine}, ${transition.mode}, ${name} ${from} to ${to}: ${text}`;
  const plain = attempt(lab, transition, 0);
  complaints.equal(plain.reason, ExitReason.CPUID, () => what("without the control"));
  complaints.equal(lab.cpl, to, () => what("level without the control"));
  for (const [control, bit, holds] of criteria(transition)) {
    const hex = (control >>> 0).toString(16);
    const outcome = attempt(lab, transition, control);
    const reason = holds ? VendorExit.CPL_TRANSITION : ExitReason.CPUID;
    complaints.equal(outcome.reason, reason, () => what(`control ${hex}`));
    complaints.equal(outcome.state, plain.state, () => what(`state with control ${hex}`));
    if (!holds) continue;
    const wanted = to | (from << 2) | (cause << 4) | (bit << 9) | (vector << 16);
    complaints.equal(outcome.qualification, wanted, () => what(`qualification with ${hex}`));
    const declining = control | (1 << (CplExit.DECLINE_SHIFT + to));
    const declined = attempt(lab, transition, declining);
    complaints.equal(declined.reason, ExitReason.CPUID, () => what(`declined ${hex}`));
    complaints.equal(declined.state, plain.state, () => what(`state, declined ${hex}`));
    const others = control | (0xf000 & ~(1 << (CplExit.DECLINE_SHIFT + to)));
    const kept = attempt(lab, transition, others);
    complaints.equal(kept.reason, reason, () => what(`other levels declined, ${hex}`));
  }
}

async function run({ progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const pairs = new Set<string>();
  for (const engine of TIERS)
    for (const mode of ["long64", "protected32"] as const) {
      const lab = new Lab({ engine, mode, build: transitionGuest });
      const { EPT, UNRESTRICTED_GUEST } = SecondaryControl;
      lab.vmcs.set(Field.SECONDARY_CONTROLS, EPT | UNRESTRICTED_GUEST);
      for (const transition of TRANSITIONS) {
        if (transition.mode !== mode) continue;
        progress(`P6-A1: ${engine}, ${mode}, ${transition.name}`);
        pairs.add(`${transition.from}${transition.to}`);
        tryOne(engine, lab, transition, complaints);
      }
      lab.vmcs.set(VendorField.CPL_EXIT_CONTROLS, CplExit.RESERVED);
      complaints.equal(lab.enter(), -8, () => `${engine}: reserved bits of the control`);
    }
  complaints.equal(pairs.size, 16, () => "pairs of levels tried");
  const ways = new Set(TRANSITIONS.map(({ name }) => name)).size;
  return complaints.verdict(
    `${pairs.size} pairs of levels by ${ways} ways (${TRANSITIONS.length} transitions) in both tiers`,
  );
}

export const transitionMatrix: Criterion = {
  id: "P6-A1",
  title: "all transitions between levels, by every way there is",
  bar: "exit iff the bit is set; qualification exact; state at the first instruction of the new level; declined levels honoured",
  timeBase: "none",
  runMode: "mh",
  isSeeded: false,
  run,
};
