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
import { type Flavor, flavorOfImage, flavorOfShortName } from "./image/flavors.ts";
import type { PullPolicy } from "./image/supply.ts";
import { UsageError } from "./usage-error.ts";
import { isMachineName } from "./vms/runtime-folder.ts";

/** Options as commander hands them over. */
export interface RunOptions {
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly memory: string;
  readonly cpuModel: string;
  readonly clock: ClockMode;
  readonly engine?: EngineName;
  readonly network?: NetworkMode;
  readonly publish?: readonly string[];
  readonly egress?: readonly string[];
  readonly pcap?: string;
  readonly name?: string;
  readonly service?: readonly string[];
  readonly disk?: readonly string[];
  readonly trace?: string;
  readonly jitStats?: boolean;
  readonly profile?: string;
  readonly profileEvery?: string;
  readonly symbols?: readonly string[];
  readonly tty?: boolean;
  readonly quiet?: boolean;
  readonly logLevel?: LogLevel;
  readonly flavor?: string;
  readonly mirror?: string;
  readonly pull: PullPolicy;
  readonly cache: boolean;
}

export interface RunPlan {
  /** The image that parts come from; undefined if the user's files are all. */
  readonly flavor: Flavor | undefined;
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
  readonly clock: ClockMode;
  readonly engine: EngineName;
  readonly network: NetworkConfig | undefined;
  readonly name: string | undefined;
  /** By service, or "all". */
  readonly placements: Readonly<Record<string, PlacementName>>;
  readonly disks: readonly DiskConfig[];
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
  readonly argv: readonly string[];
  /** In the user's own initramfs, beside what is there. */
  readonly inForeignInitrd: boolean;
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
  const flavor = chooseFlavor(words);
  const job = chooseJob(words, flavor !== undefined);
  const quiet = options.quiet === true;
  const isConsole = job ? options.tty || (!isCommand && words.stdinIsTerminal) : true;
  return {
    flavor,
    kernelPath: options.kernel,
    initrdPath: options.initrd,
    job,
    mode: isConsole ? "console" : "pipes",
    showBoot: (!isCommand && !quiet) || options.logLevel === "debug",
    append: options.append ?? "",
    memoryBytes: checkMemory(options.memory),
    cpuModel: checkCpuModel(options.cpuModel),
    clock: options.clock,
    engine: options.engine ?? DEFAULT_ENGINE,
    network: planNetwork(options),
    name: checkName(options.name),
    placements: checkPlacements(options.service),
    disks: (options.disk ?? []).map(parseDisk),
    tracePath: checkTrace(options.trace),
    jitStats: options.jitStats === true,
    profile: checkProfile(options),
  };
}

/** A kernel of the user's own is booted alone, unless an image or a command asks for more. */
function chooseFlavor({ image, command, options }: RunWords): Flavor | undefined {
  if (image !== undefined && options.flavor !== undefined) {
    throw new UsageError("--flavor and IMAGE both choose the image", "leave one of them out");
  }
  if (image !== undefined) return flavorOfImage(image);
  if (options.flavor !== undefined) return flavorOfShortName(options.flavor);
  const isWholeMachine = options.kernel !== undefined && command.length === 0;
  return isWholeMachine ? undefined : flavorOfImage("debian");
}

function chooseJob(
  { command, options, ...words }: RunWords,
  hasImage: boolean,
): JobPlan | undefined {
  const inForeignInitrd = options.initrd !== undefined;
  if (command.length > 0) return { argv: command, inForeignInitrd };
  if (inForeignInitrd || !hasImage) {
    if (options.tty)
      throw new UsageError("--tty needs a command", "leave it out: the terminal is the console");
    return undefined;
  }
  const isTerminal = words.stdinIsTerminal || options.tty;
  if (isTerminal) return { argv: ["sh", "-l"], inForeignInitrd };
  // A prompt shows that the guest is there; without a terminal there can be no job control to warn about.
  return { argv: options.quiet ? ["sh"] : ["sh", "+m", "-i"], inForeignInitrd };
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
