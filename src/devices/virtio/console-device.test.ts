import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import { ConsoleDevice, ConsoleFeature, ConsoleEvent as Event } from "./console-device.ts";
import { TestDriver } from "./test-driver.ts";
import { DeviceStatus } from "./virtio-device.ts";

const { SIZE, MULTIPORT, EMERGENCY_WRITE } = ConsoleFeature;
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
const bytesOf = (word: string) => new Uint8Array(Buffer.from(word, "latin1"));

function setUp() {
  const log: string[] = [];
  const wire = { room: Number.POSITIVE_INFINITY };
  const create = () =>
    new ConsoleDevice(
      {
        output: (port, bytes) => {
          wire.room--;
          log.push(`out ${port} ${text(bytes)}`);
        },
        canOutput: () => wire.room > 0,
        inputReady: (port) => log.push(`ready ${port}`),
        opened: (port, isOpen) => log.push(`open ${port} ${isOpen}`),
      },
      [{}, { name: "org.agent" }],
    );
  const device = create();
  return { device, log, wire, create, driver: new TestDriver(device) };
}

const control = (port: number, event: number, value: number) => {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, port, true);
  view.setUint16(4, event, true);
  view.setUint16(6, value, true);
  return bytes;
};

/** Control messages that came in, as [port, event, value, rest]. */
const heard = (driver: TestDriver) =>
  driver.collect(2).map(({ data }) => {
    const view = new DataView(data.buffer, data.byteOffset);
    const rest = text(data.subarray(8));
    return [view.getUint32(0, true), view.getUint16(4, true), view.getUint16(6, true), rest];
  });

const give = (driver: TestDriver, count: number) => {
  for (let i = 0; i < count; i++) driver.add(2, [{ room: 40 }]);
};

describe("one console, no negotiation", () => {
  test("output and input", () => {
    const { device, driver, log } = setUp();
    driver.start();
    driver.add(1, [{ bytes: bytesOf("hello ") }, { bytes: bytesOf("world") }]);
    assert.deepEqual(log, ["out 0 hello world"]);
    assert.equal(device.input(0, bytesOf("abc")), 0);
    driver.add(0, [{ room: 2 }]);
    assert.equal(log.at(-1), "ready 0");
    assert.equal(device.input(0, bytesOf("abc")), 2);
    driver.add(0, [{ room: 16 }]);
    assert.equal(device.input(0, bytesOf("c")), 1);
    assert.deepEqual(
      driver.collect(0).map(({ data }) => text(data)),
      ["ab", "c"],
    );
  });

  test("size by the configuration, emergency write", () => {
    const { device, driver, log } = setUp();
    driver.start({ features: [SIZE, EMERGENCY_WRITE] });
    device.resize(132, 43);
    assert.deepEqual(
      [driver.read(4, 0, 2), driver.read(4, 2, 2), driver.read(4, 4, 4)],
      [132, 43, 2],
    );
    assert.deepEqual(driver.vectors(), [0x40]);
    driver.write(4, 8, 4, 0x41);
    assert.deepEqual(log, ["out 0 A"]);
  });

  test("a wire without room gets the rest later", () => {
    const { device, driver, log, wire } = setUp();
    driver.start();
    wire.room = 1;
    for (const word of ["a", "b", "c"]) driver.add(1, [{ bytes: bytesOf(word) }]);
    assert.equal(driver.collect(1).length, 1);
    wire.room = 10;
    device.resume();
    assert.deepEqual(log, ["out 0 a", "out 0 b", "out 0 c"]);
  });
});

describe("several ports", () => {
  const start = () => {
    const all = setUp();
    all.device.resize(80, 25);
    all.driver.start({ features: [SIZE, MULTIPORT] });
    give(all.driver, 16);
    return all;
  };

  test("Linux's probe: added, made ready, described", () => {
    const { driver, log } = start();
    driver.add(3, [{ bytes: control(0xffff_ffff, Event.DEVICE_READY, 1) }]);
    assert.deepEqual(heard(driver), [
      [0, Event.DEVICE_ADD, 0, ""],
      [1, Event.DEVICE_ADD, 0, ""],
    ]);
    driver.add(3, [{ bytes: control(0, Event.PORT_READY, 1) }]);
    assert.deepEqual(heard(driver), [
      [0, Event.CONSOLE_PORT, 1, ""],
      [0, Event.RESIZE, 0, "\x19\0\x50\0"],
      [0, Event.PORT_OPEN, 1, ""],
    ]);
    driver.add(3, [{ bytes: control(1, Event.PORT_READY, 1) }]);
    assert.deepEqual(heard(driver), [
      [1, Event.PORT_NAME, 1, "org.agent"],
      [1, Event.PORT_OPEN, 1, ""],
    ]);
    driver.add(3, [{ bytes: control(1, Event.PORT_OPEN, 1) }]);
    driver.add(5, [{ bytes: bytesOf("ping") }]);
    assert.deepEqual(log, ["open 1 true", "out 1 ping"]);
    driver.status = 0;
    assert.equal(log.at(-1), "open 1 false");
  });

  test("messages wait for buffers, over a restore, too", () => {
    const { driver, device, create } = setUp();
    driver.start({ features: [MULTIPORT] });
    driver.add(3, [{ bytes: control(0, Event.DEVICE_READY, 1) }]);
    driver.add(3, [{ bytes: control(1, Event.PORT_READY, 1) }]);
    device.setOpen(1, false);
    const copy = driver.moveTo(create(), throughJson);
    give(copy, 8);
    assert.deepEqual(
      heard(copy).map(([port, event]) => [port, event]),
      [
        [0, Event.DEVICE_ADD],
        [1, Event.DEVICE_ADD],
        [1, Event.PORT_NAME],
        [1, Event.PORT_OPEN],
        [1, Event.PORT_OPEN],
      ],
    );
  });

  test("a driver that asks without listening is made to wait", () => {
    const { driver } = setUp();
    driver.start({ features: [MULTIPORT] });
    let answered = 0;
    for (let i = 0; i < 60; i++) {
      driver.add(3, [{ bytes: control(0, Event.DEVICE_READY, 1) }]);
      answered += driver.collect(3).length;
    }
    assert.equal(answered, 32);
    for (let i = 0; i < 40; i++) {
      give(driver, 4);
      assert.ok(heard(driver).length <= 4);
    }
    assert.equal(answered + driver.collect(3).length, 60);
  });
});

test("any buffers and messages: nothing throws", () => {
  const step = fc.record({
    queue: fc.nat(5),
    data: fc.oneof(
      fc.uint8Array({ maxLength: 20 }),
      fc
        .tuple(fc.nat(3), fc.nat(8), fc.nat(2))
        .map(([port, event, value]) => control(port, event, value)),
    ),
    room: fc.nat(40),
    input: fc.uint8Array({ maxLength: 50 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { device, driver } = setUp();
      driver.start({ features: [MULTIPORT] });
      for (const { queue, data, room, input } of steps) {
        if (driver.queues[queue]!.free.length < 2) continue;
        driver.add(queue, [{ bytes: data }, { room }]);
        assert.ok(device.input(queue % 3, input) <= input.length);
        device.setOpen(queue % 3, data.length % 2 === 0);
        for (let i = 0; i < 6; i++) driver.collect(i);
      }
      assert.equal(driver.status & DeviceStatus.NEEDS_RESET, 0);
    }),
    { numRuns: 200 },
  );
});
