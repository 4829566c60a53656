/**
 * P9-A6: stock hypervisors start unmodified. The capability MSRs 0x483 and 0x48F let acknowledgement on exit be 0 and 1, entries with either work
 * and do what they say; Debian's KVM loads, and its QEMU boots a guest. kvmtool is not in the suite.
 */
import { VmxLab } from "../../guests/vmx-lab.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { ExitControl, Field } from "../../src/processor/isa/vmcs-fields.ts";
import { TEST_CONTROLS } from "../../src/processor/vmx/entry-checks/check.ts";
import { InterruptAnswer } from "../../src/processor/vmx/guest/guest-vmx.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { bootInside } from "./nested-boot.ts";
import { Complaints } from "./verdict.ts";

const VECTOR = 0x55;
const ACKNOWLEDGE = BigInt(ExitControl.ACKNOWLEDGE_INTERRUPT);
const VALID = 0x8000_0000n;

function acknowledgement(complaints: Complaints): void {
  const lab = new VmxLab({
    engine: "interpreter",
    guest: (a) => a.label("spin").emit("jmp", "spin"),
  });
  for (const msr of [0x483, 0x48f]) {
    const value = lab.capabilities.get(msr)!;
    const freedom = [(value >> 15n) & 1n, (value >> 47n) & 1n];
    // 0x483 reports default1 bits as fixed; acknowledgement is none of them.
    complaints.equal(freedom, [0n, 1n], () => `MSR ${msr.toString(16)}: bit 15`);
  }
  for (const acknowledges of [false, true]) {
    lab.prepare([[Field.EXIT_CONTROLS, TEST_CONTROLS.exit | (acknowledges ? ACKNOWLEDGE : 0n)]]);
    const guest = lab.processor.guestVmx!;
    let asked = -1;
    lab.between = () => {
      if (!guest.isInside) return false;
      asked = guest.interruptAnswer;
      guest.interrupt(asked === InterruptAnswer.EXIT_ACKNOWLEDGED ? VECTOR : -1, false);
      return true;
    };
    lab.launch();
    const expected = acknowledges ? InterruptAnswer.EXIT_ACKNOWLEDGED : InterruptAnswer.EXIT;
    complaints.equal(
      asked,
      expected,
      () => `what the controller is asked, bit 15 = ${acknowledges}`,
    );
    complaints.equal(
      [Number(lab.field(Field.EXIT_REASON)), lab.field(Field.EXIT_INTERRUPTION_INFO)],
      [ExitReason.EXTERNAL_INTERRUPT, acknowledges ? VALID + BigInt(VECTOR) : 0n],
      () => `the exit, bit 15 = ${acknowledges}`,
    );
  }
}

async function run(context: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  acknowledgement(complaints);
  const boot = await bootInside(context, "P9-A6", "", "ept");
  const settings = complaints.verdict("yes");
  const passed = settings.passed && boot.isHealthy && boot.warnings.length === 0;
  return {
    passed,
    measured: `bit 15 of 0x483 and 0x48F free, entries with 0 and 1 as they say: ${settings.measured}; KVM loads with ${boot.warnings.length} warnings; QEMU's guest ${boot.isHealthy ? "boots" : "FAILS"} (kvmtool is not in the suite)`,
    details: [...(settings.details ?? []), ...boot.details],
  };
}

export const stockKvm: Criterion = {
  id: "P9-A6",
  title: "Debian's KVM starts unmodified, and acknowledgement on exit may be on and off",
  bar: "KVM loads without a warning; QEMU's guest boots; both settings enter and do what they say",
  timeBase: "none",
  runMode: "nested",
  isSeeded: false,
  run,
};
