import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { HypolithError } from "../../../src/base/errors.ts";
import { scratchFolder } from "../testing/scratch.ts";
import { defaultCacheRoot, ImageCache, sha256Of } from "./cache.ts";
import type { GuestImage } from "./guest-image.ts";

const image: GuestImage = {
  name: "debian:cloud-amd64",
  release: "6.1.0",
  packages: [],
  kernel: Buffer.from("kernel"),
  systemMap: Buffer.from("map"),
  busybox: Buffer.from("busybox"),
  modules: [{ name: "a.ko", content: Buffer.from("module") }],
};
const hasCode = (code: string) => (error: unknown) =>
  error instanceof HypolithError && error.code === code;

test("what is stored is found again, and nothing half-done stays", (t) => {
  const cache = new ImageCache(join(scratchFolder(t), "new", "cache"));
  assert.equal(cache.load(image.name, ["a"]).state, "absent");
  cache.store(image, ["a"]);
  cache.store(image, ["a"]);
  const found = cache.load(image.name, ["a"]);
  assert.deepEqual(found, { state: "found", image });
  assert.deepEqual(readdirSync(cache.stagingParent), []);
});

test("an image made for other modules is not the one that is asked for", (t) => {
  const cache = new ImageCache(scratchFolder(t));
  cache.store(image, ["a"]);
  assert.equal(cache.load(image.name, ["a", "b"]).state, "absent");
});

test("a damaged blob is noticed and replaced by the next store", (t) => {
  const cache = new ImageCache(scratchFolder(t));
  cache.store(image, []);
  const blob = join(cache.root, "blobs", sha256Of(image.kernel));
  for (const damage of ["kernem", "kern", ""]) {
    writeFileSync(blob, damage);
    assert.equal(cache.load(image.name, []).state, "damaged");
    cache.store(image, []);
    assert.equal(cache.load(image.name, []).state, "found");
  }
});

test("an image file of any content is an image or damaged, never an exception", (t) => {
  const cache = new ImageCache(scratchFolder(t));
  cache.store(image, []);
  const path = join(cache.root, "images", "debian_cloud-amd64.json");
  const text = readFileSync(path, "utf8");
  const contents = [
    "",
    "null",
    "{}",
    "[]",
    text.slice(0, -20),
    text.replace(/"[0-9a-f]{64}"/, '"../../x"'),
  ];
  for (const content of contents) {
    writeFileSync(path, content);
    assert.notEqual(cache.load(image.name, []).state, "found", content);
  }
});

test("a cache that cannot be written says so", (t) => {
  const file = join(scratchFolder(t), "file");
  writeFileSync(file, "");
  const cache = new ImageCache(join(file, "cache"));
  assert.throws(() => cache.store(image, []), hasCode("cache-unwritable"));
  assert.equal(cache.load(image.name, []).state, "absent");
});

test("a full disk leaves no half-written entry behind", (t) => {
  const root = scratchFolder(t);
  // A limit on file size stops a write in its middle, as a full disk does.
  const script = `
    import { ImageCache } from ${JSON.stringify(new URL("./cache.ts", import.meta.url).href)};
    const big = Buffer.alloc(1 << 20, 7);
    const image = { name: "debian", release: "6", packages: [], kernel: big, systemMap: big, busybox: big, modules: [] };
    try { new ImageCache(${JSON.stringify(root)}).store(image, []); } catch (error) { console.log(error.code); }`;
  const command = `ulimit -f 100; exec "$0" --input-type=module-typescript -e "$1"`;
  const { stdout, stderr } = spawnSync("sh", ["-c", command, process.execPath, script], {
    encoding: "utf8",
  });
  assert.equal(stdout, "cache-full\n", stderr);
  assert.deepEqual(readdirSync(join(root, "staging")), []);
  assert.ok(!existsSync(join(root, "images")));
  assert.ok(!existsSync(join(root, "blobs")));
});

test("what a killed process left half-done is swept away", (t) => {
  const cache = new ImageCache(scratchFolder(t));
  const { pid } = spawnSync("true");
  mkdirSync(join(cache.stagingParent, `hypo-${pid}-abc`), { recursive: true });
  mkdirSync(join(cache.stagingParent, `hypo-${process.pid}-abc`));
  cache.stage().remove();
  assert.deepEqual(readdirSync(cache.stagingParent), [`hypo-${process.pid}-abc`]);
});

test("HYPO_HOME comes before XDG_CACHE_HOME, and that before ~/.cache", () => {
  assert.equal(defaultCacheRoot({ HYPO_HOME: "/h", XDG_CACHE_HOME: "/x" }), "/h/cache");
  assert.equal(defaultCacheRoot({ XDG_CACHE_HOME: "/x" }), "/x/hypolith");
  assert.match(defaultCacheRoot({}), /\/\.cache\/hypolith$/);
});
