/** What a program may ask of a machine: the options of `hypo run`, under their names. */
import type { ClockMode, EngineName } from "../../../src/control/protocol.ts";
import { DEFAULT_CPU_MODEL, DEFAULT_MEMORY } from "../../common/machine-defaults.ts";
import type { PullPolicy } from "../image/supply.ts";
import { planRun, type RunOptions, type RunPlan } from "../run-plan.ts";

export interface MachineOptions {
  /** "debian", "debian:cloud-amd64", "alpine", "./layout"; default: Debian's kernel with BusyBox. */
  readonly image?: string;
  /** What runs in it; its end is the machine's. Default: the image's own command, or a shell at the console. */
  readonly command?: readonly string[];
  readonly name?: string;
  /** "512m", "1g". */
  readonly memory?: string;
  readonly cpuModel?: string;
  readonly clock?: ClockMode;
  readonly engine?: EngineName;
  readonly env?: Readonly<Record<string, string>>;
  readonly workdir?: string;
  /** NAME or UID, with ":GROUP" or without. */
  readonly user?: string;
  readonly network?: "user" | "none";
  /** "[HOSTADDRESS:]HOSTPORT:GUESTPORT[/udp]". */
  readonly ports?: readonly string[];
  /** As --egress. */
  readonly egress?: readonly string[];
  /** "FOLDER:PATH[:ro]". */
  readonly volumes?: readonly string[];
  /** As --disk. */
  readonly disks?: readonly string[];
  /** Files. */
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly pull?: PullPolicy;
  readonly mirror?: string;
  readonly platform?: "linux/amd64" | "linux/386";
  /** Ends the preparation: downloads, unpacking. */
  readonly signal?: AbortSignal;
  /** Lines about what takes long, and warnings. Default: nobody hears them. */
  readonly onMessage?: (line: string) => void;
}

/** The command line's plan for it. Throws UsageError as the command line does. */
export function planMachine(options: MachineOptions, name: string): [RunPlan, RunOptions] {
  const { image, command = [], env, ports, egress, volumes, disks, ...rest } = options;
  const words: RunOptions = {
    memory: rest.memory ?? DEFAULT_MEMORY,
    cpuModel: rest.cpuModel ?? DEFAULT_CPU_MODEL,
    clock: rest.clock ?? "wall",
    pull: rest.pull ?? "missing",
    cache: true,
    quiet: true,
    rm: true,
    interactive: true,
    inBackground: name,
    ...given({ engine: rest.engine, network: rest.network, workdir: rest.workdir }),
    ...given({ user: rest.user, kernel: rest.kernel, initrd: rest.initrd, append: rest.append }),
    ...given({ mirror: rest.mirror, platform: rest.platform, publish: ports, egress }),
    ...given({ volume: volumes, disk: disks }),
    ...(env && { env: Object.entries(env).map(([key, value]) => `${key}=${value}`) }),
  };
  return [planRun({ image, command, options: words, stdinIsTerminal: false }), words];
}

/** Without what was not said. */
function given<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as never;
}
