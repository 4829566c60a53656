/**
 * P9-A2: the interrupt controllers before and after an exit, bit for bit, against a model of what an acknowledge cycle does: acknowledged or
 * not, edge and level, through the local APIC and as ExtINT, at random task priorities with other vectors pending and in service.
 */
import { type Lab, TIERS } from "../../guests/lab.ts";
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

const RUNS = 2000;

interface State {
  irr: bigint;
  isr: bigint;
  ppr: number;
  pic: readonly [number, number];
}

const stateOf = (hardware: PhysicalInterrupts): State => ({
  irr: hardware.bits(Apic.IRR),
  isr: hardware.bits(Apic.ISR),
  ppr: hardware.ppr,
  pic: hardware.picInService(),
});

function highest(bits: bigint): number {
  return bits === 0n ? -1 : bits.toString(2).length - 1;
}

/** SDM Vol. 3A, "Task and Processor Priorities": what acknowledging does to a local APIC, and which vector it gives. */
function acknowledgeModel(before: State, tpr: number): { after: State; vector: number } | null {
  const vector = highest(before.irr);
  if (vector < 16 || vector >>> 4 <= before.ppr >>> 4) return null;
  const bit = 1n << BigInt(vector);
  const isr = before.isr | bit;
  const service = Math.max(highest(isr), 0);
  const ppr = tpr >>> 4 >= service >>> 4 ? tpr : service & 0xf0;
  return { after: { ...before, irr: before.irr & ~bit, isr, ppr }, vector };
}

function picModel(before: State, irq: number): { after: State; vector: number } {
  const [master, slave] = before.pic;
  const pic: [number, number] =
    irq < 8 ? [master | (1 << irq), slave] : [master | (1 << 2), slave | (1 << (irq - 8))];
  return { after: { ...before, pic }, vector: PIC_VECTORS + irq };
}

/** Random pending vectors, some in service, a random TPR, perhaps a line of the 8259. Answers TPR and line. */
function scramble(hardware: PhysicalInterrupts, random: Random): { tpr: number; irq: number } {
  const { apic } = hardware;
  apic.write(Apic.TPR, 0, 0);
  for (let n = random.below(3); n > 0; n--) {
    hardware.post(32 + random.below(224), random.chance(50));
    const vector = apic.pending();
    if (vector >= 0) apic.acknowledge(vector);
  }
  for (let n = random.below(4); n > 0; n--)
    hardware.post(16 + random.below(240), random.chance(50));
  const tpr = random.chance(50) ? 0 : random.below(256);
  apic.write(Apic.TPR, tpr, 0);
  const irq = random.chance(40) ? random.pick([1, 3, 4, 6, 8, 11, 15]) : -1;
  if (irq >= 0) hardware.line(irq, true);
  return { tpr, irq };
}

function tryOnce(
  lab: Lab,
  hardware: PhysicalInterrupts,
  random: Random,
  complaints: Complaints,
  text: string,
): void {
  const { vmcs } = lab;
  const acknowledges = random.chance(50);
  const { tpr, irq } = scramble(hardware, random);
  lab.place(0, lab.at("spin"));
  vmcs.set(Field.GUEST_RFLAGS, random.pick([2, 0x202]));
  vmcs.set(Field.PIN_CONTROLS, PinControl.EXTERNAL_INTERRUPT | PinControl.PREEMPTION_TIMER);
  vmcs.set(Field.EXIT_CONTROLS, acknowledges ? ExitControl.ACKNOWLEDGE_INTERRUPT : 0);
  vmcs.set(Field.PREEMPTION_TIMER, 3);
  const before = stateOf(hardware);
  const model = acknowledgeModel(before, tpr) ?? (irq >= 0 ? picModel(before, irq) : null);
  const reason = lab.enter();
  const wantedReason = model ? ExitReason.EXTERNAL_INTERRUPT : ExitReason.PREEMPTION_TIMER;
  const information = vmcs.number(Field.EXIT_INTERRUPTION_INFO);
  const wantedInformation = model && acknowledges ? INTERRUPTION_VALID + model.vector : 0;
  complaints.equal([reason, information], [wantedReason, wantedInformation], () => `${text}: exit`);
  const after = model && acknowledges ? model.after : before;
  complaints.equal(stateOf(hardware), after, () => `${text}: controllers, ack ${acknowledges}`);
}

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  for (const engine of TIERS) {
    progress(`P9-A2: ${engine}`);
    const random = new Random(seed);
    let hardware = new PhysicalInterrupts();
    // The pCPU keeps its port; what is behind it is new each time.
    const port = new Proxy({} as PhysicalInterrupts, {
      get: (_, name) => {
        const value = Reflect.get(hardware, name, hardware);
        return typeof value === "function" ? value.bind(hardware) : value;
      },
      set: (_, name, value) => Reflect.set(hardware, name, value, hardware),
    });
    const lab = interruptLab(engine, port);
    for (let i = 0; i < RUNS; i++) {
      hardware = new PhysicalInterrupts();
      tryOnce(lab, hardware, random, complaints, `${engine}, run ${i}`);
    }
  }
  return complaints.verdict(
    `${TIERS.length * RUNS} random states of local APIC and 8259: bit-exact`,
  );
}

export const controllerOracle: Criterion = {
  id: "P9-A2",
  title:
    "IRR, ISR, PPR and the 8259's ISR before and after an exit, acknowledged or not, edge, level and ExtINT",
  bar: "bit-exact",
  timeBase: "none",
  runMode: "mh",
  isSeeded: true,
  run,
};
