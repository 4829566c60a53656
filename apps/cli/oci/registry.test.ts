import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { gzipSync } from "node:zlib";
import type { HypolithError } from "../../../src/base/errors.ts";
import { Progress } from "../image/progress.ts";
import { recordedMessages, scratchFolder } from "../testing/scratch.ts";
import { BlobStore } from "./blob-store.ts";
import type { Credentials } from "./credentials.ts";
import { digestOf, splitDigest } from "./digest.ts";
import { ImageNames } from "./image-names.ts";
import { type PullContext, pullImage, storedImage } from "./pull.ts";
import { parseReference } from "./reference.ts";
import { Registry } from "./registry.ts";
import {
  type FakeRegistry,
  type FakeRegistryOptions,
  startRegistry,
} from "./testing/fake-registry.ts";
import { makeImage, makeIndex } from "./testing/image-maker.ts";

const AMD64 = { os: "linux", architecture: "amd64" };
const ALICE: Credentials = { user: "alice", password: "s3cret:x", identityToken: undefined };
/** Does not compress: its blob is long. */
const NOISE = Buffer.from(Array.from({ length: 60_000 }, (_, i) => (i * i * 31 + (i >> 3)) & 0xff));
const IMAGE = makeImage({
  layers: [[{ name: "a", content: "hello" }], [{ name: "noise", content: NOISE }]],
  compress: (tar) => gzipSync(tar, { level: 0 }),
});
const OTHER = makeImage({ layers: [[{ name: "b" }]], architecture: "386" });

interface Stand extends PullContext {
  readonly registry: FakeRegistry;
  pull(name?: string, credentials?: Credentials): ReturnType<typeof pullImage>;
}

async function stand(
  test: TestContext,
  options: Partial<FakeRegistryOptions> = {},
): Promise<Stand> {
  const registry = await startRegistry(test, { images: { "team/app:1": IMAGE }, ...options });
  const folder = scratchFolder(test);
  const context: PullContext = {
    store: new BlobStore(folder),
    names: new ImageNames(folder),
    progress: new Progress(recordedMessages().messages),
    signal: new AbortController().signal,
  };
  return {
    ...context,
    registry,
    pull: (name = "team/app:1", credentials) => {
      const reference = parseReference(`${registry.host}/${name}`);
      const { signal } = context;
      const client = new Registry(reference, {
        credentials,
        insecure: false,
        signal,
        retryDelayMs: 1,
      });
      return pullImage(client, AMD64, context);
    },
  };
}

/** Names no image, holds nothing half-done. */
function assertUntouched({ store, names }: Stand): void {
  assert.deepEqual(names.list(), []);
  const partial = join(store.root, "partial");
  assert.deepEqual(existsSync(partial) ? readdirSync(partial) : [], []);
  assert.ok(!store.list().some(({ digest }) => digest === IMAGE.layers[1]!.digest));
}

test("an image is pulled, named, and read again without the registry", async (t) => {
  const s = await stand(t);
  const image = await s.pull();
  assert.equal(image.digest, IMAGE.manifest.digest);
  const [named] = s.names.list();
  assert.equal(named!.name, `${s.registry.host}/team/app:1`);
  assert.equal(named!.platform, "linux/amd64");
  assert.deepEqual(storedImage(named!, s.store), image);
  const before = s.registry.requests.length;
  await s.pull();
  // The manifest alone: its parts are there.
  assert.equal(s.registry.requests.length, before + 1);
  assert.equal(s.store.isPulledInto(), false);
});

test("an index leads to the image for the platform, and one without it is refused", async (t) => {
  const s = await stand(t, { images: { "a:1": [OTHER, IMAGE], "b:1": [OTHER], "c:1": OTHER } });
  assert.equal((await s.pull("a:1")).digest, IMAGE.manifest.digest);
  for (const name of ["b:1", "c:1"]) {
    await assert.rejects(s.pull(name), (error: HypolithError) => {
      assert.equal(error.code, "platform-missing");
      assert.match(error.hint!, /linux\/386/);
      return true;
    });
  }
});

test("a digest in the name is checked, whatever the registry answers", async (t) => {
  const s = await stand(t);
  const name = `team/app@${IMAGE.manifest.digest}`;
  assert.equal((await s.pull(name)).digest, IMAGE.manifest.digest);
  await assert.rejects(s.pull("missing:1"), { code: "image-absent" });
  const liar = await stand(t, { manifestInstead: OTHER.blobs.get(OTHER.manifest.digest)! });
  await assert.rejects(liar.pull(name), { code: "digest-mismatch" });
  assertUntouched(liar);
  // An index is not kept: nothing else would notice.
  const other = await stand(t, { manifestInstead: makeIndex([OTHER, IMAGE]) });
  await assert.rejects(other.pull(`team/app@${digestOf(makeIndex([IMAGE]))}`), {
    code: "digest-mismatch",
  });
});

test("a manifest that is none is refused: no JSON, no image, sizes and digests that cannot be", async (t) => {
  const sound = JSON.parse(IMAGE.blobs.get(IMAGE.manifest.digest)!.toString());
  const [layer] = sound.layers;
  const bad = [
    "no json",
    "[]",
    "{}",
    JSON.stringify({ ...sound, schemaVersion: 1 }),
    JSON.stringify({ ...sound, config: undefined }),
    JSON.stringify({ ...sound, layers: {} }),
    JSON.stringify({ ...sound, layers: [{ ...layer, size: -1 }] }),
    JSON.stringify({ ...sound, layers: [{ ...layer, digest: "sha256:../../etc/passwd" }] }),
    JSON.stringify({ ...sound, layers: [] }),
    JSON.stringify({ ...sound, layers: Array(2000).fill(layer) }),
  ];
  for (const text of bad) {
    const s = await stand(t, { manifestInstead: Buffer.from(text) });
    await assert.rejects(s.pull(), { code: "image-unsound" }, text.slice(0, 80));
    assert.deepEqual(s.names.list(), []);
  }
  const artifact = { ...sound, config: { ...sound.config, mediaType: "application/vnd.x+json" } };
  const s = await stand(t, { manifestInstead: Buffer.from(JSON.stringify(artifact)) });
  await assert.rejects(s.pull(), { code: "not-an-image" });
});

test("a blob that was changed on its way is refused and nothing of it is kept", async (t) => {
  const s = await stand(t, { corrupt: 10_000 });
  await assert.rejects(s.pull(), { code: "digest-mismatch" });
  assertUntouched(s);
});

test("a connection that breaks is taken up where it broke", async (t) => {
  const s = await stand(t, { breakAfter: 20_000, breaks: 2 });
  await s.pull();
  const ranges = s.registry.requests.map(({ range }) => range).filter((range) => range);
  assert.ok(ranges.length >= 1, "asked for a range");
  assert.match(ranges[0]!, /^bytes=\d+-$/);
  assert.equal(s.names.list().length, 1);
});

test("a registry without ranges sends all of it again", async (t) => {
  const s = await stand(t, { breakAfter: 20_000, breaks: 2, noRanges: true });
  await s.pull();
  assert.equal(s.names.list().length, 1);
});

test("a registry that always breaks off is given up, and what came is kept for the next pull", async (t) => {
  const s = await stand(t, { breakAfter: 1, breaks: 1_000 });
  await assert.rejects(s.pull(), { code: "registry-unreachable" });
  assert.deepEqual(s.names.list(), []);
});

test("what a killed pull has left is taken over, and thrown away where it is wrong", async (t) => {
  const s = await stand(t);
  const { digest } = IMAGE.layers[1]!;
  const bytes = IMAGE.blobs.get(digest)!;
  const leave = (content: Buffer): void => {
    const folder = join(s.store.root, "partial");
    mkdirSync(folder, { recursive: true });
    // No process has this id: it is above the kernel's largest.
    writeFileSync(join(folder, `${splitDigest(digest)[1]}.4194999.0`), content);
  };
  leave(bytes.subarray(0, 30_000));
  await s.pull();
  assert.ok(s.registry.requests.some(({ range }) => range === "bytes=30000-"));
  s.store.remove(digest);
  leave(Buffer.alloc(30_000, 7));
  await s.pull();
  assert.ok(s.store.read(digest)?.equals(bytes));
});

test("a registry that stumbles is asked again, one that says no is not", async (t) => {
  const failFirst = { status: 503, count: 2 };
  const s = await stand(t, { failFirst });
  await s.pull();
  assert.equal(failFirst.count, 0);
  const no = await stand(t, { failFirst: { status: 403, count: 1 } });
  await assert.rejects(no.pull(), { code: "image-denied" });
  assert.equal(no.registry.requests.length, 1);
});

test("a token is fetched for a registry that wants one, with our credentials if we have some", async (t) => {
  const open = await stand(t, { auth: "token" });
  await open.pull();
  const closed = await stand(t, { auth: "token", credentials: ALICE });
  await closed.pull("team/app:1", ALICE);
  const s = await stand(t, { auth: "token", credentials: ALICE });
  await assert.rejects(s.pull(), { code: "image-denied" });
  const wrong = { ...ALICE, password: "guess" };
  await assert.rejects(s.pull("team/app:1", wrong), (error: HypolithError) =>
    /log in anew/.test(error.hint!),
  );
  const basic = await stand(t, { auth: "basic", credentials: ALICE });
  await basic.pull("team/app:1", ALICE);
});

test("where blobs are stored sees no credentials", async (t) => {
  const storage = await startRegistry(t, { images: { "team/app:1": IMAGE } });
  const s = await stand(t, { auth: "token", credentials: ALICE, redirectTo: storage.origin });
  await s.pull("team/app:1", ALICE);
  assert.equal(storage.requests.length, 3);
  assert.ok(storage.requests.every(({ authorization }) => authorization === undefined));
});

test("a registry that leads in a circle, or is not there, ends in a clear error", async (t) => {
  const circle = await stand(t, { redirectTo: "self" });
  await assert.rejects(circle.pull(), { code: "registry-refused", message: /circle/ });
  const { signal } = circle;
  const options = { credentials: undefined, insecure: false, signal, retryDelayMs: 1 };
  const client = new Registry(parseReference("localhost:1/app"), options);
  await assert.rejects(pullImage(client, AMD64, circle), { code: "registry-unreachable" });
});
