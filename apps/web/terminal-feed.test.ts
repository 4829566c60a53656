import assert from "node:assert/strict";
import { test } from "node:test";
import { TerminalFeed } from "./terminal-feed.ts";

const KIB = 1024;

/** A terminal that has drawn what it was given only when it is told so. */
function slowTerminal() {
  const given: (Uint8Array | string)[] = [];
  const done: (() => void)[] = [];
  return {
    given,
    write(data: Uint8Array | string, drawn?: () => void) {
      given.push(data);
      if (drawn) done.push(drawn);
    },
    draw() {
      for (let next = done.shift(); next; next = done.shift()) next();
    },
    get bytes() {
      return given.reduce((n, data) => n + data.length, 0);
    },
  };
}

test("what the guest says reaches the terminal at once, in order and whole", () => {
  const terminal = slowTerminal();
  const feed = new TerminalFeed(terminal);
  for (let i = 0; i < 5; i++) feed.write(Uint8Array.of(i));
  assert.deepEqual(
    terminal.given,
    [0, 1, 2, 3, 4].map((i) => Uint8Array.of(i)),
  );
});

test("a terminal that does not draw is given no more than it can keep, and the rest later", () => {
  const terminal = slowTerminal();
  const feed = new TerminalFeed(terminal);
  for (let i = 0; i < 64; i++) feed.write(new Uint8Array(16 * KIB).fill(i));
  assert.ok(terminal.bytes <= 256 * KIB + 16 * KIB, `${terminal.bytes}`);
  terminal.draw();
  assert.deepEqual(
    terminal.given.map((data) => data[0]),
    Array.from({ length: 64 }, (_, i) => i),
  );
});

test("of what waits too long the oldest is left out, and the terminal says so", () => {
  const terminal = slowTerminal();
  const feed = new TerminalFeed(terminal);
  for (let i = 0; i < 100; i++) feed.write(new Uint8Array(64 * KIB).fill(i));
  terminal.draw();
  const note = terminal.given.findIndex((data) => typeof data === "string");
  assert.equal(terminal.given.filter((data) => typeof data === "string").length, 1);
  assert.match(String(terminal.given[note]), /\[\d+ bytes of output left out\]/);
  assert.deepEqual(
    terminal.given.slice(note + 1).map((data) => data[0]),
    Array.from({ length: 32 }, (_, i) => 68 + i),
  );
});
