/**
 * P9-A5: an interrupt that does not exit meets an IDT that is not there: EPT violation with the vector in the IDT-vectoring information, and
 * the controller has been acknowledged; injected again when the page is back, it is delivered exactly once.
 */

import { TIERS } from "../../guests/lab.ts";
import { Table } from "../../guests/lab-tables.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { Field, INTERRUPTION_VALID, PinControl } from "../../src/processor/isa/vmcs-fields.ts";
import { EptEntry } from "../../src/processor/memory/ept.ts";
import { RAM_BASE } from "../../src/processor/state/layout.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { countOf, interruptLab } from "./interrupt-guest.ts";
import { PhysicalInterrupts } from "./physical-interrupts.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const RUNS = 1000;
const PAGE = 4096;
const IF = 0x202;
const TIMER = PinControl.PREEMPTION_TIMER;

async function run({ seed }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  for (const engine of TIERS) {
    const random = new Random(seed);
    const hardware = new PhysicalInterrupts();
    const lab = interruptLab(engine, hardware);
    const { vmcs } = lab;
    const total = new Map<number, number>();
    for (let i = 0; i < RUNS; i++) {
      const vector = 32 + random.below(224);
      lab.place(0, lab.at("spin"));
      vmcs.set(Field.GUEST_RFLAGS, IF);
      vmcs.set(Field.PIN_CONTROLS, TIMER);
      vmcs.set(Field.PREEMPTION_TIMER, 500);
      lab.ept.unmap(Table.IDT, PAGE);
      lab.processor.invalidateEpt();
      hardware.nextAt = lab.tsc + random.below(40);
      hardware.arrive = () => hardware.post(vector);
      const reason = lab.enter();
      const vectoring = vmcs.number(Field.IDT_VECTORING_INFO);
      const text = (): string => `${engine}, run ${i}, vector ${vector}`;
      complaints.equal(
        [
          reason,
          vectoring,
          hardware.apic.pending(),
          Math.floor(vmcs.number(Field.GUEST_PHYSICAL_ADDRESS) / PAGE) * PAGE,
        ],
        [ExitReason.EPT_VIOLATION, INTERRUPTION_VALID + vector, -1, Table.IDT],
        () => `${text()}: reason, vectoring, pending, page`,
      );
      lab.ept.map(
        Table.IDT,
        RAM_BASE + Table.IDT,
        PAGE,
        EptEntry.READ | EptEntry.WRITE | EptEntry.EXECUTE,
      );
      lab.processor.invalidateEpt();
      vmcs.set(Field.ENTRY_INTERRUPTION_INFO, vectoring);
      complaints.equal(lab.enter(), ExitReason.PREEMPTION_TIMER, () => `${text()}: going on`);
      hardware.end();
      total.set(vector, (total.get(vector) ?? 0) + 1);
      complaints.equal(countOf(lab, vector), total.get(vector), () => `${text()}: deliveries`);
    }
    complaints.equal(hardware.acknowledged, RUNS, () => `${engine}: acknowledge cycles`);
  }
  return complaints.verdict(
    `${TIERS.length * RUNS} deliveries met a missing page; each delivered exactly once`,
  );
}

export const deliveryExit: Criterion = {
  id: "P9-A5",
  title: "an interrupt that does not exit, and an IDT page that is not there",
  bar: "exit 48, IDT-vectoring information = vector; delivered exactly once when injected again",
  timeBase: "none",
  runMode: "mh",
  isSeeded: true,
  run,
};
