import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import { FileDevice, type FileRequest, MAX_REQUEST_BYTES } from "./file-device.ts";
import {
  decodeFileAnswers,
  decodeFileHeader,
  encodeFileAnswers,
  encodeFileHeader,
} from "./file-message.ts";
import { TestDriver } from "./test-driver.ts";
import { DeviceStatus } from "./virtio-device.ts";

const REQUESTS = 1;

/** Another end that answers each request by its bytes, last first. */
class Mirror {
  readonly waiting: FileRequest[] = [];
  room = Number.POSITIVE_INFINITY;
  device!: FileDevice;
  /** the driver's */
  ram: Uint8Array = new Uint8Array(0);

  submit(request: FileRequest): boolean {
    if (this.waiting.length >= this.room) return false;
    this.waiting.push(request);
    return true;
  }

  answer(index = 0): void {
    const [{ tag, request, reply }] = this.waiting.splice(index, 1) as [FileRequest];
    const bytes = request.addresses.flatMap((address, i) => [
      ...this.ram.subarray(address, address + request.lengths[i]!),
    ]);
    let written = 0;
    for (const [i, address] of reply.addresses.entries()) {
      const part = bytes.splice(-Math.min(reply.lengths[i]!, bytes.length)).toReversed();
      this.ram.set(part, address);
      written += part.length;
      if (bytes.length === 0) break;
    }
    this.device.complete(tag, written);
    this.device.resume();
  }

  answerAll(): void {
    while (this.waiting.length > 0) this.answer(this.waiting.length >> 1);
  }
}

function setUp(kind: "fs" | "9p" = "fs") {
  const mirror = new Mirror();
  const create = () => {
    mirror.device = new FileDevice(mirror, { kind, tag: "work" });
    return mirror.device;
  };
  const driver = new TestDriver(create());
  mirror.ram = driver.ram;
  driver.start({ indirect: true, features: kind === "9p" ? [0] : [] });
  return { mirror, driver, create };
}

const pattern = (length: number, seed: number) =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed + (i >> 8)) & 0xff);

test("the tag and the queues are where the specification has them", () => {
  const { driver } = setUp("fs");
  const text = (from: number, to: number): string =>
    Array.from({ length: to - from }, (_, i) => driver.read(4, from + i, 1))
      .map((byte) => String.fromCharCode(byte))
      .join("");
  assert.equal(text(0, 6), "work\0\0");
  assert.equal(driver.read(4, 36, 4), 1, "one queue for requests beside that of priority");
  assert.equal(driver.queues.length, 2);
  const { driver: other } = setUp("9p");
  assert.equal(other.read(4, 0, 2), 4);
  assert.equal(other.read(4, 2, 4), 0x6b72_6f77);
  assert.equal(other.queues.length, 1);
});

test("a request says where its bytes are, and where a reply may be", () => {
  const { mirror, driver } = setUp();
  const bytes = pattern(20_000, 1);
  const parts = [{ bytes: bytes.subarray(0, 40) }, { bytes: bytes.subarray(40) }];
  driver.add(REQUESTS, [...parts, { room: 9_000 }, { room: 9_000 }]);
  const { length, room } = mirror.waiting[0]!;
  assert.deepEqual([length, room], [20_000, 18_000]);
  mirror.answer();
  const [done] = driver.collect(REQUESTS);
  assert.deepEqual(done!.data, bytes.toReversed().subarray(0, 18_000));
});

test("a request without a reply comes back with nothing written", () => {
  const { mirror, driver } = setUp();
  driver.add(0, [{ bytes: pattern(48, 1) }]);
  mirror.answer();
  const lengths = driver.collect(0).map(({ length }) => length);
  assert.deepEqual(lengths, [0]);
});

test("without room it waits, and says so if nobody else would", () => {
  const { mirror, driver } = setUp();
  mirror.room = 0;
  driver.add(REQUESTS, [{ bytes: pattern(100, 1) }, { room: 100 }]);
  assert.equal(mirror.device.isHeldBack, true);
  mirror.room = 5;
  mirror.device.resume();
  assert.equal(mirror.device.isHeldBack, false);
  mirror.answer();
  assert.equal(driver.collect(REQUESTS).length, 1);
});

test("more requests than may be in flight: the rest waits in the queue", () => {
  const { mirror, driver } = setUp();
  for (let round = 0; round < 2; round++) {
    for (const queue of [0, REQUESTS]) {
      for (let i = 0; i < 60; i++)
        driver.add(queue, [{ bytes: pattern(50, i) }, { room: 50 }], { kick: false });
      driver.kick(queue);
    }
    assert.equal(mirror.waiting.length, 64);
    mirror.answerAll();
    assert.equal(driver.collect(REQUESTS).length, 60);
    assert.equal(driver.collect(0).length, 60);
    driver.resetHeap();
  }
});

test("empty and impossibly large requests break the queue; answers that nobody waits for do nothing", () => {
  const empty = setUp();
  empty.driver.add(REQUESTS, [{ room: 100 }]);
  assert.ok(empty.driver.status & DeviceStatus.NEEDS_RESET);
  const large = setUp();
  const many = Array.from({ length: 5 }, () => ({ at: 0x8_0000, length: MAX_REQUEST_BYTES >> 2 }));
  large.driver.add(REQUESTS, many);
  assert.ok(large.driver.status & DeviceStatus.NEEDS_RESET);
  const { mirror, driver } = setUp();
  driver.add(REQUESTS, [{ bytes: pattern(100, 1) }, { room: 100 }]);
  for (const tag of [12345, -1, 2 ** 50, Number.NaN]) mirror.device.complete(tag, 1);
  const { tag } = mirror.waiting[0]!;
  mirror.device.complete(tag, 4000);
  mirror.device.complete(tag, 4000);
  mirror.device.resume();
  const lengths = driver.collect(REQUESTS).map(({ length }) => length);
  assert.deepEqual(lengths, [100], "once, and not more than there is room for");
});

test("a reset forgets what was asked; late answers change nothing", () => {
  const { mirror, driver } = setUp();
  driver.add(REQUESTS, [{ bytes: pattern(100, 1) }, { room: 100 }]);
  const { tag } = mirror.waiting.shift()!;
  driver.start({ indirect: true });
  mirror.device.complete(tag, 50);
  mirror.device.resume();
  assert.equal(driver.collect(REQUESTS).length, 0);
  driver.add(REQUESTS, [{ bytes: pattern(100, 2) }, { room: 100 }]);
  mirror.answer();
  assert.deepEqual(driver.collect(REQUESTS)[0]!.data, pattern(100, 2).toReversed());
});

test("headers and answers as bytes", () => {
  const header = { tag: 2 ** 40 + 5, length: 9, room: 3 };
  assert.deepEqual(decodeFileHeader(encodeFileHeader(header)), header);
  assert.equal(decodeFileHeader(new Uint8Array(15)), undefined);
  assert.equal(decodeFileHeader(new Uint8Array(16).fill(255)), undefined);
  const answers = [
    { tag: 2 ** 40 + 5, written: 16 },
    { tag: 1, written: 0 },
  ];
  const bytes = encodeFileAnswers(answers);
  assert.deepEqual(decodeFileAnswers(bytes), answers);
  assert.deepEqual(decodeFileAnswers(bytes.subarray(0, 31)), answers.slice(0, 1));
});

test("any requests, answered in any order, through saves at any time: each once, and right", () => {
  const step = fc.record({
    queue: fc.nat(1),
    length: fc.integer({ min: 1, max: 300 }),
    cut: fc.nat(299),
    room: fc.constantFrom(0, 1, 64, 3000),
    roomToSend: fc.constantFrom(0, 1, 9),
    answer: fc.nat(5),
    move: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25, size: "max" }), (steps) => {
      const all = setUp();
      const { mirror, create } = all;
      let { driver } = all;
      const wanted = new Map<string, Uint8Array>();
      let answered = 0;
      const collect = (): void => {
        for (const queue of [0, 1])
          for (const { head, data } of driver.collect(queue)) {
            const key = `${queue}.${head}`;
            assert.deepEqual(data, wanted.get(key), "the reply of this request");
            wanted.delete(key);
            answered++;
          }
      };
      for (const [i, { queue, length, cut, room, ...how }] of steps.entries()) {
        mirror.room = how.roomToSend;
        const bytes = pattern(length, i);
        const at = cut % length;
        const parts = [bytes.subarray(0, at), bytes.subarray(at)].map((part) => ({ bytes: part }));
        const head = driver.add(queue, [...parts, { room }]);
        wanted.set(`${queue}.${head}`, bytes.toReversed().subarray(0, room));
        if (how.move) {
          driver = driver.moveTo(create(), throughJson);
          mirror.ram = driver.ram;
        }
        if (mirror.waiting.length > 0 && how.answer > 1)
          mirror.answer(how.answer % mirror.waiting.length);
        collect();
      }
      mirror.room = 100;
      mirror.device.resume();
      mirror.answerAll();
      collect();
      assert.equal(answered, steps.length);
      assert.equal(driver.status & DeviceStatus.NEEDS_RESET, 0);
      assert.equal(mirror.device.isHeldBack, false);
    }),
    { numRuns: 60 },
  );
});
