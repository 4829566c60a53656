/**
 * Where running machines have their doors: one Unix socket each, named after the machine, in a folder that only its user can enter.
 */
import { lstatSync, mkdirSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";

const SUFFIX = ".sock";
/** Room in sockaddr_un, without the terminator. */
const LONGEST_PATH = 107;
const NAME = /^[a-zA-Z0-9][\w.-]{0,62}$/;

export function runtimeFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.HYPO_HOME) return join(env.HYPO_HOME, "run");
  if (env.XDG_RUNTIME_DIR) return join(env.XDG_RUNTIME_DIR, "hypolith");
  return join(homedir(), ".local/state/hypolith");
}

export function isMachineName(name: string): boolean {
  return NAME.test(name);
}

/** The path of a machine's door. */
export function doorPath(name: string, folder = runtimeFolder()): string {
  const path = join(folder, name + SUFFIX);
  if (Buffer.byteLength(path) > LONGEST_PATH) {
    throw new HypolithError("door-path", `${path} is too long for a Unix socket`, {
      hint: "choose a shorter HYPO_HOME or --name",
    });
  }
  return path;
}

/** Makes the folder if need be. Throws if somebody else could get at what is in it. */
export function openRuntimeFolder(folder = runtimeFolder()): string {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stat = lstatSync(folder);
  const isOurs = process.getuid === undefined || stat.uid === process.getuid();
  if (!stat.isDirectory() || !isOurs || (stat.mode & 0o022) !== 0) {
    throw new HypolithError("door-folder", `${folder} is not a folder of yours alone`, {
      hint: `chmod 700 ${folder}, or set HYPO_HOME to another place`,
    });
  }
  return folder;
}

/** Names of the machines that have a door; it need not be answered. */
export function machineNames(folder = runtimeFolder()): string[] {
  try {
    return readdirSync(folder)
      .filter((file) => file.endsWith(SUFFIX))
      .map((file) => file.slice(0, -SUFFIX.length))
      .filter(isMachineName)
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
