/** The verbs about machines, as rows of the command table (program.ts). */
import { type Command, Option } from "commander";
import { TRACE_KINDS, type TraceKind } from "../../../src/control/protocol.ts";
import { verbMaker } from "../verb.ts";
import { EXAMPLES } from "./help.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type ShellName = (typeof SHELLS)[number];

export interface PsOptions {
  readonly all?: boolean;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

export interface LogsOptions {
  readonly follow?: boolean;
  readonly tail: string;
  readonly timestamps?: boolean;
}

export interface AttachOptions {
  readonly detachKeys: string;
  /** --no-stdin */
  readonly stdin: boolean;
}

export interface ExecOptions {
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly detach?: boolean;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly detachKeys: string;
}

export interface StatsOptions {
  /** --no-stream */
  readonly stream: boolean;
  readonly json?: boolean;
}

export interface TraceOptions {
  readonly only?: readonly string[];
  readonly process?: readonly string[];
  readonly output?: string;
  readonly summary?: boolean;
  readonly json?: boolean;
  readonly count?: string;
}

/** What the user wants done with machines. */
export type VmRequest =
  | { readonly verb: "ps"; readonly options: PsOptions }
  | { readonly verb: "logs"; readonly vm: string; readonly options: LogsOptions }
  | { readonly verb: "attach"; readonly vm: string; readonly options: AttachOptions }
  | { readonly verb: "stop"; readonly vms: readonly string[]; readonly time: string }
  | { readonly verb: "kill"; readonly vms: readonly string[]; readonly signal: string }
  | { readonly verb: "rm"; readonly vms: readonly string[]; readonly isForced: boolean }
  | { readonly verb: "inspect"; readonly vms: readonly string[] }
  | { readonly verb: "stats"; readonly vms: readonly string[]; readonly options: StatsOptions }
  | { readonly verb: "wait"; readonly vms: readonly string[] }
  | { readonly verb: "pause" | "unpause"; readonly vms: readonly string[] }
  | {
      readonly verb: "exec";
      readonly vm: string;
      readonly command: readonly string[];
      readonly options: ExecOptions;
    }
  | {
      readonly verb: "trace";
      readonly kind: TraceKind;
      readonly vm: string | undefined;
      readonly options: TraceOptions;
    }
  | { readonly verb: "cp"; readonly from: string; readonly to: string }
  | { readonly verb: "completion"; readonly shell: ShellName };

type Ask = (request: VmRequest) => void;

const DETACH_KEYS = "ctrl-p,ctrl-q";
const DEFAULT_STOP_SECONDS = "10";

export function addVmVerbs(program: Command, ask: Ask): void {
  const make = verbMaker<keyof typeof EXAMPLES>(EXAMPLES);
  const verb: Verb = (name, description, usage) => make(program, name, description, usage);
  verb("ps", "list machines", "[OPTIONS]")
    .option("-a, --all", "also those that have ended")
    .option("-q, --quiet", "names alone")
    .option("--json", "print JSON")
    .action((options: PsOptions) => ask({ verb: "ps", options }));
  addStreamVerbs(verb, ask);
  addLifeVerbs(verb, ask);
  verb("inspect", "print all that is known of machines, JSON", "NAME...")
    .argument("<names...>")
    .action((vms: string[]) => ask({ verb: "inspect", vms }));
  verb("stats", "show what machines use", "[OPTIONS] [NAME...]")
    .argument("[names...]")
    .option("--no-stream", "once")
    .option("--json", "print JSON, a line each time")
    .action((vms: string[], options: StatsOptions) => ask({ verb: "stats", vms, options }));
  const several = (word: string, before: string[] | undefined): string[] => [
    ...(before ?? []),
    word,
  ];
  verb(
    "trace",
    "show what happens in a running machine",
    `[OPTIONS] ${TRACE_KINDS.join("|")} [NAME]`,
  )
    .addArgument(program.createArgument("<kind>").choices(TRACE_KINDS))
    .argument("[name]")
    .addOption(
      new Option(
        "-e, --only <names>",
        "only these calls, exit reasons or causes, with commas between; may be repeated",
      ).argParser(several),
    )
    .addOption(
      new Option(
        "-p, --process <process>",
        "only this one: PID or name; may be repeated",
      ).argParser(several),
    )
    .option("-o, --output <file>", "a file; what ends in .json opens in Perfetto")
    .option("-c, --summary", "a table of counts, errors and times at the end")
    .option("--json", "print JSON, a line for each event")
    .option("-n, --count <events>", "end after so many")
    .action((kind: TraceKind, vm: string | undefined, options: TraceOptions) =>
      ask({ verb: "trace", kind, vm, options }),
    );
  verb("cp", "copy files to or from a machine", "SOURCE NAME:PATH | NAME:PATH TARGET")
    .argument("<from>")
    .argument("<to>")
    .action((from: string, to: string) => ask({ verb: "cp", from, to }));
  verb("completion", "print what completes this command's words in a shell", SHELLS.join("|"))
    .addArgument(program.createArgument("<shell>").choices(SHELLS))
    .action((shell: ShellName) => ask({ verb: "completion", shell }));
}

type Verb = (name: keyof typeof EXAMPLES, description: string, usage: string) => Command;

function addStreamVerbs(verb: Verb, ask: Ask): void {
  const detachKeys = (): Option =>
    new Option("--detach-keys <keys>", "what leaves it running").default(DETACH_KEYS);
  verb("logs", "print what a machine has written", "[OPTIONS] NAME")
    .argument("<name>")
    .option("-f, --follow", "go on with what comes")
    .option("-n, --tail <lines>", "only the last lines", "all")
    .option("-t, --timestamps", "with the time of each line")
    .action((vm: string, options: LogsOptions) => ask({ verb: "logs", vm, options }));
  verb("attach", "connect to a running machine's terminal or streams", "[OPTIONS] NAME")
    .argument("<name>")
    .option("--no-stdin", "only look")
    .addOption(detachKeys())
    .action((vm: string, options: AttachOptions) => ask({ verb: "attach", vm, options }));
  verb("exec", "run a command in a running machine", "[OPTIONS] NAME COMMAND...")
    .argument("<name>")
    .argument("[command...]")
    .passThroughOptions()
    .option("-i, --interactive", "pass standard input on")
    .option("-t, --tty", "give the command a terminal")
    .option("-d, --detach", "do not wait for its end, nor see its output")
    .addOption(
      new Option("-e, --env <variable>", "NAME=VALUE, or NAME for ours; may be repeated").argParser(
        (word: string, before: string[] | undefined) => [...(before ?? []), word],
      ),
    )
    .option("-w, --workdir <folder>", "where it starts")
    .option("-u, --user <user>", "who it runs as: NAME or UID, with :GROUP or without")
    .addOption(detachKeys())
    .action((vm: string, command: string[], options: ExecOptions) =>
      ask({ verb: "exec", vm, command, options }),
    );
}

function addLifeVerbs(verb: Verb, ask: Ask): void {
  verb("stop", "shut machines down", "[OPTIONS] NAME...")
    .argument("<names...>")
    .option("-t, --time <seconds>", "then turn them off", DEFAULT_STOP_SECONDS)
    .action((vms: string[], { time }: { time: string }) => ask({ verb: "stop", vms, time }));
  verb("kill", "turn machines off, or send a signal to their commands", "[OPTIONS] NAME...")
    .argument("<names...>")
    .option("-s, --signal <signal>", "name or number", "KILL")
    .action((vms: string[], { signal }: { signal: string }) => ask({ verb: "kill", vms, signal }));
  verb("rm", "forget machines that have ended", "[OPTIONS] NAME...")
    .argument("<names...>")
    .option("-f, --force", "end them first")
    .action((vms: string[], { force }: { force?: boolean }) =>
      ask({ verb: "rm", vms, isForced: force === true }),
    );
  verb("wait", "wait until machines have ended; print their exit status", "NAME...")
    .argument("<names...>")
    .action((vms: string[]) => ask({ verb: "wait", vms }));
  verb("pause", "let machines stand still", "NAME...")
    .argument("<names...>")
    .action((vms: string[]) => ask({ verb: "pause", vms }));
  verb("unpause", "let them go on", "NAME...")
    .argument("<names...>")
    .action((vms: string[]) => ask({ verb: "unpause", vms }));
}
