import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { BlockOperation } from "./block-device.ts";
import { decodeAnswers, decodeRequest, encodeAnswers, encodeRequest } from "./block-message.ts";

const wide = fc.maxSafeNat();
const memory = { addresses: [], lengths: [] };
const operation: fc.Arbitrary<BlockOperation> = fc.oneof(
  fc.record({
    ...{ kind: fc.constantFrom("read" as const, "write" as const), offset: wide, length: wide },
    memory: fc.constant(memory),
  }),
  fc.record({
    kind: fc.constantFrom("discard" as const, "zeroes" as const),
    offset: wide,
    length: wide,
    unmap: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("flush" as const) }),
);

test("requests and answers arrive as they were sent", () => {
  const answers = fc.array(fc.record({ tag: wide, ok: fc.boolean() }));
  fc.assert(
    fc.property(wide, operation, answers, (tag, asked, answered) => {
      const { kind } = asked;
      const rest = { offset: 0, length: 0, unmap: false, ...asked };
      const { offset, length, unmap } = rest;
      const request = decodeRequest(encodeRequest(tag, asked));
      assert.deepEqual(request, { tag, kind, offset, length, unmap });
      assert.deepEqual(
        decodeAnswers(encodeAnswers(answered)),
        answered.map((answer) => ({ ...answer })),
      );
    }),
  );
});

test("any bytes: a message of exact numbers, or none", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const request = decodeRequest(bytes);
      if (request) assert.ok(Number.isSafeInteger(request.offset));
      assert.equal(decodeAnswers(bytes).length, Math.floor(bytes.length / 16));
    }),
  );
});
