import assert from "node:assert/strict";
import { test } from "node:test";
import { throughJson } from "../test-wires.ts";
import { EntropyDevice } from "./entropy-device.ts";
import { TestDriver } from "./test-driver.ts";

function setUp() {
  const asked: number[] = [];
  const create = () => new EntropyDevice({ ask: (count) => asked.push(count) });
  const device = create();
  return { device, asked, create, driver: new TestDriver(device).start({ eventIndex: true }) };
}

const portion = Uint8Array.from({ length: 256 }, (_, i) => i);

test("one question at a time, and only while a driver waits", () => {
  const { device, driver, asked } = setUp();
  driver.add(0, [{ room: 64 }]);
  driver.add(0, [{ room: 100 }]);
  assert.deepEqual(asked, [256]);
  device.deliver(portion);
  const answers = driver.collect(0);
  assert.deepEqual(answers[0]!.data, portion.subarray(0, 64));
  assert.deepEqual(answers[1]!.data, portion.subarray(64, 164));
  assert.deepEqual(asked, [256]);
  driver.add(0, [{ room: 300 }]);
  assert.equal(asked.length, 2);
});

test("buffers without room, more buffers than bytes, answers nobody waits for", () => {
  const { device, driver, asked } = setUp();
  for (const room of [0, 200, 200]) driver.add(0, [{ room }]);
  device.deliver(portion);
  assert.deepEqual(
    driver.collect(0).map(({ length }) => length),
    [0, 200, 56],
  );
  assert.equal(asked.length, 1);
  device.deliver(portion);
  driver.status = 0;
  device.deliver(portion);
  assert.deepEqual(driver.collect(0), []);
});

test("a question that is open at a save is answered after the restore", () => {
  const { driver, asked, create } = setUp();
  driver.add(0, [{ room: 16 }]);
  const other = create();
  const copy = driver.moveTo(other, throughJson);
  other.deliver(portion);
  assert.equal(copy.collect(0)[0]!.length, 16);
  assert.equal(asked.length, 1);
});
