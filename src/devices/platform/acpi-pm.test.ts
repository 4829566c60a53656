import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { portAccesses, RecordingLine, TestClock, throughJson } from "../test-wires.ts";
import { AcpiPm, Gpe, Pm1Status } from "./acpi-pm.ts";

const [STATUS, ENABLE, CONTROL, TIMER] = [0x600, 0x602, 0x604, 0x608];

function setUp() {
  const clock = new TestClock();
  const sci = new RecordingLine();
  let offs = 0;
  const pm = new AcpiPm({ clock, sci, powerOff: () => offs++ });
  return { clock, sci, pm, offs: () => offs };
}

test("the timer counts 3.579545 MHz in 32 bits, in any width", () => {
  const { clock, pm } = setUp();
  clock.time = 1e9;
  assert.equal(pm.readPort(TIMER, 4), 3_579_545);
  assert.equal(pm.readPort(TIMER + 2, 2), 3_579_545 >> 16);
  clock.time = 1201e9;
  assert.equal(pm.readPort(TIMER, 4), (3_579_545 * 1201) % 2 ** 32);
});

test("TMR_STS comes with each change of the top bit and interrupts if enabled", () => {
  const { clock, sci, pm } = setUp();
  assert.equal(pm.deadline(), Number.POSITIVE_INFINITY);
  pm.writePort(ENABLE, 2, Pm1Status.TIMER);
  const half = Math.ceil((2 ** 31 * 1e9) / 3_579_545);
  assert.ok(Math.abs(pm.deadline() - half) <= 1);
  clock.run(pm, 1.5 * half);
  assert.equal(sci.level, true);
  assert.equal(pm.readPort(STATUS, 2), Pm1Status.TIMER);
  pm.writePort(STATUS, 2, Pm1Status.TIMER);
  assert.equal(sci.level, false);
  clock.run(pm, 2.1 * half);
  assert.equal(sci.rises, 2);
});

test("the power button raises SCI when enabled, and writing its status bit acknowledges it", () => {
  const { pm, sci } = setUp();
  pm.pressPowerButton();
  assert.equal(sci.level, false);
  pm.writePort(ENABLE, 2, Pm1Status.POWER_BUTTON);
  assert.equal(sci.level, true);
  pm.writePort(STATUS, 2, 0);
  assert.equal(sci.level, true);
  pm.writePort(STATUS + 1, 1, Pm1Status.POWER_BUTTON >> 8);
  assert.equal(sci.level, false);
});

test("ACPICA reads back every enable bit that it writes, and SCI_EN is always on", () => {
  const { pm } = setUp();
  pm.writePort(ENABLE, 2, 0xffff);
  assert.equal(pm.readPort(ENABLE, 2), 0x0721);
  pm.writePort(CONTROL, 2, 0);
  assert.equal(pm.readPort(CONTROL, 2), 1);
});

test("S5 powers off once SLP_EN is written with its SLP_TYP; other types do nothing", () => {
  const { pm, offs } = setUp();
  pm.writePort(CONTROL, 2, 5 << 10);
  assert.equal(offs(), 0);
  assert.equal(pm.readPort(CONTROL, 2), (5 << 10) | 1);
  pm.writePort(CONTROL, 2, (1 << 13) | (3 << 10));
  assert.equal(offs(), 0);
  pm.writePort(CONTROL, 2, (1 << 13) | (5 << 10));
  assert.equal(offs(), 1);
  assert.equal(pm.readPort(CONTROL, 2) & (1 << 13), 0, "SLP_EN is write-only");
});

test("any guest: values in range, deadlines ahead, restore continues", () => {
  const ports = Array.from({ length: 12 }, (_, i) => STATUS + i);
  fc.assert(
    fc.property(portAccesses(ports), (accesses) => {
      const { pm, clock, sci } = setUp();
      for (const { port, size, value, write, wait } of accesses) {
        clock.time += wait * 50;
        pm.advance(clock.time);
        assert.ok(pm.deadline() > clock.time);
        if (write) pm.writePort(port, size, value);
        else assert.ok(pm.readPort(port, size) < 2 ** (8 * size));
        const pending = pm.readPort(STATUS, 2) & pm.readPort(ENABLE, 2);
        assert.equal(sci.level, pending !== 0);
      }
      const copy = setUp();
      copy.pm.restore(throughJson(pm.save()));
      copy.clock.time = clock.time;
      assert.equal(copy.pm.readPort(STATUS, 4), pm.readPort(STATUS, 4));
      assert.equal(copy.pm.readPort(TIMER, 4), pm.readPort(TIMER, 4));
    }),
    { numRuns: 60 },
  );
});

test("a general purpose event raises SCI while it is enabled, until its status is written", () => {
  const { pm, sci } = setUp();
  const [GPE_STATUS, GPE_ENABLE] = [0x60c, 0x60d];
  pm.raiseEvent(Gpe.GENERATION);
  assert.equal(pm.readPort(GPE_STATUS, 1), 1 << Gpe.GENERATION);
  assert.equal(sci.level, false);
  pm.writePort(GPE_ENABLE, 1, 0xff);
  assert.equal(sci.level, true);
  assert.equal(pm.readPort(GPE_ENABLE, 1), 0xff);
  pm.writePort(GPE_STATUS, 1, 0xfe);
  assert.equal(sci.level, true);
  pm.writePort(GPE_STATUS, 1, 1 << Gpe.GENERATION);
  assert.equal(sci.level, false);
  assert.equal(pm.readPort(GPE_STATUS, 1), 0);
});
