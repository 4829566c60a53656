/**
 * P9-A4: a level line that is withdrawn between its recognition and the acknowledge cycle, at random: the spurious vector, which the VMM
 * tells from a real one by the missing ISR bit and does not end. Nothing stays in service, and no real interrupt is taken for spurious.
 */
import { TIERS } from "../../guests/lab.ts";
import { Port } from "../../src/devices/platform/platform-map.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import {
  ExitControl,
  Field,
  INTERRUPTION_VALID,
  PinControl,
} from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { interruptLab } from "./interrupt-guest.ts";
import { Apic, PhysicalInterrupts, PIC_VECTORS } from "./physical-interrupts.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const RUNS = 500_000;
const LINES = [4, 11] as const;
const APIC_VECTOR = 0x61;
const SPURIOUS_APIC = 0xef;
const ENABLED = 0x100;

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const counts = { real: 0, spurious: 0 };
  for (const engine of TIERS) {
    progress(`P9-A4: ${engine}`);
    const random = new Random(seed);
    const hardware = new PhysicalInterrupts();
    // Level-triggered inputs of the 8259 pair.
    hardware.controllers.writePort(Port.ELCR, 1, 1 << 4);
    hardware.controllers.writePort(Port.ELCR + 1, 1, 1 << 3);
    hardware.apic.write(Apic.SVR, ENABLED | SPURIOUS_APIC, 0);
    const lab = interruptLab(engine, hardware);
    const { vmcs } = lab;
    lab.place(0, lab.at("spin"));
    vmcs.set(Field.PIN_CONTROLS, PinControl.EXTERNAL_INTERRUPT | PinControl.PREEMPTION_TIMER);
    vmcs.set(Field.EXIT_CONTROLS, ExitControl.ACKNOWLEDGE_INTERRUPT);
    vmcs.set(Field.PREEMPTION_TIMER, 100);
    for (let i = 0; i < RUNS; i++) {
      const withdraws = random.chance(50);
      const isApic = random.chance(30);
      const irq = random.pick(LINES);
      hardware.nextAt = lab.tsc + random.below(4);
      hardware.arrive = () => (isApic ? hardware.post(APIC_VECTOR) : hardware.line(irq, true));
      hardware.beforeAcknowledge = () => {
        if (!withdraws) return;
        if (isApic) hardware.apic.write(Apic.TPR, 0xff, 0);
        else hardware.line(irq, false);
      };
      const reason = lab.enter();
      const vector = vmcs.number(Field.EXIT_INTERRUPTION_INFO) - INTERRUPTION_VALID;
      // The VMM: real if in service, else spurious. A spurious one of the slave has put the cascade in service.
      const pic = isApic ? [0, 0] : hardware.picInService();
      const isReal = isApic
        ? hardware.bits(Apic.ISR) !== 0n
        : irq < 8
          ? pic[0] !== 0
          : pic[1] !== 0;
      let wanted = isApic ? (withdraws ? SPURIOUS_APIC : APIC_VECTOR) : PIC_VECTORS + irq;
      // The slave's request to the master is an edge that has been latched: the slave answers with its own spurious vector.
      if (!isApic && withdraws) wanted = PIC_VECTORS + 7;
      complaints.check(
        reason === ExitReason.EXTERNAL_INTERRUPT &&
          isReal === !withdraws &&
          (vector & 0xff) === wanted,
        () =>
          `${engine}, run ${i}: exit ${reason}, vector ${vector}, real ${isReal}, withdrawn ${withdraws}, wanted ${wanted}`,
      );
      counts[isReal ? "real" : "spurious"]++;
      hardware.beforeAcknowledge = () => {};
      hardware.apic.write(Apic.TPR, 0, 0);
      if (isApic) {
        if (withdraws) hardware.acknowledge();
        hardware.end();
      } else {
        hardware.line(irq, false);
        if (isReal) hardware.endPic(vector);
        else if (pic[0] !== 0) hardware.controllers.writePort(Port.PIC_MASTER, 1, 0x20);
      }
      if (i % 1000 === 0) {
        const rest = [hardware.bits(Apic.ISR), ...hardware.picInService()].map(Number);
        complaints.equal(rest, [0, 0, 0], () => `${engine}, run ${i}: stuck in service`);
      }
    }
    const rest = [hardware.bits(Apic.ISR), ...hardware.picInService()].map(Number);
    complaints.equal(rest, [0, 0, 0], () => `${engine}: stuck in service`);
  }
  return complaints.verdict(`${counts.real} real, ${counts.spurious} spurious, none stuck`);
}

export const spuriousInterrupts: Criterion = {
  id: "P9-A4",
  title: "10^6 random withdrawals of a request between recognition and acknowledgement",
  bar: "spurious ones handled, no stuck ISR bit",
  timeBase: "none",
  runMode: "mh",
  isSeeded: true,
  run,
};
