import assert from "node:assert/strict";
import { test } from "node:test";
import { BootFile } from "./boot-file.ts";
import type { ServedImage } from "./served-image.ts";
import { NO_WISHES, planStart, type StartWishes, wishesOf } from "./start-plan.ts";

const BASE = new URL("https://example.org/vm/index.html");
const file = (role: "kernel" | "initrd", name: string): BootFile =>
  new BootFile(role, new Blob(["x"]), name);

const IMAGE: ServedImage = {
  title: "Debian",
  kernel: file("kernel", "vmlinuz"),
  initrd: file("initrd", "initrd.cpio"),
  append: "quiet",
  hasSession: true,
};

const wishes = (query: string) => wishesOf(new URLSearchParams(query), BASE);
const plan = (changes: Partial<StartWishes>, image: ServedImage | undefined = IMAGE) =>
  planStart({ ...NO_WISHES, ...changes }, image);
const hasCode = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

test("without wishes the served image is booted, with its session", () => {
  const { title, kernel, initrd, cmdline, memoryBytes, hasSession } = plan({});
  assert.deepEqual([title, kernel, initrd], ["Debian", IMAGE.kernel, IMAGE.initrd]);
  assert.equal(cmdline, "console=ttyS0 panic=-1 quiet");
  assert.deepEqual([memoryBytes, hasSession], [2 ** 29, true]);
});

test("a kernel of one's own is booted alone", () => {
  const own = file("kernel", "bzImage");
  const { title, kernel, initrd, cmdline, hasSession } = plan({ kernel: own, append: " ro " });
  assert.deepEqual([title, kernel, initrd, hasSession], ["bzImage", own, undefined, false]);
  assert.equal(cmdline, "console=ttyS0 panic=-1 ro");
});

test("an initrd of one's own takes the place of the image's, and nobody listens to the control line", () => {
  const own = file("initrd", "root.cpio");
  const { kernel, initrd, hasSession } = plan({ initrd: own });
  assert.deepEqual([kernel, initrd, hasSession], [IMAGE.kernel, own, false]);
});

test("mistakes are found before anything is downloaded", () => {
  assert.throws(() => planStart(NO_WISHES, undefined), hasCode("kernel-absent"));
  assert.throws(() => plan({ memory: "lots" }), hasCode("memory-invalid"));
  assert.throws(() => plan({ memory: "63m" }), hasCode("memory-too-small"));
  assert.throws(() => plan({ memory: "5g" }), hasCode("memory-too-large"));
  assert.throws(() => plan({ cpuModel: "fast one" }), hasCode("cpu-model-invalid"));
  assert.throws(() => plan({ engine: "steam" }), hasCode("engine-unknown"));
  assert.throws(() => wishes("kernel=javascript:alert(1)"), hasCode("address-invalid"));
  assert.throws(() => wishes("initrd=http://[no"), hasCode("address-invalid"));
});

test("the page's address may say what to boot, and then it is booted at once", () => {
  const { kernel, initrd, append, memory, cpuModel, engine, startsAtOnce } = wishes(
    "kernel=k/bzImage&initrd=https://example.com/i&append=a%20b&memory=1g&cpu=max&engine=jit",
  );
  assert.deepEqual([kernel?.name, initrd?.name], ["k/bzImage", "https://example.com/i"]);
  assert.deepEqual([append, memory, cpuModel, engine], ["a b", "1g", "max", "jit"]);
  assert.equal(startsAtOnce, true);
});

test("an address without a kernel boots at once only if it says so", () => {
  assert.equal(wishes("memory=1g&utm_source=x").startsAtOnce, false);
  assert.equal(wishes("start").startsAtOnce, true);
  assert.deepEqual({ ...NO_WISHES, image: undefined, startsAtOnce: false }, wishes("memory="));
  assert.equal(wishes("image=other/image.json").image, "other/image.json");
});
