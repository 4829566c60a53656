/** The command line as its user has it, with records and snapshots of its own and the user's image cache. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CHECKOUT } from "./cache.ts";

const HYPO = join(CHECKOUT, "bin/hypo");
const TIMEOUT_MS = 300_000;

export interface Answer {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class HypoHome {
  readonly folder = mkdtempSync(join(tmpdir(), "hypo-conformance-"));
  readonly env: NodeJS.ProcessEnv;
  /** bin/hypo, or another Node program that is the command. */
  readonly #program: string;

  constructor(program = HYPO) {
    const { HYPO_HOME: _, ...env } = process.env;
    this.env = { ...env, XDG_RUNTIME_DIR: this.folder, XDG_STATE_HOME: this.folder };
    this.#program = program;
  }

  /** Not synchronous: what the guest talks to may be in this process. */
  run(...argv: string[]): Promise<Answer> {
    const { env, folder: cwd } = this;
    const child = spawn(this.#program, argv, {
      ...{ env, cwd, timeout: TIMEOUT_MS, stdio: ["ignore", "pipe", "pipe"] },
    });
    let [stdout, stderr] = ["", ""];
    child.stdout!.on("data", (bytes: Buffer) => {
      stdout += bytes;
    });
    child.stderr!.on("data", (bytes: Buffer) => {
      stderr += bytes;
    });
    return new Promise((resolve) => {
      child.on("close", (code) => resolve({ code, stdout, stderr }));
    });
  }

  /** Standard output. Throws if the command fails. */
  async ok(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...argv);
    if (code !== 0) throw new Error(`hypo ${argv.join(" ")}: ${code}: ${stderr}`);
    return stdout;
  }

  sh(vm: string, script: string): Promise<string> {
    return this.ok("exec", vm, "sh", "-c", script);
  }

  async pidOf(vm: string): Promise<number> {
    const machines = JSON.parse(await this.ok("ps", "--json")) as { name: string; pid: number }[];
    return machines.find(({ name }) => name === vm)!.pid;
  }

  async end(): Promise<void> {
    const { stdout } = await this.run("ps", "-aq");
    const names = stdout.split("\n").filter((name) => name !== "");
    if (names.length > 0) await this.run("rm", "-f", ...names);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
