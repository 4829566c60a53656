import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readdirSync, unlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Progress } from "../image/progress.ts";
import { recordedMessages, scratchFolder } from "../testing/scratch.ts";
import { BlobStore } from "./blob-store.ts";
import { digestOf } from "./digest.ts";
import { openInventory, prune, removeImages, usage } from "./inventory.ts";
import { pullImage } from "./pull.ts";
import { parseReference } from "./reference.ts";
import { Registry } from "./registry.ts";
import { startRegistry } from "./testing/fake-registry.ts";
import { makeImage } from "./testing/image-maker.ts";

const signal = new AbortController().signal;
const STORE = fileURLToPath(new URL("./blob-store.ts", import.meta.url));

test("a blob is there whole or not at all, and a wrong one leaves nothing", (t) => {
  const store = new BlobStore(scratchFolder(t));
  const bytes = Buffer.from("content");
  const digest = digestOf(bytes);
  assert.throws(() => store.write(digest, Buffer.from("other"), "x"), { code: "digest-mismatch" });
  assert.equal(store.read(digest), undefined);
  assert.deepEqual(readdirSync(join(store.root, "partial")), []);
  store.write(digest, bytes, "x");
  assert.ok(store.has({ mediaType: "", digest, size: 7 }));
  assert.ok(!store.has({ mediaType: "", digest, size: 8 }));
  // Damaged on disk: out of the way, so that it is fetched anew.
  writeFileSync(store.pathOf(digest), "damaged");
  assert.equal(store.read(digest), undefined);
  assert.equal(existsSync(store.pathOf(digest)), false);
});

test("a process that is killed while it writes leaves no blob, and the next one goes on", async (t) => {
  const folder = scratchFolder(t);
  const bytes = Buffer.alloc(100_000, 5);
  const digest = digestOf(bytes);
  const script = `
    import { BlobStore } from ${JSON.stringify(STORE)};
    const writer = new BlobStore(${JSON.stringify(folder)}).begin(${JSON.stringify(digest)});
    writer.write(Buffer.alloc(60_000, 5));
    console.log("half");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const store = new BlobStore(folder);
  // While it lives its file is its own.
  const mine = store.begin(digest);
  assert.equal(mine.size, 0);
  mine.end();
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
  assert.equal(store.read(digest), undefined);
  const writer = store.begin(digest);
  assert.equal(writer.size, 60_000);
  writer.write(bytes.subarray(60_000));
  writer.commit("x");
  writer.end();
  assert.ok(store.read(digest)?.equals(bytes));
  assert.equal(store.sweepPartial(), 0);
});

test("images are removed with what only they have, and pruning takes what nobody names", async (t) => {
  const base = [{ name: "base", content: "shared" }];
  const one = makeImage({ layers: [base, [{ name: "one" }]] });
  const two = makeImage({ layers: [base, [{ name: "two" }]] });
  const registry = await startRegistry(t, { images: { "a:1": one, "b:1": two } });
  const inventory = openInventory(scratchFolder(t));
  const { shelf } = inventory;
  const progress = new Progress(recordedMessages().messages);
  const context = { ...shelf, progress, signal };
  const platform = { os: "linux", architecture: "amd64" };
  for (const name of ["a:1", "b:1"]) {
    const reference = parseReference(`${registry.host}/${name}`);
    const client = new Registry(reference, { credentials: undefined, insecure: false, signal });
    await shelf.roots.supply(await pullImage(client, platform, context), { progress, signal });
  }
  assert.equal(shelf.roots.list().length, 2);
  const [a] = shelf.names.list().filter(({ name }) => name.endsWith("a:1"));
  removeImages(inventory, [a!]);
  const digests = shelf.store.list().map(({ digest }) => digest);
  assert.deepEqual([...digests].sort(), [...two.blobs.keys()].sort());
  assert.equal(shelf.roots.list().length, 1);

  const stray = Buffer.from("stray");
  shelf.store.write(digestOf(stray), stray, "x");
  assert.equal(usage(inventory)[0]!.reclaimable, stray.length);
  // Somebody else is at work: process 1 always lives.
  writeFileSync(join(shelf.store.root, "pulls", "1"), "");
  assert.deepEqual(prune(inventory, false), { images: 0, bytes: 0, isBusy: true });
  writeFileSync(join(shelf.store.root, "pulls", "4194999"), "");
  shelf.store.announcePull()();

  unlinkSync(join(shelf.store.root, "pulls", "1"));
  assert.deepEqual(prune(inventory, false), { images: 0, bytes: stray.length, isBusy: false });
  assert.equal(shelf.names.list().length, 1);

  // A root that is young may be about to be opened.
  const [named] = shelf.names.list();
  shelf.names.remove(named!);
  prune(inventory, false);
  assert.equal(shelf.roots.list().length, 1);
  const disk = join(shelf.store.root, "roots", `${named!.rootKey}.erofs`);
  utimesSync(disk, 0, 0);
  assert.ok(prune(inventory, true).bytes > 0);
  assert.deepEqual([shelf.roots.list(), shelf.store.list()], [[], []]);
});
