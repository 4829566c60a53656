import assert from "node:assert/strict";
import { PassThrough, Readable } from "node:stream";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { JobInput } from "./job-input.ts";

/** Reads blocks the way the guest's session does, until the empty one. */
async function readAll(source: Readable): Promise<Buffer[]> {
  let deliver = (_block: Uint8Array): void => {};
  const input = new JobInput(source, (block) => deliver(block));
  const blocks: Buffer[] = [];
  for (;;) {
    const block = await new Promise<Buffer>((resolve) => {
      deliver = (bytes) => resolve(Buffer.from(bytes));
      input.next();
    });
    const end = block.indexOf("\n");
    assert.equal(Number(block.toString("latin1", 0, end)), block.length - end - 1);
    if (block.length === end + 1) return blocks;
    blocks.push(block.subarray(end + 1));
  }
}

test("every byte arrives once and in order, in blocks that the guest can hold", async () => {
  const content = Buffer.from(Uint8Array.from({ length: 200_001 }, (_, i) => (i * 31) & 0xff));
  for (const size of [1000, 32_768, 65_536, 300_000]) {
    const pieces = Array.from({ length: Math.ceil(content.length / size) }, (_, i) =>
      content.subarray(i * size, (i + 1) * size),
    );
    const blocks = await readAll(Readable.from(pieces, { objectMode: false }));
    assert.deepEqual(Buffer.concat(blocks), content);
    assert.ok(blocks.every((block) => block.length <= 32_768));
  }
});

test("nothing is read before the guest asks, and one block each time it does", async () => {
  const source = new PassThrough();
  const sent: string[] = [];
  const job = new JobInput(source, (bytes) => sent.push(Buffer.from(bytes).toString()));
  source.write("early");
  await turn();
  assert.equal(source.readableLength, 5);
  job.next();
  await turn();
  assert.deepEqual(sent, ["5\nearly"]);
  source.write("late");
  await turn();
  assert.equal(sent.length, 1);
  job.next();
  await turn();
  assert.deepEqual(sent.slice(1), ["4\nlate"]);
  job.next();
  source.end();
  await turn();
  await turn();
  assert.deepEqual(sent.slice(2), ["0\n"]);
});

test("a source that fails is at its end", async () => {
  const source = new PassThrough();
  const sent: string[] = [];
  const job = new JobInput(source, (bytes) => sent.push(Buffer.from(bytes).toString()));
  job.next();
  source.destroy(new Error("EIO"));
  await turn();
  await turn();
  assert.deepEqual(sent, ["0\n"]);
});
