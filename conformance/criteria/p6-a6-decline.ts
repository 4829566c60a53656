/**
 * P6-A6: a VMM that wants to know of returns to ring 3, and of nothing else: by the decline mask, and by entering again at once at the exits
 * that it did not want. What the guest does is the same.
 */
import { Lab } from "../../guests/lab.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { rbx } from "../../src/processor/isa/registers.ts";
import { CplExit, VendorExit, VendorField } from "../../src/processor/isa/vendor.ts";
import { Field } from "../../src/processor/isa/vmcs-fields.ts";
import { S } from "../../src/processor/state/layout.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Complaints } from "./verdict.ts";

const CALLS = 20_000;
const REPEATS = 5;
const WANTED = 3;

/** Ring 3 calls ring 0 and is returned to, again and again. */
function callingGuest(a: Assembler): void {
  a.label("user").emit("inc", rbx);
  a.emit("syscall");
  a.emit("jmp", "user");
  a.label("kernel").emit("inc", rbx);
  a.db(0x48, 0x0f, 0x07);
}

interface Run {
  readonly exits: number;
  readonly ms: number;
  /** TSC, instructions and RBX at the end. */
  readonly guest: string;
}

function runWith(control: number): Run {
  const lab = new Lab({ engine: "jit", build: callingGuest });
  const { vmcs, view } = lab;
  vmcs.set(Field.GUEST_EFER, vmcs.number(Field.GUEST_EFER) | 1);
  view.setBigUint64(S.STAR.at, (0x4bn << 48n) | (8n << 32n), true);
  view.setBigUint64(S.LSTAR.at, BigInt(lab.at("kernel")), true);
  lab.place(WANTED, lab.at("user"));
  vmcs.set(VendorField.CPL_EXIT_CONTROLS, control);
  let exits = 0;
  const started = performance.now();
  for (let wanted = 0; wanted < CALLS; ) {
    if (lab.enter() !== VendorExit.CPL_TRANSITION) throw new Error("an exit for another reason");
    exits++;
    if (lab.cpl === WANTED) wanted++;
  }
  const ms = performance.now() - started;
  return { exits, ms, guest: [lab.tsc, lab.retired, lab.register(3)].join(" ") };
}

const median = (list: number[]): number => list.sort((a, b) => a - b)[list.length >> 1]!;

async function run(_: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const times: [number[], number[]] = [[], []];
  let counts: [number, number] = [0, 0];
  for (let i = 0; i < REPEATS; i++) {
    const masked = runWith(CplExit.CHANGE | (1 << CplExit.DECLINE_SHIFT));
    const software = runWith(CplExit.CHANGE);
    counts = [masked.exits, software.exits];
    times[0].push(masked.ms);
    times[1].push(software.ms);
    complaints.equal(masked.guest, software.guest, () => "what the guest has done");
    complaints.equal(counts, [CALLS, 2 * CALLS], () => "exits");
  }
  const [hardware, software] = [median(times[0]), median(times[1])];
  complaints.check(hardware < software, () => `${hardware} ms by the mask, ${software} ms without`);
  return complaints.verdict(
    `mask: ${counts[0]} exits, ${hardware.toFixed(0)} ms; declined by entering again: ${counts[1]} exits, ${software.toFixed(0)} ms`,
  );
}

export const declineMask: Criterion = {
  id: "P6-A6",
  title: "levels declined by the mask, and by the VMM",
  bar: "half the exits, less time, the guest alike; both printed",
  timeBase: "wall",
  runMode: "mh",
  isSeeded: false,
  run,
};
