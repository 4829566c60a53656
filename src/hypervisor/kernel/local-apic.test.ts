import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LocalApic } from "./local-apic.ts";

const TPR = 0x08;
const PPR = 0x0a;
const EOI = 0x0b;
const LDR = 0x0d;
const SVR = 0x0f;
const ESR = 0x28;
const ICR = 0x30;
const LVT_TIMER = 0x32;
const INITIAL = 0x38;
const CURRENT = 0x39;
const DIVIDE = 0x3e;
const FIXED = 0;

function create(): {
  apic: LocalApic;
  ended: number[];
  sent: { vector: number; shorthand: number }[];
} {
  const ended: number[] = [];
  const sent: { vector: number; shorthand: number }[] = [];
  const apic = new LocalApic(0, { eoi: (v) => ended.push(v), ipi: (c) => sent.push(c) }, true);
  return { apic, ended, sent };
}

test("interrupts are taken in priority order and wait for a higher one to end (SDM Vol. 3A, 'Task and Processor Priorities')", () => {
  const { apic } = create();
  apic.deliver(FIXED, 0x31, 0);
  apic.deliver(FIXED, 0x51, 0);
  assert.equal(apic.pending(), 0x51);
  apic.acknowledge(0x51);
  assert.equal(apic.read(PPR, 0), 0x50);
  assert.equal(apic.pending(), -1, "0x31 is below the processor priority");
  apic.write(EOI, 0, 0);
  assert.equal(apic.pending(), 0x31);
});

test("the task priority holds back its own class and those below", () => {
  const { apic } = create();
  apic.deliver(FIXED, 0x4f, 0);
  apic.write(TPR, 0x40, 0);
  assert.equal(apic.pending(), -1);
  apic.write(TPR, 0x3f, 0);
  assert.equal(apic.pending(), 0x4f);
  apic.cr8 = 4;
  assert.equal(apic.read(TPR, 0), 0x40);
});

test("the end of a level-triggered interrupt is told to the IOAPIC, of an edge-triggered one not", () => {
  const { apic, ended } = create();
  for (const trigger of [1, 0] as const) {
    apic.deliver(FIXED, 0x40, trigger);
    apic.acknowledge(apic.pending());
    apic.write(EOI, 0, 0);
  }
  assert.deepEqual(ended, [0x40]);
});

test("one-shot, periodic and TSC-deadline timers fire when due and no earlier", () => {
  const { apic } = create();
  apic.write(DIVIDE, 0xb, 0); // by 1
  apic.write(LVT_TIMER, 0x60, 0);
  apic.write(INITIAL, 1000, 500);
  assert.equal(apic.deadline, 1500);
  assert.equal(apic.read(CURRENT, 1200), 300);
  apic.advance(1499);
  assert.equal(apic.pending(), -1);
  apic.advance(1500);
  assert.equal(apic.pending(), 0x60);
  assert.equal(apic.deadline, Infinity);

  apic.write(LVT_TIMER, 0x60 | (1 << 17), 2000);
  apic.write(INITIAL, 100, 2000);
  apic.advance(2555);
  assert.equal(apic.deadline, 2600, "late periods coalesce");

  apic.write(LVT_TIMER, 0x61 | (2 << 17), 3000);
  assert.equal(apic.deadline, Infinity, "a change of mode disarms");
  apic.setTscDeadline(5000, 1000);
  assert.equal(apic.deadline, 4000);
  assert.equal(apic.tscDeadline(1000), 5000);
  apic.setTscDeadline(0, 1000);
  assert.equal(apic.deadline, Infinity);
});

test("a software-disabled APIC masks its LVT and takes nothing", () => {
  const { apic } = create();
  apic.write(LVT_TIMER, 0x60, 0);
  apic.write(SVR, 0xff, 0);
  assert.equal(apic.read(LVT_TIMER, 0) & 0x1_0000, 0x1_0000);
  assert.equal(apic.deliver(FIXED, 0x50, 0), false);
});

test("logical destinations match in flat and cluster mode", () => {
  const { apic } = create();
  apic.write(LDR, 0x0200_0000, 0);
  assert.ok(apic.matches(1, 0x03));
  assert.ok(!apic.matches(1, 0x01));
  assert.ok(apic.matches(0, 0) && apic.matches(0, 0xff) && !apic.matches(0, 1));
});

test("illegal vectors are recorded in ESR, which shows them after a write", () => {
  const { apic, sent } = create();
  apic.write(ICR, 0x05, 0);
  assert.equal(sent.length, 0);
  assert.equal(apic.read(ESR, 0), 0);
  apic.write(ESR, 0, 0);
  assert.equal(apic.read(ESR, 0), 1 << 5);
});

test("IA32_APIC_BASE: only the transitions of the SDM, and x2APIC has no page", () => {
  const { apic } = create();
  assert.equal(apic.pageAddress, 0xfee0_0000);
  assert.equal(apic.writeBaseMsr(apic.baseMsr | 0x400, 0), true);
  assert.ok(apic.isX2apic);
  assert.equal(apic.pageAddress, -1);
  assert.equal(apic.writeBaseMsr(0xfee0_0900, 0), false, "x2APIC to xAPIC is #GP");
  assert.equal(apic.writeX2apic(0x02, 1, 0, 0), false, "the ID is read-only");
  assert.equal(apic.writeX2apic(0x3f, 0x77, 0, 0), true);
  assert.equal(apic.pending(), 0x77, "self IPI");
});

test("no sequence of register accesses throws or leaves the register file", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(0x3ff), fc.integer(), fc.nat(1_000_000)), { maxLength: 50 }),
      (accesses) => {
        const { apic } = create();
        let now = 0;
        for (const [register, value, delay] of accesses) {
          now += delay;
          apic.advance(now);
          apic.write(register & 0x3f, value, now);
          const read = apic.read(register >>> 2, now);
          assert.ok(Number.isInteger(read) && read >= 0 && read <= 0xffff_ffff);
          const pending = apic.pending();
          if (pending >= 0) apic.acknowledge(pending);
        }
      },
    ),
  );
});
