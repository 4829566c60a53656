import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import fc from "fast-check";
import { HypolithError } from "../../../src/base/errors.ts";
import { type GuestJob, jobScript, sessionConfig } from "./job.ts";

const job = (argv: readonly string[], environment = {}): GuestJob => ({
  argv,
  environment,
  mode: "pipes",
  input: { kind: "none" },
  window: { rows: 24, columns: 80 },
});

/** What a shell makes of the script: its arguments. */
function argumentsInShell(script: string): string[] {
  const { stdout, status } = spawnSync("sh", ["-c", `HOME=/; ${script}printf '%s\\0' "$@"`], {
    encoding: "utf8",
  });
  assert.equal(status, 0);
  return stdout.split("\0").slice(0, -1);
}

test("arguments arrive as they are", () => {
  const argv = ["a b", "it's", "", "new\nline", '$HOME `id` \\ "q"', "ünï☃", "-n", "*", "'\\''"];
  assert.deepEqual(argumentsInShell(jobScript(job(argv))), argv);
});

test("so do all arguments that there can be", () => {
  const word = fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0"));
  // A shell cannot hold half a surrogate pair, and nobody can type one.
  const argv = fc.array(
    word.map((text) => Buffer.from(text).toString()),
    { minLength: 1 },
  );
  fc.assert(
    fc.property(argv, (words) => {
      assert.deepEqual(argumentsInShell(jobScript(job(words))), words);
    }),
    { numRuns: 20 },
  );
});

test("the environment is set, quotes and all", () => {
  const script = jobScript(job(["x"], { GREETING: "it's $HOME" }));
  const { stdout } = spawnSync("sh", ["-c", `HOME=/; ${script}printenv GREETING`], {
    encoding: "utf8",
  });
  assert.equal(stdout, "it's $HOME\n");
});

test("a NUL byte cannot be passed and is refused", () => {
  assert.throws(() => jobScript(job(["a\0b"])), HypolithError);
});

test("the session's configuration is shell assignments", () => {
  const text = sessionConfig(job(["x"]), "busybox", ["a.ko", "b.ko"]);
  const { stdout } = spawnSync("sh", ["-c", `${text}echo $mode $stdin $rows $columns $modules`], {
    encoding: "utf8",
  });
  assert.equal(stdout, "pipes none 24 80 a.ko b.ko\n");
});
