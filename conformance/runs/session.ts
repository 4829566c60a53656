/**
 * What somebody does who has just installed hypo, word for word: a Debian, a package by apt, a web server in it, files both ways, a snapshot and ten
 * machines that go on from it, and everything cleared away. Each command's output is shown and judged.
 *
 * The Debian image is that of the user's cache, made if it is not there; machines and snapshots are the run's own unless HYPO_HOME is set.
 * Needs a Debian mirror.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Report } from "../harness/report.ts";

const HYPO = fileURLToPath(new URL("../../bin/hypo", import.meta.url));
const STEP_MS = 1_200_000;
const FORKS = 10;
const SHOWN_LINES = 12;

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

class Session {
  readonly folder = mkdtempSync(join(tmpdir(), "hypolith-session-"));
  readonly #report: Report;

  constructor(report: Report) {
    this.#report = report;
  }

  /** Types a command; `says` judges its standard output. */
  async type(words: readonly string[], says: RegExp, code = 0): Promise<string> {
    const start = performance.now();
    const outcome = await this.#run(words);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    this.#report.fact(`$ hypo ${words.join(" ")}   (${seconds} s)`);
    const shown = `${outcome.stdout}${outcome.stderr}`.trimEnd().split("\n");
    for (const line of shown.slice(0, SHOWN_LINES)) this.#report.fact(`  ${line.slice(0, 160)}`);
    if (shown.length > SHOWN_LINES) this.#report.fact(`  ... ${shown.length} lines`);
    const isGood = outcome.code === code && says.test(outcome.stdout);
    this.#report.check(isGood, `hypo ${words[0]}: status ${outcome.code}, ${says}`);
    return outcome.stdout;
  }

  #run(words: readonly string[]): Promise<Outcome> {
    const env = { ...process.env, XDG_RUNTIME_DIR: this.folder, XDG_STATE_HOME: this.folder };
    const stdio = ["ignore", "pipe", "pipe"] as const;
    const child = spawn(process.execPath, [HYPO, ...words], {
      ...{ env, cwd: this.folder, stdio: [...stdio], timeout: STEP_MS },
    });
    let [stdout, stderr] = ["", ""];
    child.stdout!.on("data", (part) => {
      stdout += part;
    });
    child.stderr!.on("data", (part) => {
      stderr += part;
    });
    return new Promise((resolve) => child.on("close", (code) => resolve({ code, stdout, stderr })));
  }
}

export async function session(report: Report): Promise<void> {
  const user = new Session(report);
  try {
    await webServer(user, report);
    await snapshots(user, report);
    await user.type(["ps", "-aq"], /^$/);
    await user.type(["images"], /^debian:stable +linux\/amd64/m);
    await user.type(["system", "prune"], /removed/);
  } finally {
    const left = (await user.type(["ps", "-aq"], /^/)).split("\n").filter((name) => name !== "");
    if (left.length > 0) await user.type(["rm", "-f", ...left], /^/);
    rmSync(user.folder, { recursive: true, force: true });
  }
}

async function webServer(user: Session, report: Report): Promise<void> {
  const { folder } = user;
  const port = await freePort();
  mkdirSync(join(folder, "www"));
  writeFileSync(join(folder, "www/page.html"), "a page of the host's\n");
  const blob = randomBytes(300_000);
  writeFileSync(join(folder, "blob"), blob);
  const published = ["-p", `${port}:80`, "-v", "./www:/srv/www"];
  await user.type(
    ["run", "-d", "--name", "box", ...published, "debian", "--", "sleep", "1000000"],
    /^box\n$/,
  );
  await user.type(["exec", "box", "head", "-1", "/etc/os-release"], /Debian GNU\/Linux/);
  await user.type(["ps"], /^box +running .*debian -- sleep/m);
  await user.type(["exec", "box", "apt-get", "-q", "update"], /Reading package lists/);
  await user.type(["exec", "box", "apt-get", "-qy", "install", "busybox"], /Setting up busybox/);
  await user.type(["exec", "box", "dpkg", "--audit"], /^$/);
  await user.type(
    ["exec", "-d", "box", "busybox", "httpd", "-f", "-p", "80", "-h", "/srv/www"],
    /^/,
  );
  report.equal(
    await page(port, "page.html"),
    "a page of the host's\n",
    "the guest's server serves the shared folder",
  );
  await user.type(["exec", "box", "sh", "-c", "echo of the guest >/srv/www/back"], /^$/);
  report.equal(
    readFileSync(join(folder, "www/back"), "utf8"),
    "of the guest\n",
    "what the guest writes there is here",
  );
  await user.type(["cp", "blob", "box:/srv/www/blob2"], /^$/);
  await user.type(["cp", "box:/srv/www/blob2", "again"], /^$/);
  report.check(
    readFileSync(join(folder, "again")).equals(blob),
    "a file goes in and comes out as it was",
  );
  await user.type(["stats", "--no-stream"], /^box +[\d.]+ %/m);
  await user.type(["stop", "box"], /^box\n$/);
  await user.type(["ps", "-a"], /^box +ended \(143\)/m);
  await user.type(["rm", "box"], /^box\n$/);
}

async function snapshots(user: Session, report: Report): Promise<void> {
  const job = ["sh", "-c", "while :; do sleep 1; done"];
  await user.type(["run", "-d", "--name", "web", "-m", "256m", "debian", "--", ...job], /^web\n$/);
  await user.type(["exec", "web", "sh", "-c", "echo kept >/root/mark; cat /root/mark"], /^kept\n$/);
  await user.type(["snapshot", "save", "web"], /web/);
  await user.type(["exec", "web", "rm", "/root/mark"], /^$/);
  await user.type(["rm", "-f", "web"], /^web\n$/);
  await user.type(["snapshot", "ls"], /^web /m);
  await user.type(["snapshot", "restore", "web"], /^web\n$/);
  await user.type(["exec", "web", "cat", "/root/mark"], /^kept\n$/);
  await user.type(["snapshot", "fork", "web", "-n", String(FORKS)], /^web-10$/m);
  const ids = new Set<string>();
  for (let i = 1; i <= FORKS; i++) {
    const script = "cat /root/mark; head -c 8 /dev/urandom | md5sum; rm /root/mark";
    const [mark, id = ""] = (
      await user.type(["exec", `web-${i}`, "sh", "-c", script], /^kept\n/)
    ).split("\n");
    if (mark === "kept") ids.add(id);
  }
  report.check(ids.size === FORKS, "each of them has its own files and its own randomness");
  await user.type(["stats", "--no-stream"], /^web-10 /m);
  const names = ["web", ...Array.from({ length: FORKS }, (_, i) => `web-${i + 1}`)];
  await user.type(["stop", "-t", "5", ...names], /^web-10$/m);
  await user.type(["rm", ...names], /^web-10$/m);
  await user.type(["snapshot", "rm", "web"], /web/);
}

async function page(port: number, path: string): Promise<string> {
  for (let tries = 20; ; tries--) {
    try {
      return await (await fetch(`http://127.0.0.1:${port}/${path}`)).text();
    } catch (error) {
      if (tries === 0) return String(error);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
