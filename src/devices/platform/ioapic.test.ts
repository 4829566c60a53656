import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { InterruptMessage } from "../model.ts";
import { throughJson } from "../test-wires.ts";
import { IOAPIC_PINS, Ioapic } from "./ioapic.ts";

const [INDEX, DATA, EOI] = [0x00, 0x10, 0x40];
const LEVEL = 1 << 15;
const MASKED = 1 << 16;
const REMOTE_IRR = 1 << 14;

function setUp() {
  const sent: InterruptMessage[] = [];
  const ioapic = new Ioapic({ deliver: (message) => sent.push(message) });
  const read = (register: number) => {
    ioapic.writeMmio(INDEX, 4, register);
    return ioapic.readMmio(DATA, 4);
  };
  const write = (register: number, value: number) => {
    ioapic.writeMmio(INDEX, 4, register);
    ioapic.writeMmio(DATA, 4, value);
  };
  return { sent, ioapic, read, write };
}

test("identification: version 0x20, 24 pins, every entry masked", () => {
  const { read, write } = setUp();
  assert.equal(read(1), 0x0017_0020);
  assert.equal(read(0), 0);
  write(0, 0xff00_0000);
  assert.equal(read(0), 0x0f00_0000);
  for (let pin = 0; pin < IOAPIC_PINS; pin++) assert.equal(read(0x10 + 2 * pin), MASKED);
  assert.equal(read(0x40), 0);
});

test("an edge delivers the entry's message; on a masked pin it is lost", () => {
  const { ioapic, write, sent } = setUp();
  const line = ioapic.line(2);
  line.set(true);
  write(0x15, 0x0300_0000);
  write(0x14, 0x0000_0930);
  assert.equal(sent.length, 0);
  line.set(false);
  line.set(true);
  line.set(true);
  assert.deepEqual(sent, [
    { vector: 0x30, deliveryMode: 1, destMode: 1, dest: 3, level: true, trigger: 0 },
  ]);
});

test("a level entry delivers once until its EOI, and again if the line is still asserted", () => {
  const { ioapic, read, write, sent } = setUp();
  const line = ioapic.line(9);
  write(0x22, LEVEL | 0x41);
  line.set(true);
  assert.equal(read(0x22), LEVEL | REMOTE_IRR | 0x41);
  ioapic.eoi(0x40);
  assert.equal(sent.length, 1);
  ioapic.writeMmio(EOI, 4, 0x41);
  assert.equal(sent.length, 2);
  line.set(false);
  ioapic.eoi(0x41);
  assert.equal(sent.length, 2);
  assert.equal(read(0x22), LEVEL | 0x41);
  assert.equal(sent[0].trigger, 1);
});

test("a level line asserted while masked delivers on unmasking", () => {
  const { ioapic, write, sent } = setUp();
  ioapic.line(16).set(true);
  write(0x30, LEVEL | MASKED | 0x51);
  assert.equal(sent.length, 0);
  write(0x30, LEVEL | 0x51);
  assert.equal(sent.length, 1);
});

test("remote IRR is read-only, and a detour through edge mode clears it", () => {
  const { ioapic, read, write } = setUp();
  write(0x30, LEVEL | REMOTE_IRR | 0x51);
  assert.equal(read(0x30), LEVEL | 0x51);
  ioapic.line(16).set(true);
  write(0x30, LEVEL | 0x51);
  assert.equal(read(0x30), LEVEL | REMOTE_IRR | 0x51);
  ioapic.line(16).set(false);
  write(0x30, MASKED | 0x51);
  assert.equal(read(0x30), MASKED | 0x51);
});

test("NMI and ExtINT entries are edges and never wait for an EOI", () => {
  const { ioapic, read, write, sent } = setUp();
  write(0x10, LEVEL | 0x700);
  for (let i = 0; i < 2; i++) {
    ioapic.line(0).set(true);
    ioapic.line(0).set(false);
  }
  assert.equal(sent.length, 2);
  assert.deepEqual([sent[0].deliveryMode, sent[0].trigger], [7, 0]);
  assert.equal(read(0x10), LEVEL | 0x700);
});

test("any guest, lines and EOIs: one message at most per event, reads in range, restore continues", () => {
  const events = fc.array(
    fc.record({
      kind: fc.constantFrom("index", "data", "line", "eoi", "read"),
      value: fc.oneof(fc.nat(0x40), fc.nat(0x1_ffff), fc.nat(0xffff_ffff)),
      offset: fc.nat(0xfff),
      size: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const),
    }),
    { maxLength: 300, size: "max" },
  );
  fc.assert(
    fc.property(events, (list) => {
      const { ioapic, sent } = setUp();
      for (const { kind, value, offset, size } of list) {
        const before = sent.length;
        if (kind === "index") ioapic.writeMmio(INDEX, size, size === 8 ? BigInt(value) : value);
        else if (kind === "data") ioapic.writeMmio(DATA, 4, value);
        else if (kind === "line") ioapic.line(value % IOAPIC_PINS).set(value % 2 === 0);
        else if (kind === "eoi") ioapic.eoi(value);
        else assert.ok(BigInt(ioapic.readMmio(offset, size)) < 1n << BigInt(8 * size));
        assert.ok(sent.length - before <= (kind === "eoi" ? IOAPIC_PINS : 1));
      }
      const copy = new Ioapic({ deliver: () => {} });
      copy.restore(throughJson(ioapic.save()));
      assert.deepEqual(copy.save(), ioapic.save());
    }),
    { numRuns: 60 },
  );
});
