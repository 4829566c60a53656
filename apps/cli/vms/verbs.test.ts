/** The verbs about machines as their user has them: bin/hypo as processes, with a fake machine. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  HYPO,
  hypo,
  makeWorld,
  play,
  type Result,
  Running,
  startHypo,
  type World,
} from "../testing/hypo-process.ts";

const HAS_SCRIPT = spawnSync("script", ["--version"]).status === 0;

/** A world whose machines end with the test. */
async function world(t: TestContext): Promise<World> {
  let made: World | undefined;
  // Registered first, so that it is done before the folder is removed.
  t.after(async () => {
    if (!made) return;
    const { stdout } = await hypo(made, "ps", "-aq");
    const names = stdout.split("\n").filter((name) => name !== "");
    if (names.length > 0) await hypo(made, "rm", "-f", ...names);
  });
  made = await makeWorld(t);
  return made;
}

async function background(made: World, name: string, part: string, ...more: string[]) {
  const run = await hypo(made, ...play(part), "-q", "-d", "--name", name, ...more, "--", "x");
  assert.deepEqual([run.code, run.stdout], [0, `${name}\n`], run.stderr);
}

const machines = async (made: World): Promise<Record<string, unknown>[]> =>
  JSON.parse((await hypo(made, "ps", "-a", "--json")).stdout);

/** Waits until something is so. */
async function until(what: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await what())) {
    assert.ok(performance.now() < deadline, "it does not come");
    await sleep(50);
  }
}

/** One that nobody has waited for is not. */
function isRunning(pid: number): boolean {
  const path = `/proc/${pid}/stat`;
  return existsSync(path) && !/\) [ZX] /.test(readFileSync(path, "latin1"));
}

const fails = ({ code, stderr }: Result, status: number, told: RegExp): void => {
  assert.equal(code, status, stderr);
  assert.match(stderr, told);
};

test("a background machine: listed, logged, waited for, inspected, forgotten", async (t) => {
  const made = await world(t);
  await background(made, "web", "exit7");
  assert.equal((await hypo(made, "wait", "web")).stdout, "7\n");
  const [row] = await machines(made);
  assert.deepEqual([row?.name, row?.status, row?.exitCode], ["web", "ended", 7]);
  assert.equal((await hypo(made, "ps", "-q")).stdout, "");
  assert.match((await hypo(made, "ps", "-a")).stdout, /^web +ended \(7\) \d+ s ago /m);
  const logs = await hypo(made, "logs", "web");
  assert.deepEqual([logs.stdout, logs.stderr], ["out\n", "err\n"]);
  assert.match((await hypo(made, "logs", "-t", "web")).stdout, /^20\d\d-\S+Z out\n$/);
  const [shown] = JSON.parse((await hypo(made, "inspect", "web")).stdout);
  assert.deepEqual(shown.settings.command, ["x"]);
  assert.equal(shown.isBackground, true);
  fails(
    await hypo(made, ...play("exit7"), "--name", "web", "--", "x"),
    125,
    /web has ended and is kept[\s\S]*hypo rm web/,
  );
  assert.equal((await hypo(made, "rm", "web")).stdout, "web\n");
  assert.deepEqual(await machines(made), []);
  fails(await hypo(made, "wait", "web"), 1, /there is no machine web/);
});

test("--rm and machines without a name leave nothing; a name without -d is kept", async (t) => {
  const made = await world(t);
  await background(made, "gone", "exit7", "--rm");
  await until(async () => (await machines(made)).length === 0);
  await hypo(made, ...play("exit7"), "-q", "--", "x");
  assert.deepEqual(readdirSync(join(made.folder, "home/state/machines")), []);
  const kept = await hypo(made, ...play("exit7"), "-q", "--name", "kept", "--", "x");
  assert.deepEqual(kept, { code: 7, stdout: "out\n", stderr: "err\n" });
  assert.deepEqual(
    (await machines(made)).map(({ name }) => name),
    ["kept"],
  );
  assert.equal((await hypo(made, "logs", "kept")).stdout, "out\n");
});

test("stop asks, and insists after its time; kill does not ask; both answer with docker's codes", async (t) => {
  const made = await world(t);
  await background(made, "polite", "polite");
  await until(async () => (await hypo(made, "logs", "polite")).stdout === "started\n");
  fails(await hypo(made, "rm", "polite"), 1, /polite is running[\s\S]*hypo stop polite/);
  const pid = Number((await machines(made))[0]!.pid);
  assert.equal((await hypo(made, "stop", "polite")).stdout, "polite\n");
  assert.equal(isRunning(pid), false, "stop answers before the process is gone");
  assert.equal((await hypo(made, "wait", "polite")).stdout, "0\n");
  await background(made, "stubborn", "stubborn");
  await until(async () => (await hypo(made, "logs", "stubborn")).stdout === "started\n");
  assert.equal((await hypo(made, "stop", "-t", "1", "stubborn")).code, 0);
  assert.equal((await hypo(made, "wait", "stubborn")).stdout, "137\n");
  await background(made, "killed", "polite");
  await until(async () => (await hypo(made, "logs", "killed")).stdout === "started\n");
  assert.equal((await hypo(made, "kill", "-s", "hup", "killed")).code, 0);
  assert.equal((await hypo(made, "wait", "killed")).stdout, "0\n");
  fails(await hypo(made, "kill", "-s", "NONE", "killed"), 2, /'NONE' is no signal/);
  fails(
    await hypo(made, "kill", "killed", "nobody"),
    1,
    /no machine killed[\s\S]*no machine nobody/,
  );
});

test("attach: what is typed goes in, what is written comes out, and the end brings the exit code", async (t) => {
  const made = await world(t);
  await background(made, "tty", "console", "-t");
  const attached = startHypo(made, ["attach", "tty"], "pipe");
  attached.child.stdin!.write("hello");
  await attached.says("<hello>");
  const looking = startHypo(made, ["attach", "--no-stdin", "tty"]);
  await until(async () => {
    attached.child.stdin!.write(".");
    return looking.stdout.includes("<.");
  });
  attached.child.stdin!.write("q");
  assert.equal((await attached.ended).code, 5);
  assert.equal((await looking.ended).code, 5);
  assert.match((await hypo(made, "logs", "tty")).stdout, /^console up\r\n<hello>/);
});

test("in a terminal, Ctrl-P Ctrl-Q leaves the machine running and the terminal as it was", {
  skip: HAS_SCRIPT ? false : "there is no script(1)",
}, async (t) => {
  const made = await world(t);
  await background(made, "tty", "console", "-t");
  const command = `stty -a >before; '${process.execPath}' '${HYPO}' attach tty; echo $? >code; stty -a >after`;
  writeFileSync(join(made.folder, "session"), command);
  const run = new Running(made, ["script", "-qec", "sh session", "/dev/null"], "pipe");
  await until(async () => {
    run.child.stdin!.write("k");
    return run.stdout.includes("<k");
  });
  run.child.stdin!.write("\x03");
  await run.says("\x03");
  run.child.stdin!.write("\x10\x11");
  await run.ended;
  const [before, after, code] = ["before", "after", "code"].map((name) =>
    readFileSync(join(made.folder, name), "utf8"),
  );
  assert.deepEqual([after, code], [before, "0\n"]);
  assert.equal((await machines(made))[0]?.status, "running");
});

test("with -d -i the job reads what is typed in attach, up to its end", async (t) => {
  const made = await world(t);
  await background(made, "cat", "cat", "-i");
  const attached = startHypo(made, ["attach", "cat"], "pipe");
  attached.child.stdin!.write("first");
  await attached.says("first");
  attached.child.stdin!.end(" second");
  const { code, stdout } = await attached.ended;
  assert.deepEqual([code, stdout], [0, "first second"]);
});

test("logs -f follows to the end; --tail shows the last lines", async (t) => {
  const made = await world(t);
  await background(made, "tty", "console", "-t");
  const following = startHypo(made, ["logs", "-f", "tty"]);
  await following.says("console up");
  const attached = startHypo(made, ["attach", "tty"], "pipe");
  attached.child.stdin!.write("1\n2\n3\nq");
  assert.equal((await attached.ended).code, 5);
  assert.equal((await following.ended).code, 0);
  assert.match(following.stdout, /1\n2\n3\nq>$/);
  assert.equal((await hypo(made, "logs", "--tail", "2", "tty")).stdout, "3\nq>");
  fails(await hypo(made, "logs", "--tail", "x", "tty"), 2, /'x' is no number of lines/);
});

test("a machine whose process was killed is shown as such, and can be forgotten", async (t) => {
  const made = await world(t);
  await background(made, "crash", "polite");
  const [row] = await machines(made);
  process.kill(Number(row!.pid), "SIGKILL");
  await until(async () => (await machines(made))[0]?.status === "died");
  assert.equal((await hypo(made, "ps")).stdout.split("\n").length, 2);
  assert.match((await hypo(made, "ps", "-a")).stdout, /^crash +died /m);
  fails(await hypo(made, "wait", "crash"), 1, /the process of crash died/);
  fails(await hypo(made, "exec", "crash", "ls"), 125, /no machine crash running/);
  fails(await hypo(made, ...play("exit7"), "--name", "crash", "--", "x"), 125, /crash has died/);
  assert.equal((await hypo(made, "stop", "crash")).code, 0);
  assert.equal((await hypo(made, "rm", "crash")).code, 0);
  assert.equal((await hypo(made, ...play("exit7"), "-q", "--name", "crash", "--", "x")).code, 7);
});

test("a process that hangs is ended by rm -f", async (t) => {
  const made = await world(t);
  await background(made, "hung", "polite");
  const [row] = await machines(made);
  process.kill(Number(row!.pid), "SIGSTOP");
  assert.equal((await machines(made))[0]?.status, "silent");
  assert.equal((await hypo(made, "rm", "-f", "hung")).code, 0);
  assert.deepEqual(await machines(made), []);
});

test("what fails before a background machine runs is told by run, with its exit code", async (t) => {
  const made = await world(t);
  fails(
    await hypo(made, ...play("refuse"), "-q", "-d", "--", "x"),
    125,
    /the kernel file is no kernel/,
  );
  fails(await hypo(made, "run", "-d", "--name", "a b", "--", "x"), 2, /no name for a machine/);
  await background(made, "a", "polite");
  fails(
    await hypo(made, ...play("polite"), "-q", "-d", "--name", "a", "--", "x"),
    125,
    /a machine named a is running/,
  );
  assert.deepEqual(
    (await machines(made)).map(({ name }) => name),
    ["a"],
  );
});

test("what is left of an interrupted start is no obstacle", async (t) => {
  const made = await world(t);
  const folder = join(made.folder, "home/state/machines/half");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "machine.json"), "{");
  assert.deepEqual(await machines(made), []);
  assert.equal((await hypo(made, ...play("exit7"), "-q", "--name", "half", "--", "x")).code, 7);
  assert.ok(existsSync(join(folder, "machine.json")));
});
