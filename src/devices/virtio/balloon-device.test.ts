import assert from "node:assert/strict";
import { test } from "node:test";
import { throughJson } from "../test-wires.ts";
import { BALLOON_PAGE, BalloonDevice, BalloonFeature } from "./balloon-device.ts";
import { TestDriver } from "./test-driver.ts";

function setUp() {
  const ranges: [number, number][] = [];
  const create = () => new BalloonDevice({ discard: (gpa, length) => ranges.push([gpa, length]) });
  const device = create();
  const driver = new TestDriver(device);
  driver.start({ features: [BalloonFeature.PAGE_REPORTING] });
  return { device, driver, ranges, create };
}

const pages = (...numbers: number[]) => new Uint8Array(Uint32Array.from(numbers).buffer);

test("pages given back go out as ranges, neighbours together", () => {
  const { driver, ranges } = setUp();
  driver.add(0, [{ bytes: pages(5, 6, 7, 4, 100, 2, 1) }]);
  assert.deepEqual(ranges, [
    [4 * BALLOON_PAGE, 4 * BALLOON_PAGE],
    [100 * BALLOON_PAGE, BALLOON_PAGE],
    [BALLOON_PAGE, 2 * BALLOON_PAGE],
  ]);
  assert.equal(driver.collect(0).length, 1);
  driver.add(1, [{ bytes: pages(5) }]);
  assert.equal(driver.collect(1).length, 1);
  assert.equal(ranges.length, 3);
});

test("a buffer of many pages and an odd end", () => {
  const { driver, ranges } = setUp();
  const numbers = Array.from({ length: 3000 }, (_, i) => i + 10);
  const bytes = new Uint8Array([...pages(...numbers), 1, 2, 3]);
  driver.add(0, [{ bytes: bytes.subarray(0, 6001) }, { bytes: bytes.subarray(6001) }]);
  assert.deepEqual(ranges, [[10 * BALLOON_PAGE, 3000 * BALLOON_PAGE]]);
});

test("free pages that are reported are discarded as far as they are whole", () => {
  const { driver, ranges } = setUp();
  driver.allocate(16);
  const head = driver.add(2, [{ room: 3 * BALLOON_PAGE }]);
  assert.deepEqual(ranges, [[0x8_1000, 2 * BALLOON_PAGE]]);
  assert.equal(driver.collect(2)[0]!.head, head);
  driver.add(2, [{ room: 100 }]);
  assert.equal(ranges.length, 1);
});

test("the target is a configuration change, the guest's answer is what it writes", () => {
  const { device, driver, create } = setUp();
  device.setTarget(1000);
  assert.deepEqual(driver.vectors(), [0x40]);
  assert.equal(driver.read(4, 0, 4), 1000);
  driver.write(4, 4, 4, 900);
  driver.write(4, 0, 4, 5);
  assert.equal(device.actual, 900);
  assert.equal(driver.read(4, 0, 4), 1000, "the target is not the guest's");
  const other = create();
  driver.moveTo(other, throughJson);
  assert.equal(other.actual, 900);
});
