import assert from "node:assert/strict";
import { test } from "node:test";
import { ConsoleTail } from "./console-tail.ts";

test("a kernel's last words are found, also when they come in pieces", () => {
  const tail = new ConsoleTail();
  tail.add(Buffer.from("[ 1.0] Kernel panic - not syn"));
  assert.equal(tail.panic, undefined);
  tail.add(Buffer.from("cing: Attempted to kill init! exitcode=0x100\r\n[ 1.1] CPU: 0\r\n"));
  assert.equal(tail.panic, "Attempted to kill init! exitcode=0x100");
});

test("the last lines are text, whatever the guest meant to do to the terminal", () => {
  const tail = new ConsoleTail();
  for (let i = 0; i < 10_000; i++) tail.add(Buffer.from(`line ${i} \x1b[2J\x07\r\n\r\n`));
  const lines = tail.lastLines().split("\n");
  assert.equal(lines.length, 12);
  assert.equal(lines.at(-1), "line 9999 [2J");
});
