import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { gzipSync } from "node:zlib";
import type { RunOptions } from "../run-plan.ts";
import { recordedMessages, scratchFolder } from "../testing/scratch.ts";
import { parseReference } from "./reference.ts";
import type { RootForm, RootPlan } from "./root-plan.ts";
import { supplyRoot } from "./run-root.ts";
import { openShelf } from "./supply.ts";
import { type FakeRegistry, startRegistry } from "./testing/fake-registry.ts";
import { makeImage } from "./testing/image-maker.ts";

const IMAGE = makeImage({
  layers: [
    [
      { name: "etc/passwd", content: "bob:x:7:8::/b:/bin/sh\n" },
      { name: "a", content: "x".repeat(9000) },
    ],
  ],
  config: { Cmd: ["run"], User: "bob" },
  compress: (tar) => gzipSync(tar, { level: 0 }),
});
const OPTIONS: RunOptions = {
  memory: "64m",
  cpuModel: "max",
  clock: "wall",
  pull: "missing",
  cache: true,
};

interface Stand {
  readonly registry: FakeRegistry;
  readonly cacheRoot: string;
  readonly lines: () => string;
  run(form: RootForm, options?: Partial<RunOptions>): ReturnType<typeof supplyRoot>;
}

async function stand(test: TestContext): Promise<Stand> {
  const registry = await startRegistry(test, { images: { "app:1": IMAGE } });
  const home = scratchFolder(test);
  const before = process.env.HYPO_HOME;
  process.env.HYPO_HOME = home;
  test.after(() => {
    if (before === undefined) delete process.env.HYPO_HOME;
    else process.env.HYPO_HOME = before;
  });
  const { messages, lines } = recordedMessages();
  const reference = parseReference(`${registry.host}/app:1`);
  return {
    ...{ registry, lines, cacheRoot: join(home, "cache") },
    run: (form, options = {}) => {
      const platform = { os: "linux", architecture: "amd64" };
      const root: RootPlan = {
        word: { kind: "registry", reference },
        platform,
        form,
        entrypoint: undefined,
      };
      const words = { job: undefined, mode: "pipes", disks: [], memoryBytes: 2 ** 26 } as const;
      const signal = new AbortController().signal;
      return supplyRoot(root, words, { options: { ...OPTIONS, ...options }, messages, signal });
    },
  };
}

test("an image becomes a disk that is made once, or an archive, and the process is known before the boot", async (t) => {
  const s = await stand(t);
  const first = await s.run("disk");
  assert.equal(first.guest.device, "/dev/vda");
  assert.deepEqual([first.disk?.mode, first.disk?.format], ["read", "raw"]);
  assert.deepEqual(first.guest.process.user, { uid: 7, gid: 8, groupsOf: undefined, home: "/b" });
  const requests = s.registry.requests.length;
  assert.deepEqual(await s.run("disk", { pull: "never" }), first);
  assert.equal(s.registry.requests.length, requests);
  const second = await s.run("memory");
  assert.ok(second.archive!.length > 9000);
  assert.equal(second.disk, undefined);
  assert.deepEqual(second.guest.process, first.guest.process);
});

test("a layer that was damaged in the store is fetched again", async (t) => {
  const s = await stand(t);
  await s.run("memory");
  const path = openShelf(s.cacheRoot).store.pathOf(IMAGE.layers[0]!.digest);
  const bytes = readFileSync(path);
  bytes[5000]! ^= 1;
  writeFileSync(path, bytes);
  await s.run("disk");
  assert.match(s.lines(), /parts of .*app:1 are gone from the cache/);
  await assert.doesNotReject(s.run("disk", { pull: "never" }));
});

test("without the cache nothing of an image is left in it", async (t) => {
  const s = await stand(t);
  const root = await s.run("disk", { cache: false });
  assert.ok(existsSync(root.disk!.path));
  assert.ok(!existsSync(join(s.cacheRoot, "oci")));
  await assert.rejects(s.run("disk", { pull: "never" }), { code: "image-absent" });
});
