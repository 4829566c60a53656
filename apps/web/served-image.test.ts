import assert from "node:assert/strict";
import { test } from "node:test";
import { findImage, imageOf } from "./served-image.ts";

const URL_OF_IMAGE = new URL("https://example.org/vm/image/image.json");
const hasCode = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

test("a description names files relative to itself", async (t) => {
  const asked: string[] = [];
  t.mock.method(globalThis, "fetch", async (url: URL) => {
    asked.push(url.href);
    return new Response("content");
  });
  const image = imageOf(
    '{ "title": "D", "kernel": "k", "initrd": "../i", "session": true }',
    URL_OF_IMAGE,
  );
  const signal = new AbortController().signal;
  await image.kernel.read(() => {}, signal);
  await image.initrd?.read(() => {}, signal);
  assert.deepEqual(asked, ["https://example.org/vm/image/k", "https://example.org/vm/i"]);
  assert.deepEqual([image.title, image.append, image.hasSession], ["D", "", true]);
});

test("what describes no image is refused with the reason", () => {
  for (const [text, why] of [
    ["<!doctype html>", /no JSON/],
    ["null", /no JSON object/],
    ["{}", /names no kernel/],
    ['{ "kernel": 5 }', /names no kernel/],
    ['{ "kernel": "k", "append": ["quiet"] }', /"append" is no text/],
  ] as const) {
    assert.throws(() => imageOf(text, URL_OF_IMAGE), why);
  }
});

test("an image may be absent, and may be out of reach", async (t) => {
  const signal = new AbortController().signal;
  const answer = (make: () => Response) => t.mock.method(globalThis, "fetch", async () => make());
  answer(() => new Response("", { status: 404 }));
  assert.equal(await findImage(URL_OF_IMAGE, signal), undefined);
  answer(() => new Response("", { status: 500 }));
  await assert.rejects(findImage(URL_OF_IMAGE, signal), hasCode("image-unreachable"));
  answer(() => {
    throw new TypeError("Failed to fetch");
  });
  await assert.rejects(findImage(URL_OF_IMAGE, signal), hasCode("image-unreachable"));
});
