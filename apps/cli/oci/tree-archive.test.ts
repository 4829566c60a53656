import assert from "node:assert/strict";
import { closeSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { scratchFolder } from "../testing/scratch.ts";
import { emptyDirectory, type Inode } from "./file-tree.ts";
import { treeArchive } from "./tree-archive.ts";

interface Read {
  readonly fields: readonly number[];
  readonly data: string;
}

/** Entries by name, as the kernel's initramfs code reads them. */
function readCpio(archive: Uint8Array): Map<string, Read> {
  const bytes = Buffer.from(archive);
  const all = new Map<string, Read>();
  for (let at = 0; at < bytes.length; ) {
    assert.equal(bytes.toString("latin1", at, at + 6), "070701");
    const fields = Array.from({ length: 13 }, (_, field) => {
      return Number.parseInt(bytes.toString("latin1", at + 6 + field * 8, at + 14 + field * 8), 16);
    });
    const [size, nameSize] = [fields[6]!, fields[11]!];
    const name = bytes.toString("latin1", at + 110, at + 110 + nameSize - 1);
    const start = (at + 110 + nameSize + 3) & ~3;
    all.set(name, { fields, data: bytes.toString("latin1", start, start + size) });
    at = (start + size + 3) & ~3;
  }
  return all;
}

test("a tree becomes an archive with its owners, times, links and devices, or is too large", (t) => {
  const path = join(scratchFolder(t), "content");
  writeFileSync(path, "..content");
  const descriptor = openSync(path, "r");
  t.after(() => closeSync(descriptor));
  const attributes = { mode: 0o4750, uid: 70_000, gid: 8, mtime: 1_700_000_000 };
  const content = { descriptor, offset: 2, size: 7 };
  const file: Inode = { kind: "file", attributes, content };
  const root = emptyDirectory();
  const put = (name: string, inode: Inode): void => {
    root.entries.set(name, { inode, layer: 0 });
  };
  put("b", file);
  put("a\xff", file);
  put("link", { kind: "symlink", attributes, target: "b" });
  put("null", { kind: "character", attributes, device: [1, 3] });
  const archive = treeArchive(root, "hypo/root", 10_000);
  const read = readCpio(archive);
  assert.deepEqual(
    [...read.keys()],
    ["hypo/root", ...["a\xff", "b", "link", "null"].map((name) => `hypo/root/${name}`)],
  );
  const [first, second] = [read.get("hypo/root/a\xff")!, read.get("hypo/root/b")!];
  const [inode, mode, uid, gid, links, mtime] = first.fields;
  assert.deepEqual([mode, uid, gid, links, mtime], [0o104750, 70_000, 8, 2, 1_700_000_000]);
  // The content comes with the first name only.
  assert.deepEqual([first.data, second.data, second.fields[0]], ["content", "", inode]);
  assert.equal(read.get("hypo/root/link")!.data, "b");
  assert.deepEqual(read.get("hypo/root/null")!.fields.slice(9, 11), [1, 3]);
  assert.equal(treeArchive(root, "hypo/root", archive.length).length, archive.length);
  assert.throws(() => treeArchive(root, "hypo/root", archive.length - 1), {
    code: "image-too-large",
  });
});
