import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { RecordingLine, TestClock, throughJson } from "../test-wires.ts";
import { Hpet } from "./hpet.ts";

const [CONFIG, STATUS, COUNTER] = [0x10, 0x20, 0xf0];
const timer = (index: number) => 0x100 + 0x20 * index;
const [LEVEL, ENABLE, PERIODIC, SET_VALUE, MODE_32] = [2, 4, 8, 0x40, 0x100];

function setUp() {
  const clock = new TestClock();
  const [irq0, irq8] = [new RecordingLine(), new RecordingLine()];
  const pins = Array.from({ length: 4 }, () => new RecordingLine());
  const hpet = new Hpet({ clock, irq0, irq8, pins });
  const read = (offset: number) => Number(hpet.readMmio(offset, 4));
  const write = (offset: number, value: number) => hpet.writeMmio(offset, 4, value);
  return { clock, irq0, irq8, pins, hpet, read, write };
}

test("capabilities: three 64-bit timers, legacy route, 100 MHz, as the ACPI table says", () => {
  const { read, hpet } = setUp();
  assert.equal(read(0), 0x8086_a201);
  assert.equal(read(4), 10_000_000);
  assert.equal(hpet.readMmio(0, 8), (10_000_000n << 32n) | 0x8086_a201n);
  assert.equal(read(timer(2)), 0x30);
  assert.equal(read(timer(2) + 4), 0x00f0_0000);
  assert.equal(read(timer(3)), 0);
});

describe("main counter", () => {
  test("stands still until enabled, counts 10 ns, halts, and takes a value", () => {
    const { clock, hpet, read, write } = setUp();
    clock.time = 1000;
    assert.equal(read(COUNTER), 0);
    write(CONFIG, 1);
    clock.time = 1995;
    assert.equal(read(COUNTER), 99);
    write(CONFIG, 0);
    clock.time = 5000;
    assert.equal(read(COUNTER), 99);
    hpet.writeMmio(COUNTER, 8, 0xffff_ffff_ffff_fff0n);
    write(CONFIG, 1);
    clock.time = 5000 + 320;
    assert.equal(hpet.readMmio(COUNTER, 8), 0x10n);
    assert.equal(read(COUNTER + 4), 0);
  });
});

describe("comparators", () => {
  test("one shot, edge, routed to a pin: fires at equality, leaves the line high", () => {
    const { clock, hpet, pins, write } = setUp();
    write(CONFIG, 1);
    write(timer(2), ENABLE | MODE_32 | (21 << 9));
    write(timer(2) + 8, 500);
    assert.equal(hpet.deadline(), 5000);
    clock.run(hpet, 4999);
    assert.equal(pins[1].rises, 0);
    clock.run(hpet, 5000);
    assert.deepEqual([pins[1].rises, pins[1].level], [1, true]);
    assert.equal(hpet.deadline(), (500 + 2 ** 32) * 10, "32-bit mode fires again at the wrap");
    write(timer(2) + 8, 400);
    assert.equal(hpet.deadline(), (400 + 2 ** 32) * 10, "a missed match waits for the wrap");
  });

  test("periodic as Linux programs it: accumulator with SET_VALUE, then the period", () => {
    const { clock, hpet, irq0, write, read } = setUp();
    write(CONFIG, 3);
    write(timer(0), ENABLE | PERIODIC | SET_VALUE | MODE_32);
    write(timer(0) + 8, 1000);
    assert.equal(read(timer(0)) & SET_VALUE, 0);
    write(timer(0) + 8, 400_000);
    assert.equal(clock.run(hpet, 1e9), 250);
    assert.equal(irq0.rises, 250);
    assert.equal(read(timer(0) + 8), 1000 + 250 * 400_000);
    clock.time = 3e9;
    hpet.advance(3e9);
    assert.equal(irq0.rises, 251, "a late embedder sees one edge");
    assert.ok(hpet.deadline() > 3e9 && hpet.deadline() <= 3e9 + 4e6);
  });

  test("level: status and line stay until the status bit is written", () => {
    const { clock, hpet, pins, read, write } = setUp();
    write(CONFIG, 1);
    write(timer(1), LEVEL | ENABLE | (20 << 9));
    hpet.writeMmio(timer(1) + 8, 8, 100n);
    clock.run(hpet, 2000);
    assert.equal(read(STATUS), 2);
    assert.equal(pins[0].level, true);
    write(STATUS, 1);
    assert.equal(pins[0].level, true);
    write(STATUS, 2);
    assert.deepEqual([pins[0].level, read(STATUS)], [false, 0]);
  });

  test("a disabled comparator or block interrupts nobody", () => {
    const { clock, hpet, pins, write } = setUp();
    write(timer(2) + 8, 10);
    write(timer(2), MODE_32 | (20 << 9));
    write(CONFIG, 1);
    assert.equal(hpet.deadline(), Number.POSITIVE_INFINITY);
    clock.run(hpet, 1000);
    write(timer(2), ENABLE | MODE_32 | (20 << 9));
    write(timer(2) + 8, 1000);
    write(CONFIG, 0);
    assert.equal(hpet.deadline(), Number.POSITIVE_INFINITY);
    clock.run(hpet, 1e6);
    assert.equal(pins[0].rises, 0);
  });
});

test("legacy replacement cuts off PIT and RTC and gives their lines to comparators 0 and 1", () => {
  const { clock, hpet, irq0, irq8, write } = setUp();
  hpet.pitInput.set(true);
  assert.equal(irq0.level, true);
  write(CONFIG, 3);
  assert.equal(irq0.level, false);
  hpet.pitInput.set(false);
  hpet.pitInput.set(true);
  hpet.rtcInput.set(true);
  assert.deepEqual([irq0.rises, irq8.rises], [1, 0]);
  write(timer(1), ENABLE);
  hpet.writeMmio(timer(1) + 8, 8, 50n);
  clock.run(hpet, 1000);
  assert.deepEqual([irq0.rises, irq8.rises], [1, 1]);
  write(CONFIG, 1);
  assert.deepEqual([irq0.level, irq8.level], [true, true], "their own levels are back");
});

test("any guest: values in range, deadlines ahead, and save, restore, continue equals continue", () => {
  const access = fc.record({
    offset: fc.oneof(
      fc.constantFrom(CONFIG, STATUS, COUNTER, 0x100, 0x108, 0x120, 0x128, 0x140, 0x148),
      fc.nat(0x3f8),
    ),
    size: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const),
    value: fc.oneof(fc.nat(0x400), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    write: fc.boolean(),
    wait: fc.oneof(fc.nat(100), fc.nat(1e7), fc.nat(1e11)),
  });
  fc.assert(
    fc.property(fc.array(access, { maxLength: 150, size: "max" }), fc.nat(150), (accesses, cut) => {
      const a = setUp();
      const b = setUp();
      for (const [i, { offset, size, value, write, wait }] of accesses.entries()) {
        a.clock.time += wait;
        b.clock.time = a.clock.time;
        if (i === cut) b.hpet.restore(throughJson(a.hpet.save()));
        const answers = (i < cut ? [a] : [a, b]).map(({ hpet, clock }) => {
          hpet.advance(clock.time);
          assert.ok(hpet.deadline() > clock.time);
          if (write) hpet.writeMmio(offset, size, value);
          return write ? 0n : BigInt(hpet.readMmio(offset, size));
        });
        assert.ok(answers[0] >= 0n && answers[0] < 1n << BigInt(8 * size));
        assert.equal(answers.at(-1), answers[0]);
      }
    }),
    { numRuns: 100 },
  );
});
