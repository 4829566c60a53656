import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  aPackage,
  buffer,
  eisaId,
  integer,
  ioPorts,
  isaIrq,
  memory32Fixed,
  name,
  path,
  resources,
  scope,
  string,
} from "./aml.ts";

const hex = (bytes: readonly number[]) => Buffer.from(bytes).toString("hex");

test("data objects, byte for byte as iasl encodes them", () => {
  assert.equal(hex(integer(0)), "00");
  assert.equal(hex(integer(1)), "01");
  assert.equal(hex(integer(0x12)), "0a12");
  assert.equal(hex(integer(0x1234)), "0b3412");
  assert.equal(hex(integer(0xdeadbeef)), "0cefbeadde");
  assert.equal(hex(string("ACPI0007")), "0d4143504930303037" + "00");
  assert.equal(hex(eisaId("PNP0501")), "0c41d00501");
  assert.equal(hex(eisaId("PNP0A03")), "0c41d00a03");
  assert.equal(hex(eisaId("PNP0000")), "0b41d0", "the shortest integer");
  assert.equal(hex(buffer([1, 2])), "11050a020102");
  assert.equal(hex(aPackage(integer(5), integer(0))), "1205020a0500");
  assert.equal(hex(name("_S5", integer(1))), "085f53355f01");
  assert.equal(hex(path("\\_SB")), "5c5f53425f");
});

test("resource descriptors", () => {
  assert.equal(hex(ioPorts(0x3f8, 8)), "4701f803f8030108");
  assert.equal(hex(isaIrq(10)), "220004");
  assert.equal(hex(memory32Fixed(0xfed0_0000, 0x400, true)), "86090001" + "0000d0fe" + "00040000");
  assert.equal(hex(resources(isaIrq(4))), "11080a05" + "221000" + "7900");
});

test("a bad constant is our bug and stops the build", () => {
  assert.throws(() => eisaId("PNP050"));
  assert.throws(() => path("TOOLONG"));
  assert.throws(() => path("1BAD"));
  assert.throws(() => string("é"));
  assert.throws(() => integer(-1));
  assert.throws(() => ioPorts(0x1_0000, 1));
  assert.throws(() => aPackage(...Array.from({ length: 256 }, () => integer(0))));
});

test("PkgLength counts itself and its term, in one to four bytes", () => {
  const lengths = fc.oneof(
    fc.nat(0x50),
    fc.integer({ min: 0xff0, max: 0x1010 }),
    fc.constantFrom(0xffff0, 0x100000),
  );
  fc.assert(
    fc.property(lengths, (size) => {
      const term = scope("_SB", new Array(size).fill(0));
      const more = term[1] >> 6;
      const decoded =
        more === 0
          ? term[1]
          : term
              .slice(2, 2 + more)
              .reduce((sum, byte, i) => sum + byte * 2 ** (4 + 8 * i), term[1] & 0xf);
      assert.equal(decoded, term.length - 1);
    }),
    { numRuns: 20 },
  );
});
