import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { BlockOperation } from "./block-device.ts";
import { decodeAnswer, decodeRequest, encodeAnswer, encodeRequest } from "./block-message.ts";

const wide = fc.maxSafeNat();
const operation: fc.Arbitrary<BlockOperation> = fc.oneof(
  fc.record({ kind: fc.constant("read" as const), offset: wide, length: wide }),
  fc.record({ kind: fc.constant("write" as const), offset: wide, bytes: fc.uint8Array() }),
  fc.record({
    kind: fc.constantFrom("discard" as const, "zeroes" as const),
    offset: wide,
    length: wide,
    unmap: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("flush" as const) }),
);

test("requests and answers arrive as they were sent", () => {
  fc.assert(
    fc.property(wide, operation, fc.boolean(), fc.uint8Array(), (tag, asked, ok, data) => {
      const request = decodeRequest(encodeRequest(tag, asked))!;
      assert.equal(request.tag, tag);
      assert.equal(JSON.stringify(request.operation), JSON.stringify(asked));
      assert.deepEqual({ ...decodeAnswer(encodeAnswer(tag, ok, data))! }, { tag, ok, data });
    }),
  );
});

test("any bytes: a message of exact numbers, or none", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const request = decodeRequest(bytes);
      if (request && request.operation.kind !== "flush")
        assert.ok(Number.isSafeInteger(request.operation.offset));
      decodeAnswer(bytes);
    }),
  );
});
