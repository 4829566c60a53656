/**
 * P7-A5: expiry is an event of the processor alone. No gate of the guest's IDT is entered, no interrupt of the controller is acknowledged,
 * neither by the exit nor in root mode after it: that has no IDT here (it is not x86 code), and takes interrupts only as VM exits.
 */
import { Lab, TIERS } from "../../guests/lab.ts";
import { type Assembler, addr, qword } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { rax, rbx } from "../../src/processor/isa/registers.ts";
import { Field, INTERRUPTION_VALID, PinControl } from "../../src/processor/isa/vmcs-fields.ts";
import { type InterruptPort, Request } from "../../src/processor/vmx/interrupt-port.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const RUNS = 1000;
const VECTORS = 256;
const INTERRUPTS_ON = 0x202;
const INTERRUPTS_OFF = 2;

function countingGuest(a: Assembler): void {
  a.label("loop").emit("add", rax, rbx);
  a.emit("inc", rbx);
  a.emit("jmp", "loop");
  a.label("handler").emit("inc", qword(addr("entries")));
  a.emit("iretq");
  a.align(16);
  a.label("entries").dq(0);
}

/** Asks as soon as it may, and counts who takes it. */
class Insistent implements InterruptPort {
  asks = false;
  acknowledged = 0;
  readonly nmi = false;
  readonly nextAt = Infinity;
  request(): number {
    return this.asks ? Request.APIC : Request.NONE;
  }
  acknowledge(): number {
    this.acknowledged++;
    return 0x40;
  }
  isLevel(): boolean {
    return false;
  }
  end(): void {}
  takeNmi(): void {}
}

async function run({ seed }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  for (const engine of TIERS) {
    const random = new Random(seed);
    const interrupts = new Insistent();
    const lab = new Lab({ engine, build: countingGuest, interrupts });
    const { vmcs } = lab;
    for (let v = 0; v < VECTORS; v++) lab.tables.interrupt(v, 0, lab.at("handler"));
    for (let i = 0; i < RUNS; i++) {
      vmcs.set(Field.PIN_CONTROLS, PinControl.PREEMPTION_TIMER);
      vmcs.set(Field.PREEMPTION_TIMER, random.below(200));
      vmcs.set(Field.GUEST_RFLAGS, random.pick([INTERRUPTS_ON, INTERRUPTS_OFF]));
      const reason = lab.enter();
      const info = vmcs.number(Field.EXIT_INTERRUPTION_INFO);
      const isPlain = reason === ExitReason.PREEMPTION_TIMER && info < INTERRUPTION_VALID;
      complaints.check(isPlain, () => `${engine}: exit ${reason}, information ${info}`);
    }
    complaints.equal(
      [lab.read(lab.at("entries")), interrupts.acknowledged],
      [0n, 0],
      () => `${engine}: entries of the guest's IDT, acknowledge cycles`,
    );
    // The counters do count: the same interrupt, asked for while the guest may take it.
    interrupts.asks = true;
    vmcs.set(Field.GUEST_RFLAGS, INTERRUPTS_OFF);
    vmcs.set(Field.PREEMPTION_TIMER, 10);
    lab.enter();
    complaints.equal(interrupts.acknowledged, 0, () => `${engine}: taken with IF = 0`);
    vmcs.set(Field.GUEST_RFLAGS, INTERRUPTS_ON);
    vmcs.set(Field.PREEMPTION_TIMER, 1);
    lab.enter();
    complaints.check(interrupts.acknowledged > 0, () => `${engine}: never taken`);
    complaints.check(
      lab.read(lab.at("entries")) === 1n,
      () => `${engine}: the handler did not run`,
    );
  }
  return complaints.verdict(
    `${TIERS.length * RUNS} expiries: 0 entries of an IDT, 0 acknowledge cycles`,
  );
}

export const noInterrupt: Criterion = {
  id: "P7-A5",
  title: "expiry enters no IDT and acknowledges nothing",
  bar: "entry counters unchanged across the exit; nothing taken in root mode",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: true,
  run,
};
