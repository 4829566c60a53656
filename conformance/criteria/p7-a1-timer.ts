/**
 * P7-A1: the timer, alone. Value 0 leaves before any instruction; a debug trap that is due comes first, unless it leaves itself; the saved
 * value needs an active timer; and no guest ever gets to read the deadline.
 */
import { Lab, TIERS } from "../../guests/lab.ts";
import { WallClock } from "../../src/machine/clocks.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { VendorControl, VendorExit, VendorField } from "../../src/processor/isa/vendor.ts";
import { ExitControl, Field, PinControl } from "../../src/processor/isa/vmcs-fields.ts";
import { S } from "../../src/processor/state/layout.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { lastStamp, stampingGuest } from "./timer-guest.ts";
import { Complaints } from "./verdict.ts";

const RUNS = 100_000;
const WALL_RUNS = 500;
const LONGEST = 300;
const DEBUG = 1;
const PENDING_STEP = 0x4000n;
const TRAP_FLAG = 0x102;
const INVALID_CONTROLS = -8;

type Tier = (typeof TIERS)[number];

function arm(lab: Lab, value: number): void {
  lab.vmcs.set(Field.PIN_CONTROLS, PinControl.PREEMPTION_TIMER);
  lab.vmcs.set(Field.PREEMPTION_TIMER, value);
}

/** Value 0, alone and with a debug trap. */
function atOnce(engine: Tier, complaints: Complaints): void {
  const build = (a: Parameters<typeof stampingGuest>[0]): void => {
    a.label("start").emit("nop");
    a.label("second").emit("nop");
    a.label("handler").emit("nop").emit("hlt");
  };
  const fresh = (value: number, flags = 2): Lab => {
    const lab = new Lab({ engine, build });
    lab.tables.interrupt(DEBUG, 0, lab.at("handler"));
    arm(lab, value);
    lab.vmcs.set(Field.GUEST_RFLAGS, flags);
    return lab;
  };
  const state = (lab: Lab): unknown => [lab.enter(), lab.retired, lab.rip];
  const { PREEMPTION_TIMER, EXCEPTION_OR_NMI } = ExitReason;
  const plain = fresh(0);
  complaints.equal(
    state(plain),
    [PREEMPTION_TIMER, 0, plain.at("start")],
    () => `${engine}: value 0`,
  );
  const pending = fresh(0);
  pending.vmcs.setBig(Field.GUEST_PENDING_DEBUG, PENDING_STEP);
  const afterTrap = [PREEMPTION_TIMER, 0, pending.at("handler")];
  complaints.equal(state(pending), afterTrap, () => `${engine}: value 0, debug trap pending`);
  const leaving = fresh(0);
  leaving.vmcs.setBig(Field.GUEST_PENDING_DEBUG, PENDING_STEP);
  leaving.vmcs.set(Field.EXCEPTION_BITMAP, 1 << DEBUG);
  const asExit = [EXCEPTION_OR_NMI, 0, leaving.at("start")];
  complaints.equal(state(leaving), asExit, () => `${engine}: value 0, debug trap that exits`);
  const stepping = fresh(1, TRAP_FLAG);
  const stepped = [PREEMPTION_TIMER, 1, stepping.at("handler")];
  complaints.equal(
    state(stepping),
    stepped,
    () => `${engine}: the trap of a single step at the deadline`,
  );
  const absolute = fresh(0);
  absolute.vmcs.set(Field.PIN_CONTROLS, 0);
  absolute.vmcs.set(VendorField.CONTROLS, VendorControl.DEADLINE);
  const vendor = [VendorExit.VMM_DEADLINE, 0, absolute.at("start")];
  complaints.equal(state(absolute), vendor, () => `${engine}: absolute deadline in the past`);
  const inactive = fresh(0);
  inactive.vmcs.set(Field.PIN_CONTROLS, 0);
  inactive.vmcs.set(Field.EXIT_CONTROLS, ExitControl.SAVE_PREEMPTION_TIMER);
  complaints.equal(inactive.enter(), INVALID_CONTROLS, () => `${engine}: save without activate`);
}

/** Random stays: where they end, and the largest time stamp seen. Answers the share of instructions in regions. */
function strictly(engine: Tier, random: Random, complaints: Complaints): number {
  const lab = new Lab({ engine, build: stampingGuest });
  for (let i = 0; i < RUNS; i++) {
    const value = random.below(LONGEST);
    const deadline = lab.tsc + value;
    arm(lab, value);
    const reason = lab.enter();
    const largest = lastStamp(lab);
    complaints.check(
      reason === ExitReason.PREEMPTION_TIMER && lab.tsc === deadline && largest < BigInt(deadline),
      () =>
        `${engine}: run ${i}: exit ${reason} at TSC ${lab.tsc}, deadline ${deadline}, read ${largest}`,
    );
  }
  return Number(lab.view.getBigUint64(S.REGION_INSTRUCTIONS.at, true)) / lab.retired;
}

/** The same where time is real. Answers how late the exits were, in ns. */
function strictlyInWallTime(engine: Tier, random: Random, complaints: Complaints): number[] {
  const clock = new WallClock(() => performance.now());
  const lab = new Lab({ engine, build: stampingGuest, clock });
  const late: number[] = [];
  for (let i = 0; i < WALL_RUNS; i++) {
    const deadline = lab.tsc + random.below(400_000);
    lab.vmcs.set(Field.PIN_CONTROLS, 0);
    lab.vmcs.set(VendorField.CONTROLS, VendorControl.DEADLINE);
    lab.vmcs.set(VendorField.VMM_DEADLINE, deadline);
    const reason = lab.enter();
    const largest = lastStamp(lab);
    late.push(lab.tsc - deadline);
    complaints.check(
      reason === VendorExit.VMM_DEADLINE && late[i]! >= 0 && largest < BigInt(deadline),
      () =>
        `${engine}, wall clock: exit ${reason}, ${-late[i]!} ns early, read ${largest} of ${deadline}`,
    );
  }
  return late.sort((a, b) => a - b);
}

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const details: string[] = [];
  for (const engine of TIERS) {
    progress(`P7-A1: ${engine}`);
    const random = new Random(seed);
    atOnce(engine, complaints);
    const share = strictly(engine, random, complaints);
    if (engine === "jit") complaints.check(share > 0.5, () => `only ${share} ran in regions`);
    const late = strictlyInWallTime(engine, random, complaints);
    const us = (share: number): string =>
      (late[Math.floor(share * (late.length - 1))]! / 1e3).toFixed(1);
    details.push(
      `${engine}: ${(100 * share).toFixed(0)} % of the instructions in regions; wall clock: late by ${us(0.5)} us median, ${us(0.99)} us at 99 %`,
    );
  }
  return complaints.verdict(
    `every exit at the deadline, no time stamp at or beyond it, in ${TIERS.length} x ${RUNS} random runs`,
    details,
  );
}

export const timerUnit: Criterion = {
  id: "P7-A1",
  title: "value 0, debug traps, entry checks, and strict expiry",
  bar: "0 instructions at value 0; #DB before the timer; largest time stamp < deadline in 10^5 runs",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: true,
  run,
};
