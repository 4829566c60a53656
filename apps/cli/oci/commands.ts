/** The verbs about images, as rows of the command table (program.ts). */
import { type Command, Option } from "commander";
import { verbMaker } from "../verb.ts";

export interface PullOptions {
  readonly platform?: string;
  readonly insecure?: boolean;
  readonly mirror?: string;
  readonly quiet?: boolean;
}

export interface ImageListOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export interface PruneOptions {
  readonly all?: boolean;
  readonly json?: boolean;
}

/** What the user wants done with images. */
export type ImageRequest =
  | { readonly verb: "pull"; readonly images: readonly string[]; readonly options: PullOptions }
  | { readonly verb: "images"; readonly options: ImageListOptions }
  | { readonly verb: "rmi"; readonly images: readonly string[] }
  | { readonly verb: "prune"; readonly options: PruneOptions }
  | { readonly verb: "df"; readonly options: ImageListOptions };

const EXAMPLES = {
  pull: `
Examples:
  hypo pull alpine                     docker.io/library/alpine:latest, for linux/amd64
  hypo pull --platform linux/386 alpine:3.20
  hypo pull localhost:5000/team/app    this machine's registries are asked over plain HTTP
  hypo pull debian:trixie              Debian, made of its packages here; anew if there are newer ones
  hypo pull debian:cloud-amd64         a kernel of Debian's with BusyBox, anew

Credentials are those of docker and podman: ~/.docker/config.json, or the file in REGISTRY_AUTH_FILE.`,
  images: `
Examples:
  hypo images                what has been pulled
  hypo images -q             names alone
  hypo images --json         the same for programs`,
  rmi: `
Examples:
  hypo rmi alpine            for all platforms
  hypo rmi localhost:5000/team/app
  hypo rmi 4bcff63911fc      by the beginning of its digest`,
  prune: `
Examples:
  hypo system prune          what no image needs, and what was left half-done
  hypo system prune -a       the images, too: the next run fetches them again`,
  df: `
Examples:
  hypo system df             what images take
  hypo system df --json      the same for programs`,
  system: `
Examples:
  hypo system df             what images take
  hypo system prune          remove what is not needed`,
};

export function addImageVerbs(program: Command, ask: (request: ImageRequest) => void): void {
  const verb = verbMaker<keyof typeof EXAMPLES>(EXAMPLES);
  verb(program, "pull", "download images", "[OPTIONS] IMAGE...")
    .argument("<images...>")
    .addOption(platformOption())
    .addOption(insecureOption())
    .addOption(mirrorOption())
    .option("-q, --quiet", "print nothing but names and errors")
    .action((images: string[], options: PullOptions) => ask({ verb: "pull", images, options }));
  verb(program, "images", "list images", "[OPTIONS]")
    .option("-q, --quiet", "names alone")
    .option("--json", "print JSON")
    .action((options: ImageListOptions) => ask({ verb: "images", options }));
  verb(program, "rmi", "remove images", "IMAGE...")
    .argument("<images...>")
    .action((images: string[]) => ask({ verb: "rmi", images }));
  const system = verb(program, "system", "what hypo keeps on this machine", "df|prune [OPTIONS]");
  verb(system, "df", "show how much room images take", "[OPTIONS]")
    .option("--json", "print JSON")
    .action((options: ImageListOptions) => ask({ verb: "df", options }));
  verb(system, "prune", "remove what is not needed", "[OPTIONS]")
    .option("-a, --all", "all images, too")
    .option("--json", "print JSON")
    .action((options: PruneOptions) => ask({ verb: "prune", options }));
}

export function platformOption(): Option {
  return new Option("--platform <name>", "linux/amd64 or linux/386 (default: the kernel's)");
}

export function mirrorOption(): Option {
  return new Option("--mirror <url>", "Debian mirror to download from, instead of apt's").env(
    "HYPO_DEBIAN_MIRROR",
  );
}

export function insecureOption(): Option {
  return new Option("--insecure", "the registry speaks plain HTTP, as those on this machine do");
}
