/**
 * P9-A1: what a pending external interrupt does in VMX non-root operation: delivered through the guest's IDT, or an exit with or without
 * acknowledgement; to a guest that runs, that halts, that is shut down; at entry, beside an injection; and the windows.
 */
import type { Lab, TIERS } from "../../guests/lab.ts";
import { TIERS as ENGINES } from "../../guests/lab.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import {
  ExitControl,
  Field,
  INTERRUPTION_VALID,
  PinControl,
  PrimaryControl,
} from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { countOf, interruptLab } from "./interrupt-guest.ts";
import { PhysicalInterrupts } from "./physical-interrupts.ts";
import { Complaints } from "./verdict.ts";

const VECTOR = 0x51;
const OTHER = 0x62;
const IF = 0x202;
const [HLT, SHUTDOWN] = [1, 2];
const {
  EXTERNAL_INTERRUPT,
  CPUID,
  PREEMPTION_TIMER,
  INTERRUPT_WINDOW,
  NMI_WINDOW,
  EXCEPTION_OR_NMI,
} = ExitReason;
const BLOCKED_BY_NMI = 8;

interface Scene {
  readonly lab: Lab;
  readonly hardware: PhysicalInterrupts;
  readonly expect: (what: string, got: unknown, wanted: unknown) => void;
}

/** Exiting or not, acknowledging or not; HLT does not exit; a timer ends what would not. */
function configure(
  { lab }: Scene,
  exits: boolean,
  acknowledges: boolean,
  at: string,
  flags = 2,
): void {
  const { vmcs } = lab;
  lab.place(0, lab.at(at));
  vmcs.set(Field.GUEST_RFLAGS, flags);
  vmcs.set(
    Field.PIN_CONTROLS,
    PinControl.PREEMPTION_TIMER | (exits ? PinControl.EXTERNAL_INTERRUPT : 0),
  );
  vmcs.set(Field.EXIT_CONTROLS, acknowledges ? ExitControl.ACKNOWLEDGE_INTERRUPT : 0);
  vmcs.set(Field.PREEMPTION_TIMER, 1000);
  const primary = vmcs.number(Field.PRIMARY_CONTROLS);
  vmcs.set(
    Field.PRIMARY_CONTROLS,
    (primary &
      ~(PrimaryControl.HLT | PrimaryControl.INTERRUPT_WINDOW | PrimaryControl.NMI_WINDOW)) >>>
      0,
  );
}

const where = (lab: Lab): unknown[] => [lab.rip, lab.vmcs.number(Field.GUEST_ACTIVITY)];
const info = (lab: Lab): number => lab.vmcs.number(Field.EXIT_INTERRUPTION_INFO);

function direct(s: Scene): void {
  const { lab, hardware, expect } = s;
  configure(s, false, false, "spin", IF);
  hardware.nextAt = lab.tsc + 3;
  hardware.arrive = () => hardware.post(VECTOR);
  expect("direct: until the timer", lab.enter(), PREEMPTION_TIMER);
  expect(
    "direct: handler runs, acknowledged",
    [countOf(lab, VECTOR), hardware.acknowledged],
    [1, 1],
  );
  hardware.end();
  configure(s, false, false, "closed");
  hardware.post(VECTOR);
  expect("direct, IF = 0 up to STI", [lab.enter(), countOf(lab, VECTOR)], [CPUID, 2]);
  hardware.end();
  // The first boundary where it is open is the one behind the instruction after STI.
  configure(s, false, false, "closed");
  hardware.post(VECTOR);
  lab.vmcs.set(Field.EXCEPTION_BITMAP, 0);
  lab.vmcs.set(Field.PREEMPTION_TIMER, 5);
  expect(
    "direct: behind the shadow of STI",
    [lab.enter(), lab.rip],
    [PREEMPTION_TIMER, lab.at("open")],
  );
  lab.vmcs.set(Field.PREEMPTION_TIMER, 1);
  expect(
    "direct: at the first open boundary",
    [lab.enter(), lab.rip > lab.at("awake")],
    [PREEMPTION_TIMER, true],
  );
  expect("direct: in service now", hardware.apic.pending(), -1);
  lab.vmcs.set(Field.PREEMPTION_TIMER, 1000);
  expect("direct: goes on", lab.enter(), CPUID);
  hardware.end();
}

function intercepted(s: Scene): void {
  const { lab, hardware, expect } = s;
  for (const flags of [2, IF])
    for (const acknowledges of [true, false]) {
      configure(s, true, acknowledges, "spin", flags);
      const before = lab.retired;
      hardware.nextAt = lab.tsc + 7;
      hardware.arrive = () => hardware.post(VECTOR);
      const name = `intercepted, RFLAGS ${flags}, ack ${acknowledges}`;
      expect(`${name}: reason`, [lab.enter(), lab.retired - before], [EXTERNAL_INTERRUPT, 7]);
      expect(`${name}: information`, info(lab), acknowledges ? INTERRUPTION_VALID + VECTOR : 0);
      expect(`${name}: still pending`, hardware.apic.pending(), acknowledges ? -1 : VECTOR);
      if (!acknowledges) {
        expect(
          `${name}: again at once`,
          [lab.enter(), lab.retired - before],
          [EXTERNAL_INTERRUPT, 7],
        );
        hardware.acknowledge();
      }
      hardware.end();
    }
}

function halted(s: Scene): void {
  const { lab, hardware, expect } = s;
  for (const exits of [true, false]) {
    configure(s, exits, true, "halt");
    hardware.nextAt = lab.tsc + 500;
    hardware.arrive = () => hardware.post(VECTOR);
    const start = lab.tsc;
    const count = countOf(lab, VECTOR);
    const reason = lab.enter();
    if (exits) {
      expect("halted: exit", [reason, lab.tsc - start], [EXTERNAL_INTERRUPT, 500]);
      expect("halted: activity state HLT, RIP behind HLT", where(lab), [lab.at("awake"), HLT]);
      // Injected into the halted guest: it runs, and is awake.
      lab.vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info(lab));
      expect("injected into HLT", [lab.enter(), countOf(lab, VECTOR)], [CPUID, count + 1]);
    } else expect("halted, direct: woken", [reason, countOf(lab, VECTOR)], [CPUID, count + 1]);
    expect("awake", lab.vmcs.number(Field.GUEST_ACTIVITY), 0);
    hardware.end();
  }
  // Not woken with IF = 0.
  configure(s, false, true, "spin");
  lab.vmcs.set(Field.GUEST_ACTIVITY, HLT);
  hardware.post(VECTOR);
  expect(
    "HLT with IF = 0 stays",
    [lab.enter(), ...where(lab)],
    [PREEMPTION_TIMER, lab.at("spin"), HLT],
  );
  hardware.acknowledge();
  hardware.end();
}

function shutDown(s: Scene): void {
  const { lab, hardware, expect } = s;
  configure(s, true, true, "spin");
  lab.vmcs.set(Field.GUEST_ACTIVITY, SHUTDOWN);
  hardware.post(VECTOR);
  expect(
    "shutdown blocks it",
    [lab.enter(), lab.vmcs.number(Field.GUEST_ACTIVITY)],
    [PREEMPTION_TIMER, SHUTDOWN],
  );
  hardware.nmi = true;
  lab.vmcs.set(Field.PIN_CONTROLS, lab.vmcs.number(Field.PIN_CONTROLS) | PinControl.NMI);
  expect(
    "an NMI ends shutdown",
    [lab.enter(), info(lab)],
    [EXCEPTION_OR_NMI, INTERRUPTION_VALID + 0x202],
  );
  lab.vmcs.set(Field.GUEST_ACTIVITY, 0);
  expect(
    "what waited",
    [lab.enter(), info(lab)],
    [EXTERNAL_INTERRUPT, INTERRUPTION_VALID + VECTOR],
  );
  hardware.end();
}

function atEntry(s: Scene): void {
  const { lab, hardware, expect } = s;
  configure(s, true, true, "spin", IF);
  hardware.post(OTHER);
  const before = lab.retired;
  expect("pending at entry", [lab.enter(), lab.retired - before], [EXTERNAL_INTERRUPT, 0]);
  hardware.end();
  hardware.post(OTHER);
  lab.vmcs.set(Field.ENTRY_INTERRUPTION_INFO, INTERRUPTION_VALID + VECTOR);
  const got = [lab.enter(), lab.retired - before, lab.rip, info(lab)];
  expect("pending beside an injection: that comes first", got, [
    EXTERNAL_INTERRUPT,
    0,
    lab.at(`vector${VECTOR}`),
    INTERRUPTION_VALID + OTHER,
  ]);
  expect("not one during delivery", lab.vmcs.number(Field.IDT_VECTORING_INFO), 0);
  hardware.end();
}

function windows(s: Scene): void {
  const { lab, expect } = s;
  const { vmcs } = lab;
  configure(s, true, true, "closed");
  const primary = vmcs.number(Field.PRIMARY_CONTROLS);
  vmcs.set(Field.PRIMARY_CONTROLS, (primary | PrimaryControl.INTERRUPT_WINDOW) >>> 0);
  expect("interrupt window", [lab.enter(), lab.rip], [INTERRUPT_WINDOW, lab.at("open")]);
  configure(s, true, true, "spin", IF);
  vmcs.set(Field.PRIMARY_CONTROLS, (primary | PrimaryControl.INTERRUPT_WINDOW) >>> 0);
  vmcs.set(Field.GUEST_ACTIVITY, HLT);
  expect("a window wakes from HLT", [lab.enter(), lab.rip], [INTERRUPT_WINDOW, lab.at("spin")]);
  configure(s, true, true, "spin");
  vmcs.set(Field.PIN_CONTROLS, PinControl.NMI | PinControl.VIRTUAL_NMI);
  vmcs.set(Field.PRIMARY_CONTROLS, (primary | PrimaryControl.NMI_WINDOW) >>> 0);
  vmcs.set(Field.GUEST_INTERRUPTIBILITY, 0);
  expect("NMI window", [lab.enter(), lab.rip], [NMI_WINDOW, lab.at("spin")]);
  vmcs.set(Field.GUEST_INTERRUPTIBILITY, BLOCKED_BY_NMI);
  vmcs.set(
    Field.PIN_CONTROLS,
    PinControl.NMI | PinControl.VIRTUAL_NMI | PinControl.PREEMPTION_TIMER,
  );
  vmcs.set(Field.PREEMPTION_TIMER, 20);
  expect("NMI window, blocked", lab.enter(), PREEMPTION_TIMER);
}

async function run(_: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  const parts = [direct, intercepted, halted, shutDown, atEntry, windows];
  for (const engine of ENGINES)
    for (const part of parts) {
      const hardware = new PhysicalInterrupts();
      const lab = interruptLab(engine as (typeof TIERS)[number], hardware);
      const expect: Scene["expect"] = (what, got, wanted) =>
        complaints.equal(got, wanted, () => `${engine}: ${what}`);
      part({ lab, hardware, expect });
    }
  return complaints.verdict("direct, intercepted, halted, shut down, at entry, windows");
}

export const interruptUnit: Criterion = {
  id: "P9-A1",
  title:
    "external interrupts: direct, intercepted, in HLT, acknowledged or not, injected, pending at entry; windows",
  bar: "state per specification",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: false,
  run,
};
