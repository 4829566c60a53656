import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import { isInterruptMessage } from "./msix.ts";
import { TestDriver } from "./test-driver.ts";
import { DeviceStatus, Feature, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";

const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, NEEDS_RESET } = DeviceStatus;

/** Answers each buffer of queue 0 with its readable bytes. */
class EchoDevice implements VirtioDevice {
  readonly type = 42;
  readonly classCode = 0xff_0000;
  readonly features = [0, 3];
  readonly queueSizes = [64, 16];
  readonly config = Uint8Array.from({ length: 12 }, (_, i) => i);
  link: VirtioLink | undefined;
  readonly calls: string[] = [];

  connect(link: VirtioLink): void {
    this.link = link;
  }
  writeConfig(offset: number, size: number, value: number): void {
    this.calls.push(`config ${offset} ${size} ${value}`);
  }
  activate(): void {
    this.calls.push("activate");
  }
  notify(index: number): void {
    this.calls.push(`notify ${index}`);
    const queue = this.link!.queues[index]!;
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      const bytes = chain.take(0, Math.min(chain.readableBytes, chain.writableBytes))!;
      chain.write(0, bytes);
      queue.push(chain, bytes.length);
    }
    queue.setNotify(true);
    queue.flush();
  }
  reset(): void {
    this.calls.push("reset");
  }
  save(): unknown {
    return {};
  }
  restore(): void {}
}

const setUp = () => {
  const device = new EchoDevice();
  return { device, driver: new TestDriver(device) };
};

describe("what a driver finds", () => {
  test("ids of the modern interface, and all five structures", () => {
    const { driver } = setUp();
    assert.equal(driver.config(0, 4), 0x106a_1af4);
    assert.equal(driver.config(8, 1), 1);
    assert.equal(driver.config(0x3d, 1), 1);
    assert.equal(driver.read(1, 18, 2), 2);
    assert.deepEqual(
      [0, 4, 8].map((at) => driver.read(4, at, 4)),
      [0x0302_0100, 0x0706_0504, 0x0b0a_0908],
    );
    assert.equal(driver.read(4, 12, 4), 0);
    assert.deepEqual(
      driver.offered(),
      new Set([0, 3, Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.VERSION_1]),
    );
  });

  test("a queue that is not there has size 0", () => {
    const { driver } = setUp();
    driver.write(1, 22, 2, 1);
    assert.equal(driver.read(1, 24, 2), 16);
    driver.write(1, 22, 2, 2);
    assert.equal(driver.read(1, 24, 2), 0);
    assert.equal(driver.read(1, 26, 2), 0xffff);
  });
});

describe("negotiation", () => {
  test("without VERSION_1, or with what was not offered, FEATURES_OK stays clear", () => {
    for (const features of [[], [0], [1, 32], [32, 33]]) {
      const { driver } = setUp();
      driver.status = ACKNOWLEDGE | DRIVER;
      driver.take(features);
      driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
      assert.equal(driver.status, ACKNOWLEDGE | DRIVER);
      driver.status = ACKNOWLEDGE | DRIVER | DRIVER_OK;
      assert.equal(driver.status, ACKNOWLEDGE | DRIVER, "nor can DRIVER_OK be reached");
    }
  });

  test("features and queues freeze", () => {
    const { driver, device } = setUp();
    driver.write(1, 22, 2, 0);
    driver.write(1, 24, 2, 8);
    assert.equal(driver.read(1, 24, 2), 64, "before FEATURES_OK");
    driver.start({ features: [3] });
    driver.take([0, 32]);
    assert.ok(device.link!.hasFeature(3));
    assert.ok(!device.link!.hasFeature(0));
    driver.write(1, 22, 2, 0);
    driver.write(1, 24, 2, 8);
    driver.write(1, 32, 8, 0x1234_5678_9abcn);
    assert.equal(driver.read(1, 28, 2), 1);
    assert.equal(driver.read(1, 24, 2), 64);
    assert.equal(driver.read(1, 32, 4), 0x1_0000);
    driver.write(1, 28, 2, 0);
    assert.equal(driver.read(1, 28, 2), 1);
  });

  test("64-bit addresses can be written whole or in halves", () => {
    const { driver } = setUp();
    driver.status = ACKNOWLEDGE | DRIVER;
    driver.take([32]);
    driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    driver.write(1, 40, 8, 0x1234_5678_9abc_def0n);
    assert.deepEqual([driver.read(1, 40, 4), driver.read(1, 44, 4)], [0x9abc_def0, 0x1234_5678]);
    driver.write(1, 44, 4, 7);
    assert.deepEqual([driver.read(1, 40, 4), driver.read(1, 44, 4)], [0x9abc_def0, 7]);
  });

  test("status 0 resets everything but what is PCI's", () => {
    const { driver, device } = setUp();
    driver.start({ features: [0] });
    driver.exchange(0, [{ bytes: Uint8Array.of(1) }, { room: 1 }]);
    driver.status = 0;
    assert.equal(driver.status, 0);
    assert.equal(device.calls.at(-1), "reset");
    driver.write(1, 22, 2, 0);
    assert.equal(driver.read(1, 28, 2), 0);
    assert.equal(driver.read(1, 32, 4), 0);
    assert.equal(driver.read(1, 24, 2), 64);
    driver.start();
    assert.deepEqual([...driver.exchange(0, [{ bytes: Uint8Array.of(5) }, { room: 1 }])], [5]);
  });
});

describe("interrupts", () => {
  test("MSI-X: one vector for each queue, one for the configuration", () => {
    const { driver, device } = setUp();
    driver.start();
    driver.exchange(0, [{ bytes: Uint8Array.of(1) }, { room: 4 }]);
    driver.exchange(1, [{ bytes: Uint8Array.of(1) }, { room: 4 }]);
    device.link!.configChanged();
    assert.deepEqual(driver.vectors(), [0x41, 0x42, 0x40]);
    assert.equal(driver.read(1, 21, 1), 1, "generation");
    assert.equal(driver.read(3, 0, 1), 0, "ISR is for INTx alone");
    assert.equal(driver.line.level, false);
  });

  test("a masked vector waits as a pending bit", () => {
    const { driver } = setUp();
    driver.start();
    const table = 0x4000 + 16;
    driver.write(1, table + 12, 4, 1);
    driver.exchange(0, [{ bytes: Uint8Array.of(1) }, { room: 4 }]);
    assert.deepEqual(driver.vectors(), []);
    assert.equal(driver.read(1, 0x5000, 4), 2);
    driver.write(1, table + 12, 4, 0xffff_fffe);
    assert.deepEqual(driver.vectors(), [0x41]);
    assert.equal(driver.read(1, 0x5000, 8), 0);
    assert.equal(driver.read(1, table + 12, 4), 0, "only the mask can be written");
  });

  test("a vector that does not exist reads back as none and sends nothing", () => {
    const { driver } = setUp();
    driver.start();
    driver.write(1, 22, 2, 0);
    driver.write(1, 26, 2, 3);
    assert.equal(driver.read(1, 26, 2), 0xffff);
    driver.exchange(0, [{ bytes: Uint8Array.of(1) }, { room: 4 }]);
    assert.deepEqual(driver.vectors(), []);
  });

  test("INTx without MSI-X: the ISR says why, reading it ends it", () => {
    const { driver, device } = setUp();
    driver.start({ msix: false });
    driver.exchange(0, [{ bytes: Uint8Array.of(1) }, { room: 4 }]);
    assert.equal(driver.line.level, true);
    device.link!.configChanged();
    assert.equal(driver.read(3, 0, 1), 3);
    assert.equal(driver.line.level, false);
    assert.equal(driver.read(3, 0, 1), 0);
    assert.deepEqual(driver.messages, []);
  });

  test("only messages that the local APICs take from devices are sent", () => {
    assert.ok(isInterruptMessage(0xfee1_200c, 0x41));
    assert.ok(isInterruptMessage(0xfee0_0000, 0x0141), "lowest priority");
    assert.ok(!isInterruptMessage(0xfed0_0000, 0x41));
    assert.ok(!isInterruptMessage(0xfee0_0000, 0x0541), "INIT");
  });
});

test("bus mastering off: no access to memory until it is back", () => {
  const { driver } = setUp();
  driver.start();
  driver.config(4, 2, 2);
  driver.add(0, [{ bytes: Uint8Array.of(8) }, { room: 1 }]);
  assert.deepEqual(driver.collect(0), []);
  driver.config(4, 2, 6);
  assert.deepEqual([...driver.collect(0)[0]!.data], [8]);
});

test("a driver that breaks a rule finds NEEDS_RESET and a configuration interrupt, and can start again", () => {
  const { driver } = setUp();
  driver.start();
  driver.offer(driver.queues[0]!, 999);
  driver.kick(0);
  assert.equal(driver.status & NEEDS_RESET, NEEDS_RESET);
  assert.deepEqual(driver.vectors(), [0x40]);
  assert.match(driver.refusals[0]!, /queue 0: descriptor 999/);
  driver.status = driver.status & ~NEEDS_RESET;
  assert.equal(driver.status & NEEDS_RESET, NEEDS_RESET, "only a reset clears it");
  driver.kick(1);
  driver.start();
  assert.deepEqual([...driver.exchange(0, [{ bytes: Uint8Array.of(5) }, { room: 1 }])], [5]);
});

test("the configuration access capability reaches the BAR through configuration space", () => {
  const { driver } = setUp();
  let at = driver.config(0x34, 1);
  while (!(driver.config(at, 1) === 9 && driver.config(at + 3, 1) === 5))
    at = driver.config(at + 1, 1);
  const point = (offset: number, length: number) => {
    driver.config(at + 4, 1, 0);
    driver.config(at + 8, 4, offset);
    driver.config(at + 12, 4, length);
  };
  point(0x2004, 4);
  assert.equal(driver.config(at + 16, 4), 0x0706_0504);
  point(20, 1);
  driver.config(at + 16, 1, ACKNOWLEDGE);
  assert.equal(driver.status, ACKNOWLEDGE);
  for (const [offset, length] of [
    [0x8000, 4],
    [0x7fff, 4],
    [0xffff_fffc, 4],
    [2, 4],
    [0, 3],
    [0, 0],
  ]) {
    point(offset!, length!);
    driver.config(at + 16, 4, 0);
    driver.config(at + 16, 4);
  }
  assert.equal(driver.status, ACKNOWLEDGE);
});

test("the device configuration can be written where the device takes it, inside its bounds", () => {
  const { driver, device } = setUp();
  driver.write(4, 8, 4, 77);
  driver.write(4, 10, 4, 78);
  driver.write(4, 8, 8, 79);
  assert.deepEqual(
    device.calls.filter((call) => call.startsWith("config")),
    ["config 8 4 77"],
  );
});

test("restore continues", () => {
  const { driver } = setUp();
  driver.start({ eventIndex: true, indirect: true });
  for (let i = 0; i < 10; i++)
    assert.deepEqual([...driver.exchange(0, [{ bytes: Uint8Array.of(i) }, { room: 3 }])], [i]);
  const device = new EchoDevice();
  const copy = driver.moveTo(device, throughJson);
  assert.deepEqual(device.calls, []);
  for (let i = 0; i < 100; i++)
    assert.deepEqual([...copy.exchange(0, [{ bytes: Uint8Array.of(i) }, { room: 3 }])], [i]);
});

test("any accesses to the BAR and to configuration space: values in range, no throw", () => {
  const access = fc.record({
    window: fc.nat(0x7fff),
    hot: fc.constantFrom(-1, -1, 4, 8, 12, 16, 20, 22, 24, 26, 28, 32, 36, 40, 44, 48, 0x3000),
    config: fc.boolean(),
    write: fc.boolean(),
    size: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const),
    value: fc.oneof(fc.nat(16), fc.nat(0xffff_ffff), fc.constantFrom(0x1_0000, 0x4000)),
  });
  fc.assert(
    fc.property(fc.array(access, { maxLength: 200, size: "max" }), (accesses) => {
      const { driver } = setUp();
      driver.start();
      for (const { window, hot, config, write, size, value } of accesses) {
        if (config && size !== 8) {
          const register = window & 0xff & ~(size - 1);
          // Leave BAR and command alone, so that the rest stays reachable.
          if (write && register >= 0x28) driver.config(register, size, value);
          else assert.ok(driver.config(register, size) < 2 ** (8 * size));
          continue;
        }
        const offset = hot >= 0 ? hot : window;
        if (write) driver.write(1, offset, size, size === 8 ? BigInt(value) : value);
        else assert.ok(driver.read(1, offset, size) <= 2 ** (8 * size));
      }
    }),
    { numRuns: 300 },
  );
});
