/** P6-A4: other things that are due at the boundary behind a transition: which comes first, and what becomes of the rest. */
import { Lab, TIERS } from "../../guests/lab.ts";
import { stackOf } from "../../guests/lab-tables.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { CplExit, VendorExit, VendorField } from "../../src/processor/isa/vendor.ts";
import {
  Field,
  INTERRUPTION_VALID,
  PinControl,
  PrimaryControl,
} from "../../src/processor/isa/vmcs-fields.ts";
import { EptEntry } from "../../src/processor/memory/ept.ts";
import { RAM_BASE, S } from "../../src/processor/state/layout.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { TestInterrupts } from "./test-interrupts.ts";
import { transitionGuest } from "./transitions.ts";
import { Complaints } from "./verdict.ts";

const TF = 0x100;
const RFLAGS = 2;
const BS = 0x4000n;
const DEBUG = 1;
const NMI = 2;
const VECTOR = 0x80;
const PAGE = 4096;
const { CPL_TRANSITION } = VendorExit;
const {
  MTF,
  CPUID,
  EPT_VIOLATION,
  PREEMPTION_TIMER,
  EXCEPTION_OR_NMI,
  INTERRUPT_WINDOW,
  EXTERNAL_INTERRUPT,
} = ExitReason;

function guest(a: Assembler): void {
  transitionGuest(a);
  a.align(16);
  a.label("trap").emit("nop");
  a.label("trap2").emit("cpuid");
}

interface Scene {
  readonly lab: Lab;
  readonly interrupts: TestInterrupts;
  readonly engine: string;
  readonly complaints: Complaints;
}

/** In ring 3 before a SYSCALL to the target, leaving on any change of level. */
function scene(engine: (typeof TIERS)[number], complaints: Complaints): Scene {
  const interrupts = new TestInterrupts();
  const lab = new Lab({ engine, build: guest, interrupts });
  interrupts.now = () => lab.tsc;
  const { vmcs, view } = lab;
  vmcs.set(Field.GUEST_EFER, vmcs.number(Field.GUEST_EFER) | 1);
  view.setBigUint64(S.STAR.at, 8n << 32n, true);
  view.setBigUint64(S.LSTAR.at, BigInt(lab.at("target")), true);
  for (const vector of [DEBUG, NMI]) lab.tables.interrupt(vector, 0, lab.at("trap"));
  lab.tables.interrupt(VECTOR, 0, lab.at("target"));
  lab.place(3, lab.at("syscall"));
  vmcs.set(VendorField.CPL_EXIT_CONTROLS, CplExit.CHANGE);
  return { lab, interrupts, engine, complaints };
}

/** What one more entry comes to: reason, where, and how many instructions it took. */
function expectExit(
  { lab, engine, complaints }: Scene,
  text: string,
  reason: number,
  label: string,
  count: number,
): void {
  const before = lab.retired;
  complaints.equal(
    [lab.enter(), lab.rip, lab.retired - before],
    [reason, lab.at(label), count],
    () => `${engine}, ${text}: reason, RIP, instructions`,
  );
}

/** TF stays set over SYSCALL: the trap is pending at the exit, and is delivered by the next entry. */
function singleStep(s: Scene): void {
  const { lab, complaints, engine } = s;
  lab.vmcs.set(Field.GUEST_RFLAGS, RFLAGS | TF);
  expectExit(s, "single step and SYSCALL", CPL_TRANSITION, "target", 1);
  complaints.equal(
    lab.vmcs.big(Field.GUEST_PENDING_DEBUG),
    BS,
    () => `${engine}: pending debug exceptions`,
  );
  lab.vmcs.set(Field.EXCEPTION_BITMAP, 1 << DEBUG);
  expectExit(s, "the trap, intercepted", EXCEPTION_OR_NMI, "target", 0);
  lab.vmcs.setBig(Field.GUEST_PENDING_DEBUG, BS);
  lab.vmcs.set(Field.EXCEPTION_BITMAP, 0);
  // Delivered within ring 0: no change of level.
  expectExit(s, "the trap, delivered", CPUID, "trap2", 1);
}

/** A kernel that masks TF meets no trap. */
function maskedStep(s: Scene): void {
  s.lab.view.setBigUint64(S.SFMASK.at, BigInt(TF), true);
  s.lab.vmcs.set(Field.GUEST_RFLAGS, RFLAGS | TF);
  expectExit(s, "single step masked by SYSCALL", CPL_TRANSITION, "target", 1);
  s.complaints.equal(
    s.lab.vmcs.big(Field.GUEST_PENDING_DEBUG),
    0n,
    () => `${s.engine}: masked trap pends`,
  );
}

/** The monitor trap wins, and the transition is forgotten. */
function monitorTrap(s: Scene, label: string, type: string): void {
  const { vmcs } = s.lab;
  const primary = vmcs.number(Field.PRIMARY_CONTROLS);
  s.lab.rip = s.lab.at(label);
  vmcs.set(Field.PRIMARY_CONTROLS, (primary | PrimaryControl.MONITOR_TRAP) >>> 0);
  expectExit(s, `monitor trap and ${type}`, MTF, "target", type === "fault" ? 0 : 1);
  s.complaints.equal(s.lab.cpl, 0, () => `${s.engine}: level after the monitor trap`);
  vmcs.set(Field.PRIMARY_CONTROLS, primary);
  expectExit(s, `after the monitor trap of ${type}`, CPUID, "target", 0);
}

/** Injected under the monitor trap flag: before the handler's first instruction. */
function monitorTrapOfInjection(s: Scene): void {
  const { vmcs } = s.lab;
  vmcs.set(
    Field.PRIMARY_CONTROLS,
    (vmcs.number(Field.PRIMARY_CONTROLS) | PrimaryControl.MONITOR_TRAP) >>> 0,
  );
  vmcs.set(Field.ENTRY_INTERRUPTION_INFO, INTERRUPTION_VALID + (3 << 8) + 6);
  s.lab.tables.interrupt(6, 0, s.lab.at("target"));
  expectExit(s, "monitor trap and injection", MTF, "target", 0);
}

/** The handler's stack is not there: the transition has not happened. */
function stackViolation(s: Scene): void {
  const { lab, complaints, engine } = s;
  const page = stackOf(0) - PAGE;
  lab.ept.unmap(page, PAGE);
  lab.processor.invalidateEpt();
  lab.rip = lab.at("int");
  expectExit(s, "EPT violation on the handler's stack", EPT_VIOLATION, "int", 0);
  const info = lab.vmcs.number(Field.IDT_VECTORING_INFO);
  complaints.equal(
    info,
    INTERRUPTION_VALID + (4 << 8) + VECTOR,
    () => `${engine}: IDT-vectoring information`,
  );
  const dpl = (lab.vmcs.number(Field.GUEST_SS_RIGHTS) >> 5) & 3;
  complaints.equal([lab.cpl, dpl], [3, 3], () => `${engine}: level after the violation`);
  lab.ept.map(page, RAM_BASE + page, PAGE, EptEntry.READ | EptEntry.WRITE | EptEntry.EXECUTE);
  lab.processor.invalidateEpt();
  lab.vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info);
  lab.vmcs.set(Field.ENTRY_INSTRUCTION_LENGTH, lab.vmcs.number(Field.EXIT_INSTRUCTION_LENGTH));
  expectExit(s, "the event again", CPL_TRANSITION, "target", 0);
}

/** Everything comes together at the boundary behind SYSCALL: one exit after the other. */
function allAtOnce(s: Scene): void {
  const { lab, interrupts } = s;
  const { vmcs } = lab;
  vmcs.set(Field.GUEST_RFLAGS, RFLAGS | 0x200);
  vmcs.set(
    Field.PIN_CONTROLS,
    PinControl.PREEMPTION_TIMER | PinControl.NMI | PinControl.EXTERNAL_INTERRUPT,
  );
  vmcs.set(Field.PREEMPTION_TIMER, 1);
  interrupts.nextAt = lab.tsc + 1;
  interrupts.arrive = () => {
    interrupts.nmi = true;
    interrupts.pending.push(0x40);
  };
  expectExit(s, "all at once", CPL_TRANSITION, "target", 1);
  vmcs.set(Field.PREEMPTION_TIMER, 0);
  expectExit(s, "then the timer", PREEMPTION_TIMER, "target", 0);
  vmcs.set(Field.PREEMPTION_TIMER, 1000);
  expectExit(s, "then the NMI", EXCEPTION_OR_NMI, "target", 0);
  s.complaints.equal(
    vmcs.number(Field.EXIT_INTERRUPTION_INFO),
    INTERRUPTION_VALID + (2 << 8) + 2,
    () => `${s.engine}: information of the NMI`,
  );
  const primary = vmcs.number(Field.PRIMARY_CONTROLS);
  vmcs.set(Field.PRIMARY_CONTROLS, (primary | PrimaryControl.INTERRUPT_WINDOW) >>> 0);
  expectExit(s, "then the window", INTERRUPT_WINDOW, "target", 0);
  vmcs.set(Field.PRIMARY_CONTROLS, primary);
  expectExit(s, "then the interrupt", EXTERNAL_INTERRUPT, "target", 0);
  interrupts.pending.length = 0;
  expectExit(s, "then the guest", CPUID, "target", 0);
}

/** An NMI that the guest takes itself is a transition of its own. */
function nmiOfTheGuest(s: Scene): void {
  const { lab, interrupts } = s;
  lab.vmcs.set(Field.PIN_CONTROLS, 0);
  interrupts.nextAt = lab.tsc + 1;
  interrupts.arrive = () => {
    interrupts.nmi = true;
  };
  expectExit(s, "NMI not exiting", CPL_TRANSITION, "target", 1);
  lab.vmcs.set(VendorField.CPL_EXIT_CONTROLS, 1 << CplExit.MATRIX_SHIFT);
  expectExit(s, "the NMI, delivered", CPL_TRANSITION, "trap", 0);
  const event = (lab.vmcs.number(Field.EXIT_QUALIFICATION) >> 4) & 0x1f;
  s.complaints.equal(event, 16 + 2, () => `${s.engine}: cause of the NMI's transition`);
}

const SCENES: readonly ((s: Scene) => void)[] = [
  singleStep,
  maskedStep,
  (s) => monitorTrap(s, "syscall", "SYSCALL"),
  (s) => monitorTrap(s, "int", "INT n"),
  (s) => {
    s.lab.tables.interrupt(6, 0, s.lab.at("target"));
    monitorTrap(s, "ud2", "fault");
  },
  monitorTrapOfInjection,
  stackViolation,
  allAtOnce,
  nmiOfTheGuest,
];

async function run(_: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  for (const engine of TIERS) for (const play of SCENES) play(scene(engine, complaints));
  return complaints.verdict(
    `${SCENES.length} collisions: monitor trap, level, debug trap, timer, NMI, window, interrupt`,
  );
}

export const transitionCollisions: Criterion = {
  id: "P6-A4",
  title:
    "single step, monitor trap, EPT violation, timer, NMI, window and interrupt beside a transition",
  bar: "order as specified",
  timeBase: "none",
  runMode: "mh",
  isSeeded: false,
  run,
};
