import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MmioBus } from "./mmio-bus.ts";
import type { MmioSize, PortSize } from "./model.ts";
import { PortBus } from "./port-bus.ts";

/** A device that remembers its accesses and reads as its port's low byte. */
function recorder() {
  const seen: [number, number, number?][] = [];
  return {
    seen,
    readPort(port: number, size: PortSize) {
      seen.push([port, size]);
      return port & 0xff;
    },
    writePort(port: number, size: PortSize, value: number) {
      seen.push([port, size, value]);
    },
  };
}

test("a port nobody claims reads as all ones and swallows writes", () => {
  const bus = new PortBus();
  bus.write(0x300, 4, 0);
  assert.deepEqual(
    ([1, 2, 4] as const).map((size) => bus.read(0x300, size)),
    [0xff, 0xffff, 0xffff_ffff],
  );
});

test("an access wider than its device, or across two claims, arrives as bytes in order", () => {
  const bus = new PortBus();
  const [a, b] = [recorder(), recorder()];
  bus.map({ base: 0x20, length: 2 }, a);
  bus.map({ base: 0x22, length: 1 }, b);
  bus.write(0x21, 2, 0xbbaa);
  assert.deepEqual(a.seen, [[0x21, 1, 0xaa]]);
  assert.deepEqual(b.seen, [[0x22, 1, 0xbb]]);
  assert.equal(bus.read(0x20, 4), 0xff22_2120);
});

test("a dword claim and a byte claim share a port", () => {
  const bus = new PortBus();
  const [pci, reset] = [recorder(), recorder()];
  bus.map({ base: 0xcf8, length: 4, sizes: [4] }, pci);
  bus.map({ base: 0xcf9, length: 1 }, reset);
  bus.write(0xcf8, 4, 0x8000_0000);
  bus.write(0xcf9, 1, 6);
  bus.write(0xcf8, 2, 0x0600);
  assert.deepEqual(pci.seen, [[0xcf8, 4, 0x8000_0000]]);
  assert.deepEqual(reset.seen, [
    [0xcf9, 1, 6],
    [0xcf9, 1, 6],
  ]);
});

test("the fallback sees only what no claim decodes", () => {
  const seen: number[] = [];
  const bus = new PortBus({
    fallback: {
      readPort: (port, size) => (port === 0x500 && size === 1 ? 0x55 : undefined),
      writePort: (port) => seen.push(port) > 0,
    },
  });
  bus.map({ base: 0x60, length: 1 }, recorder());
  assert.equal(bus.read(0x500, 1), 0x55);
  assert.equal(bus.read(0x500, 2), 0xff55);
  bus.write(0x60, 1, 0);
  bus.write(0x5f, 2, 0);
  assert.deepEqual(seen, [0x5f]);
});

test("claims that overlap are our own bug", () => {
  const bus = new PortBus();
  bus.map({ base: 0x60, length: 4 }, recorder());
  assert.throws(() => bus.map({ base: 0x63, length: 1 }, recorder()));
  assert.throws(() => bus.map({ base: 0xffff, length: 2 }, recorder()));
});

test("any port access answers an unsigned value of its size", () => {
  const bus = new PortBus();
  bus.map({ base: 0xfffe, length: 2, sizes: [1, 2] }, recorder());
  bus.map({ base: 0, length: 3 }, recorder());
  const size = fc.constantFrom(1 as const, 2 as const, 4 as const);
  fc.assert(
    fc.property(fc.oneof(fc.nat(4), fc.integer({ min: 0xfff8, max: 0xffff })), size, (port, n) => {
      const value = bus.read(port, n);
      assert.ok(Number.isInteger(value) && value >= 0 && value < 2 ** (8 * n));
      bus.write(port, n, value);
    }),
  );
});

test("MMIO goes to the window that holds the whole access", () => {
  const bus = new MmioBus();
  const device = {
    readMmio: (offset: number, size: MmioSize) => (size === 8 ? BigInt(offset) : offset),
    writeMmio() {},
  };
  bus.map(0xfec0_0000, 0x1000, device);
  bus.map(0xfed0_0000, 0x400, device);
  assert.equal(bus.read(0xfec0_0010, 4), 0x10);
  assert.equal(bus.read(0xfed0_00f0, 8), 0xf0n);
  assert.equal(bus.read(0xfed0_03fc, 8), 0xffff_ffff_ffff_ffffn);
  assert.equal(bus.read(0xfec0_1000, 2), 0xffff);
  assert.throws(() => bus.map(0xfed0_03ff, 1, device));
});
