import assert from "node:assert/strict";
import { closeSync, openSync, readSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, type TestContext, test } from "node:test";
import fc from "fast-check";
import { scratchFolder } from "../testing/scratch.ts";
import { type Directory, emptyDirectory, type Inode, lookUp } from "./file-tree.ts";
import { applyLayer } from "./layer.ts";
import { type FileRange, readTar, type TarEntry } from "./tar-file.ts";
import { makeTar, pax, type TarItem } from "./testing/tar-maker.ts";

/** Closed after each test; after each run of a property by `release`. */
const open: number[] = [];
afterEach(release);

function release(): void {
  for (const descriptor of open.splice(0)) closeSync(descriptor);
}

function rangeOf(test: TestContext, bytes: Buffer): FileRange {
  folders.set(test, folders.get(test) ?? scratchFolder(test));
  const path = join(folders.get(test)!, `${open.length}`);
  writeFileSync(path, bytes);
  const descriptor = openSync(path, "r");
  open.push(descriptor);
  rmSync(path);
  return { descriptor, offset: 0, size: bytes.length };
}

const folders = new WeakMap<TestContext, string>();

function entriesOf(test: TestContext, bytes: Buffer): TarEntry[] {
  return [...readTar(rangeOf(test, bytes))];
}

function treeOf(test: TestContext, ...layers: ReadonlyArray<readonly TarItem[]>): Directory {
  const root = emptyDirectory();
  for (const [number, items] of layers.entries())
    applyLayer(root, number, rangeOf(test, makeTar(items)));
  return root;
}

function describe(inode: Inode): string {
  if (inode.kind === "symlink") return `-> ${inode.target}`;
  if (inode.kind !== "file") return inode.kind;
  const { descriptor, offset, size } = inode.content;
  const bytes = Buffer.alloc(size);
  readSync(descriptor, bytes, 0, size, offset);
  return `'${bytes.toString()}'`;
}

/** Path to what is there. */
function listing(root: Directory): Record<string, string> {
  const all: Record<string, string> = {};
  const walk = (directory: Directory, above: string): void => {
    for (const [name, { inode }] of directory.entries) {
      all[above + name] = describe(inode);
      if (inode.kind === "directory") walk(inode, `${above}${name}/`);
    }
  };
  walk(root, "");
  return all;
}

const dir = (name: string): TarItem => ({ name: `${name}/`, flag: "5", mode: 0o755 });
const file = (name: string, content = name): TarItem => ({ name, content });
const link = (name: string, target: string): TarItem => ({ name, flag: "2", target });
const hard = (name: string, target: string): TarItem => ({ name, flag: "1", target });

test("entries say what pax and GNU headers say: long names, large numbers, times, attributes", (t) => {
  const long = `${"x/".repeat(150)}end`;
  const entries = entriesOf(
    t,
    makeTar([
      { name: "a", content: "12345", mode: 0o4755, uid: 5, gid: 6, mtime: 77 },
      pax({
        path: long,
        uid: "3000000000",
        mtime: "12.5",
        "SCHILY.xattr.security.capability": "\0\x01",
      }),
      file("short"),
      { name: "././@LongLink", flag: "L", content: `${long}\0` },
      { name: "././@LongLink", flag: "K", content: `${long}/target\0` },
      link("s", "t"),
      { name: "null", flag: "3", device: [1, 3] },
      { name: "dir/", flag: "\0" },
    ]),
  );
  const [a, b, c, d, e] = entries;
  assert.deepEqual([a!.mode, a!.uid, a!.gid, a!.mtime, a!.size], [0o4755, 5, 6, 77, 5]);
  assert.deepEqual([b!.name, b!.uid, b!.mtime, b!.hasAttributes], [long, 3_000_000_000, 12, true]);
  assert.deepEqual(
    [c!.name, c!.target, c!.type, c!.hasAttributes],
    [long, `${long}/target`, "symlink", false],
  );
  assert.deepEqual([d!.type, d!.device], ["character", [1, 3]]);
  assert.equal(e!.type, "directory");
});

test("an archive that is cut, forged or strange is refused and never read beyond its end", (t) => {
  const sound = makeTar([file("a", "x".repeat(1000)), file("b")]);
  for (const length of [100, 512 + 400, 512 * 3 + 100]) {
    assert.throws(
      () => entriesOf(t, sound.subarray(0, length)),
      { code: "tar-unsound" },
      `${length}`,
    );
  }
  const flipped = Buffer.from(sound);
  flipped[3]! ^= 1;
  const bad = [
    flipped,
    makeTar([{ name: "a", size: 2 ** 30 }]),
    makeTar([{ name: "a", flag: "S" }]),
    makeTar([{ name: "a", flag: "Z" }]),
    makeTar([pax({ "GNU.sparse.major": "1" }), file("a")]),
    makeTar([{ name: "p", flag: "x", content: "99 path=a\n" }, file("a")]),
    makeTar([{ name: "p", flag: "x", content: "0 path=a\n" }, file("a")]),
    makeTar([pax({ size: "99999999999999999999" }), file("a")]),
    makeTar([{ name: "p", flag: "x", size: 2 ** 28 }]),
  ];
  for (const [number, bytes] of bad.entries()) {
    assert.throws(() => entriesOf(t, bytes), { code: "tar-unsound" }, `number ${number}`);
  }
  // The two blocks of zeros at the end are often forgotten.
  assert.equal(entriesOf(t, makeTar([file("a")], 0)).length, 1);
});

test("any bytes end in entries or in a refusal", (t) => {
  const sound = makeTar([file("a", "abc"), pax({ path: "b" }), file("b"), link("c", "d")]);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 20 }),
      (changes) => {
        const bytes = Buffer.from(sound);
        for (const [at, value] of changes) bytes[at] = value;
        try {
          for (const { offset, size } of entriesOf(t, bytes))
            assert.ok(offset + size <= bytes.length);
        } catch (error) {
          assert.equal((error as { code?: string }).code, "tar-unsound");
        } finally {
          release();
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("hostile names are refused: absolute, upwards, through links that lead out, links to nothing", (t) => {
  const refused: ReadonlyArray<readonly TarItem[]> = [
    [file("/etc/passwd")],
    [file("../x")],
    [file("a/../../x")],
    [hard("a", "/etc/passwd")],
    [hard("a", "../etc/passwd")],
    [hard("a", "b")],
    [dir("d"), hard("a", "d")],
    [link("up", "../../.."), file("up/x")],
    [dir("d"), link("d/up", "../.."), file("d/up/x")],
    [link("a", "b"), link("b", "a"), file("a/x")],
    [file("f"), file("f/x")],
    [link("up", ".."), hard("a", "up/x")],
    [link("up", ".."), file("up/.wh.x")],
    [file("a/.wh...")],
    [file(".wh.")],
    [link("a", "")],
    [{ name: "./", flag: "2", target: "x" }],
    [pax({ path: "n".repeat(300) }), file("y")],
  ];
  for (const items of refused) {
    assert.throws(() => treeOf(t, items), { code: "layer-refused" }, JSON.stringify(items.at(-1)));
  }
});

test("symbolic links are followed inside the tree only", (t) => {
  const root = treeOf(
    t,
    [dir("usr/lib"), link("lib", "usr/lib"), link("abs", "/usr"), file("usr/lib/a")],
    [file("lib/b"), file("abs/c"), hard("d", "lib/a")],
  );
  assert.deepEqual(listing(root), {
    ...{ usr: "directory", "usr/lib": "directory", lib: "-> usr/lib", abs: "-> /usr" },
    ...{ "usr/lib/a": "'usr/lib/a'", "usr/lib/b": "'lib/b'", "usr/c": "'abs/c'", d: "'usr/lib/a'" },
  });
  assert.equal(lookUp(root, ["abs", "lib", "..", "..", ".."]), "escapes");
  assert.equal(lookUp(root, ["lib", "none"]), "absent");
});

test("a hard link is the same inode, also to a file of a lower layer", (t) => {
  const root = treeOf(t, [file("a")], [hard("b", "a"), file(".wh.a")]);
  assert.deepEqual(listing(root), { b: "'a'" });
  const both = treeOf(t, [file("a")], [hard("b", "a")]);
  assert.equal(both.entries.get("a")!.inode, both.entries.get("b")!.inode);
});

test("whiteouts hide lower layers wherever they stand, an opaque one all of a directory", (t) => {
  const lower = [
    dir("d"),
    file("d/old"),
    dir("d/sub"),
    file("d/sub/old"),
    file("f"),
    dir("g"),
    file("g/old"),
  ];
  const expected = {
    d: "directory",
    "d/new": "'d/new'",
    "d/sub": "directory",
    "d/sub/new": "'d/sub/new'",
  };
  const upper = [
    file("d/.wh..wh..opq"),
    file("d/new"),
    file("d/sub/new"),
    file(".wh.f"),
    file(".wh.g"),
  ];
  for (const items of [upper, [...upper].reverse()])
    assert.deepEqual(listing(treeOf(t, lower, items)), expected);
  // A whiteout of what its own layer brings leaves that.
  assert.deepEqual(
    listing(treeOf(t, lower, [file("g/new"), file(".wh.g"), file(".wh.d"), file(".wh.f")])),
    {
      g: "directory",
      "g/new": "'g/new'",
    },
  );
  // Nothing to hide, and what the union file system of old kept.
  assert.deepEqual(listing(treeOf(t, [file("no/.wh.x"), dir(".wh..wh.plnk")])), {});
});

type Op =
  | { readonly kind: "file" | "directory" | "hide" | "opaque"; readonly path: string }
  | { readonly kind: "link"; readonly path: string };

/**
 * The reference: a map of paths. What a layer hides goes first, then comes what it brings. Directories above what it brings are brought, too.
 */
function modelOf(layers: ReadonlyArray<readonly Op[]>): Record<string, string> {
  let all = new Map<string, string>();
  for (const [number, ops] of layers.entries()) {
    const below = (path: string, root: string): boolean =>
      root === "" || path.startsWith(`${root}/`);
    const hidden = (path: string): boolean =>
      ops.some(
        (op) =>
          (op.kind === "hide" && (path === op.path || below(path, op.path))) ||
          (op.kind === "opaque" && below(path, op.path)),
      );
    const next = new Map([...all].filter(([path]) => !hidden(path)));
    for (const { kind, path } of ops) {
      if (kind === "hide") continue;
      const parts = path.split("/");
      for (let depth = 1; depth < parts.length; depth++)
        next.set(parts.slice(0, depth).join("/"), "directory");
      if (kind === "directory" || kind === "opaque") {
        next.set(path, "directory");
        continue;
      }
      for (const old of [...next.keys()]) if (below(old, path)) next.delete(old);
      next.set(path, kind === "link" ? `-> t${number}` : `'${number}'`);
    }
    all = next;
  }
  return Object.fromEntries(all);
}

const NAMES = ["a", "b", "c"];
const pathArbitrary = fc
  .array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join("/"));
const opArbitrary: fc.Arbitrary<Op> = fc.record({
  kind: fc.constantFrom("file", "directory", "hide", "opaque", "link"),
  path: pathArbitrary,
}) as fc.Arbitrary<Op>;

/** No layer brings two things at one path, or something below a file. */
function consistent(ops: readonly Op[], lower: Record<string, string>): Op[] {
  const kept: Op[] = [];
  for (const op of ops) {
    const isFlat = (other: Op): boolean => other.kind === "file" || other.kind === "link";
    const clashes = kept.some((other) => {
      if (op.kind === "hide" && other.kind === "hide") return op.path === other.path;
      if (op.kind === "hide" || other.kind === "hide") return false;
      if (op.path === other.path) return isFlat(op) || isFlat(other) || op.kind === other.kind;
      return (
        (isFlat(op) && other.path.startsWith(`${op.path}/`)) ||
        (isFlat(other) && op.path.startsWith(`${other.path}/`))
      );
    });
    // A path through a file or link of a lower layer has no meaning.
    const parts = op.path.split("/");
    const above = parts.slice(0, -1).map((_, index) => parts.slice(0, index + 1).join("/"));
    const isThrough = above.some((path) => path in lower && lower[path] !== "directory");
    // An opaque directory where a file was: builders say "hide" for that.
    const isOverFile = op.kind === "opaque" && op.path in lower && lower[op.path] !== "directory";
    if (!clashes && !isThrough && !isOverFile) kept.push(op);
  }
  return kept;
}

function itemOf({ kind, path }: Op, layer: number): TarItem {
  const at = path.lastIndexOf("/") + 1;
  if (kind === "hide") return file(`${path.slice(0, at)}.wh.${path.slice(at)}`, "");
  if (kind === "opaque") return file(`${path}/.wh..wh..opq`, "");
  if (kind === "directory") return dir(path);
  return kind === "link" ? link(path, `t${layer}`) : file(path, String(layer));
}

test("any layers give what the reference gives, in whatever order their entries come", (t) => {
  let hiding = 0;
  fc.assert(
    fc.property(
      fc.array(fc.array(opArbitrary, { maxLength: 8 }), { minLength: 1, maxLength: 4 }),
      (raw) => {
        const layers: Op[][] = [];
        for (const ops of raw) layers.push(consistent(ops, modelOf(layers)));
        hiding += layers.flat().filter(({ kind }) => kind === "hide" || kind === "opaque").length;
        const tars = layers.map((ops, number) => ops.map((op) => itemOf(op, number)));
        const sort = (entries: Record<string, string>): string =>
          JSON.stringify(Object.entries(entries).sort());
        const expected = sort(modelOf(layers));
        assert.equal(sort(listing(treeOf(t, ...tars))), expected);
        assert.equal(
          sort(listing(treeOf(t, ...tars.map((items) => [...items].reverse())))),
          expected,
        );
        release();
      },
    ),
    { numRuns: 400 },
  );
  assert.ok(hiding > 100);
});
