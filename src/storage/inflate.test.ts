import assert from "node:assert/strict";
import { test } from "node:test";
import { constants, deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { inflate } from "./inflate.ts";

const text = fc.oneof(
  fc.uint8Array({ maxLength: 3000, size: "max" }),
  // Few symbols, many repetitions.
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 20 }), fc.nat(300))
    .map(([bytes, count]) =>
      Uint8Array.from({ length: bytes.length * count }, (_, i) => bytes[i % bytes.length]!),
    ),
);

test("what zlib makes comes back, in all block types", () => {
  const strategies = [constants.Z_DEFAULT_STRATEGY, constants.Z_FIXED, constants.Z_HUFFMAN_ONLY];
  fc.assert(
    fc.property(text, fc.constantFrom(...strategies), fc.nat(9), (bytes, strategy, level) => {
      const packed = deflateRawSync(bytes, { strategy, level });
      const padded = new Uint8Array(packed.length + 100);
      padded.set(packed);
      assert.deepEqual(inflate(padded, bytes.length), new Uint8Array(bytes));
    }),
    { numRuns: 300 },
  );
});

test("anything else is refused with a code, and never makes more than was asked for", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(1000), (bytes, size) => {
      try {
        assert.equal(inflate(bytes, size).length, size);
      } catch (error) {
        assert.equal((error as { code?: string }).code, "deflate");
      }
    }),
    { numRuns: 3000 },
  );
  const packed = deflateRawSync(new Uint8Array(1000).fill(7));
  for (const size of [0, 999, 1001])
    assert.throws(() => inflate(packed, size), { code: "deflate" });
  assert.throws(() => inflate(packed.subarray(0, packed.length - 1), 1000), { code: "deflate" });
});
