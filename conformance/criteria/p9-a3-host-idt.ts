/**
 * P9-A3: who takes an external interrupt that has ended the stay of a guest. A guest hypervisor with its own IDT runs a guest on a pCPU whose
 * controllers are its own: left pending by the exit, the interrupt goes through that IDT as soon as the hypervisor executes STI; acknowledged
 * by the exit, it is in the VMCS and nowhere else.
 */
import { TIERS } from "../../guests/lab.ts";
import { VmxLab } from "../../guests/vmx-lab.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import {
  ExitControl,
  Field,
  INTERRUPTION_VALID,
  PinControl,
  PrimaryControl,
} from "../../src/processor/isa/vmcs-fields.ts";
import { TEST_CONTROLS } from "../../src/processor/vmx/entry-checks/check.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Apic, PhysicalInterrupts } from "./physical-interrupts.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const RUNS = 60;
const FIRST = 32;
const VECTORS = 256;
/** The entry takes some 50 instructions; the guest loops. */
const LATEST = 400;
const ACTIVE = 0;
const HLT = 1;

function guest(a: Assembler): void {
  a.label("spin").emit("nop").emit("nop");
  a.emit("jmp", "spin");
  a.label("halt").emit("hlt");
  a.label("awake").emit("nop");
  a.emit("jmp", "spin");
}

function tryOnce(
  lab: VmxLab,
  hardware: PhysicalInterrupts,
  random: Random,
  wanted: { handled: number; dispatched: number; vector: number },
  expect: (what: string, got: unknown, wanted: unknown) => void,
): void {
  const vector = FIRST + random.below(VECTORS - FIRST);
  const acknowledges = random.chance(50);
  const halts = random.chance(30);
  const acknowledge = acknowledges ? BigInt(ExitControl.ACKNOWLEDGE_INTERRUPT) : 0n;
  lab.writeFields([
    [Field.EXIT_CONTROLS, TEST_CONTROLS.exit | acknowledge],
    [Field.GUEST_RIP, lab.addressOf(halts ? "halt" : "spin")],
    [Field.GUEST_RFLAGS, random.pick([2n, 0x202n])],
    [Field.GUEST_ACTIVITY, 0n],
    [Field.GUEST_INTERRUPTIBILITY, 0n],
  ]);
  // On the way to the guest (IF = 0 in the hypervisor: it waits), or in it.
  hardware.nextAt = lab.processor.tsc() + random.below(LATEST);
  hardware.arrive = () => hardware.post(vector);
  if (lab.isLaunched) lab.resume();
  else lab.launch();
  const bit = 1n << BigInt(vector);
  const state = (): unknown => [hardware.bits(Apic.IRR), hardware.bits(Apic.ISR)];
  expect("exit", Number(lab.field(Field.EXIT_REASON)), ExitReason.EXTERNAL_INTERRUPT);
  const info = acknowledges ? INTERRUPTION_VALID + vector : 0;
  expect("information", Number(lab.field(Field.EXIT_INTERRUPTION_INFO)), info);
  expect("controllers after the exit", state(), acknowledges ? [0n, bit] : [bit, 0n]);
  const activity = Number(lab.field(Field.GUEST_ACTIVITY));
  const rip = lab.field(Field.GUEST_RIP);
  // Before HLT, or in it: never behind it and active.
  const isIn = halts
    ? (activity === HLT && rip === lab.addressOf("awake")) ||
      (activity === ACTIVE && rip === lab.addressOf("halt"))
    : activity === ACTIVE && rip < lab.addressOf("halt");
  expect("where the guest was left", isIn, true);
  if (acknowledges) {
    wanted.dispatched++;
    wanted.vector = vector;
  } else wanted.handled++;
  expect("handler, dispatcher after STI, NOP, CLI", lab.dispatch(), wanted);
  expect("in service", state(), [0n, bit]);
  hardware.end();
  expect("no more after the EOI", [lab.openWindow(), state()], [wanted.handled, [0n, 0n]]);
}

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  let handled = 0;
  let dispatched = 0;
  for (const engine of TIERS) {
    progress(`P9-A3: ${engine}`);
    const random = new Random(seed);
    const hardware = new PhysicalInterrupts();
    const lab = new VmxLab({ engine, guest, interrupts: hardware });
    hardware.now = () => lab.processor.tsc();
    lab.prepare([
      [Field.PIN_CONTROLS, TEST_CONTROLS.pin | BigInt(PinControl.EXTERNAL_INTERRUPT)],
      [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary & ~BigInt(PrimaryControl.HLT)],
    ]);
    for (let v = FIRST; v < VECTORS; v++) lab.setHostGate(v);
    const wanted = { handled: 0, dispatched: 0, vector: 0 };
    for (let i = 0; i < RUNS; i++)
      tryOnce(lab, hardware, random, wanted, (what, got, should) =>
        complaints.equal(got, should, () => `${engine}, run ${i}: ${what}`),
      );
    handled += wanted.handled;
    dispatched += wanted.dispatched;
  }
  return complaints.verdict(
    `${handled} left pending: the host's handler once each; ${dispatched} acknowledged: the handler never, dispatched once each`,
  );
}

export const hostIdt: Criterion = {
  id: "P9-A3",
  title: "an interrupt left pending by the exit, taken through the host's IDT",
  bar: "not acknowledged: host handler once; acknowledged: host handler never, VMM once",
  timeBase: "none",
  runMode: "nested",
  isSeeded: true,
  run,
};
