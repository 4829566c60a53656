/**
 * The library as its user has it. One boot of Debian's kernel for all of it; needs the default image in the user's cache, and says so without it.
 */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { defaultCacheRoot, ImageCache } from "../image/cache.ts";
import { FLAVORS } from "../image/flavors.ts";
import { scratchFolder } from "../testing/scratch.ts";
import { GuestOutput } from "./guest-output.ts";
import { Machine } from "./index.ts";

const [flavor] = FLAVORS;
const image = new ImageCache(defaultCacheRoot()).load(flavor!.image, flavor!.modules);
const skip = image.state === "found" ? false : "the default image is not in the cache";

async function textOf(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString();
}

test("a machine: streams, exec, files, pause, snapshot, end", { skip }, async (t) => {
  const folder = scratchFolder(t);
  const script = "echo $GREETING; echo no >&2; read line; echo got $line; exit 5";
  await using machine = await Machine.create({
    command: ["sh", "-c", script],
    env: { GREETING: "hello" },
    memory: "128m",
  });
  assert.equal(machine.state, "created");
  const ready = new Promise<void>((resolve) => machine.once("ready", resolve));
  await machine.start();
  await ready;
  await assert.rejects(machine.start(), { code: "machine-state" });

  const run = await machine.exec(["sh", "-c", "cat; echo no >&2; exit 3"], { stdin: "in\n" });
  assert.deepEqual(
    [run.exitCode, run.stdout.toString(), run.stderr.toString()],
    [3, "in\n", "no\n"],
  );
  const as = await machine.exec(["sh", "-c", "id -u; pwd; echo $A"], {
    ...{ user: "nobody", workdir: "/tmp", env: { A: "1" } },
  });
  assert.equal(as.stdout.toString(), "65534\n/tmp\n1\n");
  await assert.rejects(machine.exec(["nosuch"]), { exitCode: 127 });
  const abort = AbortSignal.timeout(10);
  assert.equal((await machine.exec(["sleep", "1000"], { signal: abort })).exitCode, 137);

  await machine.files.write("/tmp/page", "content\n", 0o600);
  assert.equal((await machine.files.read("/tmp/page")).toString(), "content\n");
  assert.equal((await machine.exec(["stat", "-c", "%a", "/tmp/page"])).stdout.toString(), "600\n");
  await assert.rejects(machine.files.read("/nowhere"), { code: "guest-file" });
  mkdirSync(join(folder, "from"));
  writeFileSync(join(folder, "from/file"), "x".repeat(100_000));
  await machine.files.copyIn(join(folder, "from"), "/root");
  await machine.files.copyOut("/root/from/file", join(folder, "back"));
  assert.equal(readFileSync(join(folder, "back"), "utf8"), "x".repeat(100_000));

  machine.pause();
  machine.resume();
  const place = join(folder, "snapshot");
  assert.ok((await machine.snapshot(place)) > 1 << 20);
  machine.stdin.write("typed\n");
  assert.deepEqual((await machine.ended).exitCode, 5);
  assert.equal(await textOf(machine.stdout), "hello\ngot typed\n");
  assert.equal(await textOf(machine.stderr), "no\n");
  await assert.rejects(machine.exec(["true"]), { code: "machine-ended" });

  await using again = await Machine.restore(place, { name: "again" }).start();
  assert.equal((await again.files.read("/tmp/page")).toString(), "content\n");
  again.stdin.write("later\n");
  assert.equal((await again.ended).exitCode, 5);
  assert.equal(await textOf(again.stdout), "got later\n");
});

test("a console is a shell's; stop asks it to end", { skip }, async () => {
  await using machine = await Machine.create({ memory: "128m", network: "none" });
  await machine.start();
  let said = "";
  machine.stdout.on("data", (part) => {
    said += part;
  });
  await machine.exec(["true"]);
  machine.stdin.write("echo $((6 * 7))\n");
  while (!said.includes("42")) await new Promise((resolve) => machine.stdout.once("data", resolve));
  const end = await machine.stop(60);
  assert.deepEqual([end.reason.kind, machine.state], ["poweroff", "ended"]);
});

test("what cannot be is said before anything starts", async (t) => {
  await assert.rejects(Machine.create({ memory: "huge" }), { code: "usage" });
  await assert.rejects(Machine.create({ image: "debian:trixy" }), { code: "image-unknown" });
  await assert.rejects(Machine.create({ kernel: join(scratchFolder(t), "absent") }), {
    code: "kernel-unreadable",
  });
});

test("of output that nobody reads the oldest is forgotten", async () => {
  const output = new GuestOutput();
  for (let i = 0; i < 40; i++) output.add(Buffer.alloc(1 << 20, i));
  output.finish();
  const first: number[] = [];
  for await (const part of output) first.push((part as Buffer)[0]!);
  assert.equal(first.at(-1), 39);
  assert.ok(first.length <= 8 && first.length >= 7, String(first));
});
