import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { CpioArchive } from "../image/cpio.ts";
import { buildInitramfs, type InitramfsParts, joinForeignInitramfs } from "./initramfs.ts";
import { INIT_SCRIPT, LAUNCH_SCRIPT, SESSION_SCRIPT } from "./scripts.ts";

const HAS_CPIO = spawnSync("cpio", ["--version"]).status === 0;

const parts = (more: Partial<InitramfsParts["job"]> = {}): InitramfsParts => ({
  busybox: Buffer.from("busybox"),
  modules: [{ name: "virtio_rng.ko", content: Buffer.from("module") }],
  job: {
    argv: ["true"],
    environment: {},
    mode: "pipes",
    input: { kind: "none" },
    window: { rows: 24, columns: 80 },
    ...more,
  },
});

function list(archive: Uint8Array): string[] {
  const { stdout, status, stderr } = spawnSync("cpio", ["-it"], {
    input: archive,
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  return stdout.trimEnd().split("\n");
}

test("the guest's programs are shell", () => {
  for (const script of [INIT_SCRIPT, SESSION_SCRIPT, LAUNCH_SCRIPT]) {
    const { stderr } = spawnSync("sh", ["-n"], { input: script, encoding: "utf8" });
    assert.equal(stderr, "");
    assert.ok(script.startsWith("#!/hypo/busybox sh\n"));
  }
});

test("our own root file system has all that the kernel and the session look for", {
  skip: !HAS_CPIO,
}, () => {
  const names = list(buildInitramfs(parts()));
  const wanted = ["init", "dev/console", "hypo/busybox", "hypo/init", "hypo/job", "etc/passwd"];
  for (const name of [...wanted, "hypo/modules/virtio_rng.ko"])
    assert.ok(names.includes(name), name);
  assert.ok(!names.includes("hypo/stdin"));
});

test("standard input that is known beforehand travels along", { skip: !HAS_CPIO }, () => {
  const input = { kind: "file", content: Buffer.from("input") } as const;
  assert.ok(list(buildInitramfs(parts({ input }))).includes("hypo/stdin"));
});

test("a foreign root file system stays as it is, behind our part", { skip: !HAS_CPIO }, () => {
  const foreign = gzipSync(new CpioArchive().file("sbin-init", "theirs").toBytes());
  const joined = joinForeignInitramfs(foreign, parts());
  assert.deepEqual(Buffer.from(joined.subarray(joined.length - foreign.length)), foreign);
  assert.equal((joined.length - foreign.length) % 4, 0);
  const names = list(joined.subarray(0, joined.length - foreign.length));
  assert.ok(names.includes("hypo/init"));
  // Their /init is theirs; ours is started by name.
  assert.ok(!names.includes("init"));
  assert.ok(!names.includes("etc/passwd"));
});

test("the same run gives the same bytes", () => {
  assert.deepEqual(buildInitramfs(parts()), buildInitramfs(parts()));
});
