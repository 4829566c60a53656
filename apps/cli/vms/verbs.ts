/** The verbs about machines. */
import { setTimeout as sleep } from "node:timers/promises";
import { HypolithError } from "../../../src/base/errors.ts";
import type { DrillName } from "../../../src/control/protocol.ts";
import { ExitCode } from "../exit-code.ts";
import type { Messages } from "../messages.ts";
import type { StopRequests } from "../terminal/stop-requests.ts";
import { UsageError } from "../usage-error.ts";
import type { PsOptions, StatsOptions, VmRequest } from "./commands.ts";
import { ask, chooseMachine, runningMachines } from "./door-client.ts";
import type { MachineStats } from "./door-protocol.ts";
import { GuestProgramError } from "./guest-program.ts";
import { isAlive, readRecord, removeRecord } from "./machine-records.ts";
import { allMachines, type MachineState, machineState } from "./machine-states.ts";
import { signalNumber } from "./signals.ts";
import { formatMachines, formatServices, formatStats } from "./tables.ts";

export interface ListOptions {
  readonly json?: boolean;
}

/** How long a machine may take to end after it was killed. */
const GONE_MS = 5000;
const POLL_MS = 20;
const STATS_MS = 1000;

export async function performVmVerb(
  request: Exclude<VmRequest, { verb: "completion" }>,
  messages: Messages,
  stops: StopRequests,
): Promise<number> {
  switch (request.verb) {
    case "ps":
      return ps(request.options);
    case "logs": {
      const { printLogs } = await import("./logs.ts");
      return printLogs(request.vm, request.options, stops.signal);
    }
    case "attach": {
      const { attachToMachine } = await import("./exec.ts");
      return attachToMachine(request.vm, request.options, stops);
    }
    case "exec": {
      const { execInMachine } = await import("./exec.ts");
      return execInMachine(request.vm, request.command, request.options, stops).catch((error) => {
        if (!(error instanceof GuestProgramError)) throw error;
        messages.failure(error);
        return error.exitCode;
      });
    }
    case "trace": {
      const { traceMachine } = await import("./trace.ts");
      return traceMachine(request.kind, request.vm, request.options, stops.signal);
    }
    case "cp": {
      const { copy } = await import("./copy.ts");
      return copy(request.from, request.to);
    }
    case "stop": {
      const seconds = checkSeconds(request.time);
      return forEach(request.vms, messages, (vm) => stop(vm, seconds));
    }
    case "kill": {
      const { signal } = request;
      if (signalNumber(signal) === undefined)
        throw new UsageError(`'${signal}' is no signal`, "kill -l lists them");
      return forEach(request.vms, messages, (vm) => kill(vm, signal));
    }
    case "rm":
      return forEach(request.vms, messages, (vm) => remove(vm, request.isForced));
    case "inspect":
      return inspect(request.vms, messages);
    case "stats":
      return stats(request.vms, request.options, stops.signal);
    case "wait":
      return forEach(request.vms, messages, waitFor);
    case "pause":
    case "unpause": {
      const { verb } = request;
      return forEach(request.vms, messages, async (vm) => {
        await ask(vm, { verb });
        return vm;
      });
    }
  }
}

/** Does it for all, whatever becomes of one, and prints what each answers. */
async function forEach(
  vms: readonly string[],
  messages: Messages,
  act: (vm: string) => Promise<string>,
): Promise<number> {
  let failed = 0;
  for (const vm of vms) {
    try {
      process.stdout.write(`${await act(vm)}\n`);
    } catch (error) {
      if (!(error instanceof HypolithError)) throw error;
      messages.failure(error);
      failed += 1;
    }
  }
  return failed === 0 ? ExitCode.OK : ExitCode.CHECK_FAILED;
}

function checkSeconds(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw new UsageError(`'${text}' is no number of seconds`, "write --time 10");
}

async function ps({ all, quiet, json }: PsOptions): Promise<number> {
  const machines = (await allMachines()).filter(
    ({ status }) => all || (status !== "ended" && status !== "died"),
  );
  const rows = machines.map(summary);
  if (json) process.stdout.write(`${JSON.stringify(rows, undefined, 2)}\n`);
  else if (quiet) for (const { name } of rows) process.stdout.write(`${name}\n`);
  else process.stdout.write(`${formatMachines(rows, Date.now())}\n`);
  return ExitCode.OK;
}

/** One row of ps. */
export interface MachineSummary {
  readonly name: string;
  readonly status: MachineState["status"];
  readonly pid: number;
  readonly started: number;
  readonly ended: number | null;
  readonly exitCode: number | null;
  readonly memoryBytes: number;
  readonly what: string;
}

function summary({ name, status, info, record }: MachineState): MachineSummary {
  const { pid, started, memoryBytes, what } = (info ?? record)!;
  const { ended = null, exitCode = null } = record ?? {};
  return { name, status, pid, started, ended, exitCode, memoryBytes, what };
}

async function stop(vm: string, seconds: number): Promise<string> {
  if (isOver(await machineState(vm))) return vm;
  await ask(vm, { verb: "stop", seconds }).catch(async (error: HypolithError) => {
    // It has just ended by itself: that is what was wanted.
    const isGone = error.code === "no-such-machine";
    const state = isGone ? await machineState(vm).catch(() => undefined) : await machineState(vm);
    if (state && !isOver(state)) throw error;
  });
  await untilGone(vm, seconds * 1000 + GONE_MS);
  return vm;
}

function isOver({ status }: MachineState): boolean {
  return status === "ended" || status === "died";
}

async function kill(vm: string, signal: string): Promise<string> {
  await ask(vm, { verb: "kill", signal });
  if (signalNumber(signal) === signalNumber("KILL")) await untilGone(vm, GONE_MS);
  return vm;
}

/** Until its process is gone: it says how it ended a moment before that. */
async function untilGone(vm: string, ms: number): Promise<void> {
  const deadline = performance.now() + ms;
  while (performance.now() < deadline) {
    const state = await machineState(vm).catch(() => undefined);
    if (!state || (isOver(state) && !(state.record && isAlive(state.record)))) return;
    await sleep(POLL_MS);
  }
  throw new HypolithError("still-there", `the machine ${vm} does not end`, {
    hint: `hypo rm -f ${vm} ends its process`,
  });
}

async function remove(vm: string, isForced: boolean): Promise<string> {
  const state = await machineState(vm);
  const { status, record, info } = state;
  if (!isOver(state)) {
    if (!isForced) {
      throw new HypolithError("machine-runs", `the machine ${vm} is ${status}`, {
        hint: `hypo stop ${vm} first, or hypo rm -f ${vm}`,
      });
    }
    await kill(vm, "KILL").catch(async () => {
      const owner = record ?? readRecord(vm);
      if (owner && isAlive(owner)) process.kill(owner.pid, "SIGKILL");
      else if (info) throw new HypolithError("still-there", `the machine ${vm} does not end`);
      await untilGone(vm, GONE_MS);
    });
  }
  removeRecord(vm);
  return vm;
}

async function inspect(vms: readonly string[], messages: Messages): Promise<number> {
  const found: unknown[] = [];
  let failed = 0;
  for (const vm of vms) {
    try {
      const state = await machineState(vm);
      const { info, record } = state;
      const services =
        info && info.state !== "paused" ? await ask(vm, { verb: "services" }) : undefined;
      found.push({
        ...summary(state),
        reason: record?.reason ?? null,
        isKept: record?.isKept ?? false,
        isBackground: record?.isBackground ?? false,
        hasTerminal: info?.hasTerminal ?? null,
        hasAgent: info?.hasAgent ?? null,
        settings: record?.settings ?? null,
        services: services?.services ?? null,
      });
    } catch (error) {
      if (!(error instanceof HypolithError)) throw error;
      messages.failure(error);
      failed += 1;
    }
  }
  process.stdout.write(`${JSON.stringify(found, undefined, 2)}\n`);
  return failed === 0 ? ExitCode.OK : ExitCode.CHECK_FAILED;
}

async function waitFor(vm: string): Promise<string> {
  const state = await machineState(vm);
  if (state.info) {
    const answer = await ask(vm, { verb: "wait" }).catch(() => undefined);
    if (answer) return String(answer.exitCode);
  }
  const record = readRecord(vm) ?? state.record;
  if (record?.exitCode !== undefined) return String(record.exitCode);
  throw new HypolithError("machine-died", `the process of ${vm} died and left no exit status`, {
    hint: `hypo logs ${vm} shows what it wrote; hypo rm ${vm} forgets it`,
  });
}

async function stats(
  vms: readonly string[],
  { stream, json }: StatsOptions,
  signal: AbortSignal,
): Promise<number> {
  let before = new Map<string, MachineStats>();
  for (let round = 0; !signal.aborted; round++) {
    const names = vms.length > 0 ? vms : (await runningMachines()).map(({ name }) => name);
    const now = new Map<string, MachineStats>();
    for (const name of names) {
      const found = await ask(name, { verb: "stats" }).catch((error: HypolithError) => {
        // One that was there a moment ago has ended; one that never was is a mistake.
        if (vms.length > 0 && !before.has(name)) throw error;
      });
      if (found) now.set(name, found);
    }
    // The first figures are since the beginning; a share of the processor is between two looks.
    if (round > 0) {
      const rows = [...now.values()].map((row) => usage(row, before.get(row.name)));
      const isScreen = stream && process.stdout.isTTY && !json;
      const text = json ? JSON.stringify(rows) : formatStats(rows);
      process.stdout.write(`${isScreen ? "\x1b[2J\x1b[H" : ""}${text}\n`);
      if (!stream || (vms.length > 0 && now.size === 0)) break;
    }
    before = now;
    await sleep(stream || round > 0 ? STATS_MS : STATS_MS / 2, undefined, { signal }).catch(
      () => {},
    );
  }
  return ExitCode.OK;
}

export interface MachineUsage extends MachineStats {
  /** Of one processor. */
  readonly cpuPercent: number;
}

function usage(now: MachineStats, before: MachineStats | undefined): MachineUsage {
  const cpu = now.cpuMs - (before?.cpuMs ?? 0);
  const time = now.upMs - (before?.upMs ?? 0);
  return { ...now, cpuPercent: time > 0 ? (100 * cpu) / time : 0 };
}

export async function services(vm: string | undefined, { json }: ListOptions): Promise<number> {
  const report = await ask(await chooseMachine(vm), { verb: "services" });
  const text = json ? JSON.stringify(report, undefined, 2) : formatServices(report);
  process.stdout.write(`${text}\n`);
  return ExitCode.OK;
}

export async function drillService(
  drill: DrillName,
  service: string,
  vm: string | undefined,
): Promise<number> {
  await ask(await chooseMachine(vm), { verb: "drill", service, drill });
  return ExitCode.OK;
}
