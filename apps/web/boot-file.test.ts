import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { BootFile } from "./boot-file.ts";

const never = new AbortController().signal;
const ADDRESS = new URL("https://example.org/vmlinuz");
const hasCode = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

function answer(t: TestContext, make: () => Response | Promise<Response>) {
  return t.mock.method(globalThis, "fetch", async () => make());
}

test("a chosen file is read as often as it is wanted, each time into an array of one's own", async () => {
  const file = new BootFile("kernel", new Blob(["abc"]), "k");
  const first = await file.read(() => {}, never);
  first.fill(0);
  assert.deepEqual([...(await file.read(() => {}, never))], [97, 98, 99]);
});

test("a download says how far it is, and is done once", async (t) => {
  const fetched = answer(t, () => new Response("12345", { headers: { "content-length": "5" } }));
  const file = new BootFile("kernel", ADDRESS, "vmlinuz");
  const said: string[] = [];
  assert.equal((await file.read((text) => said.push(text), never)).length, 5);
  await file.read(() => {}, never);
  assert.equal(said.at(-1), "kernel: 5 bytes of 5 bytes");
  assert.equal(fetched.mock.callCount(), 1);
});

test("the length of a compressed answer is not that of the file", async (t) => {
  const headers = { "content-length": "2", "content-encoding": "gzip" };
  answer(t, () => new Response("12345", { headers }));
  const said: string[] = [];
  await new BootFile("initrd", ADDRESS, "i").read((text) => said.push(text), never);
  assert.equal(said.at(-1), "initrd: 5 bytes");
});

test("a file that is not there is named, with the server's word", async (t) => {
  answer(t, () => new Response("", { status: 404, statusText: "Not Found" }));
  const read = new BootFile("kernel", ADDRESS, "vmlinuz").read(() => {}, never);
  await assert.rejects(
    read,
    /the kernel vmlinuz cannot be downloaded: the server says 404 Not Found/,
  );
});

test("a server that does not answer, breaks off or sends nothing is reported, and may be asked again", async (t) => {
  const file = new BootFile("kernel", ADDRESS, "vmlinuz");
  const read = () => file.read(() => {}, never);
  answer(t, () => Promise.reject(new TypeError("Failed to fetch")));
  await assert.rejects(read, hasCode("kernel-unreachable"));
  const broken = new ReadableStream({
    start(controller) {
      controller.enqueue(new Uint8Array(3));
      queueMicrotask(() => controller.error(new Error("reset")));
    },
  });
  answer(t, () => new Response(broken));
  await assert.rejects(read, /broke off|cannot be downloaded/);
  answer(t, () => new Response("ok"));
  assert.equal((await read()).length, 2);
  answer(t, () => new Response(""));
  await assert.rejects(
    new BootFile("initrd", ADDRESS, "i").read(() => {}, never),
    hasCode("initrd-empty"),
  );
});

test("who gives up a download hears of that and not of a failure", async (t) => {
  const abort = new AbortController();
  answer(t, () => {
    abort.abort();
    throw new DOMException("aborted", "AbortError");
  });
  const read = new BootFile("kernel", ADDRESS, "k").read(() => {}, abort.signal);
  await assert.rejects(read, { name: "AbortError" });
});
