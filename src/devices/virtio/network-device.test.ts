import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import type { ChainPart } from "./descriptor-chain.ts";
import { FrameFlag, type FrameTag } from "./frame-tag.ts";
import { NetworkDevice, NetworkFeature, type NetworkOptions } from "./network-device.ts";
import { TestDriver } from "./test-driver.ts";
import { DeviceStatus } from "./virtio-device.ts";

const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
const { CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF } = NetworkFeature;
const { UNFINISHED, TAKES_UNFINISHED, TAKES_SEGMENTS } = FrameFlag;

/** A device, its driver, and an other end that holds frames until the device places them. */
function setUp(options: Partial<NetworkOptions> = {}) {
  const sent: Uint8Array[] = [];
  const tags: FrameTag[] = [];
  const log = { ready: 0, room: Number.POSITIVE_INFINITY, places: Number.POSITIVE_INFINITY };
  let held: Uint8Array[] = [];
  let ram: Uint8Array = new Uint8Array(0);
  const wires = {
    transmit: (tag: FrameTag, { addresses, lengths }: ChainPart) => {
      log.room--;
      tags.push(tag);
      const parts = addresses.map((address, i) => ram.subarray(address, address + lengths[i]!));
      sent.push(Uint8Array.from(parts.flatMap((part) => [...part])));
    },
    canTransmit: () => log.room > 0,
    place: ({ addresses, lengths }: ChainPart) => {
      log.places--;
      const bytes = held.shift()!;
      let at = 0;
      for (const [i, address] of addresses.entries()) {
        ram.set(bytes.subarray(at, at + lengths[i]!), address);
        at += lengths[i]!;
      }
      assert.ok(at === 0 || at === bytes.length, "all of a frame or nothing");
    },
    canPlace: () => log.places > 0,
    receiveReady: () => log.ready++,
  };
  const create = () => new NetworkDevice(wires, { mac: MAC, ...options });
  const device = create();
  const driver = new TestDriver(device);
  ram = driver.ram;
  /** Offers frames; answers how many were taken. */
  const receive = (frames: readonly Uint8Array[], tag: Partial<FrameTag> = {}, to = device) => {
    held = [...frames];
    const plain = { flags: 0, segment: 0, ...tag };
    const taken = to.receive(frames.map(({ length }) => ({ ...plain, length })));
    assert.equal(held.length, frames.length - taken, "each that was taken was asked for");
    return taken;
  };
  const moved = (copy: { ram: Uint8Array }) => {
    ram = copy.ram;
  };
  return { device, driver, sent, tags, log, create, receive, moved };
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

  test("what the driver leaves to us, and what it takes in return, is said with the frame", () => {
    const { driver, sent, tags } = setUp();
    driver.start({ features: [CSUM, GUEST_CSUM, HOST_TSO4] });
    const partial = header({ flags: 1, start: 34, offset: 16 });
    driver.add(1, [{ bytes: partial }, { bytes: frame(61) }]);
    const large = header({ flags: 1, gso: 1, start: 34, offset: 16 });
    driver.add(1, [{ bytes: large }, { bytes: frame(40_000) }, { bytes: frame(25_549) }]);
    driver.add(1, [{ bytes: header() }, { bytes: frame(60) }]);
    const takes = TAKES_UNFINISHED;
    assert.deepEqual(
      tags.map(({ length, flags }) => [length, flags]),
      [
        [61, UNFINISHED | takes],
        [65_549, UNFINISHED | takes],
        [60, takes],
      ],
    );
    assert.deepEqual(sent[1], new Uint8Array([...frame(40_000), ...frame(25_549)]));
    driver.start({ features: [CSUM, GUEST_CSUM, GUEST_TSO4] });
    driver.add(1, [{ bytes: header() }, { bytes: frame(60) }]);
    assert.equal(tags.at(-1)!.flags, takes | TAKES_SEGMENTS);
  });

  test("what may not be sent comes back unsent", () => {
    const { driver, sent } = setUp();
    driver.start();
    for (const bytes of [
      [...header(), ...frame(13)],
      [...header(), ...frame(1519)],
      [...header({ gso: 1 }), ...frame(60)],
      [...header({ flags: 1, start: 34, offset: 16 }), ...frame(60)],
      [...header({ flags: 1, gso: 1, start: 34, offset: 16 }), ...frame(60)],
      [...header()].slice(0, 11),
    ])
      driver.add(1, [{ bytes: Uint8Array.from(bytes) }]);
    assert.equal(driver.collect(1).length, 6);
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
    const { driver, receive } = setUp();
    driver.start({ features: [GUEST_CSUM], eventIndex: true });
    driver.add(0, [{ room: 12 }, { room: 1518 }]);
    driver.add(0, [{ room: 1530 }]);
    assert.equal(receive([frame(100), frame(1514)], { flags: UNFINISHED }), 2);
    const [first, second] = driver.collect(0);
    assert.deepEqual([...first!.data.subarray(0, 12)], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0]);
    assert.deepEqual(first!.data.subarray(12), frame(100));
    assert.equal(second!.length, 1526);
    assert.equal(driver.vectors().length, 1);
  });

  test("a frame that stands for many segments goes over as many buffers as it needs, if they may be merged", () => {
    const { driver, receive } = setUp();
    driver.start({ features: [CSUM, GUEST_CSUM, GUEST_TSO4, MRG_RXBUF] });
    for (let i = 0; i < 9; i++) driver.add(0, [{ room: 4096 }]);
    const large = { flags: UNFINISHED, segment: 1460 };
    assert.equal(receive([frame(20_000), frame(20_000)], large), 1, "the second finds too few");
    const parts = driver.collect(0);
    assert.deepEqual(
      parts.map(({ length }) => length),
      [4096, 4096, 4096, 4096, 20_012 - 4 * 4096],
    );
    const all = Uint8Array.from(parts.flatMap(({ data }) => [...data]));
    assert.deepEqual([...all.subarray(0, 12)], [1, 1, 54, 0, 180, 5, 34, 0, 16, 0, 5, 0]);
    assert.deepEqual(all.subarray(12), frame(20_000));
    driver.add(0, [{ room: 4096 }]);
    assert.equal(receive([frame(20_000)], large), 1, "those that it was not given are there yet");
    assert.equal(driver.collect(0).length, 5);
  });

  test("a wire without room keeps frames, which are offered again", () => {
    const { device, driver, receive, log } = setUp();
    driver.start();
    for (let i = 0; i < 3; i++) driver.add(0, [{ room: 1530 }]);
    log.places = 1;
    assert.equal(receive([frame(60), frame(61)]), 1);
    assert.ok(device.isReceiving);
    log.places = 5;
    assert.equal(receive([frame(61)]), 1);
    assert.ok(!device.isReceiving);
    assert.deepEqual(
      driver.collect(0).map(({ length }) => length),
      [72, 73],
    );
  });

  test("without buffers frames stay with the other end, which hears when there are some", () => {
    for (const eventIndex of [false, true]) {
      const { driver, log, receive } = setUp();
      assert.equal(receive([frame(60)]), 0, "no driver yet");
      driver.start({ eventIndex });
      assert.equal(log.ready, 1);
      driver.add(0, [{ room: 1530 }]);
      assert.equal(receive([frame(60), frame(60)]), 1);
      assert.equal(log.ready, 1);
      driver.add(0, [{ room: 1530 }]);
      assert.equal(log.ready, 2);
      assert.equal(receive([frame(60)]), 1);
    }
  });

  test("frames that are too long, for the link or for the buffer, are lost alone", () => {
    const { driver, receive } = setUp();
    driver.start();
    driver.add(0, [{ room: 40 }]);
    driver.add(0, [{ room: 1530 }]);
    assert.equal(receive([frame(2000), frame(60), frame(61)]), 3);
    assert.deepEqual(
      driver.collect(0).map(({ length }) => length),
      [0, 73],
    );
  });

  test("what the driver has not agreed to is lost, as is everything while the link is down", () => {
    const { device, driver, receive } = setUp();
    driver.start();
    driver.add(0, [{ room: 1530 }]);
    assert.equal(receive([frame(60)], { flags: UNFINISHED }), 1);
    assert.equal(receive([frame(60)], { flags: UNFINISHED, segment: 1460 }), 1);
    device.setLinkUp(false);
    assert.equal(receive([frame(60)]), 1);
    assert.deepEqual(driver.collect(0), []);
  });
});

test("restore continues", () => {
  const { device, driver, create, sent, receive, moved } = setUp();
  driver.start({ eventIndex: true });
  driver.add(0, [{ room: 1530 }]);
  device.setLinkUp(false);
  device.setLinkUp(true);
  const other = create();
  const copy = driver.moveTo(other, throughJson);
  moved(copy);
  assert.equal(receive([frame(80)], {}, other), 1);
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
    fc.property(fc.array(step, { maxLength: 30 }), fc.boolean(), (steps, isMerging) => {
      const { driver, receive } = setUp();
      const merges = [CSUM, GUEST_CSUM, GUEST_TSO4, MRG_RXBUF];
      driver.start({ features: isMerging ? merges : [CSUM], indirect: true });
      let added = 0;
      let back = 0;
      for (const { queue, segments, received } of steps) {
        const isLegal = [...segments].sort((a, b) => Number("room" in a) - Number("room" in b));
        driver.add(queue, isLegal);
        added++;
        const large = { flags: UNFINISHED, segment: 100 };
        assert.ok(receive(received, isMerging ? large : {}) <= received.length);
        back += driver.collect(0).length + driver.collect(1).length;
      }
      assert.ok(back <= added);
      assert.equal(driver.status & DeviceStatus.NEEDS_RESET, 0);
    }),
    { numRuns: 200 },
  );
});
