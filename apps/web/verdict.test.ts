import assert from "node:assert/strict";
import { test } from "node:test";
import { HypolithError } from "../../src/base/errors.ts";
import { verdictOf, verdictOfError } from "./verdict.ts";

test("an end that somebody wanted is no failure", () => {
  for (const kind of ["poweroff", "reset", "killed"] as const) {
    assert.equal(verdictOf({ kind }, undefined).tone, "end", kind);
  }
});

test("a kernel panic is a failure and is quoted, whichever way the kernel resets", () => {
  for (const kind of ["reset", "triple-fault"] as const) {
    const { tone, message } = verdictOf({ kind }, "VFS: Unable to mount root fs");
    assert.deepEqual(
      [tone, message],
      ["failure", "The guest's kernel panicked: VFS: Unable to mount root fs"],
    );
  }
  assert.equal(verdictOf({ kind: "poweroff" }, "long ago").tone, "end");
});

test("a triple fault and a failure of ours come with their dump", () => {
  const fault = verdictOf(
    { kind: "triple-fault", message: "the guest crashed", dump: "RIP=0" },
    undefined,
  );
  assert.deepEqual(fault, {
    tone: "failure",
    message: "The guest crashed",
    hint: undefined,
    dump: "RIP=0",
  });
  assert.equal(verdictOf({ kind: "error" }, undefined).tone, "failure");
});

test("hints speak of the page, not of the command line", () => {
  const reason = {
    kind: "error",
    code: "memory-unavailable",
    hint: "choose less with --memory",
  } as const;
  assert.doesNotMatch(verdictOf(reason, undefined).hint ?? "--", /--/);
  assert.equal(
    verdictOf({ kind: "error", code: "x", hint: "as it is" }, undefined).hint,
    "as it is",
  );
});

test("an error of ours has its hint, another one its stack", () => {
  const ours = verdictOfError(
    new HypolithError("kernel-empty", "the kernel k is empty", { hint: "h" }),
  );
  assert.deepEqual(ours, {
    tone: "failure",
    message: "The kernel k is empty",
    hint: "h",
    dump: undefined,
  });
  assert.match(verdictOfError(new TypeError("x is not a function")).dump ?? "", /verdict\.test/);
  assert.equal(verdictOfError("thrown").message, "Thrown");
});
