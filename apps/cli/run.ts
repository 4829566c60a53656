/**
 * `hypo run`: supplies what the plan asks for, builds the machine's configuration, runs it.
 */
import { fstatSync, readFileSync } from "node:fs";
import { addAbortSignal } from "node:stream";
import { HypolithError } from "../../src/base/errors.ts";
import type { MachineConfig } from "../../src/control/protocol.ts";
import { CONSOLE_COMMAND_LINE } from "../common/machine-defaults.ts";
import { formatSize } from "../common/size.ts";
import {
  buildInitramfs,
  FOREIGN_INIT_PARAMETER,
  type InitramfsParts,
  joinForeignInitramfs,
} from "./guest/initramfs.ts";
import { type GuestJob, JOB_ENVIRONMENT, type JobInput } from "./guest/job.ts";
import { DISK_DRIVERS, NETWORK_DRIVERS } from "./image/flavors.ts";
import type { GuestImage } from "./image/guest-image.ts";
import { withDependencies } from "./image/modules.ts";
import { supplyAsAsked } from "./image/supply.ts";
import type { Messages } from "./messages.ts";
import { ProfileFile } from "./profile-file.ts";
import { runMachine } from "./run-machine.ts";
import { type JobPlan, planRun, type RunPlan, type RunWords } from "./run-plan.ts";
import { readSymbolFiles } from "./symbols/symbol-file.ts";
import { windowSize } from "./terminal/console-terminal.ts";
import type { StopRequests } from "./terminal/stop-requests.ts";
import { TraceFile } from "./trace-file.ts";

/** What the clock of a deterministic machine shows at start. */
const DETERMINISTIC_EPOCH_MS = Date.UTC(2025, 0, 1);
const GUEST_HOST_NAME = "hypolith";
const DEV_NULL = 0x103;
const STDIN = 0;

export async function run(
  words: Omit<RunWords, "stdinIsTerminal">,
  messages: Messages,
  stops: StopRequests,
): Promise<number> {
  const stdinIsTerminal = process.stdin.isTTY === true;
  const plan = planRun({ ...words, stdinIsTerminal });
  // Files of the user's first: a wrong path should not cost a download.
  const kernelFile = readUserFile(plan.kernelPath, "kernel");
  const initrdFile = readUserFile(plan.initrdPath, "initrd");
  const symbols = plan.profile && readSymbolFiles(plan.profile.symbolPaths);
  const profile = plan.profile && new ProfileFile(plan.profile.path, messages);
  const trace = plan.tracePath === undefined ? undefined : new TraceFile(plan.tracePath, messages);
  const image =
    plan.flavor && (await supplyAsAsked(plan.flavor, words.options, messages, stops.signal));
  const kernel = kernelFile ?? image!.kernel;
  const job = plan.job && (await makeJob(plan, plan.job, messages, stops.signal));
  const initrd = job ? makeInitrd(job, image!, initrdFile, plan) : initrdFile;
  checkFit(initrd, kernel, plan);
  const config: MachineConfig = {
    kernel,
    ...(initrd && { initrd }),
    cmdline: commandLine(plan),
    memoryBytes: plan.memoryBytes,
    cpuModel: plan.cpuModel,
    clock: plan.clock,
    engine: plan.engine,
    services: plan.placements,
    traceExits: trace !== undefined,
    reportJit: plan.jitStats,
    ...(plan.profile && {
      profile: { every: plan.profile.every, ...(symbols && { symbols }) },
    }),
    ...(plan.disks.length > 0 && { disks: plan.disks, entropyDevice: true }),
    ...(plan.network && { network: { ...plan.network, hostName: GUEST_HOST_NAME } }),
    rtcEpochMs: plan.clock === "wall" ? Date.now() : DETERMINISTIC_EPOCH_MS,
  };
  const { mode } = plan;
  const machine = {
    config,
    name: plan.name ?? `vm-${process.pid}`,
    what: whatRuns(plan),
    mode,
    hasSession: plan.job !== undefined,
    showConsole: plan.showBoot,
    trace,
    profile,
  };
  return runMachine(machine, messages, stops);
}

/** For `hypo ps`. */
function whatRuns(plan: RunPlan): string {
  const from = plan.flavor?.image ?? plan.kernelPath ?? "?";
  return plan.job ? `${from} -- ${plan.job.argv.join(" ")}` : from;
}

function readUserFile(path: string | undefined, what: "kernel" | "initrd"): Uint8Array | undefined {
  if (path === undefined) return undefined;
  try {
    const content = readFileSync(path);
    if (content.length > 0) return content;
  } catch (cause) {
    const absent = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const why = absent ? "there is no such file" : (cause as Error).message;
    throw new HypolithError(`${what}-unreadable`, `the ${what} ${path} cannot be read: ${why}`, {
      hint: `check the path given to --${what}`,
    });
  }
  throw new HypolithError(`${what}-empty`, `the ${what} ${path} is empty`, {
    hint: "check how the file was made or downloaded",
  });
}

function makeInitrd(
  job: GuestJob,
  { busybox, modules }: GuestImage,
  foreign: Uint8Array | undefined,
  plan: RunPlan,
): Uint8Array {
  const drivers = [
    ...(plan.disks.length > 0 ? DISK_DRIVERS : []),
    ...(plan.network ? NETWORK_DRIVERS : []),
  ];
  const parts: InitramfsParts = { busybox, modules: withDependencies(modules, drivers), job };
  return foreign ? joinForeignInitramfs(foreign, parts) : buildInitramfs(parts);
}

async function makeJob(
  plan: RunPlan,
  job: JobPlan,
  messages: Messages,
  signal: AbortSignal,
): Promise<GuestJob> {
  const isConsole = plan.mode === "console";
  return {
    argv: job.argv,
    environment: {
      ...JOB_ENVIRONMENT,
      ...(isConsole && { TERM: process.env.TERM || "linux" }),
    },
    mode: plan.mode,
    input: isConsole ? { kind: "none" } : await chooseInput(plan, messages, signal),
    window: windowSize(),
    hasNetwork: plan.network !== undefined,
  };
}

/**
 * A file as standard input travels with the initramfs: faster than any serial port. With the deterministic clock everything does,
 * for bytes that arrive while the guest runs would arrive at another instruction every time.
 */
async function chooseInput(
  plan: RunPlan,
  messages: Messages,
  signal: AbortSignal,
): Promise<JobInput> {
  const deterministic = plan.clock === "deterministic";
  if (process.stdin.isTTY) {
    if (!deterministic) return { kind: "stream" };
    messages.warn("the terminal's input is not passed on with --clock deterministic");
    return { kind: "none" };
  }
  const status = fstatSync(STDIN);
  if (status.isCharacterDevice() && status.rdev === DEV_NULL) return { kind: "none" };
  const fits = status.isFile() && status.size <= plan.memoryBytes / 8;
  if (fits) return { kind: "file", content: readFileSync(STDIN) };
  if (!deterministic) return { kind: "stream" };
  return { kind: "file", content: await readToEnd(signal) };
}

async function readToEnd(signal: AbortSignal): Promise<Buffer> {
  const parts: Buffer[] = [];
  try {
    for await (const part of addAbortSignal(signal, process.stdin)) parts.push(part as Buffer);
  } catch (cause) {
    signal.throwIfAborted();
    throw new HypolithError("stdin-unreadable", "standard input cannot be read", { cause });
  }
  return Buffer.concat(parts);
}

function checkFit(initrd: Uint8Array | undefined, kernel: Uint8Array, plan: RunPlan): void {
  const size = initrd?.length ?? 0;
  if (size + kernel.length < plan.memoryBytes) return;
  const what = initrd ? "initrd-too-large" : "kernel-too-large";
  throw new HypolithError(
    what,
    initrd
      ? `an initrd of ${formatSize(size)} does not fit into ${formatSize(plan.memoryBytes)} of memory`
      : `a kernel of ${formatSize(kernel.length)} does not fit into ${formatSize(plan.memoryBytes)} of memory`,
    { hint: "give the machine more with --memory" },
  );
}

function commandLine(plan: RunPlan): string {
  const words = [CONSOLE_COMMAND_LINE];
  if (!plan.showBoot && plan.flavor) words.push("quiet");
  if (plan.job?.inForeignInitrd) words.push(FOREIGN_INIT_PARAMETER);
  if (plan.append) words.push(plan.append);
  return words.join(" ");
}
