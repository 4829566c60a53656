import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { runNow } from "../storage/block-port.ts";
import type { Disk } from "../storage/disk.ts";
import { openImage } from "../storage/open-image.ts";
import { checkQcow2 } from "../storage/qcow2/check.ts";
import { createQcow2 } from "../storage/qcow2/create.ts";
import { readHeader } from "../storage/qcow2/qcow2-disk.ts";
import { FilePort, logOf, openDisk } from "./embedder-node-files.ts";
import { BLOCK_BYTES, blockContent } from "./testing/test-overlay-writer.ts";

const SIZE = 4 << 20;

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "hypolith-files-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

function baseImage(folder: string): { path: string; bytes: Buffer } {
  const bytes = Buffer.alloc(SIZE);
  for (let i = 0; i < SIZE; i++) bytes[i] = (i >> 8) & 0xff;
  const path = join(folder, "base.img");
  writeFileSync(path, bytes);
  return { path, bytes };
}

const readAt = (disk: Disk, offset: number, length: number): Buffer => {
  const bytes = Buffer.alloc(length);
  runNow(disk.read(offset, bytes));
  return bytes;
};

test("without more words an image is never changed, and nothing is left behind", (t) => {
  const folder = scratch(t);
  const { path, bytes } = baseImage(folder);
  const disk = openDisk({ path, mode: "scratch" });
  runNow(disk.write(1000 * 512, Buffer.alloc(8192, 9)));
  runNow(disk.flush());
  assert.deepEqual(readAt(disk, 1000 * 512, 8192), Buffer.alloc(8192, 9));
  assert.deepEqual(readFileSync(path), bytes);
  assert.deepEqual(readdirSync(folder), ["base.img"]);
});

test("an overlay is made, kept, continued, and says which image is behind it", (t) => {
  const folder = scratch(t);
  const { path } = baseImage(folder);
  const overlay = join(folder, "mine.qcow2");
  const writer = `import { openDisk } from ${JSON.stringify(new URL("embedder-node-files.ts", import.meta.url).href)};
    import { runNow } from ${JSON.stringify(new URL("../storage/block-port.ts", import.meta.url).href)};
    const disk = openDisk(${JSON.stringify({ path, mode: "scratch", overlay })});
    runNow(disk.write(4096, new Uint8Array(512).fill(7)));
    runNow(disk.write(1 << 20, new Uint8Array(512).fill(8)));`;
  execFileSync(process.execPath, ["--input-type=module-typescript", "-e", writer]);
  assert.deepEqual(readdirSync(folder).sort(), ["base.img", "mine.qcow2"]);
  const file = new FilePort(overlay, constants.O_RDONLY);
  assert.deepEqual(runNow(checkQcow2(file)), { leaks: 0, errors: 0 });
  assert.ok(!runNow(readHeader(file)).isDirty, "closed in order");
  const disk = openDisk({ path, mode: "scratch", overlay });
  assert.deepEqual(readAt(disk, 4096, 512), Buffer.alloc(512, 7));
  assert.throws(() => openDisk({ path, mode: "scratch", overlay }), { code: "disk-in-use" });
  assert.throws(() => openDisk({ path: overlay, mode: "write" }), { code: "disk-in-use" });
});

test("a lock that nobody holds any more is taken over", (t) => {
  const folder = scratch(t);
  const { path } = baseImage(folder);
  const { pid } = spawnSync(process.execPath, ["--version"]);
  // A process that is gone, and one that is there and has other files open: a terminated thread of ours.
  for (const [i, left] of [`${pid} 20\n`, `${process.pid} 0\n`, "nonsense"].entries()) {
    const image = `${path}.${i}`;
    writeFileSync(image, Buffer.alloc(4096));
    writeFileSync(`${image}.lock`, left);
    runNow(openDisk({ path: image, mode: "write" }).write(0, Buffer.alloc(512)));
    assert.match(readFileSync(`${image}.lock`, "utf8"), new RegExp(`^${process.pid} \\d+\n$`));
    assert.throws(() => openDisk({ path: image, mode: "write" }), { code: "disk-in-use" });
  }
});

test("a file that is no overlay is not taken for one", (t) => {
  const folder = scratch(t);
  const { path } = baseImage(folder);
  const overlay = join(folder, "notes.txt");
  writeFileSync(overlay, "not an overlay");
  assert.throws(() => openDisk({ path, mode: "scratch", overlay }), { code: "disk-overlay" });
  assert.equal(readFileSync(overlay, "utf8"), "not an overlay");
});

test("an image that names a backing file elsewhere does not get it", (t) => {
  const folder = scratch(t);
  mkdirSync(join(folder, "images"));
  writeFileSync(join(folder, "secret"), Buffer.alloc(SIZE, 1));
  const path = join(folder, "images", "evil.qcow2");
  for (const name of ["../secret", join(folder, "secret"), "/etc/passwd"]) {
    const port = new FilePort(path, constants.O_RDWR | constants.O_CREAT);
    runNow(createQcow2(port, { size: SIZE, backing: { name, format: "raw" } }));
    for (const mode of ["scratch", "read", "write"] as const)
      assert.throws(() => openDisk({ path, mode }), { code: "disk-backing-outside" });
  }
});

test("what cannot be opened is said with the path", (t) => {
  const folder = scratch(t);
  for (const [path, code] of [
    [join(folder, "absent"), "disk-unreadable"],
    [folder, /disk-/],
    ["/dev/null", "disk-no-file"],
  ] as const)
    assert.throws(
      () => openDisk({ path, mode: "read" }),
      (error: { code: string; message: string }) =>
        (typeof code === "string" ? error.code === code : code.test(error.code)) &&
        error.message.includes(path),
    );
});

test("kill -9 at any moment: the overlay opens again, and no acknowledged write is lost", async (t) => {
  const folder = scratch(t);
  const { path, bytes } = baseImage(folder);
  const overlay = join(folder, "overlay.qcow2");
  const script = new URL("testing/test-overlay-writer.ts", import.meta.url).pathname;
  /** last acknowledged write of each block, over all lives */
  const acknowledged = new Map<number, number[]>();
  for (let life = 1; life <= 6; life++) {
    const child = spawn(process.execPath, [script, path, overlay, String(life)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (said.length > 400 * life) child.kill("SIGKILL");
    });
    await new Promise((resolve) => child.on("close", resolve));
    const lines = said.split("\n").slice(0, -1);
    assert.ok(lines.length > 10, "it wrote before it died");
    const now = new Map<number, number>();
    for (const line of lines) {
      const [index = 0, count = 0] = line.split(" ").map(Number);
      now.set(index, count);
    }
    // The order of what died: the report of the last writes may be missing, so a later one of the same life is as good.
    for (const [index, count] of now) acknowledged.set(index, [life, count]);
    const file = new FilePort(overlay, constants.O_RDONLY);
    assert.equal(runNow(checkQcow2(file)).errors, 0);
    file.close();
    const port = new FilePort(overlay, constants.O_RDWR);
    const backing = () => ({
      port: new FilePort(path, constants.O_RDONLY),
      backing: assert.fail,
    });
    const log = logOf(overlay, port);
    const disk = runNow(openImage({ port, backing }, { format: "qcow2", log }));
    for (let index = 0; index < SIZE / BLOCK_BYTES; index++) {
      const is = readAt(disk, index * BLOCK_BYTES, BLOCK_BYTES);
      const count = is.readUInt32LE(4);
      const isWritten = is.equals(blockContent(index, count));
      const base = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
      assert.ok(isWritten || is.equals(base), `block ${index} is whole`);
      const last = acknowledged.get(index);
      if (last?.[0] === life) assert.ok(isWritten && count >= last[1]!, `block ${index} is kept`);
      else if (last) assert.ok(isWritten, `block ${index} of an earlier life is kept`);
    }
    // Half of them find an image that nobody has closed.
    if (life % 2 === 0) runNow(disk.close());
    port.close();
  }
  assert.ok(existsSync(`${overlay}.lock`), "the lock of the last life is there, and stops nobody");
  const last = openDisk({ path, mode: "scratch", overlay });
  assert.deepEqual(runNow(checkQcow2(new FilePort(overlay, constants.O_RDONLY))), {
    leaks: 0,
    errors: 0,
  });
  runNow(last.close());
});
