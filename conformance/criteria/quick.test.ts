/** The criteria that take seconds hold at every test run. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TIERS } from "../../guests/lab.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { Field, PinControl } from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion } from "./criterion.ts";
import { interruptLab } from "./interrupt-guest.ts";
import { levelAtEntry } from "./p6-a2-at-entry.ts";
import { injectedIncrease } from "./p6-a3-injection.ts";
import { transitionCollisions } from "./p6-a4-collisions.ts";
import { timerRates } from "./p7-a2-rates.ts";
import { wedgedGuests } from "./p7-a3-wedged.ts";
import { savedQuantum } from "./p7-a4-quantum.ts";
import { noInterrupt } from "./p7-a5-no-interrupt.ts";
import { virtualBoundaries } from "./p8-a6-boundaries.ts";
import { interruptUnit } from "./p9-a1-interrupts.ts";
import { controllerOracle } from "./p9-a2-controllers.ts";
import { hostIdt } from "./p9-a3-host-idt.ts";
import { countInterrupts, EDGES } from "./p9-a7-two-passes.ts";
import { PhysicalInterrupts } from "./physical-interrupts.ts";
import { Random } from "./random.ts";
import { VirtualApicBench } from "./virtual-apic-bench.ts";

const QUICK: readonly Criterion[] = [
  levelAtEntry,
  injectedIncrease,
  transitionCollisions,
  timerRates,
  wedgedGuests,
  savedQuantum,
  noInterrupt,
  interruptUnit,
  controllerOracle,
  hostIdt,
  virtualBoundaries,
];

for (const { id, title, run } of QUICK) {
  test(`${id}: ${title}`, async () => {
    const { passed, measured, details } = await run({ seed: 7, progress: () => {} });
    assert.ok(passed, [measured, ...(details ?? [])].join("\n"));
  });
}

test("an interrupt that an entry did not get to inject is injected by the next", () => {
  const { taken, made } = countInterrupts("interpreter", 71, 5000);
  assert.ok(made > 300 && Math.abs(made - taken) <= EDGES, `${taken} of ${made}`);
});

for (const engine of TIERS) {
  test(`a request withdrawn while IF is 0 is forgotten by the time of STI (${engine})`, () => {
    const hardware = new PhysicalInterrupts();
    const lab = interruptLab(engine, hardware);
    const { vmcs } = lab;
    lab.place(0, lab.at("closed"));
    vmcs.set(Field.PIN_CONTROLS, PinControl.PREEMPTION_TIMER);
    vmcs.set(Field.PREEMPTION_TIMER, 2);
    hardware.line(3, true);
    assert.equal(lab.enter(), ExitReason.PREEMPTION_TIMER);
    hardware.line(3, false);
    vmcs.set(Field.PREEMPTION_TIMER, 1000);
    assert.equal(lab.enter(), ExitReason.CPUID);
    assert.equal(hardware.acknowledged, 0);
  });
}

test("the virtual APIC is in every state what its reference model is", () => {
  const random = new Random(11);
  for (let i = 0; i < 20; i++) {
    const bench = new VirtualApicBench([32 + random.below(224)]);
    bench.apic.enter();
    for (let n = 0; n < 200; n++)
      assert.equal(bench.step(random) ?? bench.difference(), null, `state ${i}, step ${n}`);
  }
});
