import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { captureFrame, captureHeader, Direction } from "./pcapng.ts";

interface Block {
  readonly type: number;
  readonly body: Buffer;
}

/** By the draft's words alone: each block after its type and length, the length again at its end. */
function blocksOf(bytes: Buffer): Block[] {
  const blocks: Block[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at + 4);
    assert.equal(length % 4, 0);
    assert.equal(bytes.readUInt32LE(at + length - 4), length);
    blocks.push({ type: bytes.readUInt32LE(at), body: bytes.subarray(at + 8, at + length - 4) });
    at += length;
  }
  return blocks;
}

function optionsOf(body: Buffer, from: number): Map<number, Buffer> {
  const options = new Map<number, Buffer>();
  for (let at = from; ; ) {
    const code = body.readUInt16LE(at);
    const length = body.readUInt16LE(at + 2);
    if (code === 0) {
      assert.equal(at + 4, body.length);
      return options;
    }
    options.set(code, body.subarray(at + 4, at + 4 + length));
    at += 4 + ((length + 3) & ~3);
  }
}

test("a capture begins with its section and its interface", () => {
  const header = Buffer.from(captureHeader({ interfaceName: "eth0", application: "hypolith" }));
  const [section, description] = blocksOf(header);
  assert.deepEqual([section!.type, section!.body.readUInt32LE(0)], [0x0a0d0d0a, 0x1a2b3c4d]);
  assert.equal(optionsOf(section!.body, 16).get(4)?.toString(), "hypolith");
  assert.deepEqual([description!.type, description!.body.readUInt16LE(0)], [1, 1]);
  const options = optionsOf(description!.body, 8);
  assert.deepEqual([options.get(2)?.toString(), options.get(9)?.[0]], ["eth0", 9]);
});

test("property: frames of any length come back whole, or cut where asked, with time and direction", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 100 }),
      fc.bigInt({ min: 0n, max: 2n ** 63n }),
      fc.constantFrom(Direction.INBOUND, Direction.OUTBOUND),
      fc.option(fc.string(), { nil: undefined }),
      fc.nat(120),
      (frame, timeNs, direction, comment, snapLength) => {
        const captured = {
          timeNs,
          direction,
          frame,
          ...(comment === undefined ? {} : { comment }),
        };
        const [packet, ...rest] = blocksOf(Buffer.from(captureFrame(captured, snapLength)));
        assert.deepEqual([packet!.type, rest.length], [6, 0]);
        const { body } = packet!;
        const time = (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8));
        const kept = Math.min(frame.length, snapLength);
        assert.deepEqual(
          [time, body.readUInt32LE(12), body.readUInt32LE(16)],
          [timeNs, kept, frame.length],
        );
        assert.deepEqual(body.subarray(20, 20 + kept), Buffer.from(frame.subarray(0, kept)));
        const options = optionsOf(body, 20 + ((kept + 3) & ~3));
        assert.equal(options.get(2)?.readUInt32LE(0), direction);
        assert.equal(options.get(1)?.toString(), comment && Buffer.from(comment).toString());
      },
    ),
  );
});
