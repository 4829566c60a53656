/** FUSE requests as Linux makes them, on a folder of this computer. */
import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { NodeFolder } from "../../machine/embedder-node-folder.ts";
import { Errno } from "../errno.ts";
import { decodeName } from "../host-name.ts";
import { entryOf, FuseClient, setAttributes } from "../testing/fuse-client.ts";
import { FuseSession } from "./fuse-session.ts";
import { FOPEN_KEEP_CACHE, FuseOp, SetAttr } from "./fuse-wire.ts";

const ROOT = 1;
const isRoot = process.getuid?.() === 0;
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

interface Bench {
  readonly folder: string;
  readonly outside: string;
  readonly session: FuseSession;
  readonly client: FuseClient;
}

function bench(test: TestContext, readOnly = false): Bench {
  const base = mkdtempSync(join(tmpdir(), "hypolith-share-"));
  test.after(() => rmSync(base, { recursive: true, force: true }));
  const folder = join(base, "shared");
  const outside = join(base, "outside");
  mkdirSync(folder);
  mkdirSync(outside);
  writeFileSync(join(outside, "secret"), "not yours");
  const owner = { uid: 0, gid: 0 };
  const session = new FuseSession(new NodeFolder(folder), {
    ...{ readOnly, owner },
    now: () => Date.now(),
  });
  return { folder, outside, session, client: new FuseClient(session) };
}

test("a file is made, written, read, looked at, cut and removed", (t) => {
  const { folder, client, session } = bench(t);
  const { node, open } = client.create(ROOT, "a", 0o640);
  assert.equal(client.write(open, utf8("hello world")), 11);
  assert.equal(Buffer.from(client.read(open, 6, 100)).toString(), "world");
  const { size, mode, nlink } = client.attributes(node);
  assert.deepEqual([size, mode, nlink], [11, 0o100640, 1]);
  client.good(FuseOp.SETATTR, node, setAttributes(SetAttr.SIZE, { size: 5 }));
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "hello");
  client.good(FuseOp.FSYNC, node, [BigInt(open), 1, 0]);
  client.release(open);
  client.good(FuseOp.UNLINK, ROOT, ["a"]);
  assert.equal(existsSync(join(folder, "a")), false);
  client.session.handle(client.request(FuseOp.FORGET, node, [1n]), 0);
  assert.deepEqual(session.counts, { nodes: 1, files: 0, directories: 0, lists: 0 });
});

test("permissions are those asked for, whatever the umask; times and types come back", (t) => {
  const { folder, client } = bench(t);
  client.good(FuseOp.MKDIR, ROOT, [0o777, 0, "d"]);
  client.release(client.create(ROOT, "s", 0o4777).open);
  assert.equal(statSync(join(folder, "d")).mode & 0o7777, 0o777);
  assert.equal(statSync(join(folder, "s")).mode & 0o7777, 0o4777);
  const { node } = client.lookup(ROOT, "s");
  const changes = setAttributes(SetAttr.MTIME | SetAttr.MODE, { mode: 0o600, mtime: 1_000_000n });
  const { view } = client.good(FuseOp.SETATTR, node, changes);
  assert.equal(view.getUint32(16 + 60, true), 0o100600);
  assert.equal(statSync(join(folder, "s")).mtimeMs, 1e9);
  client.good(FuseOp.SYMLINK, ROOT, ["l", "anywhere/at all"]);
  assert.equal(readlinkSync(join(folder, "l")), "anywhere/at all");
  const link = client.lookup(ROOT, "l");
  assert.equal(link.mode & 0o170000, 0o120000);
  assert.equal(
    Buffer.from(client.good(FuseOp.READLINK, link.node).body).toString(),
    "anywhere/at all",
  );
});

test("what is not there is said for a while; a name that is none is refused", (t) => {
  const { client } = bench(t);
  const { view } = client.good(FuseOp.LOOKUP, ROOT, ["absent"]);
  assert.equal(entryOf(view).node, 0);
  assert.ok(view.getUint32(32, true) > 0, "for a part of a second");
  for (const name of ["..", ".", "", "a/b", "../outside", "/etc/passwd", "x".repeat(256)])
    assert.notEqual(client.call(FuseOp.LOOKUP, ROOT, [name]).errno, 0, name);
  for (const [opcode, words] of [
    [FuseOp.MKDIR, [0o755, 0]],
    [FuseOp.UNLINK, []],
    [FuseOp.RMDIR, []],
    [FuseOp.CREATE, [0o102, 0o644, 0, 0]],
  ] as const)
    assert.equal(client.call(opcode, ROOT, [...words, "../outside/x"]).errno, Errno.EINVAL);
  const rename = client.call(FuseOp.RENAME2, ROOT, [1n, 0, 0, "../outside/secret", "mine"]);
  assert.equal(rename.errno, Errno.EINVAL);
});

test("no link leads outside, however it comes to its place", (t) => {
  const { folder, outside, client } = bench(t);
  mkdirSync(join(folder, "d"));
  writeFileSync(join(folder, "d", "f"), "inside");
  const directory = client.lookup(ROOT, "d").node;
  const file = client.lookup(directory, "f").node;
  // A link to a file: it is a link for the guest, and no file to open.
  symlinkSync(join(outside, "secret"), join(folder, "l"));
  const link = client.lookup(ROOT, "l").node;
  assert.notEqual(client.call(FuseOp.OPEN, link, [0, 0]).errno, 0);
  assert.equal(client.call(FuseOp.SETATTR, link, setAttributes(SetAttr.SIZE)).errno > 0, true);
  client.call(FuseOp.SETATTR, link, setAttributes(SetAttr.MTIME, { mtime: 5n }));
  assert.notEqual(lstatSync(join(outside, "secret")).mtimeMs, 5000);
  assert.notEqual(client.call(FuseOp.LOOKUP, link, ["x"]).errno, 0);
  // A file that becomes a link while the guest knows it.
  rmSync(join(folder, "d", "f"));
  symlinkSync(join(outside, "secret"), join(folder, "d", "f"));
  assert.equal(client.call(FuseOp.OPEN, file, [0, 0]).errno, Errno.ESTALE);
  assert.equal(
    client.call(FuseOp.SETATTR, file, setAttributes(SetAttr.MODE, { mode: 0o777 })).errno,
    Errno.ESTALE,
  );
  // A directory that becomes a link: what is open stays the directory; what is not is stale.
  renameSync(join(folder, "d"), join(folder, "e"));
  symlinkSync(outside, join(folder, "d"));
  assert.equal(entryOf(client.good(FuseOp.LOOKUP, directory, ["secret"]).view).node, 0);
  const fresh = new FuseClient(client.session);
  const other = fresh.lookup(ROOT, "d");
  assert.equal(other.mode & 0o170000, 0o120000);
  assert.notEqual(fresh.call(FuseOp.LOOKUP, other.node, ["secret"]).errno, 0);
  assert.equal(readFileSync(join(outside, "secret"), "utf8"), "not yours");
});

test("a file without a name is reached by who has it open", (t) => {
  const { client } = bench(t);
  const { node, open } = client.create(ROOT, "a");
  client.write(open, utf8("still here"));
  client.good(FuseOp.UNLINK, ROOT, ["a"]);
  assert.equal(client.attributes(node).size, 10);
  client.good(FuseOp.SETATTR, node, setAttributes(SetAttr.SIZE, { size: 5 }));
  client.good(FuseOp.SETATTR, node, setAttributes(SetAttr.MODE, { mode: 0o600 }));
  assert.equal(Buffer.from(client.read(open, 0, 100)).toString(), "still");
  client.release(open);
  assert.equal(client.call(FuseOp.GETATTR, node, [0, 0, 0n]).errno, Errno.ESTALE);
});

test("a file with several names is one node, and lives by any of them", (t) => {
  const { client } = bench(t);
  const { node, open } = client.create(ROOT, "a");
  client.release(open);
  assert.equal(entryOf(client.good(FuseOp.LINK, ROOT, [BigInt(node), "b"]).view).node, node);
  assert.equal(client.attributes(node).nlink, 2);
  client.good(FuseOp.UNLINK, ROOT, ["b"]);
  assert.equal(client.attributes(node).nlink, 1);
  assert.equal(client.lookup(ROOT, "a").node, node);
});

test("renames move what is known; flags are those that can be kept", (t) => {
  const { folder, client } = bench(t);
  client.good(FuseOp.MKDIR, ROOT, [0o755, 0, "d"]);
  const directory = client.lookup(ROOT, "d").node;
  const { node, open } = client.create(directory, "a");
  client.write(open, utf8("x"));
  client.release(open);
  client.good(FuseOp.RENAME2, ROOT, [1n, 0, 0, "d", "e"]);
  client.good(FuseOp.RENAME, directory, [BigInt(ROOT), "a", "b"]);
  assert.equal(client.attributes(node).size, 1);
  assert.equal(client.open(node).open > 0, true);
  writeFileSync(join(folder, "c"), "c");
  const [NOREPLACE, EXCHANGE] = [1, 2];
  const rename = (flags: number, from: string, to: string): number =>
    client.call(FuseOp.RENAME2, ROOT, [1n, flags, 0, from, to]).errno;
  assert.equal(rename(NOREPLACE, "b", "c"), Errno.EEXIST);
  assert.equal(rename(NOREPLACE, "e", "c"), Errno.EEXIST);
  assert.equal(rename(EXCHANGE, "b", "c"), Errno.EINVAL);
  assert.equal(rename(NOREPLACE, "b", "new"), 0);
  assert.equal(readFileSync(join(folder, "new"), "utf8"), "x");
  assert.equal(client.attributes(node).size, 1);
});

test("another file under a name is another node; the one before is stale", (t) => {
  const { folder, client } = bench(t);
  writeFileSync(join(folder, "a"), "one");
  const before = client.lookup(ROOT, "a");
  writeFileSync(join(folder, "b"), "other");
  renameSync(join(folder, "b"), join(folder, "a"));
  assert.equal(client.call(FuseOp.OPEN, before.node, [0, 0]).errno, Errno.ESTALE);
  assert.equal(client.call(FuseOp.GETATTR, before.node, [0, 0, 0n]).errno, Errno.ESTALE);
  const after = client.lookup(ROOT, "a");
  assert.notEqual(after.node, before.node);
  assert.equal(after.size, 5);
});

test("what the guest has cached is good while the file is as it was at the last open", (t) => {
  const { folder, client } = bench(t);
  writeFileSync(join(folder, "a"), "one");
  utimesSync(join(folder, "a"), 1000, 1000);
  const { node } = client.lookup(ROOT, "a");
  assert.deepEqual(
    [0, 0].map(() => client.open(node).flags),
    [0, FOPEN_KEEP_CACHE],
  );
  writeFileSync(join(folder, "a"), "two");
  utimesSync(join(folder, "a"), 1001, 1001);
  assert.equal(client.open(node).flags, 0);
});

test("a large directory is listed whole, in pages, with what was looked up", (t) => {
  const { folder, client, session } = bench(t);
  const names = Array.from({ length: 3000 }, (_, i) => `file with a name ${i}`);
  for (const name of names) writeFileSync(join(folder, name), "");
  for (const isPlus of [true, false]) {
    const listed = client.list(ROOT, 4096, isPlus);
    const [dot, dots, ...rest] = listed.map(({ name }) => name);
    assert.deepEqual([dot, dots], [".", ".."]);
    assert.deepEqual(rest.toSorted(), names.toSorted());
  }
  assert.equal(session.counts.nodes, 3001);
  for (const { node } of client.list(ROOT).slice(2))
    session.handle(client.request(FuseOp.FORGET, node, [2n]), 0);
  assert.equal(session.counts.nodes, 1, "all given back");
});

test("more directories than are kept open", (t) => {
  const { folder, client, session } = bench(t);
  const nodes: number[] = [];
  for (let i = 0; i < 700; i++) {
    mkdirSync(join(folder, `${i}`, "in"), { recursive: true });
    writeFileSync(join(folder, `${i}`, "in", "f"), `${i}`);
    const outer = client.lookup(ROOT, `${i}`).node;
    nodes.push(client.lookup(client.lookup(outer, "in").node, "f").node);
  }
  assert.ok(session.counts.directories <= 513);
  for (const [i, node] of nodes.entries())
    assert.equal(Buffer.from(client.read(client.open(node).open, 0, 9)).toString(), `${i}`);
});

test("names of any bytes", (t) => {
  const { client } = bench(t);
  const name = decodeName(Uint8Array.of(0x66, 0xff, 0xc3, 0x28));
  client.release(client.create(ROOT, name).open);
  client.release(client.create(ROOT, "grüße 🎉").open);
  assert.ok(client.lookup(ROOT, name).node > 1);
  assert.ok(client.lookup(ROOT, "grüße 🎉").node > 1);
  assert.equal(client.list(ROOT).length, 4);
  client.good(FuseOp.UNLINK, ROOT, [name]);
});

test("nothing is changed in a folder that is to be read", (t) => {
  const { folder, client } = bench(t, true);
  writeFileSync(join(folder, "a"), "one");
  const { node } = client.lookup(ROOT, "a");
  assert.equal(Buffer.from(client.read(client.open(node).open, 0, 9)).toString(), "one");
  const refused: [number, number, (string | number | bigint)[]][] = [
    [FuseOp.OPEN, node, [2, 0]],
    [FuseOp.OPEN, node, [0o1000, 0]],
    [FuseOp.CREATE, ROOT, [0o102, 0o644, 0, 0, "b"]],
    [FuseOp.MKDIR, ROOT, [0o755, 0, "b"]],
    [FuseOp.MKNOD, ROOT, [0o100644, 0, 0, 0, "b"]],
    [FuseOp.SYMLINK, ROOT, ["b", "c"]],
    [FuseOp.LINK, ROOT, [BigInt(node), "b"]],
    [FuseOp.UNLINK, ROOT, ["a"]],
    [FuseOp.RMDIR, ROOT, ["a"]],
    [FuseOp.RENAME2, ROOT, [1n, 0, 0, "a", "b"]],
    [FuseOp.WRITE, node, [1n, 0n, 0, 0, 0n, 0, 0]],
  ];
  for (const [opcode, at, words] of refused)
    assert.equal(client.call(opcode, at, words).errno, Errno.EROFS, `opcode ${opcode}`);
  const change = setAttributes(SetAttr.MODE, { mode: 0 });
  assert.equal(client.call(FuseOp.SETATTR, node, change).errno, Errno.EROFS);
});

test("device nodes, attributes and holes are refused by their numbers", (t) => {
  const { client } = bench(t);
  assert.equal(client.call(FuseOp.MKNOD, ROOT, [0o010644, 0, 0, 0, "p"]).errno, Errno.EPERM);
  assert.equal(client.call(FuseOp.GETXATTR, ROOT, [0, 0, "user.a"]).errno, Errno.ENOSYS);
  assert.equal(client.call(43, ROOT, [0n, 0n, 0n, 0, 0]).errno, Errno.ENOSYS);
});

test("a copy inside the folder stays outside the guest", (t) => {
  const { folder, client } = bench(t);
  const content = Uint8Array.from({ length: 1_000_000 }, (_, i) => i * 7);
  writeFileSync(join(folder, "a"), content);
  const from = client.open(client.lookup(ROOT, "a").node).open;
  const { node, open } = client.create(ROOT, "b");
  const words = [from, 0, node, open, 100, 2_000_000, 0].map(BigInt);
  const { view } = client.good(FuseOp.COPY_FILE_RANGE, ROOT, words);
  assert.equal(view.getUint32(0, true), content.length);
  assert.deepEqual(new Uint8Array(readFileSync(join(folder, "b")).subarray(100)), content);
});

test("as root, files belong to who made them", { skip: !isRoot }, (t) => {
  const { folder, client } = bench(t);
  chmodSync(folder, 0o777);
  client.uid = 1234;
  client.gid = 99;
  client.release(client.create(ROOT, "a").open);
  client.good(FuseOp.MKDIR, ROOT, [0o2755, 0, "d"]);
  client.good(FuseOp.SYMLINK, ROOT, ["l", "t"]);
  for (const name of ["a", "d", "l"]) {
    const { uid, gid } = lstatSync(join(folder, name));
    assert.deepEqual([uid, gid], [1234, 99], name);
  }
  assert.equal(statSync(join(folder, "d")).mode & 0o7777, 0o2755);
});

test("a new session gives everything back", (t) => {
  const { folder, client, session } = bench(t);
  writeFileSync(join(folder, "a"), "");
  client.open(client.lookup(ROOT, "a").node);
  client.create(ROOT, "b");
  new FuseClient(session);
  assert.deepEqual(session.counts, { nodes: 1, files: 0, directories: 0, lists: 0 });
});

test("a guest goes on from a snapshot with what it knew and had open", (t) => {
  const { folder, client, session } = bench(t);
  mkdirSync(join(folder, "d"));
  writeFileSync(join(folder, "d", "gone"), "gone");
  const directory = client.lookup(ROOT, "d").node;
  const gone = client.lookup(directory, "gone").node;
  const lost = client.open(gone).open;
  const { node, open } = client.create(directory, "a");
  client.write(open, utf8("before"));
  const list = client.good(FuseOp.OPENDIR, directory, [0, 0]).view.getBigUint64(0, true);
  client.good(FuseOp.READDIRPLUS, directory, [list, 0n, 4096, 0, 0n, 0, 0]);
  const saved = session.save();
  rmSync(join(folder, "d", "gone"));
  const other = new FuseSession(new NodeFolder(folder), {
    ...{ readOnly: false, owner: { uid: 0, gid: 0 } },
    now: () => Date.now(),
  });
  other.restore(structuredClone(saved));
  client.session = other;
  assert.deepEqual(other.counts, { ...session.counts, files: 1, directories: 1 });
  assert.equal(client.write(open, utf8(" and after"), 6), 10);
  assert.equal(client.attributes(node).size, 16);
  const closed = client.call(FuseOp.READ, gone, [BigInt(lost), 0n, 10, 0, 0n, 0, 0]);
  assert.equal(closed.errno, Errno.EBADF);
  assert.equal(client.call(FuseOp.GETATTR, gone, [0, 0, 0n]).errno, Errno.ESTALE);
  assert.equal(readFileSync(join(folder, "d", "a"), "utf8"), "before and after");
  for (const bad of [null, {}, { tree: saved, nextDirectory: 1, directories: [] }])
    assert.throws(() => other.restore(bad), { code: "snapshot-shape" });
});

test("whatever a request holds, it has one answer, and nothing outside is touched", (t) => {
  const { outside, folder, client, session } = bench(t);
  mkdirSync(join(folder, "d"));
  symlinkSync(outside, join(folder, "l"));
  for (const name of ["d", "l"]) client.lookup(ROOT, name);
  const name = fc.constantFrom("d", "l", "a", "..", ".", "l/secret", "secret", "../outside", "");
  const word = fc.oneof(
    name,
    fc.constantFrom(0, 1, 2, 3, 0o102, 0xffff_ffff),
    fc.constantFrom(0n, 1n, 2n, 3n, (1n << 63n) - 1n, (1n << 64n) - 1n),
    fc.uint8Array({ maxLength: 64 }),
  );
  fc.assert(
    fc.property(
      fc.nat(60),
      fc.nat(4),
      fc.array(word, { maxLength: 14 }),
      fc.constantFrom(0, 16, 200, 70_000),
      (opcode, node, words, room) => {
        const reply = session.handle(client.request(opcode, node, words), room);
        assert.ok(reply.length <= room);
      },
    ),
    { numRuns: 3000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => {
      assert.ok(session.handle(bytes, 100).length <= 100);
    }),
  );
  assert.equal(readFileSync(join(outside, "secret"), "utf8"), "not yours");
  assert.equal(existsSync(join(outside, "a")), false);
});
