/**
 * Where an image's files come from when they are on this machine: a folder, or a tar archive of one.
 */
import { closeSync, lstatSync, openSync, readSync, realpathSync, statSync } from "node:fs";
import { join, sep } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import type { FilePart } from "./layer-file.ts";
import { LARGEST_MANIFEST, unsound } from "./manifest.ts";
import { readTar, type TarEntry } from "./tar-file.ts";

export interface ImageFiles {
  /** What a person calls it. */
  readonly what: string;
  /** Undefined: there is none. */
  find(path: string): FilePart | undefined;
}

/** The folder of an OCI layout. What is found lies in it, whatever links say. */
export function folderFiles(folder: string): ImageFiles {
  const root = realpathSync(folder);
  return {
    what: folder,
    find: (path) => {
      const at = join(root, path);
      try {
        if (!realpathSync(at).startsWith(`${root}${sep}`)) return undefined;
        const status = statSync(at);
        return status.isFile() ? { path: at, offset: 0, size: status.size } : undefined;
      } catch {
        return undefined;
      }
    },
  };
}

/** The members of an archive; links of docker's older archives are followed inside it. */
export function archiveFiles(path: string, what: string): ImageFiles {
  const members = new Map<string, TarEntry>();
  const descriptor = openSync(path, "r");
  try {
    const { size } = lstatSync(realpathSync(path));
    for (const entry of readTar({ descriptor, offset: 0, size })) {
      members.set(normal(entry.name), entry);
    }
  } finally {
    closeSync(descriptor);
  }
  const find = (name: string, hops = 0): FilePart | undefined => {
    const entry = members.get(normal(name));
    if (!entry || hops > 8) return undefined;
    if (entry.type === "hardlink") return find(entry.target, hops + 1);
    if (entry.type === "symlink") return find(join(name, "..", entry.target), hops + 1);
    return entry.type === "file" ? { path, offset: entry.offset, size: entry.size } : undefined;
  };
  return { what, find };
}

/** A small file in memory. */
export function readPart(part: FilePart, what: string, limit = LARGEST_MANIFEST): Buffer {
  if (part.size > limit) throw unsound(what, `a file of it has ${part.size} bytes`);
  const descriptor = openSync(part.path, "r");
  try {
    const bytes = Buffer.alloc(part.size);
    if (readSync(descriptor, bytes, 0, part.size, part.offset) === part.size) return bytes;
    throw unsound(what, "a file of it is cut short");
  } finally {
    closeSync(descriptor);
  }
}

export function fileAbsent(what: string, path: string): HypolithError {
  return new HypolithError("image-incomplete", `${what} has no ${path}`, {
    hint: "check how it was made or copied",
  });
}

function normal(name: string): string {
  return join("/", name).replace(/\/$/, "");
}
