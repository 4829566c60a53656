import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { PageServer } from "./page-server.ts";

const FILES = new Map([
  ["index.html", Buffer.from("<!doctype html>")],
  ["page.js", Buffer.from("1")],
  ["image/vmlinuz", Buffer.from("kernel")],
]);

async function open(t: TestContext): Promise<string> {
  const server = new PageServer(FILES);
  t.after(() => server.close());
  return server.listen(0, "127.0.0.1");
}

test("files are served by their path with a type, and the page at the root", async (t) => {
  const address = await open(t);
  for (const [path, type, content] of [
    ["", "text/html; charset=utf-8", "<!doctype html>"],
    ["?start", "text/html; charset=utf-8", "<!doctype html>"],
    ["page.js", "text/javascript; charset=utf-8", "1"],
    ["image/vmlinuz", "application/octet-stream", "kernel"],
  ] as const) {
    const response = await fetch(`${address}${path}`);
    assert.deepEqual([response.status, response.headers.get("content-type")], [200, type]);
    assert.equal(await response.text(), content);
  }
});

test("nothing else is, whatever the path", async (t) => {
  const address = await open(t);
  for (const path of ["nothing", "image", "image/", "%2e%2e/package.json", "constructor"]) {
    assert.equal((await fetch(`${address}${path}`)).status, 404, path);
  }
  assert.equal((await fetch(address, { method: "POST", body: "x" })).status, 405);
  const head = await fetch(`${address}image/vmlinuz`, { method: "HEAD" });
  assert.deepEqual([head.headers.get("content-length"), await head.text()], ["6", ""]);
});

test("a file that has not changed is not sent again", async (t) => {
  const address = `${await open(t)}image/vmlinuz`;
  const etag = (await fetch(address)).headers.get("etag")!;
  const again = await fetch(address, { headers: { "if-none-match": etag } });
  assert.deepEqual([again.status, await again.text()], [304, ""]);
});

test("a port that is taken is reported with what to do", async (t) => {
  const { port } = new URL(await open(t));
  await assert.rejects(new PageServer(FILES).listen(Number(port), "127.0.0.1"), {
    code: "port-unavailable",
    hint: /--port/,
  });
});
