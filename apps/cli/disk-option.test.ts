import assert from "node:assert/strict";
import { resolve } from "node:path";
import { test } from "node:test";
import { parseDisk } from "./disk-option.ts";

test("an image alone is never changed; words after it say otherwise", () => {
  const path = resolve("a.img");
  assert.deepEqual(parseDisk("a.img"), { path, mode: "scratch" });
  assert.deepEqual(parseDisk("a.img,write,format=raw"), { path, mode: "write", format: "raw" });
  assert.deepEqual(parseDisk("a.img,read"), { path, mode: "read" });
  const overlay = resolve("o.qcow2");
  assert.deepEqual(parseDisk("a.img,overlay=o.qcow2"), { path, mode: "scratch", overlay });
});

test("mistakes are found before anything starts", () => {
  const cases: [string, RegExp][] = [
    ["", /needs an image/],
    ["a,wrte", /did you mean write\?/],
    ["a,write=1", /says nothing/],
    ["a,format=vmdk", /says nothing/],
    ["a,overlay=", /says nothing/],
    ["a,write,read", /exclude each other/],
    ["a,write,write", /twice/],
  ];
  for (const [text, expected] of cases)
    assert.throws(
      () => parseDisk(text),
      (error: { code: string; message: string; hint?: string }) =>
        error.code === "usage" && expected.test(`${error.message} ${error.hint}`),
      text,
    );
});
