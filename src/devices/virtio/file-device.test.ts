import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import { FileDevice, type FilePiece, MAX_REQUEST_BYTES } from "./file-device.ts";
import { decodeAnswers, decodePiece, encodePiece, putAnswer } from "./file-message.ts";
import { TestDriver } from "./test-driver.ts";
import { DeviceStatus } from "./virtio-device.ts";

const REQUESTS = 1;

/** Another end that gathers pieces, and answers each request by the bytes of it, upside down. */
class Echo {
  readonly pieces: FilePiece[] = [];
  room = 5000;
  device!: FileDevice;
  readonly #partial = new Map<number, Uint8Array>();

  get wires() {
    const echo = this;
    return {
      get room() {
        return echo.room;
      },
      submit: (piece: FilePiece) => {
        this.pieces.push(decodePiece(encodePiece(piece))!);
      },
    };
  }

  /** Answers the piece at `index`; replies in parts of `part` bytes. */
  answer(index = 0, part = 700): void {
    const [piece] = this.pieces.splice(index, 1);
    const { tag, length, room, offset, bytes } = piece!;
    if (offset === 0) this.#partial.set(tag, new Uint8Array(length));
    const request = this.#partial.get(tag)!;
    request.set(bytes, offset);
    if (offset + bytes.length < length) this.device.accepted(tag);
    else {
      const reply = request.toReversed().subarray(0, room);
      let at = 0;
      do {
        const end = Math.min(reply.length, at + part);
        const some = { length: reply.length, offset: at, bytes: reply.subarray(at, end) };
        this.device.reply(tag, some);
        at = end;
      } while (at < reply.length);
    }
    this.device.resume();
  }

  answerAll(): void {
    while (this.pieces.length > 0) this.answer(this.pieces.length >> 1);
  }
}

function setUp(kind: "fs" | "9p" = "fs") {
  const echo = new Echo();
  const create = () => {
    echo.device = new FileDevice(echo.wires, { kind, tag: "work" });
    return echo.device;
  };
  const driver = new TestDriver(create());
  driver.start({ indirect: true, features: kind === "9p" ? [0] : [] });
  return { echo, driver, create };
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

test("a request larger than there is room for goes out in pieces, its reply comes in parts", () => {
  const { echo, driver } = setUp();
  const bytes = pattern(20_000, 1);
  driver.add(REQUESTS, [
    { bytes: bytes.subarray(0, 40) },
    { bytes: bytes.subarray(40) },
    { room: 9_000 },
    { room: 9_000 },
  ]);
  assert.equal(echo.pieces[0]!.bytes.length, 5000);
  assert.equal(echo.pieces[0]!.room, 18_000);
  for (let i = 0; i < 4; i++) echo.answer();
  const [done] = driver.collect(REQUESTS);
  assert.equal(done!.length, 18_000);
  assert.deepEqual(done!.data, bytes.toReversed().subarray(0, 18_000));
});

test("a request without a reply comes back with nothing written", () => {
  const { echo, driver } = setUp();
  driver.add(0, [{ bytes: pattern(48, 1) }]);
  echo.answer();
  assert.deepEqual(
    driver.collect(0).map(({ length }) => length),
    [0],
  );
});

test("without room it waits, and says so if nobody else would", () => {
  const { echo, driver } = setUp();
  echo.room = 0;
  driver.add(REQUESTS, [{ bytes: pattern(100, 1) }, { room: 100 }]);
  assert.equal(echo.pieces.length, 0);
  assert.equal(echo.device.isHeldBack, true);
  echo.room = 5000;
  echo.device.resume();
  assert.equal(echo.device.isHeldBack, false);
  echo.answer();
  assert.equal(driver.collect(REQUESTS).length, 1);
});

test("more requests than may be in flight: the rest waits in the queue", () => {
  const { echo, driver } = setUp();
  echo.room = 1 << 20;
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 60; i++)
      driver.add(REQUESTS, [{ bytes: pattern(50, i) }, { room: 50 }], { kick: false });
    driver.kick(REQUESTS);
    for (let i = 0; i < 60; i++) driver.add(0, [{ bytes: pattern(50, i) }], { kick: false });
    driver.kick(0);
    assert.equal(echo.pieces.length, 64);
    echo.answerAll();
    assert.equal(driver.collect(REQUESTS).length, 60);
    assert.equal(driver.collect(0).length, 60);
    driver.resetHeap();
  }
});

test("what is none: empty, too large, a reply that nobody waits for, one out of order", () => {
  const empty = setUp();
  empty.driver.add(REQUESTS, [{ room: 100 }]);
  assert.ok(empty.driver.status & DeviceStatus.NEEDS_RESET);
  const large = setUp();
  const at = 0x8_0000;
  const many = Array.from({ length: 5 }, () => ({ at, length: MAX_REQUEST_BYTES >> 2 }));
  large.driver.add(REQUESTS, many);
  assert.ok(large.driver.status & DeviceStatus.NEEDS_RESET);
  const { echo, driver } = setUp();
  echo.device.reply(12345, { length: 1, offset: 0, bytes: pattern(1, 1) });
  echo.device.accepted(99);
  driver.add(REQUESTS, [{ bytes: pattern(100, 1) }, { room: 100 }]);
  const { tag } = echo.pieces[0]!;
  echo.device.reply(tag, { length: 50, offset: 25, bytes: pattern(25, 1) });
  assert.ok(driver.status & DeviceStatus.NEEDS_RESET);
});

test("a reset forgets what was asked; late answers change nothing", () => {
  const { echo, driver } = setUp();
  driver.add(REQUESTS, [{ bytes: pattern(100, 1) }, { room: 100 }]);
  const before = driver.ram.slice();
  driver.start({ indirect: true });
  driver.ram.set(before.subarray(0x8_0000), 0x8_0000);
  const now = driver.ram.slice();
  echo.answer();
  assert.deepEqual(driver.ram, now);
  driver.add(REQUESTS, [{ bytes: pattern(100, 2) }, { room: 100 }]);
  echo.answer();
  assert.deepEqual(driver.collect(REQUESTS)[0]!.data, pattern(100, 2).toReversed());
});

test("all answers of a message, up to one that is cut off", () => {
  const target = new Uint8Array(200);
  const answer = { kind: 1, tag: 2 ** 40 + 5, length: 9, offset: 3, bytes: pattern(6, 1) };
  const end = putAnswer(target, putAnswer(target, 0, answer), { ...answer, bytes: pattern(0, 1) });
  assert.deepEqual(decodeAnswers(target.subarray(0, end)), [
    answer,
    { ...answer, bytes: new Uint8Array(0) },
  ]);
  assert.equal(decodeAnswers(target.subarray(0, 29)).length, 0);
  assert.equal(decodePiece(new Uint8Array(23)), undefined);
});

test("any requests, answered in any order, through saves at any time: each once, and right", () => {
  const step = fc.record({
    queue: fc.nat(1),
    length: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 4000, max: 9000 })),
    cut: fc.nat(299),
    room: fc.constantFrom(0, 1, 64, 3000),
    roomToSend: fc.constantFrom(0, 4096, 6000),
    answer: fc.nat(5),
    part: fc.integer({ min: 1, max: 4000 }),
    move: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25, size: "max" }), (steps) => {
      const all = setUp();
      const { echo, create } = all;
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
        echo.room = how.roomToSend;
        const bytes = pattern(length, i);
        const at = cut % length;
        const parts = [bytes.subarray(0, at), bytes.subarray(at)].map((part) => ({ bytes: part }));
        const head = driver.add(queue, [...parts, { room }]);
        wanted.set(`${queue}.${head}`, bytes.toReversed().subarray(0, room));
        if (how.move) driver = driver.moveTo(create(), throughJson);
        if (echo.pieces.length > 0 && how.answer > 1)
          echo.answer(how.answer % echo.pieces.length, how.part);
        collect();
      }
      echo.room = 5000;
      echo.device.resume();
      echo.answerAll();
      collect();
      assert.equal(answered, steps.length);
      assert.equal(driver.status & DeviceStatus.NEEDS_RESET, 0);
      assert.equal(echo.device.isHeldBack, false);
    }),
    { numRuns: 60 },
  );
});
