/**
 * `-v SOURCE:TARGET[:WORDS]`: a folder of this computer in the guest. A target that is no absolute path is a tag, for a guest that mounts by itself.
 */
import { resolve } from "node:path";
import { SHARE_PROTOCOLS, type ShareProtocol } from "../../src/control/protocol.ts";
import { closest } from "./closest.ts";
import { UsageError } from "./usage-error.ts";

export interface VolumePlan {
  readonly path: string;
  /** Where our init mounts it; undefined: nowhere. */
  readonly target: string | undefined;
  readonly tag: string;
  readonly protocol: ShareProtocol;
  readonly readOnly: boolean;
}

const SYNTAX = "write it like -v ./src:/src or -v ./src:/src:ro";
const WORDS: readonly string[] = ["ro", "rw", ...SHARE_PROTOCOLS];
const MAX_TAG = 31;

/** `canMount`: an init of ours runs in the guest. */
export function parseVolumes(words: readonly string[], canMount: boolean): VolumePlan[] {
  const volumes = words.map((word, i) => parseVolume(word, i));
  for (const [i, { tag, target }] of volumes.entries()) {
    if (target !== undefined && !canMount)
      throw new UsageError(
        `nothing of ours runs in this guest that could mount ${target}`,
        `name a tag instead, as in -v FOLDER:work, and in the guest: mount -t virtiofs work ${target}`,
      );
    const place = target ?? tag;
    if (volumes.slice(0, i).some((other) => (other.target ?? other.tag) === place))
      throw new UsageError(`two folders for ${place}`, "each needs a place of its own");
  }
  return volumes;
}

function parseVolume(word: string, index: number): VolumePlan {
  const [source = "", place = "", list, ...more] = word.split(":");
  if (source === "" || place === "" || more.length > 0)
    throw new UsageError(`'${word}' names no folder and its place in the guest`, SYNTAX);
  const isTag = !place.startsWith("/");
  return {
    path: resolve(source),
    target: isTag ? undefined : checkTarget(place),
    tag: isTag ? checkTag(place) : `hypo${index}`,
    ...settingsOf(list === undefined ? [] : list.split(",")),
  };
}

function checkTarget(place: string): string {
  const parts = place.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.length === 0) throw new UsageError("a folder cannot take the place of /", SYNTAX);
  if (parts.includes("..") || /[\n\0]/.test(place))
    throw new UsageError(`'${place}' is no place for a folder`, "write it without ..");
  return `/${parts.join("/")}`;
}

function checkTag(place: string): string {
  if (/^[\w.-]+$/.test(place) && place.length <= MAX_TAG) return place;
  throw new UsageError(
    `'${place}' is neither an absolute path nor a tag`,
    `a tag has letters, digits, '.', '_' and '-', at most ${MAX_TAG}`,
  );
}

function settingsOf(words: readonly string[]): Pick<VolumePlan, "protocol" | "readOnly"> {
  const odd = words.find((word) => !WORDS.includes(word));
  if (odd !== undefined) {
    const near = closest(odd, WORDS);
    throw new UsageError(
      `'${odd}' says nothing about a folder`,
      near ? `did you mean ${near}?` : `there are: ${WORDS.join(", ")}`,
    );
  }
  const protocols = SHARE_PROTOCOLS.filter((name) => words.includes(name));
  if (protocols.length > 1 || (words.includes("ro") && words.includes("rw")))
    throw new UsageError(`'${words.join(",")}' says a thing twice`, SYNTAX);
  return { protocol: protocols[0] ?? "fs", readOnly: words.includes("ro") };
}
