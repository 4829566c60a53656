/** The agent as a program of this machine's Linux: sessions on a socket that it inherits. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Duplex, PassThrough, Readable } from "node:stream";
import { after, test } from "node:test";
import { exitCodeOf, StreamClient, type StreamOutcome } from "../../vms/stream-client.ts";
import { agentElf } from "./agent-program.ts";
import { type AgentRequest, encodeRequest, FailedStep, RequestFlag } from "./agent-protocol.ts";

const FOLDER = mkdtempSync(join(tmpdir(), "hypo-agent-"));
after(() => rmSync(FOLDER, { recursive: true }));

const isLinux = process.platform === "linux" && process.arch === "x64";
const agents = ([64, 32] as const).map((bits) => {
  const path = join(FOLDER, `agent${bits}`);
  writeFileSync(path, agentElf(bits));
  chmodSync(path, 0o755);
  // Without a request it ends silently; a kernel that cannot run it leaves the file to a shell, which complains.
  const trial = isLinux ? spawnSync(path, ["-"], { encoding: "utf8" }) : undefined;
  const runs = trial?.error === undefined && trial?.stderr === "" && trial.status === 0;
  return { bits, path, skip: runs ? false : "this kernel does not run it" };
});

interface Run {
  readonly client: StreamClient;
  readonly socket: Duplex;
  readonly stdin: PassThrough;
  stdout(): Buffer;
  stderr(): string;
  readonly outcome: Promise<StreamOutcome>;
}

const PLACES = ["/nowhere", "/usr/bin", "/bin"];

function start(path: string, argv: readonly string[], more: Partial<AgentRequest> = {}): Run {
  const child = spawn(path, ["-"], { stdio: ["ignore", "inherit", "inherit", "pipe"] });
  const socket = child.stdio[3] as Duplex;
  const program = argv[0]!;
  const places = program.includes("/") ? [program] : PLACES.map((place) => `${place}/${program}`);
  socket.write(
    encodeRequest({
      ...{ argv, places, environment: { GREETING: "hello" }, folder: "/tmp" },
      ...{ uid: process.getuid!(), gid: process.getgid!(), groups: [] },
      ...{ flags: RequestFlag.STDIN, rows: 33, columns: 99 },
      ...more,
    }),
  );
  const stdin = new PassThrough();
  const kept = { out: [] as Buffer[], err: [] as Buffer[] };
  const keep = (into: Buffer[]): PassThrough =>
    new PassThrough().on("data", (bytes: Buffer) => into.push(bytes));
  const client = new StreamClient(socket, {
    stdin,
    stdout: keep(kept.out),
    stderr: keep(kept.err),
  });
  return {
    ...{ client, socket, stdin, outcome: client.outcome },
    stdout: () => Buffer.concat(kept.out),
    stderr: () => Buffer.concat(kept.err).toString(),
  };
}

async function codeOf(run: Run): Promise<number> {
  const outcome = await run.outcome;
  await new Promise(setImmediate);
  assert.equal(outcome.kind, "exited", JSON.stringify(outcome));
  return exitCodeOf((outcome as { status: number }).status);
}

for (const { bits, path, skip } of agents) {
  const sh = (script: string, more?: Partial<AgentRequest>): Run =>
    start(path, ["sh", "-c", script], more);

  test(`${bits} bits: output, error stream, environment, folder and exit code`, {
    skip,
  }, async () => {
    const run = sh('echo "$GREETING $(pwd)"; echo no >&2; exit 7');
    assert.equal(await codeOf(run), 7);
    assert.equal(run.stdout().toString(), "hello /tmp\n");
    assert.equal(run.stderr(), "no\n");
  });

  test(`${bits} bits: a megabyte through cat, every byte as it was`, { skip }, async () => {
    const bytes = randomBytes(1 << 20);
    const run = start(path, ["cat"]);
    Readable.from([bytes]).pipe(run.stdin);
    assert.equal(await codeOf(run), 0);
    assert.ok(run.stdout().equals(bytes));
  });

  test(`${bits} bits: a program that does not read its input ends none the less`, {
    skip,
  }, async () => {
    const run = sh("sleep 0.1; exec 0<&-; sleep 0.1; echo done");
    run.stdin.write(Buffer.alloc(1 << 20));
    assert.equal(await codeOf(run), 0);
    assert.equal(run.stdout().toString(), "done\n");
  });

  test(`${bits} bits: a signal, and what ended it`, { skip }, async () => {
    const run = sh("trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.01; done");
    while (!run.stdout().includes("up")) await new Promise((done) => setTimeout(done, 5));
    run.client.signal(10);
    assert.equal(await codeOf(run), 3);
    assert.equal(run.stdout().toString(), "up\ngot\n");
    const killed = sh("kill -9 $$");
    assert.equal(await codeOf(killed), 137);
  });

  test(`${bits} bits: a terminal with its size, and another size`, { skip }, async () => {
    const flags = RequestFlag.TTY | RequestFlag.STDIN;
    const run = sh("stty size; tty; read line; stty size; echo $line", { flags });
    while (!run.stdout().includes("/dev/pts")) await new Promise((done) => setTimeout(done, 5));
    run.client.resize({ rows: 20, columns: 50 });
    run.stdin.write("typed\r");
    assert.equal(await codeOf(run), 0);
    assert.match(
      run.stdout().toString(),
      /^33 99\r\n\/dev\/pts\/\d+\r\n(typed\r\n)?20 50\r\ntyped\r\n$/,
    );
  });

  test(`${bits} bits: a time that is none is refused, and so is a request without one`, {
    skip,
  }, async () => {
    const resume = (groups: readonly number[]): Promise<StreamOutcome> =>
      start(path, ["x"], { flags: RequestFlag.RESUME, groups }).outcome;
    const clock = { kind: "failed", step: FailedStep.CLOCK, errno: 22 };
    assert.deepEqual(await resume([1, 0, 2_000_000_000, ...new Array(8).fill(7)]), clock);
    assert.deepEqual(await resume([1, 0, 0]), clock);
  });

  test(`${bits} bits: what cannot be started says where it failed`, { skip }, async () => {
    const failures = [
      [["nosuch"], {}, { kind: "failed", step: 3, errno: 2 }],
      [["/etc/passwd"], {}, { kind: "failed", step: 3, errno: 13 }],
      [["true"], { folder: "/nowhere" }, { kind: "failed", step: 1, errno: 2 }],
    ] as const;
    for (const [argv, more, expected] of failures)
      assert.deepEqual(await start(path, argv, more).outcome, expected);
  });

  test(`${bits} bits: without standard input it is at its end; what stays behind does not hold us up`, {
    skip,
  }, async () => {
    const run = sh("cat; sleep 30 & echo over", { flags: 0 });
    assert.equal(await codeOf(run), 0);
    assert.equal(run.stdout().toString(), "over\n");
  });

  test(`${bits} bits: a host that goes away takes the program with it`, { skip }, async () => {
    const mark = join(FOLDER, `mark${bits}`);
    const run = sh(
      `exec 2>/dev/null; trap 'echo hup >${mark}; exit' HUP; echo up; while :; do sleep 0.01; done`,
    );
    while (!run.stdout().includes("up")) await new Promise((done) => setTimeout(done, 5));
    run.client.detach();
    const deadline = performance.now() + 5000;
    const { existsSync } = await import("node:fs");
    while (!existsSync(mark) && performance.now() < deadline)
      await new Promise((done) => setTimeout(done, 10));
    assert.ok(existsSync(mark));
  });

  test(`${bits} bits: becomes another user's program`, {
    skip: skip || (process.getuid!() === 0 ? false : "only root can become somebody else"),
  }, () => {
    const become = (user: string, ...words: string[]) =>
      spawnSync(path, [user, ...words], { encoding: "utf8", env: { A: "1" } });
    const script = 'id -u; id -g; id -G; echo "$A|$1|$2"';
    const { stdout, status } = become("=1000:100,5,27", "/bin/sh", "-c", script, "sh", "a b", "");
    assert.deepEqual([status, stdout], [0, "1000\n100\n100 5 27\n1|a b|\n"]);
    assert.equal(become("=4294967294:0", "/bin/sh", "-c", "id -u").stdout, "4294967294\n");
    assert.equal(become("=1:1", "/nowhere").status, 126);
  });

  test(`${bits} bits: nonsense ends the session`, { skip }, async () => {
    for (const bytes of [
      Buffer.from([1, 0, 0, 0, 0]),
      Buffer.alloc(1 << 18, 0xff),
      encodeRequest({
        ...{ argv: new Array(10_000).fill(""), places: [], environment: {}, folder: "" },
        ...{ uid: 0, gid: 0, groups: [], flags: 0, rows: 0, columns: 0 },
      }),
    ]) {
      const child = spawn(path, ["-"], { stdio: ["ignore", "inherit", "inherit", "pipe"] });
      const socket = child.stdio[3] as Duplex;
      socket.on("error", () => {});
      socket.write(bytes);
      socket.resume();
      const code = await new Promise((done) =>
        child.on("exit", (code, signal) => done(signal ?? code)),
      );
      assert.equal(code, 0);
    }
  });
}
