import assert from "node:assert/strict";
import { test } from "node:test";
import { BalloonStream } from "./balloon-stream.ts";

const PAGE = 4096;

test("pages that are not zero are made so, whole ones only", () => {
  const ram = new Uint8Array(new ArrayBuffer(8 * PAGE));
  for (const page of [1, 2, 3, 5]) ram.fill(page, page * PAGE + 7, page * PAGE + 9);
  const balloon = new BalloonStream();
  const part = (from: number, to: number) => new Uint8Array(ram.buffer, from, to - from);
  balloon.move(true, ram, [part(0, 3 * PAGE), part(5 * PAGE, 6 * PAGE - 1)]);
  balloon.move(true, ram, [part(3 * PAGE + 8, 5 * PAGE)]);
  balloon.move(false, ram, [part(3 * PAGE, 4 * PAGE)]);
  assert.equal(balloon.cleared, 2 * PAGE);
  const left = Array.from({ length: 8 }, (_, i) => ram[i * PAGE + 7]);
  assert.deepEqual(left, [0, 0, 0, 3, 0, 5, 0, 0]);
});

test("a target is told once, in pages, also from a snapshot on", () => {
  const balloon = new BalloonStream();
  assert.equal(balloon.give(), null);
  balloon.setTarget(10 * PAGE + 5);
  const other = new BalloonStream();
  other.restore(balloon.save());
  for (const one of [balloon, other]) {
    assert.deepEqual([...one.give()!], [10, 0, 0, 0]);
    assert.equal(one.hasMore, false);
  }
  assert.throws(() => other.restore("x"), { code: "snapshot-shape" });
});
