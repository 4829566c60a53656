import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { CpioArchive, joinArchives } from "./cpio.ts";

const HAS_CPIO = spawnSync("cpio", ["--version"]).status === 0;

test("GNU cpio lists what was written, with types, permissions and device numbers", {
  skip: !HAS_CPIO,
}, () => {
  const archive = new CpioArchive()
    .directory("dev")
    .characterDevice("dev/console", 5, 1, 0o600)
    .file("hello", "hello\n", 0o755)
    .file("ünï", new Uint8Array(5))
    .link("init", "hypo/init")
    .fifo("pipe");
  const { stdout, status, stderr } = spawnSync("cpio", ["-itv", "--numeric-uid-gid"], {
    input: archive.toBytes(),
    env: { ...process.env, TZ: "UTC", LC_ALL: "C.UTF-8" },
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  const lines = stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.replaceAll(/\s+/g, " "));
  assert.deepEqual(lines, [
    "drwxr-xr-x 1 0 0 0 Jan 1 1970 dev",
    "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
    "-rwxr-xr-x 1 0 0 6 Jan 1 1970 hello",
    "-rw-r--r-- 1 0 0 5 Jan 1 1970 ünï",
    "lrwxrwxrwx 1 0 0 9 Jan 1 1970 init -> hypo/init",
    "prw------- 1 0 0 0 Jan 1 1970 pipe",
  ]);
});

test("the same content gives the same bytes", () => {
  const build = (): Uint8Array => new CpioArchive().directory("a").file("a/b", "text").toBytes();
  assert.deepEqual(build(), build());
});

test("every member and joined archive begins at a multiple of four", () => {
  for (let size = 0; size < 5; size++) {
    const one = new CpioArchive().file("x".repeat(size + 1), new Uint8Array(size)).toBytes();
    assert.equal(one.length % 4, 0);
    const foreign = Uint8Array.from([0x1f, 0x8b, 8]);
    const joined = joinArchives(one, foreign, one);
    assert.deepEqual(joined.subarray(one.length, one.length + 3), foreign);
    assert.equal(Buffer.from(joined).toString("latin1", one.length + 4, one.length + 10), "070701");
  }
});

test("a name cannot be used twice", () => {
  assert.throws(() => new CpioArchive().file("a", "1").file("a", "2"), /twice/);
});
