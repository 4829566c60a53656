/**
 * This machine itself as a contestant: the guests' files in a folder, commands in it by native/run.c, which also measures.
 *
 * The environment is the guests' (conformance/harness/agent.ts), so that a command means the same.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { AgentFile } from "../conformance/harness/agent.ts";
import { CHECKOUT, outputFolder } from "../conformance/harness/cache.ts";
import type { CommandResult } from "../conformance/harness/guest-session.ts";
import { HypolithError } from "../src/base/errors.ts";
import { compile } from "./build-programs.ts";
import type { Contestant } from "./workload.ts";

export interface NativeFiles {
  readonly files: readonly AgentFile[];
  readonly busybox: Uint8Array;
  /** The path of a cpio archive. Without it busybox is all there is. */
  readonly userlandPath?: string | undefined;
}

const ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LANG: "C.UTF-8",
};
/** Of native/run.c, when it could not run the command. */
const NOT_RUN = 125;
const MEASURED = 3;
const START_SECONDS = 60;

export class Native implements Contestant {
  readonly #runner: string;
  readonly #root: string;

  private constructor(runner: string, root: string) {
    this.#runner = runner;
    this.#root = root;
    process.once("exit", () => this.kill());
  }

  /** Undefined if this machine does not run such programs: not every kernel runs 32-bit ones. */
  static async create(files: NativeFiles): Promise<Native | undefined> {
    const runner = await compile(join(CHECKOUT, "bench/native/run.c"), ["-O2", "-static"]);
    const root = mkdtempSync(join(outputFolder("bench"), "root-"));
    const native = new Native(runner, root);
    unpack(root, files);
    if ((await native.run("exit 0", START_SECONDS)).status === 0) return native;
    native.kill();
    return undefined;
  }

  async run(command: string, timeoutSeconds: number): Promise<CommandResult> {
    const child = spawn(this.#runner, [this.#root, command], {
      env: ENVIRONMENT,
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      timeout: timeoutSeconds * 1000,
      killSignal: "SIGKILL",
    });
    const texts = ["", "", "", ""];
    for (const number of [1, 2, MEASURED]) {
      child.stdio[number]!.on("data", (data: Buffer) => {
        texts[number] += data.toString("latin1");
      });
    }
    const status = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => resolve(code ?? NOT_RUN));
    });
    const [user, system, wall] = texts[MEASURED]!.split(" ").map(Number);
    if (user === undefined || system === undefined || wall === undefined)
      throw new HypolithError("native-failed", `'${command}' here: ${texts[2]}`);
    return {
      output: texts[1]! + texts[2]!,
      status,
      wallSeconds: wall,
      cpuSeconds: user + system,
      retired: undefined,
    };
  }

  kill(): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}

function unpack(root: string, { files, busybox, userlandPath }: NativeFiles): void {
  if (userlandPath !== undefined) {
    const archive = openSync(userlandPath, "r");
    // Without privileges there are no device files; the commands need none.
    const devices = process.getuid?.() === 0 ? [] : ["--nonmatching", "dev/*"];
    execFileSync("cpio", ["-idm", "--quiet", ...devices], {
      cwd: root,
      stdio: [archive, "ignore", "inherit"],
    });
    closeSync(archive);
  }
  for (const folder of ["tmp", "root", "bin", "lab"])
    if (!existsSync(join(root, folder))) mkdirSync(join(root, folder));
  const all = [...files, { path: "lab/busybox", content: busybox, executable: true }];
  for (const { path, content, executable } of all) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
    chmodSync(join(root, path), executable ? 0o755 : 0o644);
  }
  if (!userlandPath) symlinkSync("/lab/busybox", join(root, "bin/sh"));
}
