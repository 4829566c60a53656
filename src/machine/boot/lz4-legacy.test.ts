import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HypolithError } from "../../base/errors.ts";
import { decodeLz4Legacy } from "./lz4-legacy.ts";
import * as sample from "./testing/sample-data.ts";
import { noise, prose } from "./testing/sample-data.ts";
import { lz4Payload } from "./testing/synthetic-kernels.ts";

const fromBase64 = (text: string) => new Uint8Array(Buffer.from(text, "base64"));
const LZ4_PROSE = fromBase64(sample.LZ4_PROSE);
const LZ4_NOISE = fromBase64(sample.LZ4_NOISE);
const PROSE = prose();

test("frames of the lz4 tool decode to their data", () => {
  assert.deepEqual(decodeLz4Legacy(LZ4_PROSE, PROSE.length), PROSE);
  assert.deepEqual(decodeLz4Legacy(LZ4_NOISE, 300), noise());
});

test("concatenated frames decode one behind the other", () => {
  const twice = Uint8Array.from([...LZ4_NOISE, ...LZ4_NOISE]);
  assert.deepEqual(decodeLz4Legacy(twice, 600), Uint8Array.from([...noise(), ...noise()]));
});

test("blocks do not refer to each other: a match before its block's start is refused", () => {
  const frame = [0x02, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x10, 7, 4, 0, 0, 0, 0x04, 1, 0, 0];
  assert.throws(() => decodeLz4Legacy(Uint8Array.from(frame), 9), { code: "kernel-damaged" });
});

test("a frame that gives another size than stated is refused", () => {
  for (const size of [299, 301, 0]) {
    assert.throws(() => decodeLz4Legacy(LZ4_NOISE, size), { code: "kernel-damaged" });
  }
});

test("literals of any length survive", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1000, minLength: 1 }), (bytes) => {
      const payload = lz4Payload(bytes);
      assert.deepEqual(decodeLz4Legacy(payload.subarray(0, -4), bytes.length), bytes);
    }),
    { numRuns: 100 },
  );
});

test("a damaged frame decodes to something of the right size or is refused", () => {
  fc.assert(
    fc.property(fc.nat(LZ4_PROSE.length - 1), fc.nat(255), fc.nat(), (at, byte, cut) => {
      const damaged = LZ4_PROSE.slice(0, LZ4_PROSE.length - (cut % 3 === 0 ? cut % 1000 : 0));
      damaged[at] = byte;
      try {
        assert.equal(decodeLz4Legacy(damaged, PROSE.length).length, PROSE.length);
      } catch (error) {
        assert.ok(error instanceof HypolithError);
      }
    }),
    { numRuns: 300 },
  );
});
