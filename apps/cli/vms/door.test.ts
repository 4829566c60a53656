import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HypolithError } from "../../../src/base/errors.ts";
import type { ServicesReport } from "../../../src/control/protocol.ts";
import { type DoorService, openDoor } from "./door.ts";
import { ask, chooseMachine, openStream, runningMachines } from "./door-client.ts";
import type { MachineInfo } from "./door-protocol.ts";
import { doorPath, isMachineName, openRuntimeFolder, runtimeFolder } from "./runtime-folder.ts";
import { formatMachines, formatServices } from "./tables.ts";

const REPORT: ServicesReport = {
  activeMs: 2000,
  guestMs: 1500,
  kernelMs: 300,
  services: [
    {
      name: "console",
      placement: "worker",
      rights: ["lines 4", "streams 0"],
      messages: 5000,
      ms: 200,
      vcpuMs: 150,
      restarts: 1,
      lastFailure: "killed",
      longestStallMs: 12.34,
      checkpoints: 2,
      journal: 7,
    },
  ],
};

function home(t: TestContext): void {
  const folder = mkdtempSync(join(tmpdir(), "hypo-door-"));
  const before = process.env.HYPO_HOME;
  process.env.HYPO_HOME = folder;
  t.after(() => {
    if (before === undefined) delete process.env.HYPO_HOME;
    else process.env.HYPO_HOME = before;
    rmSync(folder, { recursive: true });
  });
}

async function open(t: TestContext, name: string): Promise<{ drilled: string[] }> {
  const drilled: string[] = [];
  const close = await openDoor({
    ...fakeService(name),
    services: async () => REPORT,
    drill: async (service, drill) => {
      drilled.push(`${drill} ${service}`);
      return service === "console" ? null : `there is no service ${service}`;
    },
  });
  t.after(close);
  return { drilled };
}

function fakeInfo(name: string): MachineInfo {
  return {
    ...{ name, pid: 1, started: 0, what: "debian", memoryBytes: 1 << 29, state: "running" },
    ...{ hasTerminal: false, takesInput: false, hasAgent: false },
    ...{ environment: {}, folder: "/", user: null },
  };
}

function fakeService(name: string): DoorService {
  const refuse = (): never => {
    throw new HypolithError("no-agent", "there is none", { hint: "another machine" });
  };
  return {
    name,
    info: () => fakeInfo(name),
    services: async () => REPORT,
    drill: async () => null,
    ...{ stats: refuse, kill: refuse, openAgent: refuse, snapshot: refuse, trace: refuse },
    ...{ stop: () => {}, pause: () => {}, unpause: () => {}, attach: () => {} },
    ended: new Promise(() => {}),
  };
}

test("a machine is listed, told about and drilled through its door", async (t) => {
  home(t);
  const { drilled } = await open(t, "web");
  assert.deepEqual(
    (await runningMachines()).map(({ name }) => name),
    ["web"],
  );
  assert.equal(await chooseMachine(undefined), "web");
  assert.deepEqual(await ask("web", { verb: "services" }), REPORT);
  await ask("web", { verb: "drill", service: "console", drill: "kill" });
  await assert.rejects(ask("web", { verb: "drill", service: "x", drill: "hang" }), {
    code: "drill-refused",
    message: "web: there is no service x",
  });
  assert.deepEqual(drilled, ["kill console", "hang x"]);
});

test("only its user can get at the door, and a folder that others could write is refused", async (t) => {
  home(t);
  await open(t, "a");
  assert.equal(statSync(runtimeFolder()).mode & 0o077, 0);
  chmodSync(runtimeFolder(), 0o777);
  assert.throws(() => openRuntimeFolder(), { code: "door-folder" });
});

test("a name is taken while its machine answers; what a killed process left is no obstacle", async (t) => {
  home(t);
  openRuntimeFolder();
  writeFileSync(doorPath("a"), "");
  writeFileSync(doorPath("gone"), "");
  await open(t, "a");
  await assert.rejects(open(t, "a"), { code: "name-taken" });
  assert.equal((await runningMachines()).length, 1);
  assert.equal(existsSync(doorPath("gone")), false);
  await assert.rejects(ask("nobody", { verb: "info" }), { code: "no-such-machine" });
});

test("several machines, or none, are told apart by name", async (t) => {
  home(t);
  await assert.rejects(chooseMachine(undefined), /no machine is running/);
  await open(t, "a");
  await open(t, "b");
  await assert.rejects(chooseMachine(undefined), /several machines are running: a, b/);
  assert.equal(await chooseMachine("b"), "b");
});

/** What the door says to `text`. */
function say(name: string, text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(doorPath(name), () => socket.write(text));
    let heard = "";
    socket.on("data", (data) => {
      heard += data;
      if (heard.includes("\n")) socket.destroy();
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(heard));
  });
}

test("a door answers nonsense with an error, and closes on a line without end", async (t) => {
  home(t);
  await open(t, "a");
  for (const text of [
    "no json",
    "{}",
    '{"id":3,"verb":"format"}',
    '{"verb":"drill","drill":7}',
    "null",
  ])
    assert.match(await say("a", `${text}\n`), /"error":\{"code":"door-request"/, text);
  assert.equal(await say("a", "x".repeat(1 << 18)), "");
});

test("names of machines are names of files, and no paths", () => {
  for (const name of ["a", "web-1", "x.y_z"]) assert.ok(isMachineName(name), name);
  for (const name of ["", ".a", "../a", "a/b", "-a", "a b", "x".repeat(64)])
    assert.ok(!isMachineName(name), name);
});

test("tables for a person", () => {
  const rest = { pid: 12, started: 0, memoryBytes: 1 << 29 };
  const running = { ...rest, status: "running", ended: null, exitCode: null } as const;
  const ended = { ...rest, status: "ended", ended: 60_000, exitCode: 3 } as const;
  assert.equal(
    formatMachines(
      [
        { ...running, name: "web", what: "debian -- sh" },
        { ...ended, name: "a", what: "x\x1b[2J\ny" },
      ],
      90_000,
    ),
    `NAME  STATUS              PID  AGE   MEMORY   RUNS
web   running             12   90 s  512 MiB  debian -- sh
a     ended (3) 30 s ago  12   60 s  512 MiB  x [2J y`,
  );
  const text = formatServices(REPORT);
  assert.match(text, /console +worker +5000 +2500 +200\.0 +10\.0 % +1 +12\.3 +lines 4 streams 0/);
  assert.match(text, /guest 1500\.0 ms \(75\.0 %\), micro-hypervisor 300\.0 ms \(15\.0 %\)/);
  assert.match(text, /console: last restart: killed/);
});

test("what a machine says against a request arrives with its hint", async (t) => {
  home(t);
  await open(t, "a");
  await assert.rejects(openStream("a", { verb: "agent" }), {
    code: "no-agent",
    message: "a: there is none",
    hint: "another machine",
  });
  await assert.rejects(ask("../a", { verb: "info" }), { code: "no-such-machine" });
});

test("who waits is told the exit code when the machine ends, and who is attached sees the door close", async (t) => {
  home(t);
  let end: (code: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });
  const sockets: Socket[] = [];
  const close = await openDoor({
    ...fakeService("a"),
    ended,
    attach: (socket) => sockets.push(socket),
  });
  const waiting = ask("a", { verb: "wait" });
  const attached = await openStream("a", { verb: "attach" });
  const gone = new Promise((resolve) => attached.once("end", resolve));
  attached.resume();
  end(7);
  assert.deepEqual(await waiting, { exitCode: 7 });
  assert.equal(sockets.length, 1);
  await close();
  await gone;
  await assert.rejects(ask("a", { verb: "info" }), { code: "no-such-machine" });
});

test("a door of somebody else's, and one that nobody answers, are told apart", async (t) => {
  home(t);
  openRuntimeFolder();
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(doorPath("silent"), resolve));
  t.after(() => silent.close());
  await assert.rejects(ask("silent", { verb: "info" }), { code: "door-silent" });
});
