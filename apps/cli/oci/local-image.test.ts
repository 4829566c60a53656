import assert from "node:assert/strict";
import { rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { Progress } from "../image/progress.ts";
import { recordedMessages, scratchFolder } from "../testing/scratch.ts";
import { sortedNames } from "./file-tree.ts";
import type { ImageContent } from "./image-content.ts";
import { openLocalImage } from "./local-image.ts";
import { textOf, withTree } from "./root-tree.ts";
import {
  dockerArchive,
  json,
  layoutArchive,
  makeImage,
  writeLayout,
} from "./testing/image-maker.ts";

const LAYERS = [
  [
    { name: "etc/", flag: "5" },
    { name: "etc/passwd", content: "root:x:0:0::/root:/bin/sh\n" },
    { name: "old" },
  ],
  [{ name: "new" }, { name: ".wh.old" }],
];
const IMAGE = makeImage({ layers: LAYERS });
const OTHER = makeImage({ layers: LAYERS, architecture: "386" });
const signal = new AbortController().signal;

function openIn(test: TestContext, path: string, tag?: string): Promise<ImageContent> {
  const platform = { os: "linux", architecture: "amd64" };
  return openLocalImage({ path, tag, platform, staging: () => scratchFolder(test), signal });
}

function namesOf(test: TestContext, image: ImageContent): Promise<string[]> {
  const progress = new Progress(recordedMessages().messages);
  return withTree(image, { folder: scratchFolder(test), progress, signal }, ({ root }) => {
    assert.match(textOf(root, "etc/passwd"), /^root:/);
    return sortedNames(root);
  });
}

function fileWith(test: TestContext, name: string, bytes: Uint8Array): string {
  const path = join(scratchFolder(test), name);
  writeFileSync(path, bytes);
  return path;
}

test("an OCI layout is read as a folder, as an archive, and with the compressions there are", async (t) => {
  const zstd = makeImage({ layers: LAYERS, compress: zstdCompressSync });
  const plain = makeImage({ layers: LAYERS, compress: (tar) => tar });
  const paths = [
    writeLayout(scratchFolder(t), [OTHER, IMAGE]),
    writeLayout(scratchFolder(t), [zstd]),
    writeLayout(scratchFolder(t), [plain]),
    fileWith(t, "a.tar", layoutArchive([IMAGE])),
    fileWith(t, "a.tar.gz", gzipSync(layoutArchive([IMAGE]))),
  ];
  for (const path of paths)
    assert.deepEqual(await namesOf(t, await openIn(t, path)), ["etc", "new"]);
});

test("an archive of docker save is read, links in it included", async (t) => {
  const archive = dockerArchive(LAYERS, "team/app:1", { Cmd: ["x"] });
  for (const bytes of [archive, gzipSync(archive)]) {
    const image = await openIn(t, fileWith(t, "s.tar", bytes));
    assert.deepEqual(await namesOf(t, image), ["etc", "new"]);
    assert.deepEqual(image.config.command, ["x"]);
  }
  const path = fileWith(t, "s.tar", archive);
  assert.equal((await openIn(t, path, "team/app:1")).layers.length, 2);
  await assert.rejects(openIn(t, path, "nobody:1"), { code: "image-absent" });
});

test("of several images one must be named", async (t) => {
  const folder = scratchFolder(t);
  writeLayout(folder, [IMAGE]);
  const entry = (image: typeof IMAGE, name: string): object => {
    return { ...image.manifest, annotations: { "org.opencontainers.image.ref.name": name } };
  };
  const second = makeImage({ layers: [[{ name: "etc/passwd", content: "root:" }]] });
  writeLayout(folder, [second]);
  const manifests = [entry(IMAGE, "one"), entry(second, "two")];
  writeFileSync(join(folder, "index.json"), json({ schemaVersion: 2, manifests }));
  await assert.rejects(openIn(t, folder), { code: "image-ambiguous" });
  assert.deepEqual(await namesOf(t, await openIn(t, folder, "two")), ["etc"]);
  await assert.rejects(openIn(t, folder, "three"), { code: "image-absent" });
});

test("what is missing, changed or for another machine is said", async (t) => {
  await assert.rejects(openIn(t, "/no/such/image"), { code: "image-absent" });
  await assert.rejects(openIn(t, scratchFolder(t)), { code: "not-an-image" });
  await assert.rejects(openIn(t, writeLayout(scratchFolder(t), [OTHER])), {
    code: "platform-missing",
  });
  const gone = writeLayout(scratchFolder(t), [IMAGE]);
  rmSync(join(gone, "blobs", IMAGE.layers[0]!.digest.replace(":", "/")));
  await assert.rejects(openIn(t, gone), { code: "image-incomplete" });
  const changed = writeLayout(scratchFolder(t), [IMAGE]);
  const config = join(changed, "blobs", IMAGE.config.digest.replace(":", "/"));
  writeFileSync(
    config,
    IMAGE.blobs.get(IMAGE.config.digest)!.toString("latin1").replace("amd64", "amd65"),
    "latin1",
  );
  await assert.rejects(openIn(t, changed), { code: "digest-mismatch" });
  await assert.rejects(openIn(t, fileWith(t, "x.tar", Buffer.alloc(700, 1))), {
    code: "tar-unsound",
  });
});

test("a layer is checked against its diff_id, whatever its file says of itself", async (t) => {
  const folder = writeLayout(scratchFolder(t), [IMAGE]);
  const { digest, size } = IMAGE.layers[1]!;
  const bytes = Buffer.from(IMAGE.blobs.get(digest)!);
  // The time in the header of gzip is not in the content.
  bytes[4]! ^= 1;
  writeFileSync(join(folder, "blobs", digest.replace(":", "/")), bytes);
  assert.deepEqual(await namesOf(t, await openIn(t, folder)), ["etc", "new"]);
  const other = gzipSync(Buffer.alloc(1024));
  writeFileSync(
    join(folder, "blobs", digest.replace(":", "/")),
    Buffer.concat([other, Buffer.alloc(size - other.length)]),
  );
  await assert.rejects(async () => namesOf(t, await openIn(t, folder)), {
    code: "digest-mismatch",
  });
  writeFileSync(
    join(folder, "blobs", digest.replace(":", "/")),
    Buffer.concat([bytes.subarray(0, size - 20), Buffer.alloc(20)]),
  );
  await assert.rejects(async () => namesOf(t, await openIn(t, folder)), { code: "image-unsound" });
});

test("a layout leads to nothing outside its folder", async (t) => {
  const folder = writeLayout(scratchFolder(t), [IMAGE]);
  const secret = fileWith(t, "secret", IMAGE.blobs.get(IMAGE.layers[0]!.digest)!);
  const blob = join(folder, "blobs", IMAGE.layers[0]!.digest.replace(":", "/"));
  rmSync(blob);
  symlinkSync(secret, blob);
  await assert.rejects(openIn(t, folder), { code: "image-incomplete" });
});
