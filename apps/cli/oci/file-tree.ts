/**
 * A root file system as a tree of inodes, in memory: names, attributes, and where contents lie.
 *
 * Names are bytes as Latin-1 text. A hard link is a second entry of the same inode. Every entry knows the layer that made it, for a
 * whiteout hides what lower layers have, not what its own layer brings. Nothing here touches the file system of this machine.
 */
import type { FileRange } from "./tar-file.ts";

export interface Attributes {
  /** Permissions, with set-id and sticky bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Whole seconds since 1970. */
  readonly mtime: number;
}

export interface Directory {
  readonly kind: "directory";
  attributes: Attributes;
  readonly entries: Map<string, DirectoryEntry>;
}

export interface RegularFile {
  readonly kind: "file";
  readonly attributes: Attributes;
  readonly content: FileRange;
}

export interface SymbolicLink {
  readonly kind: "symlink";
  readonly attributes: Attributes;
  readonly target: string;
}

export interface SpecialFile {
  readonly kind: "character" | "block" | "fifo";
  readonly attributes: Attributes;
  readonly device: readonly [major: number, minor: number];
}

export type Inode = Directory | RegularFile | SymbolicLink | SpecialFile;

export interface DirectoryEntry {
  readonly inode: Inode;
  /** The highest layer that names it. */
  layer: number;
}

const PLAIN: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: 0 };
/** As Linux. */
const MOST_LINKS = 40;

export function emptyDirectory(attributes: Attributes = PLAIN): Directory {
  return { kind: "directory", attributes, entries: new Map() };
}

/** Why a path leads nowhere. */
export type NoPath = "absent" | "escapes" | "loops";

/**
 * What is at a path, symbolic links followed inside the tree: an absolute one starts at its root, one that climbs above the root escapes.
 * The last part is followed, too.
 */
export function lookUp(root: Directory, path: readonly string[]): Inode | NoPath {
  const parts = [...path];
  let trail: Directory[] = [root];
  let links = 0;
  while (parts.length > 0) {
    const name = parts.shift()!;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      if (trail.length === 1) return "escapes";
      trail.pop();
      continue;
    }
    const inode = trail.at(-1)!.entries.get(name)?.inode;
    if (!inode) return "absent";
    if (inode.kind === "symlink") {
      if (++links > MOST_LINKS) return "loops";
      if (inode.target.startsWith("/")) trail = [root];
      parts.unshift(...inode.target.split("/"));
    } else if (inode.kind === "directory") {
      trail.push(inode);
    } else {
      return parts.every((part) => part === "") ? inode : "absent";
    }
  }
  return trail.at(-1)!;
}

/** Calls once for every inode, a directory before what is in it, with one of its paths (without leading slash; the root's is empty). */
export function walkTree(root: Directory, visit: (inode: Inode, path: string) => void): void {
  const seen = new Set<Inode>();
  const walk = (inode: Inode, path: string): void => {
    if (seen.has(inode)) return;
    seen.add(inode);
    visit(inode, path);
    if (inode.kind !== "directory") return;
    for (const name of sortedNames(inode)) {
      walk(inode.entries.get(name)!.inode, path === "" ? name : `${path}/${name}`);
    }
  };
  walk(root, "");
}

/** In the order of their bytes. */
export function sortedNames({ entries }: Directory): string[] {
  return [...entries.keys()].sort();
}
