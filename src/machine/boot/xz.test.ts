import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HypolithError } from "../../base/errors.ts";
import * as sample from "./testing/sample-data.ts";
import { branches, noise, prose } from "./testing/sample-data.ts";
import { decodeXz } from "./xz.ts";

const fromBase64 = (text: string) => new Uint8Array(Buffer.from(text, "base64"));
const XZ_PROSE = fromBase64(sample.XZ_PROSE);
const XZ_BRANCHES = fromBase64(sample.XZ_BRANCHES);
const XZ_NOISE = fromBase64(sample.XZ_NOISE);
const XZ_CRC64 = fromBase64(sample.XZ_CRC64);
const PROSE = prose();
const BRANCHES = branches();

test("LZMA2 with every kind of match decodes to its data", () => {
  assert.deepEqual(decodeXz(XZ_PROSE, PROSE.length), PROSE);
});

test("the x86 branch filter is undone", () => {
  assert.deepEqual(decodeXz(XZ_BRANCHES, BRANCHES.length), BRANCHES);
});

test("stored chunks decode, and a check of another kind than CRC32 is accepted", () => {
  assert.deepEqual(decodeXz(XZ_NOISE, 300), noise());
  assert.deepEqual(decodeXz(XZ_CRC64, 300), noise());
});

test("a stream that gives another size than stated is refused", () => {
  for (const size of [0, 299, 301]) {
    assert.throws(() => decodeXz(XZ_NOISE, size), { code: "kernel-damaged" });
  }
});

test("a changed byte is found by the checks", () => {
  const damaged = XZ_NOISE.slice();
  damaged[100]! ^= 1; // stored data: only the checksum can tell
  assert.throws(() => decodeXz(damaged, 300), /checksum/);
});

test("a damaged stream is refused or gives the data", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(XZ_PROSE, XZ_BRANCHES),
      fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { maxLength: 3 }),
      fc.nat(4000),
      (stream, edits, length) => {
        const size = stream === XZ_PROSE ? PROSE.length : BRANCHES.length;
        const damaged = stream.slice(0, edits.length < 3 ? stream.length : length);
        for (const [at, byte] of edits) damaged[at % damaged.length] = byte;
        try {
          decodeXz(damaged, size);
        } catch (error) {
          assert.ok(error instanceof HypolithError);
        }
      },
    ),
    { numRuns: 200 },
  );
});
