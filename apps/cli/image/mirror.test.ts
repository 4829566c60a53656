import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { type TestContext, test } from "node:test";
import { HypolithError } from "../../../src/base/errors.ts";
import { type FakeMirror, startFakeMirror } from "../testing/fake-mirror.ts";
import { fakePackages, stanza } from "../testing/fake-packages.ts";
import { recordedMessages } from "../testing/scratch.ts";
import { storeXz } from "../testing/store-xz.ts";
import { MirrorSource } from "./mirror.ts";
import { Progress } from "./progress.ts";
import { FetchTransport } from "./transport.ts";

const hasCode = (code: string) => (error: unknown) =>
  error instanceof HypolithError && error.code === code;

async function openMirror(
  test: TestContext,
  disturb?: (path: string, response: ServerResponse) => boolean,
): Promise<{ readonly mirror: FakeMirror; readonly source: MirrorSource }> {
  const packages = await fakePackages();
  const index = storeXz(Buffer.from(packages.map(({ record }) => stanza(record)).join("\n")));
  const mirror = await startFakeMirror(test, { index, packages, ...(disturb && { disturb }) });
  return { mirror, source: sourceAt(`${mirror.base}/`) };
}

function sourceAt(base: string, signal = new AbortController().signal): MirrorSource {
  const progress = new Progress(recordedMessages().messages);
  return new MirrorSource({
    base,
    suite: "bookworm",
    transport: new FetchTransport(),
    progress,
    signal,
  });
}

test("a package is found by the index and downloaded; the index is fetched once", async (t) => {
  const { mirror, source } = await openMirror(t);
  const record = await source.find("busybox-static", "amd64");
  assert.equal(await source.find("nothing", "amd64"), undefined);
  const deb = await source.download(record!);
  assert.equal(deb.length, record!.size);
  assert.equal(mirror.requests.length, 3);
});

test("a file that is not what the index says is refused", async (t) => {
  for (const content of ["short", Buffer.alloc(10_000_000)]) {
    const { source } = await openMirror(t, (path, response) => {
      if (path.endsWith(".deb")) response.end(content);
      return path.endsWith(".deb");
    });
    const record = await source.find("busybox-static", "amd64");
    await assert.rejects(source.download(record!), hasCode("checksum-mismatch"));
  }
});

test("an index that Release does not describe is refused", async (t) => {
  const { source } = await openMirror(t, (path, response) => {
    if (path.endsWith("Packages.xz")) response.end("something else");
    return path.endsWith("Packages.xz");
  });
  await assert.rejects(source.find("a", "amd64"), hasCode("checksum-mismatch"));
});

test("what is no mirror is told apart from what cannot be reached", async (t) => {
  const { mirror, source } = await openMirror(t);
  await assert.rejects(source.find("a", "riscv64"), hasCode("mirror-refused"));
  const elsewhere = sourceAt(mirror.base.replace("/debian", "/ubuntu"));
  await assert.rejects(elsewhere.find("a", "amd64"), hasCode("mirror-refused"));
  await assert.rejects(
    sourceAt("http://127.0.0.1:1/debian").find("a", "amd64"),
    (error: HypolithError) => {
      assert.equal(error.code, "network-unreachable");
      assert.match(error.message, /127\.0\.0\.1:1.*(ECONNREFUSED|bad port)/);
      return true;
    },
  );
  assert.throws(() => sourceAt("deb.debian.org"), hasCode("mirror-invalid"));
  assert.throws(() => sourceAt("file:///etc"), hasCode("mirror-invalid"));
});

test("a connection that breaks in the middle is a network failure", async (t) => {
  const { source } = await openMirror(t, (path, response) => {
    if (!path.endsWith("Packages.xz")) return false;
    response.writeHead(200, { "content-length": 1000 });
    response.write("part", () => response.destroy());
    return true;
  });
  await assert.rejects(source.find("a", "amd64"), hasCode("network-unreachable"));
});

test("an abort ends a download with its reason", async (t) => {
  const stop = new AbortController();
  const reason = new Error("Ctrl-C");
  const { mirror } = await openMirror(t, (path) => {
    if (path.endsWith("Packages.xz")) stop.abort(reason);
    return path.endsWith("Packages.xz");
  });
  await assert.rejects(sourceAt(mirror.base, stop.signal).find("a", "amd64"), reason);
});
