import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSize, parseSize } from "./size.ts";

test("sizes are read as docker reads them: every unit is a power of 1024", () => {
  const cases: ReadonlyArray<readonly [text: string, bytes: number | undefined]> = [
    ["512m", 512 * 2 ** 20],
    ["1g", 2 ** 30],
    ["1.5GiB", 1.5 * 2 ** 30],
    ["64MB", 64 * 2 ** 20],
    [" 2 G ", 2 * 2 ** 30],
    ["268435456", 2 ** 28],
    ["100k", 102_400],
    ...["", "m", "-1g", "1x", "1gg", "0x10", "1e9", "1 2", "512mm", "9999999t"].map(
      (text) => [text, undefined] as const,
    ),
  ];
  for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, text);
});

test("sizes are written in the largest unit that they fill", () => {
  assert.equal(formatSize(2 ** 30), "1 GiB");
  assert.equal(formatSize(3 * 2 ** 29), "1.5 GiB");
  assert.equal(formatSize(512 * 2 ** 20), "512 MiB");
  assert.equal(formatSize(1000), "1000 bytes");
});
