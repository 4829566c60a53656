/** P7-A3: a guest that takes nothing and does nothing is left at its deadline all the same: CLI and a jump to itself, everything masked, halts, shutdown. */
import { Lab, TIERS } from "../../guests/lab.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { VendorControl, VendorExit, VendorField } from "../../src/processor/isa/vendor.ts";
import { Field, PinControl, PrimaryControl } from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const RUNS = 200;
const HLT = 1;
const SHUTDOWN = 2;
const BLOCKED_BY_NMI = 8;

interface Case {
  readonly name: string;
  /** Activity state before entry, and after the exit. */
  readonly activity: number;
  readonly blocking: number;
  /** Instructions from the entry to where it is wedged; afterwards it executes one a tick, or none. */
  readonly loops: boolean;
  readonly lead: number;
  readonly after: number;
}

const CASES: readonly Case[] = [
  { name: "cli; jmp $", activity: 0, blocking: 0, loops: true, lead: 1, after: 0 },
  {
    name: "jmp $ with everything masked",
    activity: 0,
    blocking: BLOCKED_BY_NMI,
    loops: true,
    lead: 1,
    after: 0,
  },
  { name: "hlt with IF = 0", activity: 0, blocking: 0, loops: false, lead: 2, after: HLT },
  {
    name: "entered in HLT",
    activity: HLT,
    blocking: BLOCKED_BY_NMI,
    loops: false,
    lead: 0,
    after: HLT,
  },
  {
    name: "entered in shutdown",
    activity: SHUTDOWN,
    blocking: 0,
    loops: false,
    lead: 0,
    after: SHUTDOWN,
  },
];

const wedge =
  (loops: boolean) =>
  (a: Assembler): void => {
    a.emit("cli");
    if (loops) a.label("self").emit("jmp", "self");
    else a.emit("hlt");
    a.emit("ud2");
  };

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const random = new Random(seed);
  for (const engine of TIERS)
    for (const wanted of CASES) {
      progress(`P7-A3: ${engine}, ${wanted.name}`);
      for (let i = 0; i < RUNS; i++) {
        const isAbsolute = i % 2 === 1;
        const lab = labs(engine, wanted);
        const value = 10 + random.below(100_000);
        const deadline = lab.tsc + value;
        const { vmcs } = lab;
        vmcs.set(Field.GUEST_ACTIVITY, wanted.activity);
        vmcs.set(Field.GUEST_INTERRUPTIBILITY, wanted.blocking);
        vmcs.set(Field.PIN_CONTROLS, isAbsolute ? 0 : PinControl.PREEMPTION_TIMER);
        vmcs.set(Field.PREEMPTION_TIMER, value);
        vmcs.set(VendorField.CONTROLS, isAbsolute ? VendorControl.DEADLINE : 0);
        vmcs.set(VendorField.VMM_DEADLINE, deadline);
        const before = lab.retired;
        const reason = lab.enter();
        const executed = wanted.loops ? value : wanted.lead;
        const got = [reason, lab.tsc, lab.retired - before, vmcs.number(Field.GUEST_ACTIVITY)];
        const timer = isAbsolute ? VendorExit.VMM_DEADLINE : ExitReason.PREEMPTION_TIMER;
        complaints.equal(
          got,
          [timer, deadline, executed, wanted.after],
          () => `${engine}, ${wanted.name}: reason, TSC, instructions, activity`,
        );
      }
    }
  return complaints.verdict(
    `${TIERS.length * CASES.length} guests left at deadline ± 0 instructions`,
  );
}

const kept = new Map<string, Lab>();

/** One machine for each case, put back to its beginning. */
function labs(engine: (typeof TIERS)[number], { name, loops }: Case): Lab {
  const key = `${engine} ${name}`;
  let lab = kept.get(key);
  if (!lab) {
    lab = new Lab({ engine, build: wedge(loops) });
    lab.vmcs.set(
      Field.PRIMARY_CONTROLS,
      (lab.vmcs.number(Field.PRIMARY_CONTROLS) & ~PrimaryControl.HLT) >>> 0,
    );
    kept.set(key, lab);
  }
  lab.place(0, 0x10_0000);
  return lab;
}

export const wedgedGuests: Criterion = {
  id: "P7-A3",
  title: "guests that take nothing and do nothing",
  bar: "control regained at deadline ± 0 instructions",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: true,
  run,
};
