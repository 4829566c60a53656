import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { getTag } from "../devices/virtio/frame-tag.ts";
import { FrameRing } from "./frame-ring.ts";

const sizeOf = (length: number): number => 8 + Math.ceil(length / 8) * 8;

test("property: frames come out as they went in, in order, by one or by many, over the end of the ring", () => {
  const action = fc.oneof(
    fc.record({ push: fc.uint8Array({ minLength: 1, maxLength: 90 }), cut: fc.nat(90) }),
    fc.record({
      announce: fc.integer({ min: 1, max: 4 }),
      bytes: fc.integer({ min: 1, max: 200 }),
    }),
    fc.record({ room: fc.array(fc.nat(40), { maxLength: 4 }) }),
    fc.constant({ shift: true }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const producer = FrameRing.create(256);
      const consumer = new FrameRing(producer.buffer);
      const model: Uint8Array[] = [];
      let announced = 0;
      for (const act of actions) {
        if ("push" in act) {
          const used = model.reduce((sum, { length }) => sum + sizeOf(length), 0);
          const fits = used + sizeOf(act.push.length) <= 256;
          assert.equal(producer.hasRoom(act.push.length), fits);
          const parts = [act.push.subarray(0, act.cut), act.push.subarray(act.cut)];
          const tag = { length: act.push.length, flags: act.cut, segment: 1000 + act.cut };
          assert.equal(producer.pushParts(tag, parts), fits);
          if (fits) model.push(act.push);
        } else if ("announce" in act) {
          const tags = consumer.announce(act.announce, act.bytes) ?? new Uint8Array(0);
          const fresh = model.slice(announced);
          const lengths = Array.from(
            { length: tags.length / 8 },
            (_, i) => getTag(tags, 8 * i).length,
          );
          assert.deepEqual(
            lengths,
            fresh.slice(0, lengths.length).map(({ length }) => length),
          );
          assert.ok(lengths.length <= act.announce);
          if (fresh.length > 0) assert.ok(lengths.length > 0);
          announced += lengths.length;
        } else if ("room" in act) {
          const parts = act.room.map((length) => new Uint8Array(length).fill(255));
          const frame = model.shift();
          assert.equal(consumer.takeInto(parts), frame !== undefined);
          const got = parts.flatMap((part) => [...part]);
          const expected = [...(frame ?? []).slice(0, got.length)];
          assert.deepEqual(got, [
            ...expected,
            ...new Array(got.length - expected.length).fill(255),
          ]);
          announced = Math.max(0, announced - 1);
        } else {
          const next = consumer.shift();
          assert.deepEqual(next?.frame, model.shift());
          if (next) assert.equal(next.tag.segment, 1000 + next.tag.flags);
          announced = Math.max(0, announced - 1);
        }
        assert.equal(producer.isEmpty, model.length === 0);
        assert.equal(consumer.hasUnannounced, announced < model.length);
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
    assert.deepEqual(ring.shift()?.frame, Uint8Array.of(i, i, i));
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
        const next = ring.shift();
        if (!next) continue;
        const { frame } = next;
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
