/**
 * What is known of machines beyond their processes: one folder each, with a record and, for machines that are kept, their output.
 *
 *   machines/NAME/machine.json   MachineRecord; written complete or not at all
 *   machines/NAME/output.log     output-log.ts
 *
 * The folder is the name's reservation: making it succeeds for one process. A machine that is kept (in the background, or with a name) leaves
 * it when it ends, for `hypo ps -a`, `logs`, `wait`, `inspect`, until `hypo rm`; that of any other goes with it. A record that has no end, and
 * no process, is of a machine whose process died.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import { isAnswered } from "./door-client.ts";
import { doorPath, isMachineName } from "./runtime-folder.ts";

const FORMAT = 1;
const RECORD = "machine.json";

export interface MachineRecord {
  readonly format: typeof FORMAT;
  readonly name: string;
  readonly pid: number;
  /** When the process began, as the kernel counts, to tell it from a later one of the same number; "" where that is unknown. */
  readonly pidStart: string;
  /** Milliseconds since 1970. */
  readonly started: number;
  readonly what: string;
  readonly memoryBytes: number;
  /** Stays when the machine has ended. */
  readonly isKept: boolean;
  readonly isBackground: boolean;
  /** What it was started with, for `hypo inspect`. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly ended?: number;
  readonly exitCode?: number;
  /** Why it ended, if not by its job: one sentence. */
  readonly reason?: string;
}

export type NewRecord = Omit<MachineRecord, "format" | "pid" | "pidStart" | "ended">;

export function stateFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.HYPO_HOME) return join(env.HYPO_HOME, "state");
  return join(env.XDG_STATE_HOME || join(homedir(), ".local/state"), "hypolith");
}

export function machineFolder(name: string): string {
  return join(stateFolder(), "machines", name);
}

/** Takes the name. Throws HypolithError "name-taken". */
export async function createRecord(fields: NewRecord): Promise<MachineRecord> {
  const record: MachineRecord = {
    format: FORMAT,
    ...fields,
    pid: process.pid,
    pidStart: processStatus(process.pid).start,
  };
  const folder = machineFolder(fields.name);
  if (!reserve(folder)) {
    await refuseIfTaken(fields.name);
    rmSync(folder, { recursive: true, force: true });
    if (!reserve(folder)) throw taken(fields.name, "is just being started");
  }
  writeRecord(record);
  return record;
}

function reserve(folder: string): boolean {
  mkdirSync(join(folder, ".."), { recursive: true, mode: 0o700 });
  try {
    mkdirSync(folder, { mode: 0o700 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Returns if what is there is only what a process left that was killed. */
async function refuseIfTaken(name: string): Promise<void> {
  const record = readRecord(name);
  if (await isAnswered(doorPath(name))) throw taken(name, "is running");
  if (record && isAlive(record)) throw taken(name, "is running");
  if (record?.isKept)
    throw taken(name, record.ended === undefined ? "has died" : "has ended and is kept");
}

function taken(name: string, how: string): HypolithError {
  const hint = how.includes("running")
    ? "choose another --name; hypo ps lists what is running"
    : `hypo rm ${name} forgets it, or choose another --name`;
  return new HypolithError("name-taken", `a machine named ${name} ${how}`, { hint });
}

export function writeRecord(record: MachineRecord): void {
  const path = join(machineFolder(record.name), RECORD);
  writeFileSync(`${path}.new`, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

export function readRecord(name: string): MachineRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(join(machineFolder(name), RECORD), "utf8"));
    return isRecord(record, name) ? record : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown, name: string): value is MachineRecord {
  const record = value as Partial<MachineRecord> | null;
  return (
    record?.format === FORMAT &&
    record.name === name &&
    Number.isInteger(record.pid) &&
    typeof record.started === "number" &&
    typeof record.what === "string" &&
    typeof record.settings === "object"
  );
}

export function removeRecord(name: string): void {
  rmSync(machineFolder(name), { recursive: true, force: true });
}

/** In the order of their names. */
export function allRecords(): MachineRecord[] {
  let names: string[] = [];
  try {
    names = readdirSync(join(stateFolder(), "machines"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  return names
    .filter(isMachineName)
    .sort()
    .flatMap((name) => readRecord(name) ?? []);
}

/** Whether the process of a record is there, and not another one with its number. */
export function isAlive({ pid, pidStart }: MachineRecord): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  const { state, start } = processStatus(pid);
  // In a container often nobody waits for orphans: what has ended stays in the list of processes.
  if (state === "Z" || state === "X") return false;
  return pidStart === "" || start === pidStart;
}

/** Fields 3 and 22 of /proc/PID/stat; the second one may hold anything, up to its last parenthesis. */
function processStatus(pid: number): { readonly state: string; readonly start: string } {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0] ?? "", start: fields[19] ?? "" };
  } catch {
    return { state: "", start: "" };
  }
}
