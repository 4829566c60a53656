/**
 * The user's snapshots: a folder each, state/snapshots/NAME (src/machine/embedder-node-snapshots.ts), and what the command line keeps in them of
 * a run: who the job is, and what the machine's process knows of its guest.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import type { MachineRun, ResumedSession } from "../run-machine.ts";
import { UsageError } from "../usage-error.ts";
import { hasSnapshot, type OpenSnapshot, openSnapshot } from "../vm-client.ts";
import { stateFolder } from "../vms/machine-records.ts";
import { isMachineName } from "../vms/runtime-folder.ts";

const FORMAT = 1;

/** What of a run goes on. */
type KeptRun = Pick<
  MachineRun,
  | "what"
  | "mode"
  | "hasSession"
  | "takesInput"
  | "environment"
  | "folder"
  | "user"
  | "stopSignal"
  | "settings"
>;

interface About {
  readonly format: typeof FORMAT;
  /** The machine it was taken of. */
  readonly machine: string;
  readonly run: KeptRun;
  readonly session: ResumedSession;
}

export function snapshotFolder(name: string): string {
  return join(stateFolder(), "snapshots", name);
}

/** For a snapshot that only its forks need; whoever asks for it removes it. */
export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), "hypolith-fork-"));
}

export function aboutRun(run: MachineRun, session: ResumedSession): string {
  const { name, what, mode, hasSession, takesInput, environment, folder, user, stopSignal } = run;
  const kept: KeptRun = {
    ...{ what, mode, hasSession, takesInput, environment, folder, user, settings: run.settings },
    ...(stopSignal !== undefined && { stopSignal }),
  };
  return JSON.stringify({ format: FORMAT, machine: name, run: kept, session } satisfies About);
}

/** All of a snapshot but its state and memory. */
export interface StoredSnapshot extends Omit<OpenSnapshot, "about" | "file" | "close">, About {}

/** What is in a folder. Throws HypolithError "snapshot-...". */
export function loadSnapshot(folder: string): StoredSnapshot {
  const opened = openSnapshot(folder);
  const about = readAbout(opened.about);
  opened.close();
  const { description, bytes, disks } = opened;
  if (about) return { description, bytes, disks, ...about };
  throw new HypolithError(
    "snapshot-foreign",
    `the snapshot in ${folder} was not taken by this command`,
  );
}

function readAbout(text: string): About | undefined {
  try {
    const about = JSON.parse(text) as About;
    return about.format === FORMAT && typeof about.run?.what === "string" ? about : undefined;
  } catch {
    return undefined;
  }
}

/** One row of `hypo snapshot ls`. */
export interface SnapshotSummary {
  readonly name: string;
  readonly machine: string;
  /** Milliseconds since 1970. */
  readonly taken: number;
  readonly bytes: number;
  readonly memoryBytes: number;
  readonly disks: number;
  readonly what: string;
  /** Why it cannot be used. */
  readonly problem: string | null;
}

export function snapshotNames(): string[] {
  let names: string[] = [];
  try {
    names = readdirSync(join(stateFolder(), "snapshots"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  // One without a manifest was never whole.
  return names.filter((name) => isMachineName(name) && hasSnapshot(snapshotFolder(name))).sort();
}

export function summaryOf(name: string): SnapshotSummary {
  try {
    const { description, bytes, disks, machine, run } = loadSnapshot(snapshotFolder(name));
    const { takenMs, config } = description;
    return {
      ...{ name, machine, taken: takenMs, bytes, memoryBytes: config.memoryBytes },
      ...{ disks: disks.length, what: run.what, problem: null },
    };
  } catch (error) {
    if (!(error instanceof HypolithError)) throw error;
    const nothing = { machine: "", taken: 0, bytes: 0, memoryBytes: 0, disks: 0, what: "" };
    return { name, ...nothing, problem: error.message };
  }
}

/** Throws HypolithError "snapshot-absent". */
export function removeSnapshot(name: string): void {
  refuseAbsent(name);
  rmSync(snapshotFolder(name), { recursive: true, force: true });
}

export function refuseAbsent(name: string): void {
  if (isMachineName(name) && hasSnapshot(snapshotFolder(name))) return;
  throw new HypolithError("snapshot-absent", `there is no snapshot ${name}`, {
    hint: "hypo snapshot ls lists them",
  });
}

export function checkSnapshotName(name: string): void {
  if (isMachineName(name)) return;
  throw new UsageError(
    `'${name}' is no name for a snapshot`,
    "letters, digits, '.', '_' and '-', at most 63",
  );
}
