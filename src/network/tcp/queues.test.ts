import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { OutOfOrder } from "./out-of-order.ts";
import { SendQueue } from "./send-queue.ts";

test("property: a send queue gives back at every position what was appended", () => {
  const action = fc.oneof(
    fc.record({ append: fc.integer({ min: 0, max: 3000 }) }),
    fc.record({ release: fc.nat(3000) }),
    fc.record({ from: fc.double({ min: 0, max: 1, noNaN: true }), length: fc.nat(2000) }),
  );
  fc.assert(
    fc.property(fc.nat(1000), fc.array(action, { maxLength: 100 }), (start, actions) => {
      const queue = new SendQueue(start);
      const model: number[] = [];
      let released = 0;
      for (const act of actions) {
        if ("append" in act) {
          const bytes = Uint8Array.from({ length: act.append }, (_, i) => model.length + i * 7);
          model.push(...bytes);
          queue.append(bytes);
        } else if ("release" in act) {
          released = Math.min(released + act.release, model.length);
          queue.release(start + released);
        } else {
          const from = released + Math.floor(act.from * (model.length - released));
          const length = Math.min(act.length, model.length - from);
          if (length === 0) continue;
          const into = new Uint8Array(length + 2);
          queue.copy(start + from, length, into, 1);
          assert.deepEqual([...into.subarray(1, length + 1)], model.slice(from, from + length));
          assert.equal(into[0]! + into[length + 1]!, 0);
        }
        assert.equal(queue.length, model.length - released);
        assert.equal(queue.start, start + released);
      }
      assert.deepEqual([...queue.toBytes()], model.slice(released));
    }),
  );
});

test("property: pieces in any order and overlap come out as the stream, and name what they hold", () => {
  const piece = fc.tuple(fc.nat(400), fc.integer({ min: 1, max: 60 }));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
      const stream = Uint8Array.from({ length: 500 }, (_, i) => i);
      const held = new Set<number>();
      const queue = new OutOfOrder();
      for (const [start, length] of pieces) {
        queue.add(start, stream.subarray(start, start + length));
        for (let i = start; i < start + length; i++) held.add(i);
      }
      assert.equal(queue.bytes, held.size);
      for (const { start, end } of queue.blocks())
        assert.ok(held.has(start) && held.has(end - 1) && !held.has(start - 1) && !held.has(end));
      let next = 0;
      while (next < 500 && held.has(next)) {
        const bytes = queue.takeAt(next)!;
        assert.deepEqual(bytes, stream.subarray(next, next + bytes.length));
        next += bytes.length;
      }
      assert.equal(queue.takeAt(next), null);
    }),
  );
});

test("a queue of pieces is bounded in number", () => {
  const queue = new OutOfOrder();
  for (let i = 0; i < 1000; i++) queue.add(i * 2, Uint8Array.of(1));
  assert.equal(queue.bytes, 128);
});
