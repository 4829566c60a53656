/**
 * A guest that does nothing costs nothing: the command line on a terminal, the guest's shell at its prompt.
 *
 * `script` gives it the terminal.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { HypolithError } from "../../src/base/errors.ts";
import { CHECKOUT } from "../harness/cache.ts";
import { childrenOf, cpuSeconds, residentBytes } from "../harness/cpu-time.ts";
import { chosenEngine } from "../harness/engine.ts";
import { guestKernel } from "../harness/kernels.ts";
import type { Report } from "../harness/report.ts";

const SECONDS = 30;
const SETTLE_SECONDS = 5;
const MOST_CPU_PERCENT = 2;
const MOST_OVERHEAD_MIB = 150;
const MEMORY_MIB = 512;
const MIB = 2 ** 20;
const BOOT_SECONDS = 180;
const ANSWER_SECONDS = 20;

export async function idle(report: Report): Promise<void> {
  // The supply must not be part of it.
  await guestKernel("cloud");
  const terminal = new Terminal([
    join(CHECKOUT, "bin/hypo"),
    ...["run", "--engine", chosenEngine(), "--pull", "never", "--memory", `${MEMORY_MIB}m`],
  ]);
  try {
    await terminal.until(/root@hypolith:.*# /, BOOT_SECONDS);
    const answer = await terminal.ask("grep MemFree: /proc/meminfo", /MemFree: +(\d+) kB/);
    const inUse = MEMORY_MIB - Number(answer[1]) / 1024;
    await sleep(SETTLE_SECONDS * 1000);
    measure(report, terminal.hypoPid(), await cpuPercent(terminal.hypoPid()), inUse);
    await terminal.ask("echo $((40 + 2))", /\n42\r?\n/);
    report.check(true, "the shell still answers");
    terminal.type("poweroff\n");
    report.equal(String(await terminal.exitCode), "0", "poweroff: exit status");
  } finally {
    terminal.kill();
  }
}

async function cpuPercent(pid: number): Promise<number> {
  const before = cpuSeconds(pid);
  await sleep(SECONDS * 1000);
  return ((cpuSeconds(pid) - before) / SECONDS) * 100;
}

function measure(report: Report, pid: number, percent: number, inUse: number): void {
  report.check(
    percent <= MOST_CPU_PERCENT,
    `${percent.toFixed(2)} % of a core over ${SECONDS} s (at most ${MOST_CPU_PERCENT} %)`,
  );
  const resident = residentBytes(pid) / MIB;
  const overhead = resident - inUse;
  report.check(
    overhead <= MOST_OVERHEAD_MIB,
    `resident ${resident.toFixed(0)} MiB, of which the guest uses ${inUse.toFixed(0)} MiB: ` +
      `${overhead.toFixed(0)} MiB more (at most ${MOST_OVERHEAD_MIB})`,
  );
}

class Terminal {
  readonly exitCode: Promise<number>;
  readonly #child: ChildProcess;
  #text = "";
  #heard = (): void => {};

  constructor(command: readonly string[]) {
    const line = command.map((word) => `'${word}'`).join(" ");
    this.#child = spawn("script", ["-qec", line, "/dev/null"], { stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stdout?.on("data", (data: Buffer) => {
      this.#text += data.toString("latin1");
      this.#heard();
    });
    this.exitCode = new Promise((resolve, reject) => {
      this.#child.once("exit", (code) => resolve(code ?? -1));
      this.#child.once("error", reject);
    });
  }

  /** script starts it by a shell, which may or may not stay. */
  hypoPid(): number {
    let [pid] = childrenOf(this.#child.pid!);
    if (pid === undefined) throw new HypolithError("ended", `it ended early: ${this.#text}`);
    for (let inner = childrenOf(pid)[0]; inner !== undefined; inner = childrenOf(pid)[0])
      pid = inner;
    return pid;
  }

  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  async ask(command: string, answer: RegExp): Promise<RegExpExecArray> {
    this.#text = "";
    this.type(`${command}\n`);
    return this.until(answer, ANSWER_SECONDS);
  }

  async until(pattern: RegExp, seconds: number): Promise<RegExpExecArray> {
    const deadline = performance.now() + seconds * 1000;
    for (;;) {
      const found = pattern.exec(this.#text);
      if (found) return found;
      const left = deadline - performance.now();
      if (left <= 0) {
        const heard = JSON.stringify(this.#text.slice(-2000));
        throw new HypolithError("terminal-silent", `no ${pattern} in ${seconds} s but ${heard}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#heard = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
