import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { FrameRing } from "./frame-ring.ts";

const sizeOf = (length: number): number => 8 + Math.ceil(length / 8) * 8;

test("property: frames come out as they went in, in order, by one or by many, over the end of the ring", () => {
  const action = fc.oneof(
    fc.record({ push: fc.uint8Array({ maxLength: 90 }) }),
    fc.record({ take: fc.integer({ min: 1, max: 200 }) }),
    fc.constant({ shift: true }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const producer = FrameRing.create(256);
      const consumer = new FrameRing(producer.buffer);
      const model: Uint8Array[] = [];
      for (const act of actions) {
        if ("push" in act) {
          const used = model.reduce((sum, { length }) => sum + sizeOf(length), 0);
          const fits = used + sizeOf(act.push.length) <= 256;
          assert.equal(producer.hasRoom(act.push.length), fits);
          assert.equal(producer.push(act.push), fits);
          if (fits) model.push(act.push);
        } else if ("take" in act) {
          const taken = consumer.take(act.take);
          if (!taken) assert.equal(model.length, 0);
          for (let at = 0; taken && at < taken.length; ) {
            const length = taken[at]! + taken[at + 1]! * 256;
            assert.deepEqual(taken.subarray(at + 2, at + 2 + length), model.shift());
            at += 2 + length;
          }
        } else assert.deepEqual(consumer.shift(), model.shift() ?? null);
        assert.equal(producer.isEmpty, model.length === 0);
      }
    }),
  );
});

test("a sleeper is woken once, a waiting producer when half of the ring is free", () => {
  const ring = FrameRing.create(64);
  assert.ok(ring.takeSleeping(), "consumers begin asleep");
  assert.ok(ring.sleep());
  ring.push(new Uint8Array(10));
  assert.ok(ring.takeSleeping());
  ring.push(new Uint8Array(10));
  assert.ok(!ring.takeSleeping());
  assert.ok(!ring.sleep(), "there is something to do");
  assert.ok(!ring.hasRoom(50));
  ring.push(new Uint8Array(3));
  assert.ok(!ring.takeBlocked());
  ring.shift();
  assert.ok(!ring.takeBlocked());
  ring.shift();
  assert.ok(ring.takeBlocked());
  assert.ok(!ring.takeBlocked());
});

test("positions wrap at 2^32", () => {
  const ring = FrameRing.create(64);
  const words = new Int32Array(ring.buffer);
  words[0] = words[1] = -8;
  for (let i = 0; i < 10; i++) {
    assert.ok(ring.push(Uint8Array.of(i, i, i)));
    assert.deepEqual(ring.shift(), Uint8Array.of(i, i, i));
  }
});

test("two threads: nothing is lost, doubled or torn", async () => {
  const ring = FrameRing.create(4096);
  const count = 50_000;
  const code = `
    const { workerData, parentPort } = require("node:worker_threads");
    import(workerData.module).then(({ FrameRing }) => {
      const ring = new FrameRing(workerData.buffer);
      let wrong = 0;
      for (let i = 0; i < ${count}; ) {
        const frame = ring.shift();
        if (!frame) continue;
        if (frame.length !== 1 + i % 300 || frame.some((byte) => byte !== (i & 255))) wrong++;
        i++;
      }
      parentPort.postMessage(wrong);
    });`;
  const module = new URL("./frame-ring.ts", import.meta.url).href;
  const worker = new Worker(code, { eval: true, workerData: { module, buffer: ring.buffer } });
  const answer = once(worker, "message");
  await once(worker, "online");
  for (let i = 0; i < count; ) {
    if (ring.push(new Uint8Array(1 + (i % 300)).fill(i))) i++;
    else await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(await answer, [0]);
  await worker.terminate();
});
