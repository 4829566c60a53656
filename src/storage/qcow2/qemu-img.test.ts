/** QEMU's tools as the judge: they read what we write, we read and change what they write. Without qemu-img there is nothing to compare. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";
import { runNow } from "../block-port.ts";
import type { Disk } from "../disk.ts";
import { type ImageSource, openImage } from "../open-image.ts";
import { FilePort } from "../test-ports.ts";
import { checkQcow2 } from "./check.ts";
import { createQcow2 } from "./create.ts";

const SIZE = 3 << 20;
const hasQemu = spawnSync("qemu-img", ["--version"]).status === 0;
const folder = mkdtempSync(join(tmpdir(), "hypolith-qcow2-"));
after(() => rmSync(folder, { recursive: true }));

const place = (name: string) => join(folder, name);
const qemuImg = (...args: string[]) => execFileSync("qemu-img", args, { stdio: "pipe" });

/** Some data, some repetition, some zeros. */
function sample(seed: number, size = SIZE): Buffer {
  const bytes = Buffer.alloc(size);
  let random = seed;
  for (let at = 0; at < size; at += 4096) {
    random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
    const kind = (random >>> 16) % 3;
    if (kind === 0) bytes.fill(random & 0xff, at, at + 4096);
    else if (kind === 1) for (let i = 0; i < 4096; i++) bytes[at + i] = (i * random) >>> 8;
  }
  return bytes;
}

function source(path: string, mode: "r" | "r+" = "r+"): ImageSource {
  return {
    port: new FilePort(path, mode),
    backing: (name) => source(join(dirname(path), name), "r"),
  };
}

const open = (name: string) => runNow(openImage(source(place(name))));

function readAll(disk: Disk): Buffer {
  const bytes = Buffer.alloc(disk.size);
  for (let at = 0; at < disk.size; at += 100_000)
    runNow(disk.read(at, bytes.subarray(at, Math.min(disk.size, at + 100_000))));
  return bytes;
}

/** Writes, zeros and discards at odd places; answers what the disk holds afterwards. */
function change(disk: Disk, model: Buffer): void {
  const pieces: [number, number][] = [
    [0, 512],
    [65_024, 1024],
    [200 * 512, 300 * 512],
    [disk.size - 512, 512],
    [(1 << 20) + 512, 70_000 - (70_000 % 512)],
  ];
  for (const [i, [offset, length]] of pieces.entries()) {
    const bytes = sample(77 + i, length);
    runNow(disk.write(offset, bytes));
    bytes.copy(model, offset);
  }
  runNow(disk.writeZeroes(2 << 20, 200_192, true));
  model.fill(0, 2 << 20, (2 << 20) + 200_192);
  runNow(disk.discard(2_400_256, 300_032));
  const part = model.subarray(2_400_256, 2_400_256 + 300_032);
  runNow(disk.read(2_400_256, part));
  runNow(disk.flush());
}

describe("qemu-img", { skip: hasQemu ? false : "qemu-img is not installed" }, () => {
  for (const clusterBits of [9, 12, 16, 21]) {
    test(`reads what we write, with clusters of 2^${clusterBits} bytes`, () => {
      const name = `ours-${clusterBits}.qcow2`;
      runNow(createQcow2(new FilePort(place(name), "w+"), { size: SIZE, clusterBits }));
      const disk = open(name);
      const model = Buffer.alloc(SIZE);
      const first = sample(1);
      runNow(disk.write(0, first));
      first.copy(model);
      change(disk, model);
      writeFileSync(place("model.img"), model);
      qemuImg("check", place(name));
      qemuImg("compare", "-f", "qcow2", "-F", "raw", place(name), place("model.img"));
    });
  }

  test("reads our overlay through its backing file, and knows its format", () => {
    const base = sample(5);
    writeFileSync(place("base.img"), base);
    runNow(
      createQcow2(new FilePort(place("overlay.qcow2"), "w+"), {
        size: SIZE + (1 << 20),
        backing: { name: "base.img", format: "raw" },
      }),
    );
    const disk = open("overlay.qcow2");
    const model = Buffer.alloc(SIZE + (1 << 20));
    base.copy(model);
    change(disk, model);
    writeFileSync(place("model.img"), model);
    qemuImg("check", place("overlay.qcow2"));
    qemuImg("compare", "-f", "qcow2", "-F", "raw", place("overlay.qcow2"), place("model.img"));
    const info = JSON.parse(
      qemuImg("info", "--output=json", place("overlay.qcow2")).toString(),
    ) as Record<string, unknown>;
    assert.equal(info["backing-filename"], "base.img");
    assert.equal(info["backing-filename-format"], "raw");
    assert.deepEqual(readFileSync(place("base.img")), base, "the backing file is as it was");
  });

  const flavours: [string, string[], string[]][] = [
    ["version 2", ["-o", "compat=0.10"], []],
    ["version 3", ["-o", "compat=1.1"], []],
    ["small clusters", ["-o", "cluster_size=512"], []],
    ["large clusters", ["-o", "cluster_size=2M"], []],
    ["1-bit refcounts", ["-o", "refcount_bits=1"], []],
    ["4-bit refcounts", ["-o", "refcount_bits=4"], []],
    ["64-bit refcounts", ["-o", "refcount_bits=64,cluster_size=4k"], []],
    ["lazy refcounts", ["-o", "lazy_refcounts=on"], []],
    ["compressed clusters", [], ["-c"]],
    ["compressed small clusters of version 2", ["-o", "compat=0.10,cluster_size=4k"], ["-c"]],
  ];
  for (const [title, options, convert] of flavours) {
    test(`writes ${title}: we read it, and change it so that it still checks`, () => {
      const model = sample(11);
      writeFileSync(place("raw.img"), model);
      const args = ["convert", "-f", "raw", "-O", "qcow2", ...convert, ...options];
      qemuImg(...args, place("raw.img"), place("theirs.qcow2"));
      const disk = open("theirs.qcow2");
      assert.deepEqual(readAll(disk), model);
      change(disk, model);
      assert.deepEqual(readAll(disk), model);
      assert.deepEqual(runNow(checkQcow2(source(place("theirs.qcow2")).port)), {
        leaks: 0,
        errors: 0,
      });
      writeFileSync(place("model.img"), model);
      qemuImg("check", place("theirs.qcow2"));
      qemuImg("compare", "-f", "qcow2", "-F", "raw", place("theirs.qcow2"), place("model.img"));
    });
  }

  test("writes preallocated metadata: we read and change it", () => {
    qemuImg("create", "-f", "qcow2", "-o", "preallocation=metadata", place("pre.qcow2"), `${SIZE}`);
    const disk = open("pre.qcow2");
    const model = Buffer.alloc(SIZE);
    assert.deepEqual(readAll(disk), model);
    change(disk, model);
    writeFileSync(place("model.img"), model);
    qemuImg("check", place("pre.qcow2"));
    qemuImg("compare", "-f", "qcow2", "-F", "raw", place("pre.qcow2"), place("model.img"));
  });

  test("took a snapshot: what we write leaves it as it was", () => {
    const model = sample(21);
    const before = Buffer.from(model);
    writeFileSync(place("raw.img"), model);
    qemuImg("convert", "-f", "raw", "-O", "qcow2", place("raw.img"), place("snap.qcow2"));
    qemuImg("snapshot", "-c", "first", place("snap.qcow2"));
    const disk = open("snap.qcow2");
    assert.deepEqual(readAll(disk), model);
    change(disk, model);
    assert.deepEqual(readAll(disk), model);
    qemuImg("check", place("snap.qcow2"));
    assert.deepEqual(runNow(checkQcow2(source(place("snap.qcow2")).port)), { leaks: 0, errors: 0 });
    writeFileSync(place("model.img"), model);
    qemuImg("compare", "-f", "qcow2", "-F", "raw", place("snap.qcow2"), place("model.img"));
    qemuImg("snapshot", "-a", "first", place("snap.qcow2"));
    qemuImg("check", place("snap.qcow2"));
    assert.deepEqual(readAll(open("snap.qcow2")), before);
  });

  test("makes a chain: we read through all of it", () => {
    writeFileSync(place("a.img"), sample(31));
    const relative = { cwd: folder, stdio: "pipe" } as const;
    const create = (backing: string, format: string, name: string) =>
      execFileSync(
        "qemu-img",
        ["create", "-f", "qcow2", "-b", backing, "-F", format, name],
        relative,
      );
    create("a.img", "raw", "b.qcow2");
    create("b.qcow2", "qcow2", "c.qcow2");
    const middle = open("b.qcow2");
    runNow(middle.write(4096, Buffer.alloc(8192, 0xbb)));
    runNow(middle.flush());
    const expected = sample(31);
    expected.fill(0xbb, 4096, 4096 + 8192);
    assert.deepEqual(readAll(open("c.qcow2")), expected);
    const loop = ["rebase", "-u", "-b", "c.qcow2", "-F", "qcow2", "b.qcow2"];
    execFileSync("qemu-img", loop, relative);
    assert.throws(() => open("c.qcow2"), { code: "disk-backing-chain" });
  });

  test("what we do not support is refused by name", () => {
    const refused = (...args: string[]) => {
      qemuImg("create", "-f", "qcow2", ...args, place("odd.qcow2"), "1M");
      assert.throws(() => open("odd.qcow2"), { code: "qcow2-unsupported" });
    };
    refused("-o", "extended_l2=on,cluster_size=128k");
    refused("-o", "compression_type=zstd");
    refused("-o", `data_file=${place("data.img")}`);
  });
});
