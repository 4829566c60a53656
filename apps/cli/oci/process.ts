/**
 * What runs in an image: its configuration, and what the command line says instead.
 * Spec: OCI Image Specification, "Image Configuration", Conversion; the rules of `docker run` for entrypoint and command.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import type { ImageConfig } from "./manifest.ts";
import { type ProcessUser, resolveUser, type UserFiles } from "./users.ts";

export interface ProcessWords {
  readonly command: readonly string[];
  /** In place of the image's entrypoint; its command does not count then. Empty: none. */
  readonly entrypoint: string | undefined;
  /** NAME=VALUE. */
  readonly environment: readonly string[];
  readonly user: string | undefined;
  readonly workdir: string | undefined;
  readonly hasTerminal: boolean;
}

export interface ImageProcess {
  readonly argv: readonly string[];
  /** In order, each name once. */
  readonly environment: ReadonlyArray<readonly [name: string, value: string]>;
  readonly user: ProcessUser;
  readonly workdir: string;
  /** What asks it to end, without "SIG": "TERM", "QUIT", "RTMIN+3", "15". */
  readonly stopSignal: string;
}

/** It travels on a line of words. */
const SIGNAL = /^(?:SIG)?([A-Z][A-Z0-9]{1,8}(?:[+-]\d{1,2})?|\d{1,2})$/;
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
export const HOST_NAME = "hypolith";

export function planProcess(
  config: ImageConfig,
  words: ProcessWords,
  files: UserFiles,
  what: string,
): ImageProcess {
  const user = resolveUser(words.user ?? config.user, files);
  const argv = argvOf(config, words);
  if (argv.length === 0) {
    throw new HypolithError("command-missing", `${what} does not say what to run`, {
      hint: "give a command: hypo run IMAGE -- COMMAND",
    });
  }
  const workdir = words.workdir ?? config.workdir;
  return {
    argv,
    environment: environmentOf(config, words, user),
    user,
    workdir: workdir.startsWith("/") ? workdir : `/${workdir}`,
    stopSignal: SIGNAL.exec(config.stopSignal ?? "")?.[1] ?? "TERM",
  };
}

function argvOf(config: ImageConfig, { command, entrypoint }: ProcessWords): readonly string[] {
  if (entrypoint !== undefined) return entrypoint === "" ? command : [entrypoint, ...command];
  return [...config.entrypoint, ...(command.length > 0 ? command : config.command)];
}

function environmentOf(
  config: ImageConfig,
  words: ProcessWords,
  user: ProcessUser,
): ReadonlyArray<readonly [string, string]> {
  const all = new Map<string, string>([
    ["PATH", PATH],
    ["HOSTNAME", HOST_NAME],
    ...(words.hasTerminal ? [["TERM", process.env.TERM || "linux"] as const] : []),
  ]);
  for (const entry of [...config.environment, ...words.environment]) {
    const equals = entry.indexOf("=");
    if (equals > 0) all.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  if (!all.get("HOME")) all.set("HOME", user.home);
  return [...all];
}
