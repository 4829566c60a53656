/**
 * The command table: verbs, options, help. What is said here is what `hypo help` prints.
 *
 * Words after "--" never reach the option parser: they are the guest's, whatever they look like. So are, as with docker, those after
 * the image.
 */

import { Command, CommanderError, Option } from "commander";
import { DRILLS, type DrillName, ENGINES } from "../../src/control/protocol.ts";
import { DEFAULT_CPU_MODEL, DEFAULT_ENGINE, DEFAULT_MEMORY } from "../common/machine-defaults.ts";
import { closest } from "./closest.ts";
import type { DoctorOptions } from "./doctor.ts";
import { ExitCode } from "./exit-code.ts";
import { GUEST_CONSOLES } from "./guest/job.ts";
import {
  DOCTOR_EXAMPLES,
  HELP_EXAMPLES,
  RUN_EXAMPLES,
  SERVICE_EXAMPLES,
  SERVICES_EXAMPLES,
  TOP_EXAMPLES,
  VERSION_EXAMPLES,
  WEB_EXAMPLES,
} from "./help.ts";
import { FLAVORS } from "./image/flavors.ts";
import { LOG_LEVELS } from "./messages.ts";
import {
  addImageVerbs,
  type ImageRequest,
  insecureOption,
  mirrorOption,
  platformOption,
} from "./oci/commands.ts";
import { ROOT_FORMS } from "./oci/root-plan.ts";
import { NETWORK_MODES, type RunOptions, type RunWords } from "./run-plan.ts";
import { addSnapshotVerbs, type SnapshotRequest } from "./snapshots/commands.ts";
import { UsageError } from "./usage-error.ts";
import { addVmVerbs, type VmRequest } from "./vms/commands.ts";
import { type CommandTable, commandTable } from "./vms/completion.ts";
import type { ListOptions } from "./vms/verbs.ts";
import type { WebOptions } from "./web.ts";

/** What the user wants done. */
export type Request =
  | { readonly verb: "run"; readonly words: Omit<RunWords, "stdinIsTerminal"> }
  | { readonly verb: "web"; readonly image: string | undefined; readonly options: WebOptions }
  | { readonly verb: "doctor"; readonly options: DoctorOptions }
  | VmRequest
  | { readonly verb: "image"; readonly request: ImageRequest }
  | { readonly verb: "snapshot"; readonly request: SnapshotRequest }
  | { readonly verb: "services"; readonly vm: string | undefined; readonly options: ListOptions }
  | {
      readonly verb: "service";
      readonly drill: DrillName;
      readonly service: string;
      readonly vm: string | undefined;
    }
  | { readonly verb: "version" }
  /** Help has been printed. */
  | { readonly verb: "none"; readonly exitCode: number };

/** Understands the words after `hypo`. Throws UsageError; prints help where it is asked for. */
export function parseArguments(argv: readonly string[], version: string): Request {
  const separator = argv.indexOf("--");
  const ours = separator < 0 ? argv : argv.slice(0, separator);
  const guests = separator < 0 ? undefined : argv.slice(separator + 1);
  // A cast, or the compiler believes that the callbacks never change it.
  let request = { verb: "none", exitCode: ExitCode.OK } as Request;
  const program = createProgram(version, {
    run: (operands, options) => {
      request = { verb: "run", words: runWords(operands, guests, options) };
    },
    web: (image, options) => {
      request = { verb: "web", image, options };
    },
    doctor: (options) => {
      request = { verb: "doctor", options };
    },
    vm: (asked) => {
      request =
        asked.verb === "exec"
          ? { ...asked, command: [...asked.command, ...(guests ?? [])] }
          : asked;
    },
    image: (asked) => {
      request = { verb: "image", request: asked };
    },
    snapshot: (asked) => {
      request = { verb: "snapshot", request: asked };
    },
    services: (vm, options) => {
      request = { verb: "services", vm, options };
    },
    service: (word, service, { vm }) => {
      request = { verb: "service", drill: drillOf(word), service, vm };
    },
    version: () => {
      request = { verb: "version" };
    },
  });
  try {
    program.parse(ours, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { verb: "none", exitCode: ExitCode.OK };
    // No verb at all: the help went to standard error.
    if (error.code === "commander.help") return { verb: "none", exitCode: ExitCode.USAGE };
    throw usageErrorOf(error);
  }
  const takesCommand = request.verb === "run" || request.verb === "exec";
  if (guests && !takesCommand && request.verb !== "none") {
    throw new UsageError(
      `hypo ${request.verb} takes no command`,
      "leave out '--' and what follows",
    );
  }
  return request;
}

function runWords(
  operands: readonly string[],
  guests: readonly string[] | undefined,
  options: RunOptions,
): Omit<RunWords, "stdinIsTerminal"> {
  const [image, ...rest] = operands;
  if (rest[0]?.startsWith("-")) {
    throw new UsageError(
      `'${rest[0]}' comes after the image, where the guest's command begins`,
      "put options before the image, and '--' before a command",
    );
  }
  // Behind the image a "--" is one of the command's own words.
  const command =
    rest.length > 0 && guests ? [...rest, "--", ...guests] : [...rest, ...(guests ?? [])];
  return { image, command, options };
}

/** commander says "error: unknown option '--memry'\n(Did you mean --memory?)". */
function usageErrorOf(error: CommanderError): UsageError {
  const [message, ...rest] = error.message.replace(/^error: /, "").split("\n");
  const meant = /Did you mean (.*)\?/i.exec(rest.join(" "))?.[1];
  return new UsageError(message!, meant ? `did you mean ${meant}?` : "hypo help");
}

function drillOf(word: string): DrillName {
  const drill = DRILLS.find((name) => name === word);
  if (drill) return drill;
  const near = closest(word, DRILLS);
  const hint = near ? `did you mean ${near}?` : `there are: ${DRILLS.join(", ")}`;
  throw new UsageError(`'${word}' is nothing that can be done to a service`, hint);
}

function unknownVerb(verb: string, verbs: readonly string[]): UsageError {
  const near = closest(verb, verbs);
  return new UsageError(`unknown command '${verb}'`, near ? `did you mean ${near}?` : "hypo help");
}

interface Actions {
  run(operands: string[], options: RunOptions): void;
  web(image: string | undefined, options: WebOptions): void;
  doctor(options: DoctorOptions): void;
  vm(request: VmRequest): void;
  image(request: ImageRequest): void;
  snapshot(request: SnapshotRequest): void;
  services(vm: string | undefined, options: ListOptions): void;
  service(drill: string, service: string, options: { readonly vm?: string }): void;
  version(): void;
}

function createProgram(version: string, actions: Actions): Command {
  const program = new Command("hypo")
    .description(
      "Virtual machines with unmodified operating systems, without KVM and without root.",
    )
    .usage("VERB [OPTIONS]")
    .version(`hypo ${version}`, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand(false)
    .enablePositionalOptions()
    .addHelpText("after", TOP_EXAMPLES);
  program.configureHelp({
    subcommandTerm: (command) => `${command.name()} ${command.usage()}`.trimEnd(),
  });
  // Errors are reported in one place, for all kinds of them.
  program.configureOutput({ outputError: () => {} });
  program.exitOverride();
  addRun(program, actions);
  addWeb(program, actions);
  addMachineVerbs(program, actions);
  addSmallVerbs(program, actions);
  return program;
}

function addRun(program: Command, actions: Actions): void {
  const run = program
    .command("run")
    .description("run a virtual machine: a shell, or a command and its exit code")
    .usage("[OPTIONS] [IMAGE] [-- COMMAND...]")
    .argument("[words...]")
    .passThroughOptions()
    .addHelpText("after", RUN_EXAMPLES)
    .action((operands: string[], options: RunOptions) => actions.run(operands, options));
  run.configureHelp({ visibleArguments: () => [] });
  for (const option of runOptions()) run.addOption(option);
}

function runOptions(): Option[] {
  const machine = [
    new Option("-m, --memory <size>", "memory of the machine, like 512m or 1g")
      .default(DEFAULT_MEMORY)
      .env("HYPO_MEMORY"),
    new Option("--cpu-model <model>", "processor: NAME[,+FLAG][,-FLAG]")
      .default(DEFAULT_CPU_MODEL)
      .env("HYPO_CPU_MODEL"),
    new Option("--nested", "the guest may run virtual machines of its own (VMX, for KVM in it)"),
    new Option(
      "--clock <mode>",
      "guest time: real, or counted in instructions so that runs repeat exactly",
    )
      .choices(["wall", "deterministic"])
      .default("wall"),
    new Option(
      "--engine <name>",
      "how guest code is executed: auto compiles what is hot, jit everything at once",
    )
      .choices(ENGINES)
      .default(DEFAULT_ENGINE),
    new Option(
      "--disk <image>",
      "a disk, raw or qcow2; never changed unless ',write' or ',overlay=FILE' follows; may be repeated",
    ).argParser((word: string, before: string[] | undefined) => [...(before ?? []), word]),
    new Option(
      "--console <device>",
      "the guest's terminal: its first serial port, or a virtio console, which is faster",
    ).choices(GUEST_CONSOLES),
    new Option(
      "-v, --volume <folder>",
      "a folder of this machine in the guest: FOLDER:/PLACE[:ro], or FOLDER:TAG to mount by hand; may be repeated",
    ).argParser((word: string, before: string[] | undefined) => [...(before ?? []), word]),
    ...networkOptions(),
    new Option("--name <name>", "name of the machine; with one it is kept when it has ended"),
    new Option(
      "--service <name=placement>",
      "where a service runs: inline, worker, guest or guest:ring3; all=PLACEMENT for all; may be repeated",
    ).argParser((word: string, before: string[] | undefined) => [...(before ?? []), word]),
    new Option(
      "--trace <kind=file>",
      "write a log: exits=FILE, one line for every VM exit ('-': standard error)",
    ),
    ...measurementOptions(),
  ];
  const boot = [
    new Option(
      "--kernel <file>",
      "boot this kernel (bzImage or ELF); without IMAGE and COMMAND, nothing else",
    ),
    new Option("--initrd <file>", "this initial root file system instead of the image's"),
    new Option("--append <str>", "add to the kernel's command line"),
  ];
  const several = (word: string, before: string[] | undefined) => [...(before ?? []), word];
  const terminal = [
    new Option("-d, --detach", "in the background: print the name, and leave it running"),
    new Option("--in-background <name>").hideHelp(),
    new Option("--rm", "forget it when it has ended, even with --name or -d"),
    new Option("-e, --env <variable>", "NAME=VALUE, or NAME for ours; may be repeated").argParser(
      several,
    ),
    new Option("-w, --workdir <folder>", "where the command starts"),
    new Option("-u, --user <user>", "who it runs as: NAME or UID, with :GROUP or without"),
    new Option("-t, --tty", "give the command a terminal: the guest's console"),
    new Option(
      "-i, --interactive",
      "pass standard input on (always done; with -d, what is typed in hypo attach)",
    ),
    new Option("-q, --quiet", "print nothing of our own but errors"),
    new Option("--log-level <level>", "how much to say about the machine itself")
      .choices([...LOG_LEVELS])
      .env("HYPO_LOG_LEVEL"),
  ];
  return [...machine, ...boot, ...imageOptions(rootOptions()), ...terminal];
}

function networkOptions(): Option[] {
  const several = (word: string, before: string[] | undefined) => [...(before ?? []), word];
  return [
    new Option(
      "--network <mode>",
      "user: through sockets of this process, without root; none (default: user, with --clock deterministic none)",
    ).choices(NETWORK_MODES),
    new Option(
      "-p, --publish <port>",
      "a port of this machine that leads into the guest: [HOSTADDRESS:]HOSTPORT:GUESTPORT[/udp]; may be repeated",
    ).argParser(several),
    new Option(
      "--egress <rule>",
      "where the guest may connect to: open (default), deny, NAME, *.NAME or ADDRESS[/BITS], with :PORT or without; may be repeated",
    ).argParser(several),
    new Option("--pcap <file>", "write all frames of the network, pcapng"),
  ];
}

function measurementOptions(): Option[] {
  return [
    new Option("--jit-stats", "say at the end what became of hot code that was compiled"),
    new Option(
      "--profile <file>",
      "write where the guest spends its instructions, for speedscope.app",
    ),
    new Option("--profile-every <n>", "instructions between two samples (default: 100000)"),
    new Option(
      "--symbols <file>",
      "names for --profile: System.map, /proc/kallsyms or ELF64; may be repeated",
    ).argParser((path: string, before: string[] | undefined) => [...(before ?? []), path]),
  ];
}

/** For images of registries and files. */
function rootOptions(): Option[] {
  return [
    platformOption(),
    new Option(
      "--root <form>",
      "the image's files: on a read-only disk, or in the guest's memory (default: disk; with --clock deterministic memory)",
    ).choices(ROOT_FORMS),
    new Option("--entrypoint <program>", "run this instead of the image's entrypoint"),
    insecureOption(),
  ];
}

/** Where an image comes from. */
function imageOptions(more: readonly Option[] = []): Option[] {
  return [
    new Option("--flavor <name>", "choose the kernel").choices(FLAVORS.map(({ short }) => short)),
    mirrorOption(),
    ...more,
    new Option("--pull <when>", "download the image: if missing, always, or never")
      .choices(["missing", "always", "never"])
      .default("missing"),
    new Option("--no-cache", "neither read nor write the image cache"),
  ];
}

function addWeb(program: Command, actions: Actions): void {
  const web = program
    .command("web")
    .description("serve a page that runs virtual machines in the browser")
    .usage("[OPTIONS] [IMAGE]")
    .argument("[image]")
    .addHelpText("after", WEB_EXAMPLES)
    .action((image: string | undefined, options: WebOptions) => actions.web(image, options));
  web.configureHelp({ visibleArguments: () => [] });
  const place = [
    new Option("-p, --port <number>", "port to listen on; 0: any that is free").default("8080"),
    new Option("--host <address>", "address to listen on").default("127.0.0.1"),
    new Option(
      "--export <folder>",
      "write the page and the image there instead, for any web server",
    ),
  ];
  const more = [new Option("-q, --quiet", "print nothing of our own but errors and the address")];
  for (const option of [...place, ...imageOptions(), ...more]) web.addOption(option);
}

function addMachineVerbs(program: Command, actions: Actions): void {
  addVmVerbs(program, (request) => actions.vm(request));
  addSnapshotVerbs(program, (request) => actions.snapshot(request));
  addImageVerbs(program, (request) => actions.image(request));
  program
    .command("services")
    .description("list the services of a running machine: rights, restarts, time")
    .usage("[OPTIONS] [NAME]")
    .argument("[name]")
    .option("--json", "print JSON")
    .addHelpText("after", SERVICES_EXAMPLES)
    .action((name: string | undefined, options: ListOptions) => actions.services(name, options));
  program
    .command("service")
    .description("kill, hang or restart a service of a running machine, as a drill")
    .usage("[OPTIONS] kill|hang|lose-reply|restart SERVICE")
    .argument("<drill>")
    .argument("<service>")
    .option("--vm <name>", "the machine, if several are running")
    .addHelpText("after", SERVICE_EXAMPLES)
    .action((drill: string, service: string, options: { readonly vm?: string }) =>
      actions.service(drill, service, options),
    );
}

function addSmallVerbs(program: Command, actions: Actions): void {
  program
    .command("doctor")
    .description("say what works on this machine, and how to cure what does not")
    .usage("[OPTIONS]")
    .option("--json", "print JSON")
    .addHelpText("after", DOCTOR_EXAMPLES)
    .action((options: DoctorOptions) => actions.doctor(options));
  program
    .command("version")
    .description("print the version")
    .usage(" ")
    .addHelpText("after", VERSION_EXAMPLES)
    .action(() => actions.version());
  program
    .command("help")
    .description("print help, of all or of one verb")
    .usage("[VERB]")
    .argument("[verb]")
    .addHelpText("after", HELP_EXAMPLES)
    .action((verb?: string) => printHelp(program, verb));
}

/** The verbs and their options, for completion. */
export function describeCommands(): CommandTable {
  const nothing = (): void => {};
  const program = createProgram("", {
    ...{ run: nothing, web: nothing, doctor: nothing, vm: nothing, image: nothing },
    snapshot: nothing,
    ...{ services: nothing, service: nothing, version: nothing },
  });
  return commandTable(program);
}

function printHelp(program: Command, verb: string | undefined): void {
  if (verb === undefined) program.help();
  const command = program.commands.find((candidate) => candidate.name() === verb);
  if (!command)
    throw unknownVerb(
      verb,
      program.commands.map((candidate) => candidate.name()),
    );
  command.help();
}
