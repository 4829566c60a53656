/**
 * The command as its user has it: bin/hypo as a process of its own, with a fake machine, a fake apt and a home of its own.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type FakeAptOptions, makeFakeApt } from "./fake-apt.ts";
import { fakePackages } from "./fake-packages.ts";
import { scratchFolder } from "./scratch.ts";

export const HYPO = fileURLToPath(new URL("../../../bin/hypo", import.meta.url));
const WORKER = fileURLToPath(new URL("./fake-worker.ts", import.meta.url));
const PATIENCE_MS = 20_000;

/** Shared by all tests of a file: the same code is compiled once, not for every process. */
const COMPILED = mkdtempSync(join(tmpdir(), "hypo-test-"));
after(() => rmSync(COMPILED, { recursive: true, force: true }));

export interface World {
  /** The working folder; "home" below it is HYPO_HOME. */
  readonly folder: string;
  readonly env: NodeJS.ProcessEnv;
}

export interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function makeWorld(test: TestContext, apt: FakeAptOptions = {}): Promise<World> {
  const folder = scratchFolder(test);
  const bin = join(folder, "bin");
  mkdirSync(bin);
  makeFakeApt(bin, await fakePackages(), apt);
  return {
    folder,
    env: {
      PATH: [bin, dirname(process.execPath), "/usr/bin", "/bin"].join(":"),
      HOME: folder,
      HYPO_HOME: join(folder, "home"),
      HYPO_MACHINE_WORKER: WORKER,
      NODE_COMPILE_CACHE: COMPILED,
    },
  };
}

export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Result>;
  stdout = "";
  stderr = "";

  constructor(
    { env, folder }: World,
    command: readonly [string, ...string[]],
    stdin: "ignore" | "pipe" = "ignore",
  ) {
    const [file, ...argv] = command;
    this.child = spawn(file, argv, { env, cwd: folder, stdio: [stdin, "pipe", "pipe"] });
    this.child.stdout!.setEncoding("latin1").on("data", (text) => {
      this.stdout += text;
    });
    this.child.stderr!.setEncoding("utf8").on("data", (text) => {
      this.stderr += text;
    });
    this.ended = new Promise((resolve) => {
      this.child.on("close", (code) => {
        resolve({ code, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  async says(text: string): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    const said = (): boolean => `${this.stdout}\n${this.stderr}`.includes(text);
    while (!said() && performance.now() < deadline) await sleep(10);
    assert.ok(said(), `no '${text}' in '${this.stdout}' '${this.stderr}'`);
  }
}

export function startHypo(world: World, argv: readonly string[], stdin?: "pipe"): Running {
  return new Running(world, [process.execPath, HYPO, ...argv], stdin);
}

export function hypo(world: World, ...argv: string[]): Promise<Result> {
  return startHypo(world, argv).ended;
}

/** `hypo run` with the fake machine in one of its parts. */
export function play(part: string): string[] {
  return ["run", "--append", `fake=${part}`];
}
