import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import { internetChecksum } from "./checksum.ts";
import { NetworkDevice, NetworkFeature, type NetworkOptions } from "./network-device.ts";
import { TestDriver } from "./test-driver.ts";
import { DeviceStatus } from "./virtio-device.ts";

const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
const { CSUM, GUEST_CSUM } = NetworkFeature;

function setUp(options: Partial<NetworkOptions> = {}) {
  const sent: Uint8Array[] = [];
  const log = { ready: 0, room: Number.POSITIVE_INFINITY };
  const wires = {
    transmit: (frame: Uint8Array) => {
      log.room--;
      sent.push(frame);
    },
    canTransmit: () => log.room > 0,
    receiveReady: () => log.ready++,
  };
  const create = () => new NetworkDevice(wires, { mac: MAC, ...options });
  const device = create();
  const driver = new TestDriver(device);
  return { device, driver, sent, log, create };
}

const frame = (length: number, seed = 1) =>
  Uint8Array.from({ length }, (_, i) => (i + seed) & 0xff);
const header = (fields: { flags?: number; gso?: number; start?: number; offset?: number } = {}) => {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  bytes[0] = fields.flags ?? 0;
  bytes[1] = fields.gso ?? 0;
  view.setUint16(6, fields.start ?? 0, true);
  view.setUint16(8, fields.offset ?? 0, true);
  return bytes;
};

test("the configuration: address, link, MTU", () => {
  const { device, driver } = setUp({ mtu: 9000 });
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5].map((at) => driver.read(4, at, 1)),
    [...MAC],
  );
  assert.equal(driver.read(4, 6, 2), 1);
  assert.equal(driver.read(4, 10, 2), 9000);
  driver.start();
  device.setLinkUp(false);
  assert.equal(driver.read(4, 6, 2), 0);
  assert.deepEqual(driver.vectors(), [0x40]);
});

describe("sending", () => {
  test("frames leave in order without their headers, whatever the cut", () => {
    const { driver, sent } = setUp();
    driver.start();
    driver.add(1, [{ bytes: header() }, { bytes: frame(60) }]);
    const whole = new Uint8Array([...header(), ...frame(1514, 7)]);
    driver.add(1, [{ bytes: whole.subarray(0, 20) }, { bytes: whole.subarray(20) }]);
    assert.deepEqual(sent, [frame(60), frame(1514, 7)]);
    assert.equal(driver.collect(1).length, 2);
  });

  test("a checksum left to the device is finished", () => {
    const { driver, sent } = setUp();
    driver.start({ features: [CSUM] });
    const data = frame(61);
    data.set([0x12, 0x34], 34 + 16);
    driver.add(1, [{ bytes: header({ flags: 1, start: 34, offset: 16 }) }, { bytes: data }]);
    // The sum over all with the right checksum in place, the pseudo header's sum taken out, is all ones.
    const out = sent[0]!;
    const checksum = (out[50]! << 8) | out[51]!;
    const zeroed = data.slice();
    zeroed.set([0, 0], 50);
    const rest = ~internetChecksum(zeroed, 34) & 0xffff;
    assert.equal((rest + 0x1234 + checksum) % 0xffff, 0);
    assert.deepEqual(out.subarray(0, 50), data.subarray(0, 50));
  });

  test("what may not be sent comes back unsent", () => {
    const { driver, sent } = setUp();
    driver.start();
    for (const bytes of [
      [...header(), ...frame(13)],
      [...header(), ...frame(1519)],
      [...header({ gso: 1 }), ...frame(60)],
      [...header({ flags: 1, start: 34, offset: 16 }), ...frame(60)],
      [...header()].slice(0, 11),
    ])
      driver.add(1, [{ bytes: Uint8Array.from(bytes) }]);
    assert.equal(driver.collect(1).length, 5);
    assert.deepEqual(sent, []);
    assert.equal(driver.status & DeviceStatus.NEEDS_RESET, 0);
  });

  test("a wire without room leaves frames in the queue until it has", () => {
    const { device, driver, sent, log } = setUp();
    driver.start();
    log.room = 2;
    for (let i = 0; i < 5; i++) driver.add(1, [{ bytes: header() }, { bytes: frame(60, i) }]);
    assert.equal(sent.length, 2);
    assert.ok(device.isTransmitting);
    log.room = 3;
    device.resume();
    assert.deepEqual(sent[4], frame(60, 4));
    assert.ok(device.isTransmitting, "nothing waits, but nobody would hear of the next");
    log.room = 10;
    device.resume();
    assert.ok(!device.isTransmitting);
  });
});

describe("receiving", () => {
  test("a frame fills one buffer behind its header", () => {
    const { device, driver } = setUp({ isTrusted: true });
    driver.start({ features: [GUEST_CSUM], eventIndex: true });
    driver.add(0, [{ room: 12 }, { room: 1518 }]);
    driver.add(0, [{ room: 1530 }]);
    assert.equal(device.receive([frame(100), frame(1514)]), 2);
    const [first, second] = driver.collect(0);
    assert.deepEqual([...first!.data.subarray(0, 12)], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert.deepEqual(first!.data.subarray(12), frame(100));
    assert.equal(second!.length, 1526);
    assert.equal(driver.vectors().length, 1);
  });

  test("without buffers frames stay with the other end, which hears when there are some", () => {
    for (const eventIndex of [false, true]) {
      const { device, driver, log } = setUp();
      assert.equal(device.receive([frame(60)]), 0, "no driver yet");
      driver.start({ eventIndex });
      assert.equal(log.ready, 1);
      driver.add(0, [{ room: 1530 }]);
      assert.equal(device.receive([frame(60), frame(60)]), 1);
      assert.equal(log.ready, 1);
      driver.add(0, [{ room: 1530 }]);
      assert.equal(log.ready, 2);
      assert.equal(device.receive([frame(60)]), 1);
    }
  });

  test("frames that are too long, for the link or for the buffer, are lost alone", () => {
    const { device, driver } = setUp();
    driver.start();
    driver.add(0, [{ room: 40 }]);
    driver.add(0, [{ room: 1530 }]);
    assert.equal(device.receive([frame(2000), frame(60), frame(61)]), 3);
    assert.deepEqual(
      driver.collect(0).map(({ length }) => length),
      [0, 73],
    );
  });
});

test("restore continues", () => {
  const { device, driver, create, sent } = setUp();
  driver.start({ eventIndex: true });
  driver.add(0, [{ room: 1530 }]);
  device.setLinkUp(false);
  device.setLinkUp(true);
  const other = create();
  const copy = driver.moveTo(other, throughJson);
  assert.equal(other.receive([frame(80)]), 1);
  assert.equal(copy.collect(0)[0]!.length, 92);
  copy.add(1, [{ bytes: header() }, { bytes: frame(60) }]);
  assert.equal(sent.length, 1);
});

test("any buffers: nothing throws, each comes back once", () => {
  const step = fc.record({
    queue: fc.nat(1),
    segments: fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 100 }).map((bytes) => ({ bytes })),
        fc.nat(2000).map((room) => ({ room })),
      ),
      { minLength: 1, maxLength: 4 },
    ),
    received: fc.array(
      fc.nat(1600).map((length) => frame(length)),
      { maxLength: 3 },
    ),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const { device, driver } = setUp();
      driver.start({ features: [CSUM], indirect: true });
      let added = 0;
      let back = 0;
      for (const { queue, segments, received } of steps) {
        const isLegal = [...segments].sort((a, b) => Number("room" in a) - Number("room" in b));
        driver.add(queue, isLegal);
        added++;
        assert.ok(device.receive(received) <= received.length);
        back += driver.collect(0).length + driver.collect(1).length;
      }
      assert.ok(back <= added);
      assert.equal(driver.status & DeviceStatus.NEEDS_RESET, 0);
    }),
    { numRuns: 200 },
  );
});
