/** The verbs about snapshots, as rows of the command table (program.ts). */
import { type Command, Option } from "commander";
import { verbMaker } from "../verb.ts";

export interface SaveOptions {
  readonly replace?: boolean;
  readonly json?: boolean;
}

export interface RestoreOptions {
  readonly name?: string;
  readonly publish?: readonly string[];
  readonly rm?: boolean;
  readonly json?: boolean;
  /** In the process that runs it: the machine's name. */
  readonly inBackground?: string;
}

export interface ForkOptions {
  readonly count: string;
  readonly name?: string;
  readonly rm?: boolean;
  readonly json?: boolean;
}

export interface SnapshotListOptions {
  readonly quiet?: boolean;
  readonly json?: boolean;
}

/** What the user wants done with snapshots. */
export type SnapshotRequest =
  | {
      readonly verb: "save";
      readonly vm: string;
      readonly name: string | undefined;
      readonly options: SaveOptions;
    }
  | { readonly verb: "restore"; readonly name: string; readonly options: RestoreOptions }
  | { readonly verb: "fork"; readonly source: string; readonly options: ForkOptions }
  | { readonly verb: "ls"; readonly options: SnapshotListOptions }
  | { readonly verb: "rm"; readonly names: readonly string[] };

export const EXAMPLES = {
  snapshot: `
Examples:
  hypo snapshot save web             a snapshot of the machine web, with the same name
  hypo snapshot restore web          a machine that goes on from it
  hypo snapshot fork web -n 10       ten of them: web-1 to web-10
  hypo snapshot ls                   what there is

A snapshot is the whole machine: memory, processor, devices, and what was written to its disks. Images below
its disks are not part of it, and must not change. Machines that go on from it write to disks of their own;
their clocks are set, their sources of randomness are fed anew, and what was connected with the outside is not any more.`,
  save: `
Examples:
  hypo snapshot save web             the machine goes on; it stands still for a moment
  hypo snapshot save web clean       by another name
  hypo snapshot save --replace web   instead of the one of that name, once the new one is whole`,
  restore: `
Examples:
  hypo snapshot restore web          in the background, like hypo run -d; prints its name
  hypo snapshot restore clean --name web2
  hypo snapshot restore web --name web2 -p 8081:80
                                     with this port instead of those that were published
  hypo exec web2 sh                  what runs in it, runs on`,
  fork: `
Examples:
  hypo snapshot fork clean -n 10     clean-1 to clean-10, from the snapshot clean
  hypo snapshot fork web -n 3 --name test
                                     test-1 to test-3: where the running machine web is, without a snapshot of that name
  hypo snapshot fork clean -n 2 --json

Forks publish no ports. They share what none of them has touched.`,
  ls: `
Examples:
  hypo snapshot ls                   what there is
  hypo snapshot ls -q                names alone
  hypo snapshot ls --json            the same for programs`,
  rm: `
Examples:
  hypo snapshot rm clean             machines that go on from it are not disturbed`,
} as const;

export function addSnapshotVerbs(program: Command, ask: (request: SnapshotRequest) => void): void {
  const verb = verbMaker<keyof typeof EXAMPLES>(EXAMPLES);
  const snapshot = verb(
    program,
    "snapshot",
    "keep machines as they are, and go on from there",
    "save|restore|fork|ls|rm [OPTIONS]",
  );
  verb(snapshot, "save", "take a snapshot of a running machine", "[OPTIONS] MACHINE [NAME]")
    .argument("<machine>")
    .argument("[name]")
    .option("-f, --replace", "instead of the one that has the name")
    .option("--json", "print JSON")
    .action((vm: string, name: string | undefined, options: SaveOptions) =>
      ask({ verb: "save", vm, name, options }),
    );
  verb(snapshot, "restore", "start a machine that goes on from a snapshot", "[OPTIONS] NAME")
    .argument("<name>")
    .option("--name <machine>", "name of the machine (default: the snapshot's)")
    .addOption(publishOption())
    .option("--rm", "forget it when it has ended")
    .option("--json", "print JSON")
    .addOption(new Option("--in-background <name>").hideHelp())
    .action((name: string, options: RestoreOptions) => ask({ verb: "restore", name, options }));
  verb(snapshot, "fork", "start several that go on from the same place", "[OPTIONS] NAME|MACHINE")
    .argument("<source>")
    .option("-n, --count <number>", "how many", "1")
    .option("--name <prefix>", "their names: PREFIX-1, PREFIX-2 (default: the source's)")
    .option("--rm", "forget them when they have ended")
    .option("--json", "print JSON")
    .action((source: string, options: ForkOptions) => ask({ verb: "fork", source, options }));
  verb(snapshot, "ls", "list snapshots", "[OPTIONS]")
    .option("-q, --quiet", "names alone")
    .option("--json", "print JSON")
    .action((options: SnapshotListOptions) => ask({ verb: "ls", options }));
  verb(snapshot, "rm", "remove snapshots", "NAME...")
    .argument("<names...>")
    .action((names: string[]) => ask({ verb: "rm", names }));
}

function publishOption(): Option {
  return new Option(
    "-p, --publish <port>",
    "a port that leads into the guest, instead of those that did: [HOSTADDRESS:]HOSTPORT:GUESTPORT[/udp]; may be repeated",
  ).argParser((word: string, before: string[] | undefined) => [...(before ?? []), word]);
}
