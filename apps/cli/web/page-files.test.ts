import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { ImageDescription } from "../../common/image-description.ts";
import { scratchFolder } from "../testing/scratch.ts";
import { imageFiles, pageFiles } from "./page-files.ts";

test("the page is what lies in its folder; a folder that is not there says how to make it", (t) => {
  const folder = scratchFolder(t);
  mkdirSync(join(folder, "web"));
  writeFileSync(join(folder, "web/index.html"), "page");
  assert.deepEqual([...pageFiles(join(folder, "web"))], [["index.html", Buffer.from("page")]]);
  assert.throws(() => pageFiles(join(folder, "absent")), {
    code: "page-absent",
    hint: "npm run build",
  });
});

test("the image's description names files that come with it", () => {
  const kernel = Uint8Array.of(1, 2, 3);
  const files = imageFiles({
    name: "debian:x",
    release: "6.1.0-x",
    packages: [],
    kernel,
    systemMap: new Uint8Array(0),
    busybox: Uint8Array.of(4),
    modules: [],
  });
  const text = Buffer.from(files.get("image/image.json")!).toString();
  const image = JSON.parse(text) as ImageDescription;
  assert.equal(image.title, "Debian, Linux 6.1.0-x");
  assert.equal(files.get(`image/${image.kernel}`), kernel);
  const initrd = Buffer.from(files.get(`image/${image.initrd}`)!).toString("latin1");
  assert.match(initrd, /^070701/);
  assert.match(initrd, /TERM='xterm-256color'/);
});
