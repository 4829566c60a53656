/**
 * What the guest shall run, and how: the per-run files of the initramfs.
 *
 * Arguments travel as a shell file with every argument in single quotes, so nothing in them is ever read as syntax: blanks, quotes,
 * newlines and any Unicode arrive as they are.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import type { ShareProtocol } from "../../../src/control/protocol.ts";
import type { WindowSize } from "../../common/control-line.ts";

/** Where a job's standard input comes from. */
export type JobInput =
  /** There is none: it reads end of file. */
  | { readonly kind: "none" }
  /** All of it is known now and travels in the initramfs. */
  | { readonly kind: "file"; readonly content: Uint8Array }
  /** It comes block by block while the job runs. */
  | { readonly kind: "stream" };

export interface GuestJob {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** "console": a terminal on the first serial port. "pipes": three byte streams. */
  readonly mode: "console" | "pipes";
  readonly input: JobInput;
  readonly window: WindowSize;
  /** Where it starts; default: its HOME. */
  readonly workdir?: string;
  /** Who it runs as, "NAME", "UID", either with ":GROUP"; default: root. */
  readonly user?: string;
  /** The machine has a network card with the user-mode network behind it. */
  readonly hasNetwork?: boolean;
  /** The terminal of "console"; default: ttyS0. */
  readonly console?: GuestConsole;
  /** Folders to mount, in this order. */
  readonly mounts?: readonly GuestMount[];
}

export const GUEST_CONSOLES = ["ttyS0", "hvc0"] as const;
export type GuestConsole = (typeof GUEST_CONSOLES)[number];

/** A shared folder's place in the guest. */
export interface GuestMount {
  readonly tag: string;
  readonly protocol: ShareProtocol;
  readonly readOnly: boolean;
  /** An absolute path without newlines. */
  readonly target: string;
}

/** What every job finds in its environment. */
export const JOB_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  USER: "root",
  LOGNAME: "root",
  SHELL: "/bin/sh",
  LANG: "C.UTF-8",
};

/** The content of /hypo/job: sets the positional parameters and the environment. */
export function jobScript(job: GuestJob): string {
  const exports = Object.entries(job.environment).map(
    ([name, value]) => `export ${name}=${quote(value, `the environment variable ${name}`)}\n`,
  );
  const words = job.argv.map((word) => quote(word, "the command"));
  const workdir = job.workdir === undefined ? "" : quote(job.workdir, "the working folder");
  const user = job.user === undefined ? "" : quote(job.user, "the user");
  return [
    ...exports,
    `hypo_workdir=${workdir}\nhypo_user=${user}\n`,
    `set -- ${words.join(" ")}\n`,
  ].join("");
}

/** The content of /hypo/config. */
export function sessionConfig(
  job: GuestJob,
  userland: "busybox" | "foreign",
  modules: readonly string[],
): string {
  return [
    `mode=${job.mode}`,
    `stdin=${job.input.kind}`,
    `rows=${job.window.rows}`,
    `columns=${job.window.columns}`,
    `userland=${userland}`,
    `console=/dev/${job.console ?? "ttyS0"}`,
    `network=${job.hasNetwork ? "user" : "none"}`,
    `modules=${quote(modules.join(" "), "the module list")}`,
    "",
  ].join("\n");
}

/** The content of /hypo/mounts: type, options, tag and place of each, a line. */
export function mountTable(mounts: readonly GuestMount[]): string {
  const line = ({ tag, protocol, readOnly, target }: GuestMount): string => {
    const { type, options } = MOUNTS[protocol];
    return `${type} ${[readOnly ? "ro" : "rw", ...options].join(",")} ${tag} ${target}\n`;
  };
  return mounts.map(line).join("");
}

const MOUNTS: Readonly<Record<ShareProtocol, { type: string; options: readonly string[] }>> = {
  fs: { type: "virtiofs", options: [] },
  "9p": { type: "9p", options: ["trans=virtio", "version=9p2000.L", "msize=262144", "cache=mmap"] },
};

/** One word of POSIX shell. */
export function quote(word: string, what: string): string {
  if (word.includes("\0")) {
    throw new HypolithError("command-invalid", `${what} contains a NUL byte`);
  }
  return `'${word.replaceAll("'", "'\\''")}'`;
}
