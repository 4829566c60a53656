import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import {
  BlockDevice,
  BlockFeature,
  type BlockOperation,
  type BlockWires,
  SECTOR_BYTES,
  BlockRequestType as Type,
} from "./block-device.ts";
import { type Segment, TestDriver } from "./test-driver.ts";
import { DeviceStatus } from "./virtio-device.ts";

const SECTORS = 256;

/** A medium in memory that answers at once, or when `finish` is called, in a given order. */
class TestMedium implements BlockWires {
  size = SECTORS * SECTOR_BYTES;
  bytes = new Uint8Array(this.size);
  readOnly = false;
  later = false;
  fails = false;
  room = Number.POSITIVE_INFINITY;
  /** the driver's */
  ram: Uint8Array = new Uint8Array(0);
  readonly log: string[] = [];
  readonly waiting: (() => void)[] = [];
  device: BlockDevice | undefined;

  submit(tag: number, operation: BlockOperation): boolean {
    if (this.room === 0) return false;
    this.room--;
    const { kind } = operation;
    this.log.push(kind === "flush" ? kind : `${kind} ${operation.offset / SECTOR_BYTES}`);
    const finish = () => {
      if (!this.fails) this.#carryOut(operation);
      this.device!.complete(tag, !this.fails);
    };
    if (this.later) this.waiting.push(finish);
    else finish();
    return true;
  }

  finish(index = 0): void {
    this.waiting.splice(index, 1)[0]!();
  }

  create(): BlockDevice {
    const { size, readOnly } = this;
    this.device = new BlockDevice(this, { size, readOnly, serial: "hypolith-0" });
    return this.device;
  }

  #carryOut(operation: BlockOperation): void {
    if (operation.kind === "flush") return;
    const { offset, length } = operation;
    if (!("memory" in operation)) {
      this.bytes.fill(0, offset, offset + length);
      return;
    }
    const { addresses, lengths } = operation.memory;
    let at = offset;
    for (const [i, address] of addresses.entries()) {
      const disk = this.bytes.subarray(at, at + lengths[i]!);
      const memory = this.ram.subarray(address, address + lengths[i]!);
      if (operation.kind === "read") memory.set(disk);
      else disk.set(memory);
      at += lengths[i]!;
    }
    assert.equal(at, offset + length, "as much memory as there are bytes");
  }
}

function header(type: number, sector: number | bigint): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

function ranges(...list: [sector: number, sectors: number, flags: number][]): Uint8Array {
  const bytes = new Uint8Array(16 * list.length);
  const view = new DataView(bytes.buffer);
  for (const [i, [sector, sectors, flags]] of list.entries()) {
    view.setBigUint64(16 * i, BigInt(sector), true);
    view.setUint32(16 * i + 8, sectors, true);
    view.setUint32(16 * i + 12, flags, true);
  }
  return bytes;
}

const pattern = (length: number, seed: number) =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff);

function setUp(change: Partial<TestMedium> = {}) {
  const medium = Object.assign(new TestMedium(), change);
  const driver = new TestDriver(medium.create());
  medium.ram = driver.ram;
  const optional = [BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES];
  const features = [BlockFeature.FLUSH, ...(medium.readOnly ? [BlockFeature.READ_ONLY] : optional)];
  driver.start({ features, indirect: true, eventIndex: true });
  const request = (type: number, sector: number | bigint, ...segments: Segment[]) =>
    driver.exchange(0, [{ bytes: header(type, sector) }, ...segments, { room: 1 }]);
  const status = (type: number, sector: number | bigint, ...segments: Segment[]) =>
    request(type, sector, ...segments).at(-1);
  return { medium, driver, request, status };
}

describe("requests", () => {
  test("what is written is read, over any cut into descriptors", () => {
    const { request, status, medium } = setUp();
    const data = pattern(3 * SECTOR_BYTES, 1);
    const parts = [data.subarray(0, 100), data.subarray(100, 1000), data.subarray(1000)];
    assert.equal(status(Type.OUT, 7, ...parts.map((bytes) => ({ bytes }))), 0);
    assert.deepEqual(medium.bytes.subarray(7 * 512, 10 * 512), data);
    const answer = request(Type.IN, 8, { room: 1 }, { room: 1000 }, { room: 23 });
    assert.deepEqual(answer.subarray(0, 1024), data.subarray(512));
    assert.equal(answer.length, 1025);
    assert.equal(answer[1024], 0);
  });

  test("header and status may be cut into pieces, too", () => {
    const { driver, medium } = setUp();
    const first = header(Type.IN, 3);
    medium.bytes.set(pattern(512, 5), 3 * 512);
    const answer = driver.exchange(0, [
      { bytes: first.subarray(0, 5) },
      { bytes: first.subarray(5) },
      { room: 500 },
      { room: 13 },
    ]);
    assert.deepEqual(answer.subarray(0, 512), pattern(512, 5));
    assert.equal(answer[512], 0);
  });

  test("the end of the medium is the end", () => {
    const { status, medium } = setUp();
    const two = { bytes: new Uint8Array(1024) };
    assert.equal(status(Type.OUT, SECTORS - 2, two), 0);
    for (const sector of [SECTORS - 1, SECTORS, 2n ** 55n - 1n, 2n ** 64n - 1n])
      assert.equal(status(Type.OUT, sector, two), 1);
    assert.equal(status(Type.OUT, 0, { bytes: new Uint8Array(100) }), 1, "not a whole sector");
    assert.equal(medium.log.length, 1);
  });

  test("flush, identification, and types that do not exist", () => {
    const { status, request, medium } = setUp();
    assert.equal(status(Type.FLUSH, 0), 0);
    assert.deepEqual(medium.log, ["flush"]);
    const id = request(Type.GET_ID, 0, { room: 20 });
    assert.equal(String.fromCharCode(...id.subarray(0, 10)), "hypolith-0");
    assert.deepEqual([...id.subarray(10)], new Array(11).fill(0));
    assert.equal(status(99, 0), 2);
    assert.equal(status(Type.GET_ID, 0, { room: 3 }), 0);
  });

  test("discard and write-zeroes: several ranges, all judged before the first is carried out", () => {
    const { status, medium } = setUp();
    medium.bytes.fill(9);
    const send = (type: number, bytes: Uint8Array) => status(type, 0, { bytes });
    assert.equal(send(Type.DISCARD, ranges([2, 3, 0], [9, 1, 0])), 0);
    assert.equal(send(Type.WRITE_ZEROES, ranges([20, 1, 1])), 0);
    assert.deepEqual(medium.log, ["discard 2", "discard 9", "zeroes 20"]);
    assert.equal(send(Type.DISCARD, ranges([2, 3, 1])), 2, "unmap is not for discard");
    assert.equal(send(Type.WRITE_ZEROES, ranges([2, 3, 2])), 2, "unknown flag");
    assert.equal(send(Type.DISCARD, ranges([2, 3, 0], [SECTORS, 1, 0])), 1);
    assert.equal(send(Type.DISCARD, ranges([0, 3, 0]).subarray(0, 15)), 1);
    assert.equal(send(Type.DISCARD, new Uint8Array(0)), 1);
    assert.equal(medium.log.length, 3);
  });

  test("a read-only medium says so and takes no change", () => {
    const { driver, status, medium } = setUp({ readOnly: true });
    assert.ok(driver.offered().has(BlockFeature.READ_ONLY));
    assert.ok(!driver.offered().has(BlockFeature.DISCARD));
    assert.equal(status(Type.OUT, 0, { bytes: new Uint8Array(512) }), 1);
    assert.equal(status(Type.WRITE_ZEROES, 0, { bytes: ranges([0, 1, 0]) }), 1);
    assert.equal(status(Type.IN, 0, { room: 512 }), 0);
    assert.deepEqual(medium.log, ["read 0"]);
  });

  test("a failing medium is an I/O error, never an exception", () => {
    const { status } = setUp({ fails: true });
    assert.equal(status(Type.IN, 0), 1 - 1, "nothing to read");
    assert.equal(status(Type.FLUSH, 0), 1);
    assert.equal(status(Type.OUT, 0, { bytes: new Uint8Array(512) }), 1);
  });

  test("without header or without room for a status the driver is refused", () => {
    for (const segments of [[{ room: 17 }], [{ bytes: header(Type.FLUSH, 0) }]]) {
      const { driver } = setUp();
      driver.add(0, segments);
      assert.equal(driver.status & DeviceStatus.NEEDS_RESET, DeviceStatus.NEEDS_RESET);
    }
  });

  test("the configuration tells capacity and limits", () => {
    const { driver } = setUp();
    assert.equal(driver.read(4, 0, 8), SECTORS);
    assert.equal(driver.read(4, 20, 4), 512);
    assert.equal(driver.read(4, 24, 1), 3);
    assert.equal(driver.read(4, 40, 4), 32);
    assert.equal(driver.read(4, 56, 1), 1);
  });
});

describe("a back end that answers later", () => {
  const read = (driver: TestDriver, sector: number) =>
    driver.add(0, [{ bytes: header(Type.IN, sector) }, { room: 512 }, { room: 1 }]);

  test("many requests wait at once and are answered in any order", () => {
    const { driver, medium } = setUp({ later: true });
    for (let i = 0; i < 8; i++) medium.bytes[i * 512] = i;
    const heads = Array.from({ length: 8 }, (_, i) => read(driver, i));
    assert.equal(medium.waiting.length, 8);
    assert.deepEqual(driver.collect(0), []);
    medium.finish(5);
    assert.deepEqual(
      driver.collect(0).map(({ head, data }) => [head, data[0]]),
      [[heads[5], 5]],
    );
    while (medium.waiting.length > 0) medium.finish();
    assert.equal(driver.collect(0).length, 7);
  });

  test("one notification for many requests, one interrupt for many answers", () => {
    const { driver } = setUp();
    for (let i = 0; i < 8; i++)
      driver.add(0, [{ bytes: header(Type.FLUSH, 0) }, { room: 1 }], { kick: false });
    driver.kick(0);
    assert.equal(driver.collect(0).length, 8);
    assert.equal(driver.vectors().length, 1);
  });

  test("an answer after a reset touches nothing", () => {
    const { driver, medium } = setUp({ later: true });
    read(driver, 0);
    driver.start({ features: [BlockFeature.FLUSH], indirect: true });
    const before = driver.ram.slice();
    medium.finish();
    assert.deepEqual(driver.ram, before);
  });

  test("what was in flight at a save is answered after the restore, or asked again", () => {
    for (const isAskedAgain of [false, true]) {
      const { driver, medium } = setUp({ later: true });
      const data = pattern(512, 3);
      driver.add(0, [{ bytes: header(Type.OUT, 4) }, { bytes: data }, { room: 1 }]);
      const head = read(driver, 4);
      const fresh = isAskedAgain ? new TestMedium() : medium;
      const copy = driver.moveTo(fresh.create(), throughJson);
      fresh.ram = copy.ram;
      assert.deepEqual(copy.collect(0), []);
      if (isAskedAgain) {
        fresh.device!.resubmit();
        assert.deepEqual(fresh.log, ["write 4", "read 4"]);
      } else while (medium.waiting.length > 0) medium.finish();
      const answers = copy.collect(0);
      assert.equal(answers.length, 2);
      const answer = answers.find((one) => one.head === head)!;
      assert.deepEqual(answer.data.subarray(0, 512), data);
    }
  });

  test("what is in flight is bounded; the rest follows as answers come", () => {
    const { driver, medium } = setUp({ later: true });
    driver.start({ features: [BlockFeature.FLUSH], indirect: true, queueSize: 256 });
    for (let i = 0; i < 200; i++) read(driver, i);
    assert.equal(medium.waiting.length, 64);
    let answered = 0;
    while (medium.waiting.length > 0) {
      medium.finish();
      answered += driver.collect(0).length;
      assert.ok(medium.waiting.length <= 64);
    }
    assert.equal(answered, 200);
  });

  test("a wire that takes nothing now gets it later, in order", () => {
    const { driver, medium } = setUp({ later: true, room: 2 });
    for (let i = 0; i < 5; i++) read(driver, i);
    assert.deepEqual(medium.log, ["read 0", "read 1"]);
    const fresh = new TestMedium();
    const copy = driver.moveTo(fresh.create(), throughJson);
    fresh.ram = copy.ram;
    for (const one of [medium, fresh]) {
      one.room = 2;
      one.device!.resume();
      one.room = Number.POSITIVE_INFINITY;
      one.device!.resume();
      one.device!.resume();
    }
    assert.deepEqual(medium.log, ["read 0", "read 1", "read 2", "read 3", "read 4"]);
    assert.deepEqual(fresh.log, ["read 2", "read 3", "read 4"]);
    assert.equal(copy.collect(0).length, 3);
  });

  test("a state that is not one of this device is refused", () => {
    const { driver, medium } = setUp({ later: true });
    read(driver, 4);
    const good = throughJson(medium.device!.save()) as { requests: object[] };
    const { restore } = BlockDevice.prototype;
    for (const bad of [
      null,
      { ...good, life: "x" },
      { ...good, requests: 5 },
      { ...good, requests: [null] },
      { ...good, requests: [{ ...good.requests[0], kind: "format" }] },
      { ...good, requests: [{ ...good.requests[0], chain: {} }] },
    ])
      assert.throws(() => restore.call(medium.device, bad), { code: "snapshot-shape" });
  });
});

test("a large request goes to the medium in pieces, in order", () => {
  const { driver, medium, status } = setUp({ size: 4 << 20, bytes: new Uint8Array(4 << 20) });
  // The same 64 KiB of guest memory, forty times over.
  const at = driver.allocate(0x1_0000);
  driver.ram.set(pattern(0x1_0000, 1), at);
  const parts = Array.from({ length: 40 }, () => ({ at, length: 0x1_0000 }));
  const [first, second, third] = [8, 8 + 2048, 8 + 4096];
  assert.equal(status(Type.OUT, 8, ...parts), 0);
  assert.deepEqual(
    medium.log,
    [first, second, third].map((sector) => `write ${sector}`),
  );
  for (const block of [0, 1, 39])
    assert.deepEqual(
      medium.bytes.subarray(4096 + block * 0x1_0000, 4096 + (block + 1) * 0x1_0000),
      pattern(0x1_0000, 1),
    );
});

test("any requests of any shape: the device answers or asks for a reset, and only the medium's bytes change", () => {
  const segment = fc.oneof(
    fc.record({ room: fc.constantFrom(0, 1, 16, 511, 512, 513, 2048) }),
    fc.uint8Array({ maxLength: 40 }).map((bytes) => ({ bytes })),
    fc.constantFrom(512, 1024).map((length) => ({ bytes: pattern(length, length) })),
  );
  const step = fc.record({
    type: fc.oneof(fc.constantFrom(...Object.values(Type)), fc.nat(20)),
    sector: fc.oneof(fc.nat(SECTORS + 1), fc.bigInt(0n, 2n ** 64n - 1n)),
    hasHeader: fc.oneof({ arbitrary: fc.constant(true), weight: 20 }, fc.boolean()),
    segments: fc.array(segment, { maxLength: 5 }),
    later: fc.boolean(),
    order: fc.nat(7),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: "max" }), (steps) => {
      const { driver, medium } = setUp();
      let isBroken = false;
      let asked = 0;
      let answered = 0;
      for (const { type, sector, hasHeader, segments, later, order } of steps) {
        driver.resetHeap();
        if (driver.queues[0]!.free.length === 0) break;
        medium.later = later;
        const first = hasHeader ? [{ bytes: header(type, sector) }] : [];
        const shape: Segment[] = [...first, ...segments, { room: 1 }];
        // A legal order of buffers; the queue's own tests have the illegal ones.
        shape.sort((a, b) => Number(!a.bytes) - Number(!b.bytes));
        driver.add(0, shape);
        asked++;
        answered += driver.collect(0).length;
        if (medium.waiting.length > 2) medium.finish(order % medium.waiting.length);
        isBroken = (driver.status & DeviceStatus.NEEDS_RESET) !== 0;
        if (isBroken) break;
      }
      while (medium.waiting.length > 0) medium.finish();
      answered += driver.collect(0).length;
      if (!isBroken) assert.equal(answered, asked, "each request is answered once");
    }),
    { numRuns: 300 },
  );
});
