/** The programs in examples/, run as they are: "hypolith" is this checkout. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { defaultCacheRoot, ImageCache } from "../image/cache.ts";
import { FLAVORS } from "../image/flavors.ts";

const FOLDER = fileURLToPath(new URL("../../../examples", import.meta.url));
const [flavor] = FLAVORS;
const image = new ImageCache(defaultCacheRoot()).load(flavor!.image, flavor!.modules);
const skip = image.state === "found" ? false : "the default image is not in the cache";

/** What each says, and with which words it is run. */
const EXAMPLES: Readonly<Record<string, { readonly says: RegExp; readonly wantsPort?: boolean }>> =
  {
    "run-command.js": { says: /^Linux \S+ x86_64\n$/ },
    "web-server.js": { says: /^<h1>A page of the guest<\/h1>\n$/, wantsPort: true },
  };

test("every example is in the table", () => {
  assert.deepEqual(readdirSync(FOLDER).sort(), Object.keys(EXAMPLES).sort());
});

for (const [name, { says, wantsPort }] of Object.entries(EXAMPLES)) {
  test(`examples/${name} does what it says`, { skip }, async () => {
    const words = wantsPort ? [await freePort()] : [];
    const argv = ["--conditions=hypolith-source", join(FOLDER, name), ...words];
    const { status, stdout, stderr } = spawnSync(process.execPath, argv, {
      ...{ encoding: "utf8", timeout: 300_000 },
    });
    assert.equal(status, 0, stderr);
    assert.match(stdout, says);
  });
}

async function freePort(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return String(port);
}
