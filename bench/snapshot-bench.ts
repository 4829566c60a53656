/**
 * Snapshots: how long a guest stands still for one, and what a machine costs that goes on from one, up to a working shell: in a process of its own,
 * as `hypo snapshot` has it, and in a thread that has made such a machine before, as a program that embeds the library has it.
 *
 * CPU time of whole processes, all threads. "node" is what starting Node alone costs here and now, to judge the others by.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { HypoHome } from "../conformance/harness/hypo-home.ts";
import { NodeArtifacts } from "../src/machine/embedder-node-artifacts.ts";
import { NodeServiceHost } from "../src/machine/embedder-node-services.ts";
import {
  nodeChecksum,
  openSnapshot,
  resumedConfig,
} from "../src/machine/embedder-node-snapshots.ts";
import { tuneEngine } from "../src/machine/embedder-node-v8.ts";
import { Machine } from "../src/machine/machine.ts";
import { best } from "./statistics.ts";

export interface SnapshotResult {
  readonly nodeMs: number;
  readonly bytes: number;
  /** The guest stood still, by the clock. */
  readonly stallMs: number;
  /** CPU time of the machine's process, from its start to the answer of a shell in it. */
  readonly restoreMs: readonly number[];
  /** The same for forks of a snapshot. */
  readonly forkMs: readonly number[];
  /** CPU time in one thread, from the snapshot to the idle guest, by machine: the first has everything to make. */
  readonly threadMs: readonly number[];
  /** Bytes of memory that a further machine in the thread takes. */
  readonly threadBytes: number;
}

export const RESTORE_BAR_MS = 500;
export const FORK_BAR_MS = 100;
const FORKS = 3;
const IN_THREAD = 6;
/** A guest that sleeps so long has settled. */
const SETTLED_MS = 50;
const LONGEST_MS = 2000;

export async function benchSnapshot(
  rounds: number,
  memoryMib: number,
  progress: (text: string) => void,
): Promise<SnapshotResult> {
  const home = new HypoHome();
  try {
    progress("snapshot: a machine to take it of");
    const machine = ["-m", `${memoryMib}m`, "--network", "none", "--", "sleep", "100000"];
    await home.ok("run", "-q", "-d", "--name", "warm", ...machine);
    await home.sh("warm", "true");
    await home.ok("snapshot", "save", "warm", "first");
    const { bytes, ms } = JSON.parse(
      await home.ok("snapshot", "save", "--json", "warm", "base"),
    ) as {
      bytes: number;
      ms: number;
    };
    await home.ok("rm", "-f", "warm");
    const restoreMs: number[] = [];
    const forkMs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      progress(`snapshot: round ${round + 1} of ${rounds}`);
      await home.ok("snapshot", "restore", "base", "--name", "one");
      restoreMs.push(await shellMs(home, "one"));
      await home.ok("rm", "-f", "one");
      const names = (await home.ok("snapshot", "fork", "base", "-n", String(FORKS)))
        .trim()
        .split("\n");
      for (const name of names) forkMs.push(await shellMs(home, name));
      await home.ok("rm", "-f", ...names);
    }
    const thread = inThread(join(home.folder, "hypolith/snapshots/base"));
    return { nodeMs: nodeMs(), bytes, stallMs: ms, restoreMs, forkMs, ...thread };
  } finally {
    await home.end();
  }
}

async function shellMs(home: HypoHome, vm: string): Promise<number> {
  await home.sh(vm, "echo ready");
  const [{ cpuMs }] = JSON.parse(await home.ok("stats", "--no-stream", "--json", vm)) as [
    { cpuMs: number },
  ];
  return cpuMs;
}

function nodeMs(): number {
  const script = "const u = process.cpuUsage(); console.log((u.user + u.system) / 1000)";
  const { stdout } = spawnSync(process.execPath, ["-e", script], { encoding: "utf8" });
  return Number(stdout);
}

function inThread(folder: string): Pick<SnapshotResult, "threadMs" | "threadBytes"> {
  tuneEngine();
  const threadMs: number[] = [];
  const resident: number[] = [];
  const kept: Machine[] = [];
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  for (let i = 0; i < IN_THREAD; i++) {
    const before = process.cpuUsage();
    const machine = goOn(folder);
    kept.push(machine);
    const end = performance.now() + LONGEST_MS;
    while (performance.now() < end) {
      const state = machine.runUntilBlocked();
      if (state.kind !== "idle") break;
      if (state.waitMs > SETTLED_MS) break;
      Atomics.wait(sleeper, 0, 0, state.waitMs);
    }
    const { user, system } = process.cpuUsage(before);
    threadMs.push((user + system) / 1000);
    resident.push(process.memoryUsage.rss());
  }
  const threadBytes = (resident.at(-1)! - resident[1]!) / (IN_THREAD - 2);
  return { threadMs, threadBytes };
}

function goOn(folder: string): Machine {
  const opened = openSnapshot(folder);
  return new Machine(resumedConfig(opened, folder), {
    nowMs: () => performance.now(),
    realTimeMs: () => Date.now(),
    entropy: () => 1n,
    doorbell: () => false,
    send: () => {},
    checksum: nodeChecksum,
    artifacts: new NodeArtifacts(),
    services: new NodeServiceHost(),
    snapshot: opened.file,
  });
}

export function printSnapshot(result: SnapshotResult): void {
  const { nodeMs: node, bytes, stallMs, restoreMs, forkMs, threadMs, threadBytes } = result;
  const mib = (n: number): string => `${(n / (1 << 20)).toFixed(1)} MiB`;
  const ms = (n: number): string => `${n.toFixed(0)} ms`;
  const [first = 0, ...further] = threadMs;
  console.log("\nsnapshots, CPU time (best of all rounds)");
  console.log(`  node alone                          ${ms(node)}`);
  console.log(
    `  a snapshot                          ${mib(bytes)}, the guest stood still for ${ms(stallMs)} by the clock`,
  );
  console.log(
    `  restore to a shell, own process     ${ms(best(restoreMs))} (bar: ${RESTORE_BAR_MS} ms)`,
  );
  console.log(
    `  fork to a shell, own process        ${ms(best(forkMs))} each (bar: ${FORK_BAR_MS} ms)`,
  );
  console.log(`  restore in a thread, the first      ${ms(first)}`);
  console.log(
    `  fork in a thread, further ones      ${ms(best(further))} each, ${mib(threadBytes)} resident (bar: ${FORK_BAR_MS} ms)`,
  );
}
