/**
 * --jit-stats and --profile, as their user has them.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { hypo, makeWorld, play, startHypo } from "./testing/hypo-process.ts";

test("--jit-stats is printed to standard error, also with --quiet, and only if asked for", async (t) => {
  const world = await makeWorld(t);
  const asked = await hypo(world, ...play("reports"), "-q", "--jit-stats", "--", "x");
  assert.deepEqual([asked.code, asked.stdout], [0, ""]);
  assert.match(asked.stderr, /^region tier: none.*\n.*retired +1,234\n$/);
  const silent = await hypo(world, ...play("reports"), "-q", "--", "x");
  assert.deepEqual(silent, { code: 0, stdout: "", stderr: "" });
});

test("the profile goes to its file, with the symbols of all files", async (t) => {
  const world = await makeWorld(t);
  writeFileSync(join(world.folder, "a"), "2000 T two\n");
  writeFileSync(join(world.folder, "b"), "1000 T one\n");
  const options = ["--profile", "p.json", "--profile-every", "7", "--symbols", "a", "--symbols=b"];
  const { code } = await hypo(world, ...play("reports"), ...options, "--", "x");
  assert.equal(code, 0);
  const [every, names] = JSON.parse(readFileSync(join(world.folder, "p.json"), "utf8"));
  assert.deepEqual([every, names], [7, ["one", "two"]]);
});

test("an unwritable profile and bad symbols are mistakes that are found before anything starts", async (t) => {
  const world = await makeWorld(t);
  writeFileSync(join(world.folder, "bad"), "hello\n");
  const cases: [string[], RegExp][] = [
    [["--profile", "no/such/dir"], /profile no\/such\/dir cannot be written/],
    [["--profile", "p", "--symbols", "absent"], /symbol file absent .*no such file/],
    [["--profile", "p", "--symbols", "."], /no regular file/],
    [["--profile", "p", "--symbols", "/dev/zero"], /no regular file/],
    [["--profile", "p", "--symbols", "bad"], /bad is no use as a symbol file: line 1/],
    [["--symbols", "bad"], /--profile FILE/],
  ];
  for (const [options, told] of cases) {
    const { code, stderr } = await hypo(world, ...play("reports"), ...options, "--", "x");
    assert.equal(code, 2, stderr);
    assert.match(stderr, told);
    assert.doesNotMatch(stderr, /downloading/);
  }
  assert.equal(existsSync(join(world.folder, "p")), false);
});

test("a machine that ends without its reports is said to have done so", async (t) => {
  const world = await makeWorld(t);
  const options = ["--jit-stats", "--profile", "p.json"];
  const run = startHypo(world, [...play("stubborn"), ...options, "--", "x"]);
  await run.says("started");
  run.child.kill("SIGTERM");
  await run.says("once more");
  // Two signals in quick succession are one request (stop-requests.ts).
  await sleep(300);
  run.child.kill("SIGTERM");
  const { code, stderr } = await run.ended;
  assert.equal(code, 143);
  assert.match(stderr, /p\.json is empty/);
  assert.match(stderr, /region tier: unknown/);
});
