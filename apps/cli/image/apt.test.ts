import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HypolithError } from "../../../src/base/errors.ts";
import { type FakeAptOptions, makeFakeApt } from "../testing/fake-apt.ts";
import { fakePackages } from "../testing/fake-packages.ts";
import { recordedMessages, scratchFolder } from "../testing/scratch.ts";
import { type AptContext, AptSource, aptMirror, hasApt } from "./apt.ts";
import { Progress } from "./progress.ts";

const hasCode = (code: string) => (error: unknown) =>
  error instanceof HypolithError && error.code === code;

async function openApt(
  test: TestContext,
  options: FakeAptOptions = {},
): Promise<AptContext & { readonly abort: AbortController }> {
  const folder = scratchFolder(test);
  const abort = new AbortController();
  return {
    commands: makeFakeApt(folder, await fakePackages(), options),
    stagingParent: join(folder, "staging"),
    progress: new Progress(recordedMessages().messages),
    signal: abort.signal,
    abort,
  };
}

test("apt finds packages of the architecture that is asked for, and downloads them", async (t) => {
  const apt = await openApt(t);
  const source = new AptSource(apt);
  const record = await source.find("busybox-static", "amd64");
  assert.equal(record?.version, "6.1.9-1");
  assert.equal(await source.find("busybox-static", "i386"), undefined);
  assert.equal((await source.download(record!)).length, record!.size);
  assert.deepEqual(readdirSync(apt.stagingParent), []);
});

test("apt's own words say why it cannot download", async (t) => {
  const beforeDownload = `echo "W: noise" >&2; echo "E: Failed to fetch x  Could not resolve" >&2; exit 100`;
  const source = new AptSource(await openApt(t, { beforeDownload }));
  const record = await source.find("busybox-static", "amd64");
  await assert.rejects(source.download(record!), (error: HypolithError) => {
    assert.equal(error.code, "apt-failed");
    assert.match(error.message, /busybox-static: Failed to fetch x {2}Could not resolve$/);
    return true;
  });
});

test("a full disk is called that, and a wrong file is refused", async (t) => {
  const full = new AptSource(
    await openApt(t, {
      beforeDownload: `echo "E: write (28: No space left on device)" >&2; exit 100`,
    }),
  );
  const record = await full.find("busybox-static", "amd64");
  await assert.rejects(full.download(record!), hasCode("cache-full"));
  const wrong = new AptSource(await openApt(t, { beforeDownload: "echo no >x.deb; exit 0" }));
  await assert.rejects(wrong.download(record!), hasCode("checksum-mismatch"));
});

test("an abort ends apt and removes what it had", async (t) => {
  const apt = await openApt(t, { beforeDownload: "echo half >x.deb; exec sleep 30" });
  const source = new AptSource(apt);
  const record = await source.find("busybox-static", "amd64");
  const reason = new Error("Ctrl-C");
  setTimeout(() => apt.abort.abort(reason), 50);
  await assert.rejects(source.download(record!), reason);
  assert.deepEqual(readdirSync(apt.stagingParent), []);
});

test("a machine without apt has none", async () => {
  const absent = { cache: "/nowhere/a", get: "/nowhere/b", helper: "/nowhere/c" };
  const { signal } = new AbortController();
  assert.equal(await hasApt(absent, signal), false);
  assert.equal(await aptMirror(absent, signal), undefined);
});

const target = (origin: string, uri: string, release: string, component = "main"): string =>
  [
    "Created-By: Packages",
    ...(origin ? [`Origin: ${origin}`] : []),
    `Repo-URI: ${uri}`,
    `Release: ${release}`,
    `Component: ${component}`,
    "",
  ].join("\n");

test("apt's sources name a mirror of Debian itself, if there is one", async (t) => {
  const cases: ReadonlyArray<readonly [targets: string[], expected: object | undefined]> = [
    [
      [
        target("NodeSource", "https://deb.nodesource.com/node/", "nodistro"),
        target("Debian", "http://m/debian-security/", "bookworm-security"),
        target("Debian", "http://m/debian/", "bookworm", "contrib"),
        target("Debian", "http://m/debian/", "bookworm"),
      ],
      { base: "http://m/debian", suite: "bookworm" },
    ],
    // Before the first `apt-get update`.
    [[target("", "http://m/debian/", "trixie")], { base: "http://m/debian", suite: "trixie" }],
    [[target("Ubuntu", "http://archive.ubuntu.com/ubuntu/", "noble")], undefined],
    [[target("Debian", "cdrom:[Debian]/", "bookworm")], undefined],
    [[], undefined],
  ];
  for (const [targets, expected] of cases) {
    const { commands, signal } = await openApt(t, { targets: targets.join("\n") });
    assert.deepEqual(await aptMirror(commands, signal), expected);
  }
});
