import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EscapeKeys } from "./escape-keys.ts";

function decode(...pieces: string[]) {
  const keys = new EscapeKeys();
  const decoded = pieces.map((piece) => keys.decode(Buffer.from(piece, "latin1")));
  return {
    text: decoded.map(({ bytes }) => Buffer.from(bytes).toString("latin1")).join(""),
    commands: decoded.flatMap(({ commands }) => commands),
  };
}

test("Ctrl-A and a key is a command, in one piece or two, in either case", () => {
  assert.deepEqual(decode("ls\x01xrm"), { text: "lsrm", commands: ["power-off"] });
  assert.deepEqual(decode("\x01", "X"), { text: "", commands: ["power-off"] });
  assert.deepEqual(decode("\x01p\x01h\x01?").commands, ["power-button", "help", "help"]);
});

test("Ctrl-A twice, or with A, is one for the guest; with any other key it is nothing", () => {
  assert.deepEqual(decode("\x01\x01"), { text: "\x01", commands: [] });
  assert.deepEqual(decode("\x01a\x01A"), { text: "\x01\x01", commands: [] });
  assert.deepEqual(decode("a\x01zb"), { text: "ab", commands: [] });
});

test("all other bytes pass unchanged", () => {
  const other = fc.integer({ min: 0, max: 255 }).filter((byte) => byte !== 1);
  fc.assert(
    fc.property(fc.array(other), (typed) => {
      const { bytes, commands } = new EscapeKeys().decode(Uint8Array.from(typed));
      assert.deepEqual([...bytes], typed);
      assert.deepEqual(commands, []);
    }),
  );
});
