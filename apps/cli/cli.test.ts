/**
 * The command as its user has it: bin/hypo as a process, with a fake machine and a fake apt.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { CheckResult } from "./doctor/checks.ts";
import { HYPO, hypo, makeWorld, play, Running, startHypo } from "./testing/hypo-process.ts";

/** A Node of the system's that is too old for TypeScript, if there is one. */
const OLD_NODE = ["/usr/bin/node", "/usr/local/bin/node"].find((path) => {
  const { stdout } = spawnSync(path, ["--version"], { encoding: "utf8" });
  return Number(/^v(\d+)/.exec(stdout ?? "")?.[1] ?? 99) < 24;
});

test("a job's output, errors and exit code are ours; --quiet leaves nothing else", async (t) => {
  const world = await makeWorld(t);
  const first = await hypo(world, ...play("exit7"), "--", "x");
  assert.deepEqual([first.code, first.stdout], [7, "out\n"]);
  assert.match(first.stderr, /^downloading linux-image.*\ndownloading busybox.*\nerr\n$/);
  const second = await hypo(world, ...play("exit7"), "--quiet", "--", "x");
  assert.deepEqual(second, { code: 7, stdout: "out\n", stderr: "err\n" });
});

test("standard input reaches the job byte for byte", async (t) => {
  const world = await makeWorld(t);
  const content = Buffer.from(
    Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7 + (i >> 8)) & 0xff),
  );
  const run = startHypo(world, [...play("cat"), "-q", "--", "cat"], "pipe");
  run.child.stdin!.end(content);
  const { code, stdout } = await run.ended;
  assert.equal(code, 0);
  assert.ok(Buffer.from(stdout, "latin1").equals(content));
});

test("the machine gets what the options say", async (t) => {
  const world = await makeWorld(t);
  const options = ["-q", "-m", "128m", "--cpu-model", "x86-64,-sse", "--clock", "deterministic"];
  const { stdout } = await hypo(world, ...play("config"), ...options, "--", "x");
  const config = JSON.parse(stdout);
  assert.equal(config.memoryBytes, 128 * 2 ** 20);
  assert.equal(config.cpuModel, "x86-64,-sse");
  assert.equal(config.clock, "deterministic");
  assert.equal(config.rtcEpochMs, Date.UTC(2025, 0, 1));
  assert.equal(config.cmdline, "console=ttyS0 panic=-1 quiet fake=config");
  assert.ok(config.initrdBytes > 1000 && config.kernelBytes > 0);
});

test("with a kernel and an initrd of the user's, nothing else is added", async (t) => {
  const world = await makeWorld(t);
  writeFileSync(join(world.folder, "kernel"), "kernel");
  writeFileSync(join(world.folder, "initrd"), "initrd");
  const run = startHypo(
    world,
    [...play("console"), "--kernel", "kernel", "--initrd", "initrd"],
    "pipe",
  );
  await run.says("console up");
  run.child.stdin!.write("hello");
  await run.says("<hello>");
  run.child.stdin!.write("q");
  const { code, stderr } = await run.ended;
  // There is no session of ours in such a guest: its control words mean nothing.
  assert.deepEqual([code, stderr], [0, ""]);
  // The folders of running machines are all that is made, and nothing is left in them.
  const home = join(world.folder, "home");
  assert.deepEqual(readdirSync(home), ["run", "state"]);
  assert.deepEqual(readdirSync(join(home, "run")), []);
  assert.deepEqual(readdirSync(join(home, "state/machines")), []);
});

test("how a machine ended other than by its job's end is told, with status 125", async (t) => {
  const world = await makeWorld(t);
  const cases: ReadonlyArray<readonly [part: string, told: RegExp]> = [
    ["triple-fault", /triple fault at RIP 0x1234\n {2}RIP 0x1234 CR2 0x0 CR3 0x1000\n/],
    ["panic", /the guest's kernel stopped: VFS: no root\n[\s\S]*end of the guest's console/],
    ["reset", /restarted before the command ended/],
    ["power-off", /turned itself off before the command ended/],
    ["refuse", /the kernel file is no kernel\n {2}try: look at it\n/],
    ["crash", /the machine's thread failed: a bug in the machine/],
    ["leave", /the machine's thread ended/],
  ];
  await hypo(world, ...play("exit7"), "--", "x");
  const check = async ([part, told]: (typeof cases)[number]): Promise<void> => {
    const { code, stderr } = await hypo(world, ...play(part), "--", "x");
    assert.equal(code, 125, part);
    assert.match(stderr, told);
  };
  await Promise.all(cases.map(check));
});

test("the trace goes to its file", async (t) => {
  const world = await makeWorld(t);
  const { code } = await hypo(world, ...play("trace"), "--trace", "exits=exits.log", "--", "x");
  assert.equal(code, 0);
  assert.equal(readFileSync(join(world.folder, "exits.log"), "utf8"), "exit 0\nexit 1\nexit 2\n");
  const refused = await hypo(world, ...play("trace"), "--trace", "exits=no/such/dir", "--", "x");
  assert.equal(refused.code, 125);
  assert.match(refused.stderr, /trace file no\/such\/dir cannot be written/);
});

test("the machine's log is shown from the level that was asked for", async (t) => {
  const options = ["-q", "--log-level", "info", "--", "x"];
  const { stderr } = await hypo(await makeWorld(t), ...play("log"), ...options);
  assert.equal(stderr, "hypo: error: a error\nhypo: warn: a warn\nhypo: info: a info\n");
});

test("mistakes in the command line have status 2, in what it names 125", async (t) => {
  const world = await makeWorld(t);
  writeFileSync(join(world.folder, "big"), Buffer.alloc(70 << 20));
  const cases: ReadonlyArray<readonly [argv: string[], code: number, told: RegExp]> = [
    [["rnu"], 2, /did you mean run\?/],
    [["run", "--memory", "63m"], 125, /63 MiB of memory are too little/],
    [["run", "--kernel", "nope"], 125, /the kernel nope cannot be read: there is no such file/],
    [["run", "--kernel", "."], 125, /the kernel \. cannot be read: EISDIR/],
    [["run", "--memory", "64m", "--initrd", "big"], 125, /initrd of 70 MiB does not fit into 64/],
  ];
  const check = async ([argv, code, told]: (typeof cases)[number]): Promise<void> => {
    const result = await hypo(world, ...argv);
    assert.equal(result.code, code, argv.join(" "));
    assert.match(result.stderr, told);
  };
  await Promise.all(cases.map(check));
});

test("without network and cache the failure says what to do", async (t) => {
  const world = await makeWorld(t, { beforeDownload: "echo 'E: no network' >&2; exit 100" });
  const args = ["--mirror", "http://127.0.0.1:9/debian", "--", "x"];
  const { code, stderr } = await hypo(world, ...play("exit7"), ...args);
  assert.equal(code, 125);
  assert.match(
    stderr,
    /127\.0\.0\.1:9.* cannot be downloaded[\s\S]*--mirror URL[\s\S]*--kernel and --initrd[\s\S]*hypo doctor/,
  );
});

test("a cache that cannot be written costs a warning", async (t) => {
  const world = await makeWorld(t);
  writeFileSync(join(world.folder, "home"), "a file");
  const { code, stderr } = await hypo(world, ...play("exit7"), "--", "x");
  assert.equal(code, 7);
  assert.match(stderr, /warn: the cache in .* cannot be written/);
});

test("Ctrl-C while a package is being downloaded leaves nothing half-done", async (t) => {
  const world = await makeWorld(t, { beforeDownload: "echo half >x.deb; exec sleep 30" });
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    const run = startHypo(world, [...play("exit7"), "--", "x"]);
    await run.says("downloading");
    await sleep(100);
    run.child.kill(signal);
    assert.deepEqual(await run.ended, { code, stdout: "", stderr: run.stderr });
    assert.doesNotMatch(run.stderr, /hypo:/);
    assert.deepEqual(readdirSync(join(world.folder, "home", "cache")), ["staging"]);
    assert.deepEqual(readdirSync(join(world.folder, "home", "cache", "staging")), []);
  }
});

test("Ctrl-C while the guest boots ends it at once", async (t) => {
  const run = startHypo(await makeWorld(t), [
    ...play("booting"),
    "--log-level",
    "debug",
    "--",
    "x",
  ]);
  await run.says("booting");
  run.child.kill("SIGINT");
  assert.equal((await run.ended).code, 130);
});

test("Ctrl-C reaches a running job, and the status is 130 whatever it makes of it", async (t) => {
  const run = startHypo(await makeWorld(t), [...play("polite"), "--", "x"]);
  await run.says("started");
  run.child.kill("SIGINT");
  const { code, stderr } = await run.ended;
  assert.equal(code, 130);
  assert.match(stderr, /stopping the command/);
});

test("Ctrl-C twice ends what does not listen", async (t) => {
  const run = startHypo(await makeWorld(t), [...play("stubborn"), "--", "x"]);
  await run.says("started");
  run.child.kill("SIGINT");
  await sleep(300);
  assert.equal(run.child.exitCode, null);
  run.child.kill("SIGINT");
  assert.equal((await run.ended).code, 130);
});

test("a reader that goes away ends the run", async (t) => {
  const run = startHypo(await makeWorld(t), [...play("yes"), "-q", "--", "yes"]);
  await run.says("y\n");
  run.child.stdout!.destroy();
  assert.equal((await run.ended).code, 141);
});

test("hypo version and hypo help need nothing", async (t) => {
  const world = { ...(await makeWorld(t)), env: { PATH: "/usr/bin:/bin" } };
  assert.match((await hypo(world, "version")).stdout, /^hypo \d+\.\d+\.\d+\n$/);
  assert.match((await hypo(world, "help", "run")).stdout, /Examples:/);
});

test("under a Node that is too old the pinned one does the work: input, exit code and signals pass", {
  skip: !OLD_NODE,
}, async (t) => {
  const world = await makeWorld(t);
  const cat = new Running(world, [OLD_NODE!, HYPO, ...play("cat"), "-q", "--", "cat"], "pipe");
  cat.child.stdin!.end("hello");
  assert.deepEqual(await cat.ended, { code: 0, stdout: "hello", stderr: "" });
  const polite = new Running(world, [OLD_NODE!, HYPO, ...play("polite"), "--", "x"]);
  await polite.says("started");
  polite.child.kill("SIGINT");
  assert.equal((await polite.ended).code, 130);
});

test("hypo doctor names what does not work, its cure, and has a status", async (t) => {
  const world = await makeWorld(t);
  writeFileSync(join(world.folder, "home"), "a file");
  const env = { ...world.env, HYPO_DEBIAN_MIRROR: "http://127.0.0.1:9/debian" };
  const { code, stdout } = await hypo({ ...world, env }, "doctor", "--json");
  assert.equal(code, 1);
  const checks: CheckResult[] = JSON.parse(stdout);
  const status = Object.fromEntries(checks.map((check) => [check.name, check.status]));
  assert.equal(status["Node.js"], "ok");
  assert.equal(status.WebAssembly, "ok");
  assert.equal(status.machine, "ok");
  assert.equal(status.cache, "warn");
  assert.equal(status.packages, "fail");
  for (const check of checks) assert.equal(check.cure === undefined, check.status === "ok");
});
