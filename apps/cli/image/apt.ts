/**
 * Packages by the machine's own apt: its mirrors, proxies, credentials and verified signatures. Nothing of the machine is changed:
 * no package is installed, no architecture added, no list updated.
 *
 * AptSource       asks apt's package lists and lets it download into a folder of ours.
 * aptMirror       where apt's lists do not help (never updated, or an architecture that the machine has not enabled), its sources
 *                 still name a mirror.
 * AptTransport    downloads single files the way apt does.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import { writeFailure } from "./cache.ts";
import type { PackageSource } from "./package-source.ts";
import { type PackageRecord, parseRecord, parseStanza } from "./packages-index.ts";
import type { Progress } from "./progress.ts";
import { Staging } from "./staging.ts";
import { checked, type DownloadOptions, type Transport } from "./transport.ts";

export interface AptCommands {
  readonly cache: string;
  readonly get: string;
  readonly helper: string;
}

/** apt-helper is not in PATH, by apt's design. */
export const APT_COMMANDS: AptCommands = {
  cache: "apt-cache",
  get: "apt-get",
  helper: "/usr/lib/apt/apt-helper",
};

/** A mirror that does not answer is given up after seconds, not minutes. */
const NETWORK_OPTIONS = [
  "Acquire::Retries=1",
  "Acquire::http::Timeout=20",
  "Acquire::https::Timeout=20",
].flatMap((option) => ["-o", option]);
const POLL_MS = 100;

export interface AptContext {
  readonly commands: AptCommands;
  /** Where folders for downloads may be made. */
  readonly stagingParent: string;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

export class AptSource implements PackageSource {
  readonly description = "apt";
  readonly #context: AptContext;

  constructor(context: AptContext) {
    this.#context = context;
  }

  async find(name: string, architecture: string): Promise<PackageRecord | undefined> {
    const { commands, signal } = this.#context;
    const query = ["show", "--no-all-versions", `${name}:${architecture}`];
    const { status, stdout } = await execute(commands.cache, query, { signal });
    if (status !== 0 || stdout.trim() === "") return undefined;
    const record = parseRecord(stdout.split("\n\n")[0]!);
    return record.architecture === architecture ? record : undefined;
  }

  async download(record: PackageRecord): Promise<Uint8Array> {
    const { commands, progress, signal } = this.#context;
    const staging = createStaging(this.#context.stagingParent);
    const bar = progress.bar(`downloading ${record.name}`, record.size);
    const poll = setInterval(() => bar.update(folderSize(staging.path)), POLL_MS);
    try {
      const what = `${record.name}:${record.architecture}=${record.version}`;
      const arguments_ = ["-q", ...NETWORK_OPTIONS, "download", what];
      const result = await execute(commands.get, arguments_, { signal, cwd: staging.path });
      if (result.status !== 0) throw aptFailure(`apt cannot download ${record.name}`, result);
      const file = readdirSync(staging.path).find((name) => name.endsWith(".deb"));
      if (!file) throw aptFailure(`apt downloaded nothing for ${record.name}`, result);
      bar.update(record.size);
      return checked(file, readFileSync(join(staging.path, file)), record);
    } finally {
      clearInterval(poll);
      bar.end();
      staging.remove();
    }
  }
}

export class AptTransport implements Transport {
  readonly #context: AptContext;

  constructor(context: AptContext) {
    this.#context = context;
  }

  async download(url: string, options: DownloadOptions): Promise<Uint8Array> {
    const { commands, stagingParent } = this.#context;
    const staging = createStaging(stagingParent);
    const file = join(staging.path, "file");
    const poll = setInterval(() => options.onProgress?.(folderSize(staging.path)), POLL_MS);
    try {
      const arguments_ = [...NETWORK_OPTIONS, "download-file", url, file];
      const result = await execute(commands.helper, arguments_, { signal: options.signal });
      if (result.status !== 0) throw aptFailure(`apt cannot download ${url}`, result);
      return checked(url, readFileSync(file), options.expected);
    } finally {
      clearInterval(poll);
      staging.remove();
    }
  }
}

/** Has this machine an apt that can be asked? */
export async function hasApt(commands: AptCommands, signal: AbortSignal): Promise<boolean> {
  const { status } = await execute(commands.get, ["--version"], { signal });
  return status === 0;
}

export function canAptDownload(commands: AptCommands): boolean {
  return existsSync(commands.helper);
}

export interface AptMirror {
  readonly base: string;
  readonly suite: string;
}

/** A mirror of Debian itself that apt's sources name; releases before their update and security suites. */
export async function aptMirror(
  commands: AptCommands,
  signal: AbortSignal,
): Promise<AptMirror | undefined> {
  const mirrors = await aptMirrors(commands, signal);
  return mirrors.find(({ suite }) => !suite.includes("-")) ?? undefined;
}

/** The address of Debian's security archive in apt's sources. */
export async function aptSecurityMirror(
  commands: AptCommands,
  signal: AbortSignal,
): Promise<string | undefined> {
  const mirrors = await aptMirrors(commands, signal);
  return mirrors.find(({ suite }) => suite.endsWith("-security"))?.base;
}

async function aptMirrors(commands: AptCommands, signal: AbortSignal): Promise<AptMirror[]> {
  const arguments_ = ["indextargets", "Created-By: Packages"];
  const { stdout } = await execute(commands.get, arguments_, { signal });
  return stdout
    .split("\n\n")
    .map(parseStanza)
    .filter((target) => isDebian(target) && target.get("Component") === "main")
    .map((target) => ({
      base: (target.get("Repo-URI") ?? "").replace(/\/+$/, ""),
      suite: target.get("Release") ?? "",
    }))
    .filter(({ base, suite }) => /^https?:/.test(base) && suite !== "");
}

/** Before the first `apt-get update` apt does not know the origin of a source, only its address. */
function isDebian(target: ReadonlyMap<string, string>): boolean {
  const origin = target.get("Origin");
  if (origin) return origin === "Debian";
  return /\/debian(?:-security)?\/?$/.test(target.get("Repo-URI") ?? "");
}

interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs to the end; a command that is not there has status 127. Rejects only when aborted. */
async function execute(
  command: string,
  arguments_: readonly string[],
  options: { readonly signal: AbortSignal; readonly cwd?: string },
): Promise<Finished> {
  options.signal.throwIfAborted();
  const finished = await new Promise<Finished>((resolve) => {
    const child = spawn(command, arguments_, {
      stdio: ["ignore", "pipe", "pipe"],
      // Its words are read here, so they must not be translated.
      env: { ...process.env, LC_ALL: "C" },
      killSignal: "SIGTERM",
      ...options,
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    let failed: Error | undefined;
    child.on("error", (error) => {
      failed = error;
    });
    // Not before its end, even when aborted: it may still be writing into a folder that is to be removed.
    child.on("close", (code) => {
      resolve({ status: failed ? 127 : (code ?? 1), stdout, stderr: failed?.message ?? stderr });
    });
  });
  options.signal.throwIfAborted();
  return finished;
}

function aptFailure(what: string, { stderr }: Finished): HypolithError {
  const lines = stderr.split("\n").filter((line) => line.startsWith("E: "));
  const why = lines[0]?.slice(3) ?? stderr.trim().split("\n").at(-1) ?? "";
  if (/no space left/i.test(stderr)) {
    return new HypolithError("cache-full", `${what}: there is no space left on the disk`, {
      hint: "free some space, or choose another place with HYPO_HOME",
    });
  }
  return new HypolithError("apt-failed", `${what}: ${why}`, {
    hint: "check the network and 'apt-get update', or name a mirror with --mirror URL",
  });
}

function createStaging(parent: string): Staging {
  try {
    return Staging.create(parent);
  } catch (cause) {
    throw writeFailure(parent, cause);
  }
}

function folderSize(path: string): number {
  try {
    const names = readdirSync(path);
    return names.reduce((size, name) => size + statSync(join(path, name)).size, 0);
  } catch {
    // apt renames files under our eyes.
    return 0;
  }
}
