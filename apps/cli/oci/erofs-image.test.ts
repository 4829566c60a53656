import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, lstatSync, openSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { scratchFolder } from "../testing/scratch.ts";
import { crc32c } from "./crc32c.ts";
import { writeErofs } from "./erofs-image.ts";
import { type Attributes, type Directory, emptyDirectory, type Inode } from "./file-tree.ts";
import { ErofsReader } from "./testing/erofs-reader.ts";

const NOISE = Buffer.from(
  Array.from({ length: 1 << 20 }, (_, i) => (i * 7 + (i >> 8) * 13 + (i >> 15)) & 0xff),
);

interface Stand {
  readonly folder: string;
  readonly content: number;
}

function stand(test: TestContext): Stand {
  const folder = scratchFolder(test);
  writeFileSync(join(folder, "content"), NOISE);
  const content = openSync(join(folder, "content"), "r");
  test.after(() => closeSync(content));
  return { folder, content };
}

function imageOf(root: Directory, { folder }: Stand): Buffer {
  const path = join(folder, "image");
  const descriptor = openSync(path, "w");
  const { bytes } = writeErofs(root, descriptor);
  closeSync(descriptor);
  const image = readFileSync(path);
  assert.equal(image.length, bytes);
  assert.equal(bytes % 4096, 0);
  return image;
}

function fileOf({ content }: Stand, size: number, attributes = ATTRIBUTES): Inode {
  return { kind: "file", attributes, content: { descriptor: content, offset: size % 1000, size } };
}

const ATTRIBUTES: Attributes = { mode: 0o644, uid: 0, gid: 0, mtime: 0 };

function put(directory: Directory, name: string, inode: Inode): void {
  directory.entries.set(name, { inode, layer: 0 });
}

/** The image read back must be the tree, each inode once. */
function assertSame(root: Directory, image: Buffer): void {
  const reader = new ErofsReader(image);
  assert.equal(reader.blocks * 4096, image.length);
  const numbers = new Map<Inode, number>();
  const names = new Map<Inode, number>();
  const walk = (inode: Inode, number: number, parent: number): void => {
    names.set(inode, (names.get(inode) ?? 0) + 1);
    if (numbers.has(inode)) {
      assert.equal(numbers.get(inode), number);
      return;
    }
    numbers.set(inode, number);
    const read = reader.inode(number);
    const { mode, uid, gid, mtime } = inode.attributes;
    assert.deepEqual([read.mode & 0o7777, read.uid, read.gid, read.mtime], [mode, uid, gid, mtime]);
    if (inode.kind === "file") {
      const { offset, size } = inode.content;
      assert.ok(read.data.equals(NOISE.subarray(offset, offset + size)));
    } else if (inode.kind === "symlink") {
      assert.equal(read.data.toString("latin1"), inode.target);
    } else if (inode.kind === "directory") {
      const expected = [...inode.entries.keys(), ".", ".."].sort();
      const entries = reader.entries(read);
      assert.deepEqual(
        entries.map(([name]) => name),
        expected,
      );
      assert.equal(reader.lookUp(read, "."), number);
      assert.equal(reader.lookUp(read, ".."), parent);
      assert.equal(reader.lookUp(read, "no such name"), undefined);
      for (const [name, { inode: child }] of inode.entries) {
        walk(child, reader.lookUp(read, name)!, number);
      }
      const folders = [...inode.entries.values()].filter(
        (entry) => entry.inode.kind === "directory",
      );
      assert.equal(read.links, 2 + folders.length);
    }
  };
  walk(root, reader.rootNumber, reader.rootNumber);
  assert.equal(reader.inodes, numbers.size);
  for (const [inode, count] of names) {
    if (inode.kind !== "directory") assert.equal(reader.inode(numbers.get(inode)!).links, count);
  }
}

function sampleTree(s: Stand): Directory {
  const root = emptyDirectory();
  const wide = emptyDirectory({ mode: 0o1777, uid: 70_000, gid: 80_000, mtime: 1_700_000_000 });
  for (let i = 0; i < 700; i++) put(wide, `name-${i}-${"x".repeat(i % 40)}`, fileOf(s, i * 3));
  put(root, "wide", wide);
  for (const size of [0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 100_000])
    put(root, `f${size}`, fileOf(s, size));
  put(root, "again", root.entries.get("f4097")!.inode);
  put(root, "link", {
    kind: "symlink",
    attributes: { ...ATTRIBUTES, mode: 0o777 },
    target: "wide/../f1",
  });
  put(root, "long", {
    kind: "symlink",
    attributes: { ...ATTRIBUTES, mode: 0o777 },
    target: "y".repeat(4000),
  });
  put(root, "null", { kind: "character", attributes: ATTRIBUTES, device: [1, 3] });
  put(root, "sda", { kind: "block", attributes: ATTRIBUTES, device: [259, 70_000] });
  put(root, "pipe", { kind: "fifo", attributes: ATTRIBUTES, device: [0, 0] });
  put(root, "\xc3\xa9\xff", fileOf(s, 5));
  put(root, "!first", emptyDirectory());
  return root;
}

test("crc32c is the kernel's", () => {
  // RFC 3720, B.4, without the inversion at the end.
  assert.equal(~crc32c(Buffer.alloc(32)) >>> 0, 0x8a9136aa);
  assert.equal(~crc32c(Buffer.from("123456789")) >>> 0, 0xe3069283);
});

test("an image read back is the tree: sizes around blocks and tails, links, devices, wide directories", (t) => {
  const s = stand(t);
  const root = sampleTree(s);
  const image = imageOf(root, s);
  assertSame(root, image);
  const reader = new ErofsReader(image);
  const number = (name: string): number => reader.lookUp(reader.inode(reader.rootNumber), name)!;
  // new_encode_dev: 20 bits of minor around 12 of major.
  assert.equal(reader.inode(number("null")).raw, 0x103);
  assert.equal(
    reader.inode(number("sda")).raw,
    (70_000 & 0xff) | (259 << 8) | ((70_000 & ~0xff) << 12),
  );
  assert.ok(imageOf(sampleTree(s), s).equals(image), "the same tree gives the same bytes");
});

test("any tree is read back as it was", (t) => {
  const s = stand(t);
  const name = fc
    .string({
      minLength: 1,
      maxLength: 30,
      unit: fc.integer({ min: 1, max: 255 }).map((c) => String.fromCharCode(c)),
    })
    .filter((text) => !text.includes("/") && text !== "." && text !== "..");
  const size = fc.oneof(fc.nat(9000), fc.constantFrom(0, 4096, 8192, 2048));
  const { tree } = fc.letrec((tie) => ({
    tree: fc.dictionary(name, fc.oneof({ depthSize: "small" }, size, tie("tree")), { maxKeys: 12 }),
  }));
  const build = (value: unknown): Inode => {
    if (typeof value === "number") return fileOf(s, value);
    const directory = emptyDirectory();
    for (const [key, child] of Object.entries(value as object)) put(directory, key, build(child));
    return directory;
  };
  fc.assert(
    fc.property(tree, (value) => {
      const root = build(value) as Directory;
      assertSame(root, imageOf(root, s));
    }),
    { numRuns: 150 },
  );
});

test("fsck.erofs finds it sound and takes the same files out of it", (t) => {
  if (spawnSync("fsck.erofs", ["-V"]).error) {
    t.skip("fsck.erofs is not installed (erofs-utils)");
    return;
  }
  const s = stand(t);
  imageOf(sampleTree(s), s);
  const out = join(s.folder, "out");
  execFileSync("fsck.erofs", [`--extract=${out}`, "--no-preserve", join(s.folder, "image")]);
  const { content } = sampleTree(s).entries.get("f6145")!.inode as {
    content: { offset: number; size: number };
  };
  assert.ok(
    readFileSync(join(out, "f6145")).equals(NOISE.subarray(content.offset, content.offset + 6145)),
  );
  assert.equal(readlinkSync(join(out, "long")).length, 4000);
  assert.equal(lstatSync(join(out, "wide", `name-699-${"x".repeat(19)}`)).size, 2097);
});
