/**
 * A tar stream of a guest's into a folder of ours. The guest is hostile: names that leave the folder are refused, what is there already is replaced
 * and not followed, and below the folder no symbolic link is ever passed through. Devices and sockets are left out.
 */
import {
  chmodSync,
  constants,
  createWriteStream,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  utimesSync,
} from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, type Header } from "tar-stream";
import { HypolithError } from "../../../src/base/errors.ts";

export interface UnpackTarget {
  readonly folder: string;
  /** What `top` becomes; "": the folder itself. */
  readonly name: string;
}

/** `top`: the name that all in the stream begins with, or ".". */
export async function unpackTree(
  stream: Readable,
  top: string,
  target: UnpackTarget,
): Promise<void> {
  const tar = extract();
  const folders: Array<readonly [path: string, header: Header]> = [];
  const fed = pipeline(stream, tar);
  fed.catch(() => {});
  for await (const entry of tar) {
    const { header } = entry;
    const parts = partsOf(header.name, top, target.name);
    const path = join(target.folder, ...parts);
    clearWay(target.folder, parts);
    if (header.type === "directory") {
      if (!isFolder(path)) mkdirSync(path, { mode: 0o700 });
      folders.push([path, header]);
    } else if (header.type === "file" || header.type === "contiguous-file") {
      // streamx is iterable, but brings no types.
      const content = Readable.from(entry as unknown as AsyncIterable<Buffer>);
      await writeFile(path, header, content);
      continue;
    } else if (header.type === "symlink") {
      replace(path);
      symlinkSync(header.linkname ?? "", path);
    } else if (header.type === "link") {
      const other = partsOf(header.linkname ?? "", top, target.name);
      clearWay(target.folder, other);
      replace(path);
      linkSync(join(target.folder, ...other), path);
    }
    entry.resume();
  }
  await fed;
  // The innermost first: a folder that is not writable shall hold what belongs into it.
  for (const [path, { mode = 0o755, mtime }] of folders.reverse()) {
    chmodSync(path, mode & 0o777);
    if (mtime) utimesSync(path, mtime, mtime);
  }
}

/** The way from the folder to an entry. */
function partsOf(name: string, top: string, target: string): string[] {
  const all = name.split("/").filter((part) => part !== "" && part !== ".");
  const isHostile = name.includes("\0") || all.includes("..");
  const rest = top === "." ? all : all[0] === top ? all.slice(1) : undefined;
  if (isHostile || !rest)
    throw new HypolithError("copy-hostile", `the guest sent a file named ${JSON.stringify(name)}`);
  return target === "" ? rest : [target, ...rest];
}

const isFolder = (path: string): boolean =>
  lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

/** Every folder on the way is one, and no link to one; those that the stream does not have are made. */
function clearWay(folder: string, parts: readonly string[]): void {
  for (let i = 1; i < parts.length; i++) {
    const path = join(folder, ...parts.slice(0, i));
    if (isFolder(path)) continue;
    replace(path);
    mkdirSync(path);
  }
}

/** Makes room for something new. A folder that is in its way is not removed. */
function replace(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory())
    throw new HypolithError("copy-target", `${path} is a folder, and shall become something else`);
  if (stat) rmSync(path);
}

async function writeFile(path: string, header: Header, content: Readable): Promise<void> {
  replace(path);
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
  const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  await pipeline(content, createWriteStream(path, { fd }));
  chmodSync(path, (header.mode ?? 0o644) & 0o777);
  if (header.mtime) utimesSync(path, header.mtime, header.mtime);
}
