import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { InterruptMessage } from "../model.ts";
import { portAccesses, RecordingLine, TestClock, throughJson } from "../test-wires.ts";
import { Chipset } from "./chipset.ts";
import { PciFunction } from "./pci-function.ts";
import { MemoryMap, Port } from "./platform-map.ts";

function setUp() {
  const clock = new TestClock();
  const intr = new RecordingLine();
  const sent: InterruptMessage[] = [];
  const output: [number, number][] = [];
  const events: string[] = [];
  const chipset = new Chipset(
    {
      clock,
      intr,
      deliver: (message) => sent.push(message),
      serialOutput: (port, byte) => output.push([port, byte]),
      powerOff: () => events.push("off"),
      reset: () => events.push("reset"),
    },
    { rtcEpochMs: Date.parse("2026-11-24T12:00:00Z") },
  );
  const { ports, memory } = chipset;
  const redirect = (pin: number, low: number) => {
    memory.write(MemoryMap.IOAPIC_BASE, 4, 0x10 + 2 * pin);
    memory.write(MemoryMap.IOAPIC_BASE + 0x10, 4, low);
  };
  return { clock, intr, sent, output, events, chipset, ports, memory, redirect };
}

/** Two 8259s as Linux sets them up, with everything unmasked. */
function startPics({ ports }: ReturnType<typeof setUp>) {
  for (const [base, ...words] of [
    [0x20, 0x30, 4, 1, 0],
    [0xa0, 0x38, 2, 1, 0],
  ]) {
    ports.write(base, 1, 0x11);
    for (const word of words) ports.write(base + 1, 1, word);
  }
}

test("the PIT interrupts through PIC input 0 and through IOAPIC pin 2", () => {
  const machine = setUp();
  startPics(machine);
  machine.redirect(2, 0x30);
  machine.ports.write(0x43, 1, 0x30);
  machine.ports.write(0x40, 1, 10);
  machine.ports.write(0x40, 1, 0);
  machine.clock.run(machine.chipset, 1e6);
  assert.equal(machine.chipset.pic.acknowledge(), 0x30);
  assert.deepEqual(
    machine.sent.map(({ vector, trigger }) => [vector, trigger]),
    [[0x30, 0]],
  );
});

test("with the HPET's legacy route the PIT is cut off and comparator 0 has its line", () => {
  const machine = setUp();
  const hpet = MemoryMap.HPET_BASE;
  machine.redirect(2, 0x30);
  machine.ports.write(0x43, 1, 0x34);
  machine.ports.write(0x40, 2, 0x1000);
  machine.memory.write(hpet + 0x10, 4, 3);
  machine.memory.write(hpet + 0x100, 4, 0x4);
  machine.memory.write(hpet + 0x108, 8, 1000n);
  const before = machine.sent.length;
  machine.clock.run(machine.chipset, 1e9);
  assert.equal(machine.sent.length - before, 1);
});

test("each serial port talks on its own channel and interrupts on its ISA line", () => {
  const machine = setUp();
  for (const [port, base, irq] of [
    [0, 0x3f8, 4],
    [1, 0x2f8, 3],
    [2, 0x3e8, 10],
    [3, 0x2e8, 11],
  ]) {
    machine.redirect(irq, 0x40 + port);
    machine.ports.write(base, 1, 0x61 + port);
    machine.ports.write(base + 4, 1, 0x0b);
    machine.ports.write(base + 1, 1, 1);
    machine.chipset.serial[port].receive(Uint8Array.of(1));
    assert.deepEqual(machine.output.at(-1), [port, 0x61 + port]);
    assert.equal(machine.sent.at(-1)?.vector, 0x40 + port);
  }
});

test("power button, soft off, and all the ways to reset", () => {
  const machine = setUp();
  machine.redirect(9, 0x8000 | 0x49);
  machine.ports.write(Port.PM1_EVENT + 2, 2, 0x100);
  machine.chipset.pm.pressPowerButton();
  assert.deepEqual([machine.sent[0].vector, machine.sent[0].trigger], [0x49, 1]);
  machine.ports.write(Port.PM1_CONTROL, 2, 0x3400);
  machine.ports.write(0xcf9, 1, 6);
  machine.ports.write(0x64, 1, 0xfe);
  machine.ports.write(0x92, 1, 1);
  assert.deepEqual(machine.events, ["off", "reset", "reset", "reset"]);
});

test("INTx reaches its IOAPIC pin and, for PIC guests, the shared level input 5", () => {
  const machine = setUp();
  startPics(machine);
  const card = new PciFunction({ vendor: 1, device: 1, classCode: 0, interruptPin: 2 });
  machine.chipset.pci.plug(4, 0, card);
  machine.redirect(17, 0x8000 | 0x51);
  card.setInterrupt(true);
  assert.equal(machine.sent[0].vector, 0x51);
  for (let i = 0; i < 2; i++) {
    assert.equal(machine.chipset.pic.acknowledge(), 0x35);
    machine.ports.write(0x20, 1, 0x20);
  }
  card.setInterrupt(false);
  assert.equal(machine.intr.level, false);
});

test("what is not there reads as all ones: VGA, DMA page registers, ROM", () => {
  const { ports, memory } = setUp();
  for (const port of [0x3d4, 0x87, 0x2f0, 0xcf8, 0xed]) assert.equal(ports.read(port, 1), 0xff);
  assert.equal(memory.read(0xb_8000, 2), 0xffff);
  assert.equal(memory.read(0xc000_0000, 8), 0xffff_ffff_ffff_ffffn);
});

test("any guest on any port: never throws, deadlines ahead, save, restore, continue equals continue", () => {
  const ports = [
    ...[0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x40, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71],
    ...[0x3f8, 0x3f9, 0x3fa, 0x3fc, 0x600, 0x602, 0x604, 0x608, 0xcf8, 0xcfc, 0xcf9, 0x92],
  ];
  const gpas = fc.array(fc.nat(0x3ff), { maxLength: 200, size: "max" });
  fc.assert(
    fc.property(portAccesses(ports), gpas, fc.nat(200), (accesses, offsets, cut) => {
      const a = setUp();
      const b = setUp();
      for (const [i, access] of accesses.entries()) {
        a.clock.time += access.wait;
        b.clock.time = a.clock.time;
        if (i === cut) b.chipset.restore(throughJson(a.chipset.save()));
        const gpa = (i % 2 ? MemoryMap.HPET_BASE : MemoryMap.IOAPIC_BASE) + (offsets[i] ?? 0);
        const answers = (i < cut ? [a] : [a, b]).map(({ chipset, clock, ports: bus, memory }) => {
          chipset.advance(clock.time);
          assert.ok(chipset.deadline() > clock.time);
          if (access.write) bus.write(access.port, access.size, access.value);
          if (access.write) memory.write(gpa, access.size, access.value);
          if (access.value % 7 === 0) chipset.pic.acknowledge();
          return access.write ? 0 : [bus.read(access.port, access.size), memory.read(gpa, 4)];
        });
        assert.deepEqual(answers.at(-1), answers[0]);
      }
    }),
    { numRuns: 60 },
  );
});
