/** 9P requests as Linux makes them, on a folder of this computer. */
import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { NodeFolder } from "../../machine/embedder-node-folder.ts";
import { Errno } from "../errno.ts";
import { NinepSession } from "./ninep-session.ts";
import { AT_REMOVEDIR, NinepSetAttr, NinepType as T } from "./ninep-wire.ts";

/** Numbers as [value, bytes], strings with their length, bytes as they are. */
type Word = readonly [value: number | bigint, bytes: 1 | 2 | 4 | 8] | string | Uint8Array;

const u32 = (value: number): Word => [value, 4];
const u64 = (value: number | bigint): Word => [value, 8];

function encode(words: readonly Word[]): number[] {
  return words.flatMap((word) => {
    if (word instanceof Uint8Array) return [...word];
    if (typeof word === "string") {
      const bytes = new TextEncoder().encode(word);
      return [bytes.length & 255, bytes.length >> 8, ...bytes];
    }
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(word[0])), true);
    return [...bytes.subarray(0, word[1])];
  });
}

function bench(t: TestContext, readOnly = false) {
  const base = mkdtempSync(join(tmpdir(), "hypolith-9p-"));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const folder = join(base, "shared");
  mkdirSync(folder);
  mkdirSync(join(base, "outside"));
  writeFileSync(join(base, "outside", "secret"), "not yours");
  const open = () =>
    new NinepSession(new NodeFolder(folder), {
      ...{ readOnly, owner: { uid: 0, gid: 0 } },
      now: () => Date.now(),
    });
  const client = new Client(open());
  client.good(T.VERSION, [u32(65536), "9P2000.L"]);
  client.good(T.ATTACH, [u32(0), u32(0xffff_ffff), "", "", u32(0)]);
  return { base, folder, client, open };
}

class Client {
  session: NinepSession;
  #tag = 0;

  constructor(session: NinepSession) {
    this.session = session;
  }

  message(type: number, words: readonly Word[]): Uint8Array {
    const body = encode(words);
    this.#tag = (this.#tag + 1) & 0xffff;
    return Uint8Array.from([...encode([u32(body.length + 7), [type, 1], [this.#tag, 2]]), ...body]);
  }

  /** An errno, 0 for none, and the body. */
  call(type: number, words: readonly Word[], room = 65536): { errno: number; view: DataView } {
    const reply = this.session.handle(this.message(type, words), room).slice();
    const view = new DataView(reply.buffer);
    assert.equal(view.getUint32(0, true), reply.length);
    assert.equal(view.getUint16(5, true), this.#tag);
    const kind = view.getUint8(4);
    assert.ok(kind === T.LERROR || kind === type + 1);
    const errno = kind === T.LERROR ? view.getUint32(7, true) : 0;
    return { errno, view: new DataView(reply.buffer, 7) };
  }

  good(type: number, words: readonly Word[]): DataView {
    const { errno, view } = this.call(type, words);
    assert.equal(errno, 0, `type ${type}`);
    return view;
  }

  /** Answers how many names were walked. */
  walk(from: number, to: number, ...names: string[]): number {
    const words = [u32(from), u32(to), [names.length, 2] as const, ...names];
    return this.good(T.WALK, words).getUint16(0, true);
  }

  read(fid: number, offset = 0, count = 60_000): string {
    const view = this.good(T.READ, [u32(fid), u64(offset), u32(count)]);
    const length = view.getUint32(0, true);
    return Buffer.from(view.buffer, view.byteOffset + 4, length).toString();
  }

  list(fid: number, count = 1000): string[] {
    const names: string[] = [];
    for (let offset = 0n; ; ) {
      const view = this.good(T.READDIR, [u32(fid), u64(offset), u32(count)]);
      const end = 4 + view.getUint32(0, true);
      if (end === 4) return names;
      for (let at = 4; at < end; ) {
        offset = view.getBigUint64(at + 13, true);
        const length = view.getUint16(at + 22, true);
        names.push(Buffer.from(view.buffer, view.byteOffset + at + 24, length).toString());
        at += 24 + length;
      }
    }
  }
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

test("files are made, written, read, cut, looked at, renamed and removed", (t) => {
  const { folder, client } = bench(t);
  client.walk(0, 1);
  client.good(T.LCREATE, [u32(1), "a", u32(0o102), u32(0o640), u32(0)]);
  client.good(T.WRITE, [u32(1), u64(0), u32(11), utf8("hello world")]);
  assert.equal(client.read(1, 6), "world");
  const view = client.good(T.GETATTR, [u32(1), u64(0x7ff)]);
  assert.equal(view.getUint32(21, true), 0o100640);
  assert.equal(view.getBigUint64(49, true), 11n);
  const zeros = Array.from({ length: 4 }, () => u64(0));
  const size = [u32(NinepSetAttr.SIZE), u32(0), u32(0), u32(0), u64(5), ...zeros];
  client.good(T.SETATTR, [u32(1), ...size]);
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "hello");
  client.good(T.FSYNC, [u32(1), u32(1)]);
  client.good(T.RENAMEAT, [u32(0), "a", u32(0), "b"]);
  assert.equal(client.read(1), "hello");
  client.good(T.LINK, [u32(0), u32(1), "c"]);
  assert.equal(statSync(join(folder, "b")).nlink, 2);
  client.good(T.UNLINKAT, [u32(0), "b", u32(0)]);
  client.good(T.UNLINKAT, [u32(0), "c", u32(0)]);
  assert.equal(client.read(1), "hello", "without a name");
  client.good(T.CLUNK, [u32(1)]);
  assert.deepEqual(client.session.counts, { nodes: 1, files: 0, directories: 0, fids: 1 });
});

test("directories and links; a walk ends where there is nothing", (t) => {
  const { folder, client } = bench(t);
  client.good(T.MKDIR, [u32(0), "d", u32(0o755), u32(0)]);
  client.good(T.SYMLINK, [u32(0), "l", "d/none", u32(0)]);
  assert.equal(client.walk(0, 1, "d"), 1);
  for (let i = 0; i < 200; i++) writeFileSync(join(folder, "d", `f${i}`), "");
  assert.equal(client.walk(0, 2, "d", "f7", "x"), 2);
  assert.equal(client.call(T.CLUNK, [u32(2)]).errno, Errno.EBADF, "no such fid");
  const nothing = client.call(T.WALK, [u32(0), u32(2), [1, 2], "x"]);
  assert.equal(nothing.errno, Errno.ENOENT);
  assert.equal(client.walk(1, 2, "..", ".."), 2, "above the folder there is nothing");
  client.good(T.LOPEN, [u32(2), u32(0)]);
  assert.deepEqual(client.list(2).toSorted(), [".", "..", "d", "l"]);
  client.good(T.LOPEN, [u32(1), u32(0)]);
  assert.equal(client.list(1).length, 202);
  client.walk(0, 3, "l");
  const target = client.good(T.READLINK, [u32(3)]);
  assert.equal(target.getUint16(0, true), 6);
  assert.equal(client.call(T.UNLINKAT, [u32(0), "d", u32(AT_REMOVEDIR)]).errno, 39);
  const odd = client.call(T.MKDIR, [u32(0), "../outside/x", u32(0o755), u32(0)]);
  assert.equal(odd.errno, Errno.EINVAL);
});

test("locks are granted, flushes answered, attributes and authentication refused", (t) => {
  const { client } = bench(t);
  const lock = [u32(0), [1, 1] as const, u32(0), u64(0), u64(0), u32(1), "guest"];
  assert.equal(client.good(T.LOCK, lock).getUint8(0), 0);
  client.good(T.FLUSH, [[1, 2]]);
  assert.equal(client.call(30, [u32(0), u32(9), "user.a"]).errno, Errno.EOPNOTSUPP);
  assert.equal(client.call(102, [u32(9), "", "", u32(0)]).errno, Errno.EOPNOTSUPP);
  assert.ok(client.good(T.STATFS, [u32(0)]).getUint32(4, true) > 0);
});

test("nothing is changed in a folder that is to be read", (t) => {
  const { folder, client } = bench(t, true);
  writeFileSync(join(folder, "a"), "one");
  client.walk(0, 1, "a");
  const refused: [number, Word[]][] = [
    [T.LOPEN, [u32(1), u32(2)]],
    [T.LCREATE, [u32(0), "b", u32(0o102), u32(0o640), u32(0)]],
    [T.MKDIR, [u32(0), "b", u32(0o755), u32(0)]],
    [T.SYMLINK, [u32(0), "b", "c", u32(0)]],
    [T.LINK, [u32(0), u32(1), "b"]],
    [T.UNLINKAT, [u32(0), "a", u32(0)]],
    [T.RENAMEAT, [u32(0), "a", u32(0), "b"]],
    [T.SETATTR, [u32(1), u32(1), ...[0, 0, 0].map(u32), ...[0, 0, 0, 0, 0].map(u64)]],
  ];
  for (const [type, words] of refused)
    assert.equal(client.call(type, words).errno, Errno.EROFS, `type ${type}`);
  client.good(T.LOPEN, [u32(1), u32(0)]);
  assert.equal(client.read(1), "one");
  assert.equal(client.call(T.REMOVE, [u32(1)]).errno, Errno.EROFS);
  assert.equal(client.call(T.CLUNK, [u32(1)]).errno, Errno.EBADF, "it is gone all the same");
});

test("a guest goes on from a snapshot", (t) => {
  const { folder, client, open } = bench(t);
  mkdirSync(join(folder, "d"));
  client.walk(0, 1, "d");
  client.walk(0, 2, "d");
  client.good(T.LCREATE, [u32(2), "a", u32(0o102), u32(0o640), u32(0)]);
  const saved = structuredClone(client.session.save());
  client.session = open();
  client.session.restore(saved);
  client.good(T.WRITE, [u32(2), u64(0), u32(5), utf8("after")]);
  assert.equal(readFileSync(join(folder, "d", "a"), "utf8"), "after");
  assert.equal(client.walk(1, 3, "a"), 1);
  assert.throws(() => client.session.restore({}), { code: "snapshot-shape" });
});

test("whatever a message holds, it has one answer, and nothing outside is touched", (t) => {
  const { base, folder, client } = bench(t);
  mkdirSync(join(folder, "d"));
  symlinkSync(join(base, "outside"), join(folder, "l"));
  client.walk(0, 1, "d");
  client.walk(0, 2, "l");
  const word = fc.oneof(
    fc.constantFrom<Word>("d", "l", "a", "..", "l/secret", "secret", "../outside", ""),
    fc.constantFrom(0, 1, 2, 3, 0o102, 4096, 0xffff_ffff).map(u32),
    fc.constantFrom(0n, 1n, 4096n, (1n << 64n) - 1n).map(u64),
    fc.constantFrom<Word>([0, 2], [1, 2], [2, 2], [65535, 2]),
    fc.uint8Array({ maxLength: 20 }),
  );
  const types = Object.values(T).filter((type) => type !== T.VERSION);
  fc.assert(
    fc.property(
      fc.oneof(fc.constantFrom(...types), fc.nat(255)),
      fc.array(word, { maxLength: 12 }),
      fc.constantFrom(0, 10, 11, 100, 65536),
      (type, words, room) => {
        const reply = client.session.handle(client.message(type, words), room);
        assert.ok(reply.length <= room);
      },
    ),
    { numRuns: 3000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      assert.ok(client.session.handle(bytes, 100).length <= 100);
    }),
  );
  assert.equal(readFileSync(join(base, "outside", "secret"), "utf8"), "not yours");
  assert.equal(existsSync(join(base, "outside", "a")), false);
  assert.equal(lstatSync(join(folder, "l"), { throwIfNoEntry: false })?.isFile() ?? false, false);
});
