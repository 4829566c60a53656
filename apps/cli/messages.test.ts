import assert from "node:assert/strict";
import { test } from "node:test";
import { HypolithError } from "../../src/base/errors.ts";
import type { LogLevel } from "../../src/control/protocol.ts";
import { describeFailure, LOG_LEVELS, Messages } from "./messages.ts";

function record(quiet: boolean, level: LogLevel) {
  let text = "";
  const write = (part: string | Uint8Array): boolean => {
    text += part;
    return true;
  };
  return { messages: new Messages({ quiet, level }, { write }), text: () => text };
}

test("a log level lets through itself and what is graver", () => {
  const { messages, text } = record(false, "warn");
  for (const level of LOG_LEVELS) messages.log(level, level);
  assert.equal(text(), "hypo: error: error\nhypo: warn: warn\n");
});

test("--quiet silences all but failures", () => {
  const { messages, text } = record(true, "error");
  messages.notice("notice");
  messages.status("status");
  messages.warn("warning");
  assert.equal(text(), "");
  messages.failure(new HypolithError("x", "it failed"));
  assert.match(text(), /it failed/);
});

test("a failure says what, why and what to do", () => {
  const cause = new Error("outer", { cause: new Error("ECONNREFUSED") });
  const error = new HypolithError("network-unreachable", "no answer", { cause, hint: "one\ntwo" });
  assert.deepEqual(describeFailure(error).slice(1), [
    "  because: ECONNREFUSED",
    "  try: one",
    "  try: two",
    "  'hypo doctor' checks what works on this machine",
  ]);
  const hint = "did you mean run?";
  assert.deepEqual(describeFailure(new HypolithError("usage", "x", { hint })).slice(1), [
    `  ${hint}`,
  ]);
});

test("an error that is none of ours is reported as our defect", () => {
  assert.match(describeFailure(new TypeError("x is undefined"))[0]!, /defect of hypo: TypeError/);
});

test("lines in a raw terminal return the carriage", () => {
  const { messages, text } = record(false, "warn");
  messages.rawTerminal = true;
  messages.block("a\nb\n");
  assert.equal(text(), "  a\r\n  b\r\n");
});
