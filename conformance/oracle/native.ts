/**
 * The native side: native-oracle.c, compiled on first use and talked to through a shared file. Needs Linux on x86-64 and a C compiler.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { RECORD_BYTES, type Records } from "./records.ts";

const SOURCE = fileURLToPath(new URL("native-oracle.c", import.meta.url));
const CACHE = fileURLToPath(new URL("../../.cache/oracle", import.meta.url));
const FLAGS = [
  "-O2",
  "-mno-red-zone",
  "-fno-stack-protector",
  "-fcf-protection=none",
  "-fno-tree-loop-distribute-patterns",
  "-Wl,-z,now",
];
const FACTS_BYTES = 4096;
const SLOTS = 2;
/** Slot and deaths. A guest's console says other things too. */
const ANSWER = /^\d+ \d+\s*$/;

/** Why the oracle cannot run here, or null. */
export function missingForNative(): string | null {
  if (process.platform !== "linux" || process.arch !== "x64") return "needs Linux on x86-64";
  try {
    execFileSync("gcc", ["--version"], { stdio: "ignore" });
  } catch {
    return "needs gcc (Debian package gcc with libc6-dev)";
  }
  return null;
}

/** Compiles the program unless this version of it is there already. Answers its path. */
export function compileNative(): string {
  const version = createHash("sha256")
    .update(readFileSync(SOURCE))
    .update(FLAGS.join(" "))
    .digest("hex")
    .slice(0, 12);
  const program = `${CACHE}/native-oracle-${version}`;
  if (existsSync(program)) return program;
  mkdirSync(CACHE, { recursive: true });
  const partial = `${program}.${process.pid}`;
  execFileSync("gcc", [...FLAGS, SOURCE, "-o", partial], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  renameSync(partial, program);
  return program;
}

/** What ring 3 can see of the native machine, and what the machine offers it. */
export interface Facts {
  readonly localTableSelector: number;
  readonly taskSelector: number;
  readonly machineStatus: number;
  readonly mxcsrMask: number;
  /** 32-bit code runs (some hypervisors offer 64-bit code only). */
  readonly hasCode32: boolean;
  /** Local descriptor tables work: 16-bit code, segments with bases and limits. */
  readonly hasLocalTable: boolean;
  readonly hasFsGsBase: boolean;
  /** RFLAGS.NT survives traps. */
  readonly keepsNestedTask: boolean;
}

export class Native {
  readonly batch: number;
  readonly facts: Facts;
  readonly #file: number;
  readonly #child: ChildProcess;
  readonly #waiting: ((line: string) => void)[];

  private constructor(
    batch: number,
    file: number,
    child: ChildProcess,
    waiting: ((line: string) => void)[],
  ) {
    this.batch = batch;
    this.#file = file;
    this.#child = child;
    this.#waiting = waiting;
    this.facts = readFacts(file);
  }

  /** Starts the native process for batches of at most `batch` tests. */
  static async start(batch: number): Promise<Native> {
    const folder = mkdtempSync(`${existsSync("/dev/shm") ? "/dev/shm" : "/tmp"}/oracle-`);
    try {
      const path = `${folder}/records`;
      return await Native.begin([compileNative(), path, `${batch}`, `${SLOTS}`], path, batch);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  /** Starts a command that runs the program on the file `path`, here or in a guest. */
  static async begin(command: readonly string[], path: string, batch: number): Promise<Native> {
    const file = openSync(path, "w+");
    truncateSync(path, FACTS_BYTES + SLOTS * 2 * batch * RECORD_BYTES);
    const [program, ...args] = command;
    const child = spawn(program!, args, { stdio: ["pipe", "pipe", "inherit"] });
    const waiting: ((line: string) => void)[] = [];
    const lines = createInterface({ input: child.stdout! });
    const ready = new Promise<void>((resolve, reject) => {
      lines.on("line", (line) => {
        if (line.trim() === "ready") resolve();
        else if (ANSWER.test(line)) waiting.shift()?.(line);
      });
      child.on("error", reject);
      child.on("exit", () => {
        reject(new Error("the native oracle did not start"));
        for (const end of waiting.splice(0)) end("exit");
      });
    });
    await ready;
    return new Native(batch, file, child, waiting);
  }

  #tests(slot: number): number {
    return FACTS_BYTES + slot * 2 * this.batch * RECORD_BYTES;
  }

  /** Runs `count` tests in a slot (0 or 1: one may be written while the other runs). Fetch the results with `results`. */
  async run(slot: number, tests: Records, count: number): Promise<void> {
    writeSync(this.#file, tests.bytes, 0, count * RECORD_BYTES, this.#tests(slot));
    const answer = new Promise<string>((resolve) => this.#waiting.push(resolve));
    this.#child.stdin!.write(`${slot} ${count}\n`);
    const line = await answer;
    if (line === "exit") throw new Error("the native oracle ended");
  }

  results(slot: number, results: Records, count: number): void {
    const at = this.#tests(slot) + this.batch * RECORD_BYTES;
    readSync(this.#file, results.bytes, 0, count * RECORD_BYTES, at);
  }

  close(): void {
    this.#child.stdin!.end();
    closeSync(this.#file);
  }
}

function readFacts(file: number): Facts {
  const view = new DataView(new ArrayBuffer(64));
  readSync(file, new Uint8Array(view.buffer), 0, 64, 0);
  return {
    localTableSelector: Number(view.getBigUint64(0, true)),
    taskSelector: Number(view.getBigUint64(8, true)),
    machineStatus: Number(view.getBigUint64(16, true)),
    mxcsrMask: view.getUint32(24, true),
    hasCode32: view.getUint32(28, true) !== 0,
    hasLocalTable: view.getUint32(32, true) !== 0,
    hasFsGsBase: view.getUint32(36, true) !== 0,
    keepsNestedTask: view.getUint32(40, true) !== 0,
  };
}
