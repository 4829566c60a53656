import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HypolithError } from "../../../src/base/errors.ts";
import { makeAr, makeDeb, makeTar } from "../testing/fake-packages.ts";
import { storeXz } from "../testing/store-xz.ts";
import { extractFiles, readArchive } from "./deb.ts";

const all = { wanted: () => true };
const isMalformed = (error: unknown): boolean =>
  error instanceof HypolithError && error.code === "deb-malformed";

test("xz, as Debian uses it, is unpacked", async () => {
  const packed = storeXz(await makeTar({ "./hello": Buffer.alloc(100_000, "hello") }));
  const files = await extractFiles(makeAr([["data.tar.xz", packed]]), all);
  assert.deepEqual(files.get("hello"), new Uint8Array(Buffer.alloc(100_000, "hello")));
  const cut = makeAr([["data.tar.xz", packed.subarray(0, 50_000)]]);
  await assert.rejects(extractFiles(cut, all), isMalformed);
});

test("files come out under their paths, folders and unwanted files do not", async () => {
  const deb = await makeDeb({ "./boot/": undefined, "./boot/vmlinuz": "kernel", "./lib/x": "x" });
  const files = await extractFiles(deb, { wanted: (path) => path.startsWith("boot/") });
  assert.deepEqual(
    [...files].map(([path, data]) => [path, String(Buffer.from(data))]),
    [["boot/vmlinuz", "kernel"]],
  );
});

test("reading stops when all that is wanted has been found", async () => {
  // The rest of the archive is damaged, and is never looked at.
  const tar = await makeTar({ "./first": "1", "./second": "2", "./third": "3" });
  const cut = makeAr([["data.tar", tar.subarray(0, 512 * 4 + 100)]]);
  const complete = (found: ReadonlyMap<string, Uint8Array>): boolean => found.size === 2;
  assert.equal((await extractFiles(cut, { ...all, complete })).size, 2);
  await assert.rejects(extractFiles(cut, all), isMalformed);
});

test("a package that is cut, empty or something else is refused", async () => {
  const deb = await makeDeb({ "./a": Buffer.alloc(5000, "x") });
  for (const length of [0, 7, 20, 100, deb.length - 10]) {
    await assert.rejects(
      extractFiles(deb.subarray(0, length), all),
      isMalformed,
      `${length} bytes`,
    );
  }
  await assert.rejects(extractFiles(Buffer.from("<html>404 not found</html>"), all), isMalformed);
  await assert.rejects(extractFiles(makeAr([["control.tar", deb]]), all), isMalformed);
  await assert.rejects(extractFiles(makeAr([["data.tar.lz9", deb]]), all), isMalformed);
});

test("an ar archive of any bytes is read within its bounds or refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const file = Buffer.concat([Buffer.from("!<arch>\n"), bytes]);
      try {
        for (const { content } of readArchive(file)) assert.ok(content.length <= file.length);
      } catch (error) {
        assert.ok(isMalformed(error));
      }
    }),
  );
});

test("an abort ends unpacking with its reason", async () => {
  const deb = await makeDeb({ "./a": "a" });
  const reason = new Error("enough");
  await assert.rejects(extractFiles(deb, { ...all, signal: AbortSignal.abort(reason) }), reason);
});
