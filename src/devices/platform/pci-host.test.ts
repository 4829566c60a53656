import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { MmioSize, PortSize } from "../model.ts";
import { PortBus } from "../port-bus.ts";
import { portAccesses, RecordingLine, throughJson } from "../test-wires.ts";
import { PciFunction } from "./pci-function.ts";
import { PciHost } from "./pci-host.ts";
import { MemoryMap } from "./platform-map.ts";

function setUp() {
  const intx = Array.from({ length: 4 }, () => new RecordingLine());
  const host = new PciHost({ intx });
  const seen: [string, number, number][] = [];
  const device = {
    readPort(port: number, size: PortSize) {
      seen.push(["in", port, size]);
      return 0x77;
    },
    writePort(port: number, size: PortSize) {
      seen.push(["out", port, size]);
    },
    readMmio(offset: number, size: MmioSize) {
      seen.push(["read", offset, size]);
      return 0x88;
    },
    writeMmio(offset: number, size: MmioSize) {
      seen.push(["write", offset, size]);
    },
  };
  const card = new PciFunction({
    vendor: 0x1af4,
    device: 0x1042,
    subsystemVendor: 0x1af4,
    subsystem: 0x1100,
    revision: 1,
    classCode: 0x01_0000,
    interruptPin: 1,
    regions: [
      { bar: 0, kind: "io", size: 0x40, device },
      { bar: 1, kind: "memory32", size: 0x1000, device },
      { bar: 4, kind: "memory64", size: 0x4000, prefetchable: true, device },
    ],
  });
  host.plug(3, 0, card);
  const ports = new PortBus({ fallback: host.ioWindow });
  for (const claim of PciHost.PORT_CLAIMS) ports.map(claim, host);
  const select = (slot: number, register: number) =>
    ports.write(0xcf8, 4, 0x8000_0000 + slot * 0x800 + (register & 0xfc));
  const read = (slot: number, register: number, size: PortSize = 4) => {
    select(slot, register);
    return ports.read(0xcfc + (register & 3), size);
  };
  const write = (slot: number, register: number, size: PortSize, value: number) => {
    select(slot, register);
    ports.write(0xcfc + (register & 3), size, value);
  };
  return { host, card, intx, seen, ports, read, write };
}

describe("configuration mechanism #1", () => {
  test("Linux finds it: 0xCF8 keeps a dword, and a host bridge answers at 00:00.0", () => {
    const { ports, read } = setUp();
    ports.write(0xcfb, 1, 1);
    ports.write(0xcf8, 4, 0x8000_0000);
    assert.equal(ports.read(0xcf8, 4), 0x8000_0000);
    assert.equal(read(0, 0x0a, 2), 0x0600);
    assert.equal(read(0, 0), 0x0d57_8086);
  });

  test("nobody home reads as all ones, and so does everything while disabled", () => {
    const { ports, read } = setUp();
    assert.equal(read(1, 0), 0xffff_ffff);
    assert.equal(read(1, 0, 1), 0xff);
    ports.write(0xcf8, 4, 0x8001_1800);
    assert.equal(ports.read(0xcfc, 4), 0xffff_ffff, "bus 1");
    ports.write(0xcf8, 4, 0x0000_1800);
    assert.equal(ports.read(0xcfc, 4), 0xffff_ffff);
  });

  test("ids and class in any width", () => {
    const { read } = setUp();
    assert.equal(read(3, 0), 0x1042_1af4);
    assert.equal(read(3, 2, 2), 0x1042);
    assert.equal(read(3, 0x0b, 1), 1);
    assert.equal(read(3, 0x2c), 0x1100_1af4);
    assert.equal(read(3, 0x3c, 2), 0x0105, "INTA#, PIC input 5");
  });

  test("the memory-mapped space shows the same registers, and zeros above 256 bytes", () => {
    const { host } = setUp();
    assert.equal(host.ecam.readMmio(0x18000, 4), 0x1042_1af4);
    assert.equal(host.ecam.readMmio(0x18100, 4), 0);
    assert.equal(host.ecam.readMmio(0x10000, 2), 0xffff);
    host.ecam.writeMmio(0x1803c, 1, 11);
    assert.equal(host.ecam.readMmio(0x1803c, 1), 11);
  });
});

describe("BARs", () => {
  test("sizing by all ones", () => {
    const { read, write } = setUp();
    for (const register of [0x10, 0x14, 0x18, 0x20, 0x24]) write(3, register, 4, 0xffff_ffff);
    assert.equal(read(3, 0x10), 0xffff_ffc1);
    assert.equal(read(3, 0x14), 0xffff_f000);
    assert.equal(read(3, 0x18), 0);
    assert.equal(read(3, 0x20), 0xffff_c00c);
    assert.equal(read(3, 0x24), 0xffff_ffff);
  });

  test("decoded only while the command allows, at the offset inside, and movable", () => {
    const { host, ports, seen, read, write } = setUp();
    host.assignBars();
    assert.equal(read(3, 4, 2), 3);
    assert.equal(ports.read(0xd004, 2), 0x77);
    assert.equal(host.memoryWindow.readMmio(0x4010, 4), 0x88, "the smaller BAR comes second");
    assert.deepEqual(seen, [
      ["in", 4, 2],
      ["read", 0x10, 4],
    ]);
    write(3, 4, 2, 1);
    assert.equal(host.memoryWindow.readMmio(0x4010, 4), 0xffff_ffff);
    write(3, 0x10, 4, 0xe000);
    assert.equal(ports.read(0xd004, 2), 0xffff);
    ports.write(0xe03f, 1, 0);
    assert.deepEqual(seen.at(-1), ["out", 0x3f, 1]);
  });

  test("firmware's placement stays aligned and disjoint", () => {
    const { host, read } = setUp();
    host.assignBars();
    assert.equal(read(3, 0x20) & ~0xf, MemoryMap.PCI_MMIO_BASE | 0);
    assert.equal(read(3, 0x14), MemoryMap.PCI_MMIO_BASE + 0x4000);
    assert.equal(read(3, 0x10), 0xd001);
  });
});

test("INTx: rotated by slot, shared by OR, and silenced by the command register", () => {
  const { host, card, intx, read, write } = setUp();
  const other = new PciFunction({ vendor: 1, device: 1, classCode: 0, interruptPin: 1 });
  host.plug(7, 0, other);
  card.setInterrupt(true);
  other.setInterrupt(true);
  assert.deepEqual(
    intx.map((line) => line.level),
    [false, false, false, true],
  );
  assert.equal(read(3, 6, 2) & 8, 8);
  card.setInterrupt(false);
  assert.equal(intx[3].level, true);
  write(7, 4, 2, 0x400);
  assert.equal(intx[3].level, false);
});

test("capabilities form a list, with their own write masks and a listener", () => {
  const { card, read, write } = setUp();
  const first = card.addCapability(9, Uint8Array.of(5, 6), Uint8Array.of(0, 0xff));
  const second = card.addCapability(0x11, new Uint8Array(10));
  const writes: [number, number][] = [];
  card.onConfigWrite((offset, size) => writes.push([offset, size]));
  assert.equal(read(3, 6, 2) & 0x10, 0x10);
  assert.equal(read(3, 0x34, 1), first);
  assert.equal(read(3, first + 1, 1), second);
  assert.equal(read(3, second + 1, 1), 0);
  write(3, first, 4, 0);
  assert.equal(read(3, first), 0x0005_0009 + (second << 8));
  assert.deepEqual(writes, [[first, 4]]);
});

test("a second function makes its slot multifunction", () => {
  const { host, read } = setUp();
  host.plug(3, 1, new PciFunction({ vendor: 1, device: 2, classCode: 0 }));
  assert.equal(read(3, 0x0e, 1), 0x80);
  assert.throws(() => host.plug(3, 1, new PciFunction({ vendor: 1, device: 2, classCode: 0 })));
});

test("any guest: values in range, ids unchanged, restore continues", () => {
  const ports = [0xcf8, 0xcf8, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0xd000, 0xd020];
  fc.assert(
    fc.property(portAccesses(ports), fc.nat(0x3f), (accesses, register) => {
      const { host, ports: bus, read } = setUp();
      host.assignBars();
      for (const { port, size, value, write } of accesses) {
        if (port === 0xcf8) bus.write(port, 4, 0x8000_0000 + 0x1800 + (value & 0xfc));
        else if (write) bus.write(port, size, value);
        else assert.ok(bus.read(port, size) < 2 ** (8 * size));
        host.memoryWindow.readMmio(value % 0x3ec0_0000, size);
      }
      assert.equal(read(3, 0), 0x1042_1af4);
      const copy = setUp();
      copy.host.restore(throughJson(host.save()));
      assert.equal(copy.read(3, register * 4), read(3, register * 4));
    }),
    { numRuns: 60 },
  );
});
