import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HypolithError } from "../../../src/base/errors.ts";
import { type FakeAptOptions, makeFakeApt } from "../testing/fake-apt.ts";
import { startFakeMirror } from "../testing/fake-mirror.ts";
import {
  FAKE_BUSYBOX,
  FAKE_KERNEL,
  FAKE_RELEASE,
  fakePackages,
  stanza,
} from "../testing/fake-packages.ts";
import { recordedMessages, scratchFolder } from "../testing/scratch.ts";
import { storeXz } from "../testing/store-xz.ts";
import { ImageCache, sha256Of } from "./cache.ts";
import { flavorOfImage } from "./flavors.ts";
import { type SupplyOptions, supplyImage } from "./supply.ts";

const NO_APT = { cache: "/nowhere/a", get: "/nowhere/b", helper: "/nowhere/c" };
const hasCode = (code: string) => (error: unknown) =>
  error instanceof HypolithError && error.code === code;

function optionsFor(test: TestContext, more: Partial<SupplyOptions>): SupplyOptions {
  return {
    flavor: flavorOfImage("debian"),
    cache: new ImageCache(join(scratchFolder(test), "cache")),
    pull: "missing",
    mirror: undefined,
    suite: undefined,
    messages: recordedMessages().messages,
    signal: new AbortController().signal,
    aptCommands: NO_APT,
    ...more,
  };
}

async function aptIn(test: TestContext, options: FakeAptOptions = {}) {
  return makeFakeApt(scratchFolder(test), await fakePackages(), options);
}

async function mirrorFor(test: TestContext) {
  const packages = await fakePackages();
  const index = storeXz(Buffer.from(packages.map(({ record }) => stanza(record)).join("\n")));
  return startFakeMirror(test, { index, packages });
}

test("apt's packages become an image, and the next run needs no apt", async (t) => {
  const options = optionsFor(t, { aptCommands: await aptIn(t) });
  const image = await supplyImage(options);
  assert.equal(image.release, FAKE_RELEASE);
  assert.deepEqual(Buffer.from(image.kernel), FAKE_KERNEL);
  assert.deepEqual(Buffer.from(image.busybox), FAKE_BUSYBOX);
  assert.equal(String(Buffer.from(image.systemMap)), "a map\n");
  const again = await supplyImage({ ...options, aptCommands: NO_APT, pull: "never" });
  assert.equal(sha256Of(again.kernel), sha256Of(image.kernel));
});

test("a mirror that the user names is used even where there is apt", async (t) => {
  const { base, requests } = await mirrorFor(t);
  const aptCommands = await aptIn(t, { beforeDownload: "exit 1" });
  const image = await supplyImage(optionsFor(t, { mirror: base, aptCommands }));
  assert.equal(image.release, FAKE_RELEASE);
  // Release, index, kernel and busybox; the meta package itself is never downloaded.
  assert.equal(requests.length, 4);
});

test("where apt's lists do not help, the mirror of its sources does", async (t) => {
  const { base } = await mirrorFor(t);
  const targets = `Origin: Debian\nRepo-URI: ${base}/\nRelease: bookworm\nComponent: main\n`;
  const aptCommands = makeFakeApt(scratchFolder(t), [], { targets });
  const image = await supplyImage(optionsFor(t, { aptCommands }));
  assert.equal(image.release, FAKE_RELEASE);
});

test("a damaged cache entry is fetched anew, with a warning", async (t) => {
  const { messages, lines } = recordedMessages();
  const options = optionsFor(t, { aptCommands: await aptIn(t), messages });
  await supplyImage(options);
  writeFileSync(join(options.cache!.root, "blobs", sha256Of(FAKE_KERNEL)), "half a ker");
  const image = await supplyImage(options);
  assert.deepEqual(Buffer.from(image.kernel), FAKE_KERNEL);
  assert.match(lines(), /damaged and is fetched anew/);
  assert.equal(options.cache!.load(options.flavor.image, options.flavor.modules).state, "found");
});

test("a cache that cannot be written costs a warning, not the run", async (t) => {
  const file = join(scratchFolder(t), "file");
  writeFileSync(file, "");
  const { messages, lines } = recordedMessages();
  const cache = new ImageCache(join(file, "cache"));
  const image = await supplyImage(optionsFor(t, { aptCommands: await aptIn(t), cache, messages }));
  assert.equal(image.release, FAKE_RELEASE);
  assert.match(lines(), /cannot be written.*this run goes on/);
});

test("without a network the message says so and what to do", async (t) => {
  const targets = `Origin: Debian\nRepo-URI: http://127.0.0.1:9/debian/\nRelease: bookworm\nComponent: main\n`;
  const beforeDownload = "echo 'E: Could not resolve' >&2; exit 100";
  const aptCommands = await aptIn(t, { targets, beforeDownload });
  await assert.rejects(supplyImage(optionsFor(t, { aptCommands })), (error: HypolithError) => {
    assert.equal(error.code, "network-unreachable");
    assert.match(error.hint!, /--mirror.*\n.*--kernel/);
    return true;
  });
});

test("--pull never downloads nothing, --pull always downloads what is there already", async (t) => {
  const aptCommands = await aptIn(t);
  const options = optionsFor(t, { aptCommands });
  await assert.rejects(supplyImage({ ...options, pull: "never" }), hasCode("image-absent"));
  await supplyImage(options);
  rmSync(aptCommands.get);
  await assert.rejects(
    supplyImage({ ...options, pull: "always", mirror: "http://127.0.0.1:9/debian" }),
    hasCode("network-unreachable"),
  );
});
