/**
 * The verbs on a machine that is none of our making but the processor: Debian's kernel, one boot for all of it. Needs the default image in
 * the user's cache (`hypo run -- true` fetches it); without it the test is skipped, and says so.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { defaultCacheRoot, ImageCache } from "../image/cache.ts";
import { FLAVORS } from "../image/flavors.ts";

const HYPO = fileURLToPath(new URL("../../../bin/hypo", import.meta.url));
const [flavor] = FLAVORS;
const image = new ImageCache(defaultCacheRoot()).load(flavor!.image, flavor!.modules);
const skip = image.state === "found" ? false : "the default image is not in the cache";

interface Outcome {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly text: string;
  readonly stderr: string;
}

interface Typing {
  readonly env: NodeJS.ProcessEnv;
  readonly folder: string;
}

/** Its records and doors are the test's own, its image cache is the user's. */
function makeHome(t: TestContext): Typing {
  const folder = mkdtempSync(join(tmpdir(), "hypo-vm-"));
  const { HYPO_HOME: _, ...env } = process.env;
  const home = { folder, env: { ...env, XDG_RUNTIME_DIR: folder, XDG_STATE_HOME: folder } };
  t.after(() => {
    hypo(home, ["rm", "-f", "vm", "vm2", "clean-1", "clean-2", "hot-1"]);
    rmSync(folder, { recursive: true });
  });
  return home;
}

function hypo({ env, folder }: Typing, argv: readonly string[], input?: Buffer | string): Outcome {
  const { status, stdout, stderr } = spawnSync(process.execPath, [HYPO, ...argv], {
    ...{ env, cwd: folder, input: input ?? "", maxBuffer: 1 << 26, timeout: 120_000 },
  });
  return { code: status, stdout, text: stdout.toString(), stderr: stderr.toString() };
}

test("a machine in the background, used by every verb", { skip }, async (t) => {
  const home = makeHome(t);
  const run = (...argv: string[]): Outcome => hypo(home, argv);
  const exec = (...argv: string[]): Outcome => run("exec", ...argv);
  const sh = (script: string): Outcome => exec("vm", "sh", "-c", script);

  await t.test("run -d prints the name; its command, environment and user are as asked", () => {
    // The signal ends sleep, too. What the shell says of that comes by another line than "bye", in any order.
    const job =
      "trap 'echo bye; exit 9' TERM; id -u; pwd; echo $GREETING; while :; do sleep 0.1; done 2>/dev/null";
    const options = [
      "-q",
      "-d",
      "--name",
      "vm",
      "-m",
      "128m",
      "-e",
      "GREETING=hello",
      "-w",
      "/tmp",
    ];
    const { code, text, stderr } = run("run", ...options, "-u", "nobody", "--", "sh", "-c", job);
    assert.deepEqual([code, text, stderr], [0, "vm\n", ""]);
    // exec waits for the guest's agent.
    assert.equal(exec("-u", "root", "vm", "true").code, 0);
    assert.equal(run("logs", "vm").text, "65534\n/tmp\nhello\n");
    assert.equal(JSON.parse(run("ps", "--json").text)[0].status, "running");
  });

  await t.test("exec: streams, exit code, environment and folder of the machine's command", () => {
    const { code, text, stderr } = sh("id -un; pwd; echo $GREETING; echo no >&2; exit 7");
    assert.deepEqual([code, text, stderr], [7, "nobody\n/tmp\nhello\n", "no\n"]);
    const other = exec(
      "-u",
      "0:5",
      "-w",
      "/etc",
      "-e",
      "GREETING=you",
      "vm",
      "sh",
      "-c",
      "id -u; id -g; pwd; echo $GREETING",
    );
    assert.equal(other.text, "0\n5\n/etc\nyou\n");
    assert.equal(sh("kill -9 $$").code, 137);
    assert.equal(exec("vm", "nosuch").code, 127);
    assert.equal(exec("vm", "/etc/passwd").code, 126);
    assert.equal(exec("-w", "/nowhere", "vm", "true").code, 126);
    assert.equal(exec("-u", "ghost", "vm", "true").code, 125);
    assert.equal(exec("nobody", "true").code, 125);
    assert.equal(exec("vm").code, 2);
  });

  await t.test(
    "exec -i: every byte both ways, also while the vsock service is killed",
    async () => {
      const bytes = randomBytes(2_000_000);
      const { code, stdout } = hypo(home, ["exec", "-i", "vm", "cat"], bytes);
      assert.equal(code, 0);
      assert.ok(stdout.equals(bytes));
      const child = spawn(process.execPath, [HYPO, "exec", "-i", "vm", "cat"], { env: home.env });
      const parts: Buffer[] = [];
      child.stdout.on("data", (part: Buffer) => parts.push(part));
      child.stdin.end(bytes);
      const ended = new Promise((resolve) => child.on("close", resolve));
      for (let i = 0; i < 3; i++) assert.equal(run("service", "kill", "vsock").code, 0);
      assert.equal(await ended, 0);
      assert.ok(Buffer.concat(parts).equals(bytes));
      const { services } = JSON.parse(run("services", "vm", "--json").text);
      assert.ok(services.find(({ name }: { name: string }) => name === "vsock").restarts >= 1);
    },
  );

  await t.test("exec -t has a terminal; -d does not wait", () => {
    assert.match(
      exec("-t", "vm", "sh", "-c", "tty; stty size").text,
      /^\/dev\/pts\/\d+\r\n24 80\r\n$/,
    );
    assert.equal(exec("-d", "vm", "sh", "-c", "echo left >/tmp/mark; sleep 1000").code, 0);
    for (let i = 0; i < 50 && sh("cat /tmp/mark").code !== 0; i++);
    assert.equal(sh("cat /tmp/mark").text, "left\n");
  });

  await t.test("a signal to exec is one for its command", async () => {
    const script = "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    const child = spawn(process.execPath, [HYPO, "exec", "vm", "sh", "-c", script], {
      env: home.env,
    });
    let said = "";
    const up = new Promise<void>((resolve) => {
      child.stdout.on("data", (part) => {
        said += part;
        if (said.includes("up")) resolve();
      });
    });
    await up;
    child.kill("SIGTERM");
    assert.equal(await ended(child), 3);
    assert.equal(said, "up\ngot\n");
  });

  await t.test("eight sessions at once", async () => {
    const children = Array.from({ length: 8 }, (_, i) =>
      spawn(process.execPath, [HYPO, "exec", "vm", "sh", "-c", `sleep 0.5; exit ${i}`], {
        env: home.env,
      }),
    );
    assert.deepEqual(await Promise.all(children.map(ended)), [0, 1, 2, 3, 4, 5, 6, 7]);
  });

  await t.test("cp in and out: files, folders, links, contents, tar streams", () => {
    const from = join(home.folder, "from");
    mkdirSync(join(from, "sub"), { recursive: true });
    const big = randomBytes(500_000);
    writeFileSync(join(from, "sub/big"), big);
    writeFileSync(join(from, "run"), "#!/bin/sh\necho ran\n", { mode: 0o755 });
    symlinkSync("sub/big", join(from, "link"));
    const ok = (...argv: string[]): void => {
      const { code, stderr } = run("cp", ...argv);
      assert.deepEqual([code, stderr], [0, ""], argv.join(" "));
    };
    ok("from", "vm:/root");
    assert.equal(exec("-u", "0", "vm", "/root/from/run").text, "ran\n");
    assert.equal(exec("-u", "0", "vm", "readlink", "/root/from/link").text, "sub/big\n");
    ok("vm:/root/from", "back");
    assert.ok(readFileSync(join(home.folder, "back/sub/big")).equals(big));
    mkdirSync(join(home.folder, "into"));
    ok("vm:/root/from/.", "into");
    assert.deepEqual(readdirSync(join(home.folder, "into")).sort(), ["link", "run", "sub"]);
    ok("from/run", "vm:/tmp/renamed");
    assert.match(exec("vm", "cat", "/tmp/renamed").text, /echo ran/);
    const tar = run("cp", "vm:/root/from", "-");
    assert.equal(hypo(home, ["cp", "-", "vm:/tmp"], tar.stdout).code, 0);
    assert.equal(sh("wc -c </tmp/from/sub/big").text, "500000\n");
    assert.match(run("cp", "vm:/nowhere", ".").stderr, /there is no \/nowhere/);
    assert.match(run("cp", "absent", "vm:/tmp").stderr, /there is no absent/);
    assert.match(run("cp", "from/run", "vm:/no/folder").stderr, /there is no folder \/no/);
  });

  await t.test(
    "trace: system calls of the unmodified guest, with process and arguments",
    async () => {
      const traced = async (argv: readonly string[], script: string): Promise<Outcome> => {
        const child = spawn(process.execPath, [HYPO, "trace", ...argv], {
          env: home.env,
          cwd: home.folder,
        });
        const [out, err]: Buffer[][] = [[], []];
        child.stdout.on("data", (part: Buffer) => out!.push(part));
        child.stderr.on("data", (part: Buffer) => err!.push(part));
        let isOver = false;
        const code = ended(child).finally(() => {
          isOver = true;
        });
        // Until the trace has begun and seen enough.
        while (!isOver) {
          sh(script);
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        const stdout = Buffer.concat(out!);
        const stderr = Buffer.concat(err!).toString();
        return { code: await code, stdout, text: stdout.toString(), stderr };
      };
      const open = await traced(
        ["syscalls", "vm", "-e", "openat,open", "-p", "cat", "-n", "3"],
        "cat /etc/passwd /nowhere/at/all",
      );
      assert.deepEqual([open.code, open.stderr], [0, ""]);
      assert.match(
        open.text,
        /^\d+\.\d{6} cat\[\d+\] open(at)?\(.*"\/etc\/passwd", O_RDONLY.* = \d+ </m,
      );
      assert.match(open.text, /"\/nowhere\/at\/all".* = -1 ENOENT /);
      const sums = await traced(["syscalls", "vm", "-c", "-n", "200"], "ls /");
      assert.match(sums.text, /^ *\d+\.\d\d +[\d.]+ +[\d.]+ +\d+ +\d* execve$/m);
      for (const kind of ["syscalls", "exits", "interrupts", "transitions"]) {
        const { code } = await traced([kind, "vm", "-n", "20", "-o", "trace.json"], "true");
        const file = JSON.parse(readFileSync(join(home.folder, "trace.json"), "utf8"));
        assert.equal(code, 0);
        const spans = file.traceEvents.filter(({ ph }: { ph: string }) => ph === "X" || ph === "i");
        assert.ok(spans.length >= 19, kind);
        for (const { name, ts, pid, tid } of spans)
          assert.ok(typeof name === "string" && ts >= 0 && pid >= 0 && tid >= 0, kind);
      }
      assert.equal(run("trace", "syscalls", "vm", "-e", "opena").code, 2);
      assert.match(run("trace", "syscalls", "vm", "-e", "opena").stderr, /did you mean open/);
    },
  );

  await t.test("pause: nothing happens, and for the guest no time goes by", async () => {
    const clock = (): number => Number(sh("cut -d. -f1 /proc/uptime").text);
    const PAUSE_SECONDS = 6;
    const began = performance.now();
    const before = clock();
    assert.equal(run("pause", "vm").code, 0);
    assert.equal(run("pause", "vm").code, 1);
    assert.equal(JSON.parse(run("ps", "--json").text)[0].status, "paused");
    assert.match(exec("vm", "true").stderr, /paused[\s\S]*hypo unpause vm/);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_SECONDS * 1000));
    assert.equal(run("unpause", "vm").code, 0);
    const inside = clock() - before;
    const outside = (performance.now() - began) / 1000;
    // The guest's times are whole seconds.
    assert.ok(inside <= outside - PAUSE_SECONDS + 1, `${inside} s of ${outside} went by`);
  });

  await t.test("snapshot: saved, listed, gone on from, forked", async () => {
    const asUser = (vm: string, script: string): string => exec(vm, "sh", "-c", script).text;
    assert.equal(sh("echo kept >/tmp/state; echo 1 >/tmp/random").code, 0);
    assert.equal(run("snapshot", "save", "vm", "clean").text, "clean\n");
    assert.match(run("snapshot", "save", "vm", "clean").stderr, /there is a snapshot clean/);
    assert.equal(run("snapshot", "save", "--replace", "vm", "clean").code, 0);
    assert.equal(run("snapshot", "save", "nobody").code, 125);
    assert.equal(run("snapshot", "save", "vm", "no/name").code, 2);
    const [row] = JSON.parse(run("snapshot", "ls", "--json").text);
    assert.deepEqual([row.name, row.machine, row.problem], ["clean", "vm", null]);
    assert.equal(row.memoryBytes, 128 << 20);
    sh("echo lost >/tmp/state");
    assert.equal(run("snapshot", "restore", "clean", "--name", "vm2").text, "vm2\n");
    assert.equal(asUser("vm2", "cat /tmp/state; id -un; pwd"), "kept\nnobody\n/tmp\n");
    assert.equal(asUser("vm", "cat /tmp/state"), "lost\n");
    assert.ok(Math.abs(Number(asUser("vm2", "date +%s")) - Date.now() / 1000) < 5);
    assert.equal(run("stop", "vm2").code, 0);
    assert.equal(run("wait", "vm2").text, "9\n");
    assert.equal(run("snapshot", "fork", "clean", "-n", "2").text, "clean-1\nclean-2\n");
    assert.equal(run("snapshot", "rm", "clean").code, 0);
    assert.equal(run("snapshot", "ls", "-q").text, "");
    assert.equal(run("snapshot", "restore", "clean").code, 125);
    const uuid = "cat /proc/sys/kernel/random/uuid";
    assert.notEqual(asUser("clean-1", uuid), asUser("clean-2", uuid));
    assert.equal(asUser("clean-1", "echo mine >/tmp/state; cat /tmp/state"), "mine\n");
    assert.equal(asUser("clean-2", "cat /tmp/state"), "kept\n");
    assert.equal(run("snapshot", "fork", "vm", "--name", "hot", "--rm").text, "hot-1\n");
    assert.equal(asUser("hot-1", "cat /tmp/state"), "lost\n");
    assert.equal(run("rm", "-f", "vm2", "clean-1", "clean-2", "hot-1").code, 0);
    assert.equal(run("ps", "-aq").text, "vm\n");
  });

  await t.test("stats and inspect", () => {
    const [row] = JSON.parse(run("stats", "--no-stream", "--json").text);
    assert.equal(row.name, "vm");
    assert.ok(row.cpuMs > 0 && row.residentBytes > 1 << 20 && row.cpuPercent >= 0);
    const [shown] = JSON.parse(run("inspect", "vm").text);
    assert.equal(shown.settings.user, "nobody");
    assert.ok(shown.services.some(({ name }: { name: string }) => name === "vsock"));
  });

  await t.test(
    "stop: the command gets SIGTERM; its exit code is what wait, ps and logs know of",
    async () => {
      const waiting = spawn(process.execPath, [HYPO, "wait", "vm"], { env: home.env });
      let waited = "";
      waiting.stdout.on("data", (part) => {
        waited += part;
      });
      assert.equal(run("stop", "vm").code, 0);
      await ended(waiting);
      assert.equal(waited, "9\n");
      assert.match(run("ps", "-a").text, /^vm +ended \(9\)/m);
      assert.equal(run("logs", "--tail", "1", "vm").text, "bye\n");
      assert.equal(exec("vm", "true").code, 125);
      assert.equal(run("rm", "vm").code, 0);
      assert.equal(run("ps", "-aq").text, "");
    },
  );
});

function ended(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.on("close", resolve));
}
