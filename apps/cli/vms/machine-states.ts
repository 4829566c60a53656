/** All machines that anything is known of: those that answer, those that have ended and are kept, those whose process died. */
import { HypolithError } from "../../../src/base/errors.ts";
import { ask, runningMachines } from "./door-client.ts";
import type { MachineInfo } from "./door-protocol.ts";
import { allRecords, isAlive, type MachineRecord, readRecord } from "./machine-records.ts";

export type MachineStatus =
  | MachineInfo["state"]
  | "ended"
  /** Its process is gone, and has not said how it ended. */
  | "died"
  /** Its process is there and does not answer. */
  | "silent";

export interface MachineState {
  readonly name: string;
  readonly status: MachineStatus;
  readonly info?: MachineInfo;
  readonly record?: MachineRecord;
}

export async function allMachines(): Promise<MachineState[]> {
  const infos = new Map((await runningMachines()).map((info) => [info.name, info]));
  const states = new Map<string, MachineState>();
  for (const record of allRecords())
    states.set(record.name, stateOf(record, infos.get(record.name)));
  for (const info of infos.values())
    if (!states.has(info.name))
      states.set(info.name, { name: info.name, status: info.state, info });
  return [...states.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Throws HypolithError "no-such-machine". */
export async function machineState(name: string): Promise<MachineState> {
  const record = readRecord(name);
  const info = await ask(name, { verb: "info" }).catch((error: HypolithError) => {
    if (record) return undefined;
    throw error.code === "no-such-machine" ? noSuchMachine(name) : error;
  });
  if (record) return stateOf(record, info);
  return { name, status: info!.state, info: info! };
}

export function noSuchMachine(name: string): HypolithError {
  return new HypolithError("no-such-machine", `there is no machine ${name}`, {
    hint: "hypo ps -a lists all that there are",
  });
}

function stateOf(record: MachineRecord, info: MachineInfo | undefined): MachineState {
  const { name } = record;
  if (record.ended !== undefined) return { name, status: "ended", record };
  if (info) return { name, status: info.state, info, record };
  const isThere = isAlive(record);
  // It may have ended while we asked; a process that ends in order says so first.
  const now = readRecord(name) ?? record;
  if (now.ended !== undefined) return { name, status: "ended", record: now };
  return { name, status: isThere ? "silent" : "died", record: now };
}
