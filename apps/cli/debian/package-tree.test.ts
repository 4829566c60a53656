import assert from "node:assert/strict";
import { closeSync, openSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type Inode, lookUp } from "../oci/file-tree.ts";
import { applyLayer } from "../oci/layer.ts";
import { textOf } from "../oci/root-tree.ts";
import { makeTar, type TarItem } from "../oci/testing/tar-maker.ts";
import { makeAr } from "../testing/fake-packages.ts";
import { scratchFolder } from "../testing/scratch.ts";
import { asLayer } from "./changes-layer.ts";
import { PackageTree } from "./package-tree.ts";

const { signal } = new AbortController();

function deb(control: string, members: Readonly<Record<string, string>>, data: TarItem[]): Buffer {
  const files = Object.entries({ control, ...members }).map(
    ([name, content]): TarItem => ({ name: `./${name}`, content }),
  );
  return makeAr([
    ["debian-binary", Buffer.from("2.0\n")],
    ["control.tar.gz", gzipSync(makeTar(files))],
    ["data.tar.gz", gzipSync(makeTar(data))],
  ]);
}

const folder = (name: string): TarItem => ({ name, flag: "5", mode: 0o755 });

async function makeTree(t: TestContext): Promise<PackageTree> {
  const tree = new PackageTree(scratchFolder(t), "amd64", 1000);
  t.after(() => tree.close());
  const tool = deb(
    "Package: tool\nVersion: 1\nArchitecture: amd64\nDescription: a tool\n of ours\n",
    {
      preinst: "#!/bin/sh\n",
      conffiles: "/etc/tool.conf\n",
      triggers: "interest-noawait ldconfig\ninterest /usr/share/x\nactivate y\n",
    },
    [
      folder("./"),
      folder("./bin/"),
      { name: "./bin/tool", content: "run", mode: 0o4755 },
      folder("./etc/"),
      { name: "./etc/tool.conf", content: "abc" },
    ],
  );
  const library = deb(
    "Package: lib\nVersion: 2\nArchitecture: amd64\nMulti-Arch: same\n",
    { postinst: "#!/bin/sh\n" },
    [folder("./"), folder("./lib64/"), { name: "./lib64/ld.so", flag: "2", target: "../x" }],
  );
  await tree.add("tool", tool, signal);
  await tree.add("lib", library, signal);
  return tree;
}

const at = (tree: PackageTree, path: string): Inode => {
  const found = lookUp(tree.root, path.split("/"));
  assert.ok(typeof found !== "string", `${path}: ${found}`);
  return found;
};

test("packages are unpacked through the links of a merged /usr, which stay links", async (t) => {
  const tree = await makeTree(t);
  assert.deepEqual(tree.finish(), { preinst: ["tool"], count: 2 });
  assert.equal(tree.root.entries.get("bin")?.inode.kind, "symlink");
  assert.equal(at(tree, "usr/bin/tool").attributes.mode, 0o4755);
  assert.ok((at(tree, "usr/lib64") as { entries?: Map<string, unknown> }).entries?.has("ld.so"));
});

test("dpkg's database says of each package what it is, that it is unpacked, and what its files are", async (t) => {
  const tree = await makeTree(t);
  tree.finish();
  const text = (path: string): string => textOf(tree.root, `var/lib/dpkg/${path}`);
  const md5 = "900150983cd24fb0d6963f7d28e17f72";
  assert.equal(
    text("status"),
    "Package: lib\nStatus: install ok unpacked\nVersion: 2\nArchitecture: amd64\nMulti-Arch: same\n\n" +
      "Package: tool\nStatus: install ok unpacked\nVersion: 1\nArchitecture: amd64\nDescription: a tool\n of ours\n" +
      `Conffiles:\n /etc/tool.conf ${md5}\n`,
  );
  assert.equal(text("info/tool.list"), "/.\n/bin\n/bin/tool\n/etc\n/etc/tool.conf\n");
  assert.equal(text("info/lib:amd64.list"), "/.\n/lib64\n/lib64/ld.so\n");
  assert.equal(at(tree, "var/lib/dpkg/info/lib:amd64.postinst").attributes.mode, 0o755);
  assert.equal(at(tree, "var/lib/dpkg/info/tool.conffiles").attributes.mode, 0o644);
  assert.equal(text("triggers/ldconfig"), "tool/noawait\n");
  assert.equal(text("triggers/File"), "/usr/share/x tool\n");
});

test("a file that holds another package than it should is refused", async (t) => {
  const tree = await makeTree(t);
  const other = deb("Package: other\nVersion: 1\n", {}, []);
  await assert.rejects(
    tree.add("wanted", other, signal),
    /package wanted .* another package inside/,
  );
});

test("what an overlay holds changes the tree: files anew, and whiteouts for what was deleted", async (t) => {
  const tree = await makeTree(t);
  tree.finish();
  const upper = makeTar([
    folder("./"),
    folder("./etc/"),
    { name: "./etc/tool.conf", flag: "3", device: [0, 0] },
    { name: "./etc/new", content: "made", mode: 0o640 },
    { name: "./etc/again", flag: "1", target: "./etc/new" },
    { name: "./null", flag: "3", device: [1, 3] },
  ]);
  const path = join(scratchFolder(t), "changes");
  writeFileSync(path, upper);
  const descriptor = openSync(path, "r");
  const layer = asLayer({ descriptor, offset: 0, size: upper.length }, `${path}.layer`);
  applyLayer(tree.root, 1, layer);
  assert.equal(lookUp(tree.root, ["etc", "tool.conf"]), "absent");
  assert.equal(textOf(tree.root, "etc/new"), "made");
  assert.equal(at(tree, "etc/again"), at(tree, "etc/new"));
  assert.equal(at(tree, "null").kind, "character");
  assert.equal(at(tree, "usr/bin/tool").kind, "file");
  const first = Buffer.alloc(1);
  assert.equal(readSync(layer.descriptor, first, 0, 1, 0), 1);
  for (const open of [descriptor, layer.descriptor]) closeSync(open);
});
