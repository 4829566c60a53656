import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { scratchFolder } from "../testing/scratch.ts";
import { emptyDirectory, walkTree } from "./file-tree.ts";
import { applyLayer } from "./layer.ts";
import { textOf } from "./root-tree.ts";
import { makeTar, pax } from "./testing/tar-maker.ts";
import { writeTree } from "./tree-tar.ts";

const LONG = `${"d".repeat(90)}/${"f".repeat(120)}`;

test("a tree as an archive is the same tree again, whatever its names and numbers", (t) => {
  const folder = scratchFolder(t);
  const source = makeTar([
    { name: "a/", flag: "5", mode: 0o1777, uid: 5, gid: 6, mtime: 77 },
    { name: "a/file", content: "x".repeat(700), mode: 0o4711, mtime: 1_600_000_000 },
    { name: "a/again", flag: "1", target: "a/file" },
    { name: "a/link", flag: "2", target: "../caf\u00e9" },
    pax({ path: LONG, uid: "70000000", gid: "3000000" }),
    { name: "x", content: "long" },
    pax({ linkpath: `/${LONG}` }),
    { name: "b", flag: "2" },
    { name: "null", flag: "3", device: [1, 3] },
    { name: "disk", flag: "4", device: [8, 300] },
    { name: "pipe", flag: "6" },
  ]);
  const load = (name: string, bytes: Uint8Array) => {
    writeFileSync(join(folder, name), bytes);
    const descriptor = openSync(join(folder, name), "r");
    t.after(() => closeSync(descriptor));
    const root = emptyDirectory();
    applyLayer(root, 0, { descriptor, offset: 0, size: bytes.length });
    return root;
  };
  const list = (root: ReturnType<typeof load>): unknown[] => {
    const found: unknown[] = [];
    walkTree(root, (inode, path) => {
      const content = inode.kind === "file" ? textOf(root, path) : "";
      const { target, device } = inode as { target?: string; device?: readonly number[] };
      found.push([path, inode.kind, inode.attributes, target, device, content]);
    });
    return found;
  };
  const first = load("first", source);
  const parts: Uint8Array[] = [];
  const size = writeTree(first, (bytes) => parts.push(Buffer.from(bytes)));
  const bytes = Buffer.concat(parts);
  assert.equal(bytes.length, size);
  const second = load("second", bytes);
  assert.deepEqual(list(second), list(first));
  assert.equal(
    second.entries.get("a")?.inode.kind === "directory" && textOf(second, "a/again"),
    "x".repeat(700),
  );
  const { status, stdout } = spawnSync("tar", ["-tf", join(folder, "second")], {
    encoding: "utf8",
  });
  if (status !== null) assert.ok(stdout.includes(`${LONG}\n`), stdout);
});
