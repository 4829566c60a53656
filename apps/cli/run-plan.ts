/**
 * From the words of `hypo run` to what shall happen: every mistake that can be seen without starting anything is found here.
 */
import {
  type ClockMode,
  type DiskConfig,
  type EngineName,
  type LogLevel,
  type NetworkConfig,
  PLACEMENTS,
  type PlacementName,
} from "../../src/control/protocol.ts";
import { checkMemorySize, DEFAULT_ENGINE } from "../common/machine-defaults.ts";
import { parseSize } from "../common/size.ts";
import { closest } from "./closest.ts";
import { parseDisk } from "./disk-option.ts";
import type { GuestConsole } from "./guest/job.ts";
import { type Flavor, flavorOfImage, flavorOfShortName } from "./image/flavors.ts";
import type { PullPolicy } from "./image/supply.ts";
import { type ImageWord, readImageWord } from "./oci/image-word.ts";
import type { Platform } from "./oci/manifest.ts";
import type { RootForm, RootPlan } from "./oci/root-plan.ts";
import { UsageError } from "./usage-error.ts";
import { isMachineName } from "./vms/runtime-folder.ts";
import { parseVolumes, type VolumePlan } from "./volume-option.ts";

/** Options as commander hands them over. */
export interface RunOptions {
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly memory: string;
  readonly cpuModel: string;
  readonly nested?: boolean;
  readonly clock: ClockMode;
  readonly engine?: EngineName;
  readonly network?: NetworkMode;
  readonly publish?: readonly string[];
  readonly egress?: readonly string[];
  readonly pcap?: string;
  readonly name?: string;
  readonly service?: readonly string[];
  readonly disk?: readonly string[];
  readonly volume?: readonly string[];
  readonly console?: GuestConsole;
  readonly trace?: string;
  readonly jitStats?: boolean;
  readonly profile?: string;
  readonly profileEvery?: string;
  readonly symbols?: readonly string[];
  readonly tty?: boolean;
  readonly interactive?: boolean;
  readonly detach?: boolean;
  /** In the process that -d has started: the machine's name. */
  readonly inBackground?: string;
  readonly rm?: boolean;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly quiet?: boolean;
  readonly logLevel?: LogLevel;
  readonly flavor?: string;
  readonly platform?: string;
  readonly root?: RootForm;
  readonly entrypoint?: string;
  readonly insecure?: boolean;
  readonly mirror?: string;
  readonly pull: PullPolicy;
  readonly cache: boolean;
}

export interface RunPlan {
  /** The image that parts come from; undefined if the user's files are all. */
  readonly flavor: Flavor | undefined;
  /** The image whose process runs; the kernel is the flavor's. */
  readonly root: RootPlan | undefined;
  /** As it was written. */
  readonly imageWord: string | undefined;
  readonly kernelPath: string | undefined;
  readonly initrdPath: string | undefined;
  /** What our session in the guest runs; undefined: no session, the kernel and the initrd are the user's. */
  readonly job: JobPlan | undefined;
  readonly mode: "console" | "pipes";
  /** Kernel messages and all: somebody wants to see the machine boot. */
  readonly showBoot: boolean;
  readonly append: string;
  readonly memoryBytes: number;
  readonly cpuModel: string;
  /** The guest may use VMX: it gets KVM. */
  readonly nested: boolean;
  readonly clock: ClockMode;
  readonly engine: EngineName;
  readonly network: NetworkConfig | undefined;
  readonly name: string | undefined;
  /** -d was asked for; `isBackground`: this is the process that runs it there. */
  readonly isDetached: boolean;
  readonly isBackground: boolean;
  /** In the background: the job reads what those who attach type. */
  readonly takesInput: boolean;
  /** Stays known when it has ended. */
  readonly isKept: boolean;
  /** By service, or "all". */
  readonly placements: Readonly<Record<string, PlacementName>>;
  readonly disks: readonly DiskConfig[];
  readonly volumes: readonly VolumePlan[];
  /** The guest's terminal. */
  readonly console: GuestConsole;
  readonly tracePath: string | undefined;
  readonly jitStats: boolean;
  readonly profile: ProfilePlan | undefined;
}

/** "user": through sockets of ours. */
export const NETWORK_MODES = ["user", "none"] as const;
export type NetworkMode = (typeof NETWORK_MODES)[number];

export interface ProfilePlan {
  readonly path: string;
  /** Retired instructions between two samples. */
  readonly every: number;
  readonly symbolPaths: readonly string[];
}

export interface JobPlan {
  /** Empty: the image says. */
  readonly argv: readonly string[];
  /** In the user's own initramfs, beside what is there. */
  readonly inForeignInitrd: boolean;
  /** What was asked for beside the usual. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly workdir?: string;
  /** NAME or number, with ":GROUP" or without; of the guest's files. */
  readonly user?: string;
}

export interface RunWords {
  readonly image: string | undefined;
  readonly command: readonly string[];
  readonly options: RunOptions;
  readonly stdinIsTerminal: boolean;
}

const CPU_MODEL = /^[\w.-]+(?:,[+-][\w.]+)*$/;
const TRACES = ["exits"];
const DEFAULT_PROFILE_INTERVAL = 100_000;
const MAX_PROFILE_INTERVAL = 1_000_000_000_000;

export function planRun(words: RunWords): RunPlan {
  const { options, command } = words;
  const isCommand = command.length > 0;
  const image = words.image === undefined ? undefined : readImageWord(words.image);
  const flavor = chooseFlavor(words, image);
  const root = planRoot(words, image, flavor);
  const job = chooseJob(words, flavor !== undefined, root !== undefined);
  const quiet = options.quiet === true;
  // In the background there is always somebody who may come with a terminal.
  const hasTerminal = words.stdinIsTerminal || isInBackground(options);
  const isConsole = job ? options.tty || (!isCommand && hasTerminal) : true;
  return {
    flavor,
    root,
    imageWord: words.image,
    kernelPath: options.kernel,
    initrdPath: options.initrd,
    job,
    mode: isConsole ? "console" : "pipes",
    showBoot: (!isCommand && !root && !quiet) || options.logLevel === "debug",
    append: options.append ?? "",
    memoryBytes: checkMemory(options.memory),
    cpuModel: checkCpuModel(options.cpuModel) + (options.nested ? ",+vmx" : ""),
    nested: options.nested === true,
    clock: options.clock,
    engine: options.engine ?? DEFAULT_ENGINE,
    network: planNetwork(options),
    name: options.inBackground ?? checkName(options.name),
    ...planBackground(options),
    placements: checkPlacements(options.service),
    disks: (options.disk ?? []).map(parseDisk),
    console: options.console ?? "ttyS0",
    volumes: parseVolumes(options.volume ?? [], job !== undefined),
    tracePath: checkTrace(options.trace),
    jitStats: options.jitStats === true,
    profile: checkProfile(options),
  };
}

/** A kernel of the user's own is booted alone, unless an image or a command asks for more. */
function chooseFlavor(
  { command, options }: RunWords,
  image: ImageWord | undefined,
): Flavor | undefined {
  if (image?.kind === "own") {
    if (options.flavor === undefined) return flavorOfImage(image.name);
    throw new UsageError("--flavor and IMAGE both choose the kernel", "leave one of them out");
  }
  if (image !== undefined && options.flavor === undefined) return flavorOfImage("debian");
  if (options.flavor !== undefined) return flavorOfShortName(options.flavor);
  const isWholeMachine = options.kernel !== undefined && command.length === 0;
  return isWholeMachine ? undefined : flavorOfImage("debian");
}

function planRoot(
  { options }: RunWords,
  word: ImageWord | undefined,
  flavor: Flavor | undefined,
): RootPlan | undefined {
  const { platform, entrypoint } = options;
  if (word === undefined || word.kind === "own") {
    const idle = ["platform", "root", "entrypoint", "insecure"].find((name) => name in options);
    if (idle === undefined) return undefined;
    throw new UsageError(`--${idle} is for images of registries and files`, "name one");
  }
  if (options.initrd !== undefined) {
    throw new UsageError(
      "--initrd and IMAGE both bring a root file system",
      "leave one of them out",
    );
  }
  // Blocks of a disk come when they come: only what is in memory from the start repeats exactly.
  const isDeterministic = options.clock === "deterministic";
  if (isDeterministic && options.root === "disk") {
    throw new UsageError(
      "--clock deterministic needs the image in memory",
      "leave out --root disk",
    );
  }
  return {
    word,
    platform: planPlatform(platform, flavor),
    form: options.root ?? (isDeterministic ? "memory" : "disk"),
    entrypoint,
  };
}

/** A 64-bit kernel runs 32-bit programs, too. */
function planPlatform(text: string | undefined, flavor: Flavor | undefined): Platform {
  const is32Bit = flavor?.architecture === "i386";
  const platforms = is32Bit ? ["linux/386"] : ["linux/amd64", "linux/386"];
  const name = text ?? platforms[0]!;
  if (platforms.includes(name)) return { os: "linux", architecture: name.slice("linux/".length) };
  throw new UsageError(
    `'${name}' is no platform of this machine`,
    `it has ${platforms.join(" and ")}`,
  );
}

function chooseJob(
  { command, options, ...words }: RunWords,
  hasImage: boolean,
  hasRoot: boolean,
): JobPlan | undefined {
  const inForeignInitrd = options.initrd !== undefined;
  const manner = jobManner(options);
  if (command.length > 0 || hasRoot) return { argv: command, inForeignInitrd, ...manner };
  if (inForeignInitrd || !hasImage) {
    if (options.tty)
      throw new UsageError("--tty needs a command", "leave it out: the terminal is the console");
    const idle = Object.keys(manner)[0];
    if (idle !== undefined) {
      const option = idle === "environment" ? "env" : idle;
      throw new UsageError(`--${option} needs a command`, "it is for what runs in an image");
    }
    return undefined;
  }
  const isTerminal = words.stdinIsTerminal || options.tty || isInBackground(options);
  if (isTerminal) return { argv: ["sh", "-l"], inForeignInitrd, ...manner };
  // A prompt shows that the guest is there; without a terminal there can be no job control to warn about.
  const argv = options.quiet ? ["sh"] : ["sh", "+m", "-i"];
  return { argv, inForeignInitrd, ...manner };
}

function isInBackground({ detach, inBackground }: RunOptions): boolean {
  return detach === true || inBackground !== undefined;
}

function planBackground(
  options: RunOptions,
): Pick<RunPlan, "isDetached" | "isBackground" | "takesInput" | "isKept"> {
  const { inBackground, interactive, name, rm } = options;
  const isBackground = inBackground !== undefined;
  return {
    isDetached: isInBackground(options) && !isBackground,
    isBackground,
    takesInput: interactive === true,
    isKept: !rm && (isInBackground(options) || name !== undefined),
  };
}

function jobManner({
  env,
  workdir,
  user,
}: RunOptions): Pick<JobPlan, "environment" | "workdir" | "user"> {
  if (workdir !== undefined && !workdir.startsWith("/"))
    throw new UsageError(`'${workdir}' is no absolute path`, "write --workdir /PATH");
  if (user !== undefined && !/^[\w.-]+(?::[\w.-]+)?$/.test(user))
    throw new UsageError(
      `'${user}' is no user`,
      "write a name or a number, with :GROUP or without",
    );
  return {
    ...(env && { environment: parseEnvironment(env) }),
    ...(workdir !== undefined && { workdir }),
    ...(user !== undefined && { user }),
  };
}

/** NAME=VALUE, or NAME for our own value; one that we do not have either is left out, as docker does it. */
export function parseEnvironment(
  words: readonly string[],
  ours: NodeJS.ProcessEnv = process.env,
): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const word of words) {
    const [name, value] = splitAt(word, "=");
    if (!/^[A-Za-z_]\w*$/.test(name))
      throw new UsageError(`'${word}' is no variable`, "write --env NAME=VALUE");
    const given = word.includes("=") ? value : ours[name];
    if (given !== undefined) variables[name] = given;
  }
  return variables;
}

function checkMemory(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) {
    throw new UsageError(`'${text}' is no memory size`, "write it like 512m or 1g");
  }
  return checkMemorySize(bytes, "--memory ");
}

function checkCpuModel(text: string): string {
  if (CPU_MODEL.test(text)) return text;
  throw new UsageError(
    `'${text}' is no CPU model`,
    "write a name and changes to it, like x86-64-v2,-sse4_2,+rdrand",
  );
}

function checkName(name: string | undefined): string | undefined {
  if (name === undefined || isMachineName(name)) return name;
  throw new UsageError(
    `'${name}' is no name for a machine`,
    "letters, digits, '.', '_' and '-', at most 63",
  );
}

/**
 * A deterministic machine has none unless it is asked for: what comes from outside comes at another instruction every time. Rules and ports
 * are read by the network itself; a word that is no port at all is seen here.
 */
function planNetwork(options: RunOptions): NetworkConfig | undefined {
  const { network, publish = [], egress = [], pcap, clock } = options;
  const mode = network ?? (clock === "deterministic" ? "none" : "user");
  if (mode === "none") {
    const idle = publish.length > 0 ? "--publish" : egress.length > 0 ? "--egress" : pcap;
    if (idle === undefined) return undefined;
    const option = idle === pcap ? "--pcap" : idle;
    throw new UsageError(`${option} needs a network`, "leave out --network none");
  }
  const odd = publish.find((word) => !/^(?:[^/]+:)?\d*:\d+(?:\/(?:tcp|udp))?$/i.test(word));
  if (odd !== undefined) {
    throw new UsageError(
      `'${odd}' is no port to publish`,
      "write [HOSTADDRESS:]HOSTPORT:GUESTPORT[/udp], as in 8080:80",
    );
  }
  return { egress, forwards: publish, ...(pcap === undefined ? {} : { capture: pcap }) };
}

function checkPlacements(words: readonly string[] = []): Record<string, PlacementName> {
  const entries = words.map((word): [string, PlacementName] => {
    const [service, wish] = splitAt(word, "=");
    const placement = PLACEMENTS.find((name) => name === wish);
    if (service !== "" && placement) return [service, placement];
    const near = closest(wish, PLACEMENTS);
    const hint =
      near && near !== wish ? `did you mean ${service}=${near}?` : "write it like console=worker";
    throw new UsageError(`'${word}' places no service`, hint);
  });
  return Object.fromEntries(entries);
}

function checkTrace(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const [kind, path] = splitAt(text, "=");
  if (TRACES.includes(kind) && path) return path;
  const near = closest(kind, TRACES);
  const hint =
    near && near !== kind ? `did you mean ${near}=FILE?` : "write it like --trace exits=FILE";
  throw new UsageError(`'${text}' is no trace`, hint);
}

function checkProfile(options: RunOptions): ProfilePlan | undefined {
  const { profile: path, profileEvery, symbols = [] } = options;
  if (path === undefined) {
    const idle = symbols.length > 0 ? "--symbols" : profileEvery && "--profile-every";
    if (idle) throw new UsageError(`${idle} is for a profile`, "add --profile FILE");
    return undefined;
  }
  if (path === "") throw new UsageError("--profile needs a file", "write it like --profile p.json");
  const text = profileEvery ?? String(DEFAULT_PROFILE_INTERVAL);
  const every = Number(text);
  if (!/^[0-9]+$/.test(text) || every < 1 || every > MAX_PROFILE_INTERVAL) {
    throw new UsageError(
      `'${text}' is no number of instructions`,
      `--profile-every takes 1 to ${MAX_PROFILE_INTERVAL}`,
    );
  }
  return { path, every, symbolPaths: symbols };
}

function splitAt(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
