/** P6-A2: a level that VM entry already finds exits before any instruction, if the control asks at entry; else not before a transition. */
import { Lab, TIERS } from "../../guests/lab.ts";
import { RINGS } from "../../guests/lab-tables.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { CplExit, VendorExit, VendorField } from "../../src/processor/isa/vendor.ts";
import { Field } from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Complaints } from "./verdict.ts";

const { MATCH, GREATER, LESS, CHANGE, INCREASE, DECREASE, AT_ENTRY, TARGET_SHIFT } = CplExit;
const ALL_OF_MATRIX = 0xffff_0000;
const RESUMES = 5;

const guest = (a: Assembler): void => {
  for (let i = 0; i < RESUMES; i++) a.emit("nop");
  a.emit("cpuid");
};

async function run(_: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  for (const engine of TIERS) {
    const lab = new Lab({ engine, build: guest });
    for (const ring of RINGS)
      for (const target of RINGS) {
        const holds = { [MATCH]: ring === target, [GREATER]: ring > target, [LESS]: ring < target };
        for (const criterion of [MATCH, GREATER, LESS, CHANGE, INCREASE, DECREASE, ALL_OF_MATRIX])
          for (const atEntry of [0, AT_ENTRY])
            for (const declines of [0, 1 << (CplExit.DECLINE_SHIFT + ring)]) {
              lab.place(ring, 0x10_0000);
              const control = criterion | (target << TARGET_SHIFT) | atEntry | declines;
              lab.vmcs.set(VendorField.CPL_EXIT_CONTROLS, control >>> 0);
              const before = lab.retired;
              const exits =
                atEntry !== 0 &&
                declines === 0 &&
                (holds[criterion as keyof typeof holds] ?? false);
              const wanted = exits
                ? [VendorExit.CPL_TRANSITION, 0, ring | (ring << 2) | (criterion << 9)]
                : [ExitReason.CPUID, RESUMES, 0];
              const got = [
                lab.enter(),
                lab.retired - before,
                lab.vmcs.number(Field.EXIT_QUALIFICATION),
              ];
              complaints.equal(
                got,
                wanted,
                () =>
                  `${engine}: ring ${ring}, control ${(control >>> 0).toString(16)}: reason, instructions, qualification`,
              );
            }
      }
    // Entered again and again the guest does not get on; without the question at entry it does.
    lab.place(3, 0x10_0000);
    const control = MATCH | (3 << TARGET_SHIFT);
    const before = lab.retired;
    lab.vmcs.set(VendorField.CPL_EXIT_CONTROLS, control | AT_ENTRY);
    for (let i = 0; i < RESUMES; i++)
      complaints.equal(lab.enter(), VendorExit.CPL_TRANSITION, () => `${engine}: resume ${i}`);
    complaints.equal(lab.retired - before, 0, () => `${engine}: instructions over all resumes`);
    lab.vmcs.set(VendorField.CPL_EXIT_CONTROLS, control);
    complaints.equal(
      lab.enter(),
      ExitReason.CPUID,
      () => `${engine}: without the question at entry`,
    );
  }
  return complaints.verdict(
    "match(3) at entry into CPL 3: exit after 0 instructions; without bit 10: none",
  );
}

export const levelAtEntry: Criterion = {
  id: "P6-A2",
  title: "criteria of level, asked at VM entry",
  bar: "0 guest instructions with bit 10, no exit without",
  timeBase: "none",
  runMode: "mh",
  isSeeded: false,
  run,
};
