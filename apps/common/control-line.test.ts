import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ControlLine } from "./control-line.ts";

function open() {
  const sent: string[] = [];
  const heard: string[] = [];
  const line = new ControlLine((text) => sent.push(text), {
    ready: () => heard.push("ready"),
    inputWanted: () => heard.push("in"),
  });
  return { line, sent, heard, say: (text: string) => line.receive(Buffer.from(text)) };
}

test("nothing is sent before the guest is ready, then the last window size is", () => {
  const { line, sent, say } = open();
  line.resize({ rows: 1, columns: 2 });
  line.resize({ rows: 30, columns: 100 });
  assert.equal(line.signal("INT"), false);
  assert.equal(line.powerOff(), false);
  say("ready\n");
  assert.deepEqual(sent, ["size 30 100\n"]);
  assert.equal(line.signal("INT"), true);
  assert.equal(line.powerOff(), true);
  assert.deepEqual(sent.slice(1), ["signal INT\n", "poweroff\n"]);
});

test("words may come in pieces and several at once", () => {
  const { line, heard, say } = open();
  say("rea");
  say("dy\r\nin\nin\nex");
  assert.deepEqual(heard, ["ready", "in", "in"]);
  assert.equal(line.exitStatus, undefined);
  say("it 7\n");
  assert.equal(line.exitStatus, 7);
});

test("turning the machine off in the guest is success, unless the job has already ended otherwise", () => {
  const first = open();
  first.say("off\n");
  assert.equal(first.line.exitStatus, 0);
  const second = open();
  second.say("exit 3\noff\n");
  assert.equal(second.line.exitStatus, 3);
});

test("a hostile guest gets no further than an exit code of a byte", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array()), (chunks) => {
      const { line } = open();
      for (const chunk of chunks) line.receive(chunk);
      const status = line.exitStatus ?? 0;
      assert.ok(Number.isInteger(status) && status >= 0 && status <= 255);
    }),
  );
  const { line, say } = open();
  for (const word of ["exit -1\n", "exit x\n", "exit 1e3\n", "exit\n"]) say(word);
  assert.equal(line.exitStatus, undefined);
});
