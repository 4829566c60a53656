import assert from "node:assert/strict";
import { resolve } from "node:path";
import { test } from "node:test";
import { UsageError } from "./usage-error.ts";
import { parseVolumes } from "./volume-option.ts";

test("a folder, its place in the guest, and what may be done with it", () => {
  assert.deepEqual(parseVolumes(["src:/a//b/./c/:ro", "/x:work", "y:/y:rw,9p"], true), [
    { path: resolve("src"), target: "/a/b/c", tag: "hypo0", protocol: "fs", readOnly: true },
    { path: "/x", target: undefined, tag: "work", protocol: "fs", readOnly: false },
    { path: resolve("y"), target: "/y", tag: "hypo2", protocol: "9p", readOnly: false },
  ]);
});

test("what names no folder or no place is refused", () => {
  const bad = ["a", ":/b", "a:", "a:/", "a:/../b", "a:b c", `a:${"t".repeat(32)}`];
  const odd = ["a:/b:ro:x", "a:/b:r0", "a:/b:ro,rw", "a:/b:fs,9p", "a:/b:", "a:/b\nc"];
  for (const word of [...bad, ...odd])
    assert.throws(() => parseVolumes([word], true), UsageError, word);
  assert.throws(() => parseVolumes(["a:/x", "b:/x/"], true), /two folders/);
  assert.throws(() => parseVolumes(["a:t", "b:t"], true), /two folders/);
});

test("a guest without our init mounts by tag alone", () => {
  assert.equal(parseVolumes(["a:tag"], false).length, 1);
  assert.throws(() => parseVolumes(["a:/b"], false), /nothing of ours runs/);
});
