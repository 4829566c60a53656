/**
 * `hypo run`: supplies what the plan asks for, builds the machine's configuration, runs it.
 */
import { randomBytes } from "node:crypto";
import { fstatSync, readFileSync, statSync } from "node:fs";
import { addAbortSignal } from "node:stream";
import { HypolithError } from "../../src/base/errors.ts";
import type { MachineConfig, ShareConfig } from "../../src/control/protocol.ts";
import { CONSOLE_COMMAND_LINE, VIRTIO_CONSOLE_COMMAND_LINE } from "../common/machine-defaults.ts";
import { formatSize } from "../common/size.ts";
import { ExitCode } from "./exit-code.ts";
import { agentFile } from "./guest/agent/agent-file.ts";
import {
  buildInitramfs,
  FOREIGN_INIT_PARAMETER,
  type InitramfsParts,
  joinForeignInitramfs,
} from "./guest/initramfs.ts";
import { type GuestJob, type GuestMount, JOB_ENVIRONMENT, type JobInput } from "./guest/job.ts";
import { defaultCacheRoot } from "./image/cache.ts";
import { joinArchives } from "./image/cpio.ts";
import {
  CONSOLE_DRIVERS,
  DISK_DRIVERS,
  KVM_DRIVERS,
  NETWORK_DRIVERS,
  ROOT_DRIVERS,
  SHARE_DRIVERS,
  SOCKET_DRIVERS,
} from "./image/flavors.ts";
import type { GuestImage } from "./image/guest-image.ts";
import { withDependencies } from "./image/modules.ts";
import { supplyAsAsked } from "./image/supply.ts";
import type { Messages } from "./messages.ts";
import { prepareRoot, type RunRoot, supplyRoot } from "./oci/run-root.ts";
import { ProfileFile } from "./profile-file.ts";
import { type MachineRun, runMachine } from "./run-machine.ts";
import { type JobPlan, planRun, type RunPlan, type RunWords } from "./run-plan.ts";
import { readSymbolFiles } from "./symbols/symbol-file.ts";
import { windowSize } from "./terminal/console-terminal.ts";
import type { StopRequests } from "./terminal/stop-requests.ts";
import { TraceFile } from "./trace-file.ts";
import { BACKGROUND_OPTION, startInBackground } from "./vms/background.ts";
import type { VolumePlan } from "./volume-option.ts";

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
  if (plan.isDetached) return runDetached(plan, words.options, messages, stops);
  const machine = await prepareRun(plan, words.options, messages, stops.signal);
  return runMachine(machine, messages, stops);
}

/** From a plan to all that the machine needs. */
export async function prepareRun(
  plan: RunPlan,
  options: RunWords["options"],
  messages: Messages,
  signal: AbortSignal,
): Promise<MachineRun> {
  // Files of the user's first: a wrong path should not cost a download.
  const kernelFile = readUserFile(plan.kernelPath, "kernel");
  const initrdFile = readUserFile(plan.initrdPath, "initrd");
  for (const volume of plan.volumes) checkFolder(volume);
  const symbols = plan.profile && readSymbolFiles(plan.profile.symbolPaths);
  const profile = plan.profile && new ProfileFile(plan.profile.path, messages);
  const trace = plan.tracePath === undefined ? undefined : new TraceFile(plan.tracePath, messages);
  const image =
    plan.flavor && (await supplyAsAsked(plan.flavor, kernelWords(plan, options), messages, signal));
  const kernel = kernelFile ?? image!.kernel;
  const context = { options, messages, signal };
  const root = plan.root && (await supplyRoot(plan.root, plan, context));
  const disks = root?.disk ? [...plan.disks, root.disk] : plan.disks;
  const job = plan.job && (await makeJob(plan, plan.job, messages, signal));
  const initrd = job
    ? await makeInitrd(job, image!, plan, { foreign: initrdFile, root })
    : initrdFile;
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
    ...(disks.length > 0 && { disks, entropyDevice: true }),
    ...(plan.console === "hvc0" && { virtioConsole: true }),
    ...(plan.volumes.length > 0 && { shares: sharesOf(plan, root) }),
    ...(plan.network && { network: { ...plan.network, hostName: GUEST_HOST_NAME } }),
    ...(hasAgent(plan) && { sockets: true }),
    rtcEpochMs: plan.clock === "wall" ? Date.now() : DETERMINISTIC_EPOCH_MS,
  };
  const { mode } = plan;
  return {
    config,
    name: plan.name ?? newName(),
    what: whatRuns(plan),
    mode,
    hasSession: plan.job !== undefined,
    showConsole: plan.showBoot,
    trace,
    profile,
    isBackground: plan.isBackground,
    takesInput: plan.takesInput,
    isKept: plan.isKept,
    ...programDefaults(plan, job, root),
    settings: settingsOf(plan),
  };
}

/** With an image from elsewhere, --pull is about that one, not about our kernel. */
function kernelWords(plan: RunPlan, options: RunWords["options"]): RunWords["options"] {
  return plan.root && options.pull === "always" ? { ...options, pull: "missing" } : options;
}

/** What the agent's programs find unless told otherwise: what the job does. */
function programDefaults(
  plan: RunPlan,
  job: GuestJob | undefined,
  root: RunRoot | undefined,
): Pick<MachineRun, "environment" | "folder" | "user" | "stopSignal"> {
  if (!root) {
    const environment = job?.environment ?? {};
    return { environment, folder: job?.workdir ?? "/", user: plan.job?.user };
  }
  const { environment, workdir, user, stopSignal } = root.guest.process;
  return {
    environment: Object.fromEntries(environment),
    folder: workdir,
    user: `${user.uid}:${user.gid}`,
    stopSignal,
  };
}

/** -d: says its name when it runs. */
async function runDetached(
  plan: RunPlan,
  options: RunWords["options"],
  messages: Messages,
  stops: StopRequests,
): Promise<number> {
  // What can take long is done where somebody sees it.
  if (plan.flavor && options.cache && options.pull === "missing")
    await supplyAsAsked(plan.flavor, kernelWords(plan, options), messages, stops.signal);
  if (plan.root && options.cache)
    await prepareRoot(plan.root, { options, messages, signal: stops.signal });
  const name = plan.name ?? newName();
  const argv = ["run", BACKGROUND_OPTION, name, ...process.argv.slice(3)];
  const code = await startInBackground(argv, stops.signal);
  if (code === ExitCode.OK) process.stdout.write(`${name}\n`);
  return code;
}

function newName(): string {
  return `vm-${randomBytes(4).toString("hex")}`;
}

/** The agent is ours: in a kernel that we have the modules of, with a clock that goes on while somebody talks to it. */
function hasAgent(plan: RunPlan): boolean {
  return plan.job !== undefined && plan.kernelPath === undefined && plan.clock === "wall";
}

function checkFolder({ path }: VolumePlan): void {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status?.isDirectory()) return;
  const why = status ? "is no folder" : "is not there";
  throw new HypolithError("volume-folder", `${path} ${why}`, {
    hint: "check the path given to --volume; only folders can be shared",
  });
}

/** What is ours here belongs in the guest to who the command runs as, where that is a number. */
function sharesOf({ volumes, job }: RunPlan, root: RunRoot | undefined): ShareConfig[] {
  const [, uid, gid] = /^(\d+)(?::(\d+))?$/.exec(job?.user ?? "") ?? [];
  const owner =
    uid === undefined
      ? { uid: root?.guest.process.user.uid ?? 0, gid: root?.guest.process.user.gid ?? 0 }
      : { uid: Number(uid), gid: Number(gid ?? 0) };
  return volumes.map(({ path, tag, protocol, readOnly }) => ({
    ...{ path, tag, protocol, readOnly, owner },
  }));
}

function mountsOf({ volumes }: RunPlan): GuestMount[] {
  return volumes.flatMap(({ target, tag, protocol, readOnly }) =>
    target === undefined ? [] : [{ target, tag, protocol, readOnly }],
  );
}

/** For `hypo inspect`. */
function settingsOf(plan: RunPlan): Record<string, unknown> {
  const { flavor, job, kernelPath, initrdPath, append, memoryBytes, cpuModel, ...rest } = plan;
  const { clock, engine, network, disks, volumes, placements, mode } = rest;
  return {
    image: plan.imageWord ?? flavor?.image ?? null,
    kernel: kernelPath ?? null,
    initrd: initrdPath ?? null,
    append,
    command: job?.argv ?? null,
    environment: job?.environment ?? {},
    workdir: job?.workdir ?? null,
    user: job?.user ?? null,
    terminal: mode === "console",
    ...{ memoryBytes, cpuModel, clock, engine, disks, volumes, network: network ?? null },
    services: placements,
  };
}

/** For `hypo ps`. */
function whatRuns(plan: RunPlan): string {
  const from = plan.imageWord ?? plan.flavor?.image ?? plan.kernelPath ?? "?";
  return plan.job && plan.job.argv.length > 0 ? `${from} -- ${plan.job.argv.join(" ")}` : from;
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

async function makeInitrd(
  job: GuestJob,
  { busybox, modules }: GuestImage,
  plan: RunPlan,
  {
    foreign,
    root,
  }: { readonly foreign: Uint8Array | undefined; readonly root: RunRoot | undefined },
): Promise<Uint8Array> {
  const drivers = [
    ...(plan.disks.length > 0 ? DISK_DRIVERS : []),
    ...(plan.network ? NETWORK_DRIVERS : []),
    ...(plan.console === "hvc0" ? CONSOLE_DRIVERS : []),
    ...plan.volumes.flatMap(({ protocol }) => SHARE_DRIVERS[protocol]),
    ...(hasAgent(plan) ? SOCKET_DRIVERS : []),
    ...(root?.disk ? ROOT_DRIVERS : []),
    ...(plan.nested ? KVM_DRIVERS : []),
  ];
  const loaded = withDependencies(modules, drivers);
  checkShareDrivers(plan, loaded);
  const bits = plan.flavor?.architecture === "i386" ? 32 : 64;
  const parts: InitramfsParts = {
    ...{ busybox, modules: loaded, job },
    ...(hasAgent(plan) && { agent: await agentFile(bits, defaultCacheRoot()) }),
    ...(root && { root: root.guest }),
  };
  if (root?.archive) return joinArchives(buildInitramfs(parts), root.archive);
  return foreign ? joinForeignInitramfs(foreign, parts) : buildInitramfs(parts);
}

/** Debian's kernels have both protocols as modules or not at all. */
function checkShareDrivers(
  { volumes, kernelPath, flavor }: RunPlan,
  modules: GuestImage["modules"],
): void {
  if (kernelPath !== undefined) return;
  const driver = { fs: "virtiofs.ko", "9p": "9p.ko" };
  const odd = volumes.find(
    ({ protocol }) => !modules.some(({ name }) => name === driver[protocol]),
  );
  if (!odd) return;
  throw new HypolithError(
    "volume-protocol",
    `the kernel of ${flavor?.image ?? "the image"} has no driver for ${odd.protocol}`,
    { hint: odd.protocol === "9p" ? "leave out ':9p', or choose --flavor generic" : "add ':9p'" },
  );
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
      ...job.environment,
    },
    ...(job.workdir !== undefined && { workdir: job.workdir }),
    ...(job.user !== undefined && { user: job.user }),
    mode: plan.mode,
    input: isConsole ? { kind: "none" } : await chooseInput(plan, messages, signal),
    window: windowSize(),
    hasNetwork: plan.network !== undefined,
    mounts: mountsOf(plan),
    console: plan.console,
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
  if (plan.isBackground) return { kind: plan.takesInput ? "stream" : "none" };
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
  // Of our init's guests the driver is a module: until it is there the serial port says how the boot goes.
  const isBare = plan.job === undefined && plan.console === "hvc0";
  const words = [isBare ? VIRTIO_CONSOLE_COMMAND_LINE : CONSOLE_COMMAND_LINE];
  if (!plan.showBoot && plan.flavor) words.push("quiet");
  if (plan.job?.inForeignInitrd) words.push(FOREIGN_INIT_PARAMETER);
  if (plan.append) words.push(plan.append);
  return words.join(" ");
}
