/**
 * `hypo cp`: files as a tar stream, packed and unpacked in the guest by our busybox and here by us.
 *
 * Where things go is docker's rule: into a folder that is there, else under the name that was given; "PATH/." is what is in the folder. What
 * comes out of a guest is hostile: nothing is written outside the target, and never through a symbolic link that came with it.
 */
import { lstatSync, statSync } from "node:fs";
import { basename, dirname } from "node:path";
import { PassThrough } from "node:stream";
import { HypolithError } from "../../../src/base/errors.ts";
import { ExitCode } from "../exit-code.ts";
import { UsageError } from "../usage-error.ts";
import { type GuestDoor, nameOfGuest, runTool, type ToolRun } from "./guest-program.ts";
import { isMachineName } from "./runtime-folder.ts";
import { packTree } from "./tar-pack.ts";
import { unpackTree } from "./tar-unpack.ts";

interface Place {
  /** Undefined: here. */
  readonly vm: string | undefined;
  readonly path: string;
}

/** NAME:PATH, or a path of ours: one with a slash before the colon, or without a colon. */
export function parsePlace(word: string): Place {
  const colon = word.indexOf(":");
  const vm = word.slice(0, Math.max(colon, 0));
  if (colon > 0 && isMachineName(vm)) {
    const path = word.slice(colon + 1);
    if (path === "") throw new UsageError(`'${word}' names no file`, `write ${word}/PATH`);
    // As docker has it: paths in a machine begin at its root.
    return { vm, path: path.startsWith("/") ? path : `/${path}` };
  }
  if (word === "") throw new UsageError("a path is empty");
  return { vm: undefined, path: word };
}

export async function copy(from: string, to: string): Promise<number> {
  const [source, target] = [parsePlace(from), parsePlace(to)];
  if (source.vm !== undefined && target.vm !== undefined)
    throw new UsageError("both places are in machines", "copy by way of a folder of yours");
  if (source.vm !== undefined) await copyOut(source.vm, source.path, target.path);
  else if (target.vm !== undefined) await copyIn(source.path, target.vm, target.path);
  else throw new UsageError("neither place is in a machine", "write hypo cp FILE NAME:PATH");
  return ExitCode.OK;
}

type Kind = "folder" | "file" | "absent";

/** What is at a path in the guest; symbolic links are followed. */
async function kindInGuest(vm: GuestDoor, path: string): Promise<Kind> {
  const script =
    'if [ -d "$1" ]; then echo folder; elif [ -e "$1" ] || [ -L "$1" ]; then echo file; else echo absent; fi';
  const { stdout } = await runTool(vm, ["sh", "-c", script, "sh", path]);
  return stdout.toString().trim() as Kind;
}

function kindHere(path: string): Kind {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat) return stat.isDirectory() ? "folder" : "file";
  return lstatSync(path, { throwIfNoEntry: false }) ? "file" : "absent";
}

interface Landing {
  /** The folder that things are put into. */
  readonly folder: string;
  /** What the topmost of them is called there; "": it is the folder itself. */
  readonly name: string;
}

/** Where a source goes. `isContent`: it is what is in a folder. */
export function landing(
  source: { readonly name: string; readonly kind: Kind; readonly isContent: boolean },
  target: { readonly path: string; readonly kind: Kind; readonly parent: Kind },
): Landing {
  const { path, kind } = target;
  const isFolder = source.kind === "folder";
  if (kind === "folder")
    return source.isContent ? { folder: path, name: "" } : { folder: path, name: source.name };
  if (kind === "file" && isFolder)
    throw new HypolithError("copy-target", `${path} is a file, and a folder cannot be one`);
  if (target.parent !== "folder")
    throw new HypolithError("copy-target", `there is no folder ${dirname(path)}`);
  if (!isFolder && path.endsWith("/"))
    throw new HypolithError("copy-target", `there is no folder ${path}`);
  return { folder: dirname(path), name: basename(path) };
}

const isContent = (path: string): boolean => path.endsWith("/.") || path === ".";

export async function copyOut(vm: GuestDoor, path: string, target: string): Promise<void> {
  const kind = await kindInGuest(vm, path);
  if (kind === "absent")
    throw new HypolithError("copy-source", `there is no ${path} in the machine ${nameOfGuest(vm)}`);
  // By "-C FOLDER NAME" the stream's names begin with NAME.
  const own = path.replace(/\/+$/, "") || "/";
  const [folder, name] =
    isContent(path) || own === "/" ? [own, "."] : [dirname(own), basename(own)];
  const argv = ["tar", "-c", "-f", "-", "-C", folder, "--", name];
  if (target === "-") {
    check(await runTool(vm, argv, { stdout: process.stdout }), path);
    return;
  }
  const source = { name: basename(own), kind, isContent: name === "." };
  const there = { path: target, kind: kindHere(target), parent: kindHere(dirname(target)) };
  const stream = new PassThrough();
  const unpacked = unpackTree(stream, name, landing(source, there));
  // It may fail first: what it says is heard when the program has ended.
  unpacked.catch(() => stream.resume());
  const run = await runTool(vm, argv, { stdout: stream });
  stream.end();
  check(run, path);
  await unpacked;
}

export async function copyIn(path: string, vm: GuestDoor, target: string): Promise<void> {
  if (path === "-") {
    if ((await kindInGuest(vm, target)) !== "folder")
      throw new HypolithError(
        "copy-target",
        `${target} is no folder in the machine ${nameOfGuest(vm)}`,
      );
    check(await unpackInGuest(vm, target, process.stdin), target);
    return;
  }
  const kind = kindHere(path);
  if (kind === "absent") throw new HypolithError("copy-source", `there is no ${path}`);
  const own = path.replace(/\/+$/, "") || "/";
  const source = { name: basename(own), kind, isContent: isContent(path) || own === "/" };
  const [there, parent] = [await kindInGuest(vm, target), await kindInGuest(vm, dirname(target))];
  const { folder, name } = landing(source, { path: target, kind: there, parent });
  const stream = packTree(own, name || ".");
  check(await unpackInGuest(vm, folder, stream), target);
}

function unpackInGuest(
  vm: GuestDoor,
  folder: string,
  stdin: NodeJS.ReadableStream,
): Promise<ToolRun> {
  const stream = new PassThrough();
  stdin.on("error", (error) => stream.destroy(error));
  stdin.pipe(stream);
  return runTool(vm, ["tar", "-x", "-f", "-", "-C", folder], { stdin: stream });
}

function check({ code, stderr }: ToolRun, path: string): void {
  if (code === 0) return;
  throw new HypolithError("copy-failed", `${path} could not be copied: ${stderr.trim()}`, {
    hint: "look for room in both file systems",
  });
}
