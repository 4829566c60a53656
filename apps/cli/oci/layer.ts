/**
 * A layer on top of a tree.
 * Spec: OCI Image Specification, "Image Layer Filesystem Changeset": whiteouts, opaque whiteouts; whiteouts concern lower layers only,
 * wherever in the archive they stand.
 *
 * Paths that are absolute or have ".." in them, links to what is not there, and paths that lead through symbolic links out of the tree are
 * an attack and are refused. Extended attributes are left out and counted.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import {
  type Attributes,
  type Directory,
  emptyDirectory,
  type Inode,
  lookUp,
  type NoPath,
} from "./file-tree.ts";
import { type FileRange, printable, readTar, type TarEntry } from "./tar-file.ts";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** What the union file system of old kept for itself. */
const AUFS = ".wh..wh.";
/** A forged archive must not take the machine's memory. */
const MOST_ENTRIES = 4_000_000;
const LONGEST_NAME = 255;
const DEEPEST = 512;

export interface LayerSummary {
  readonly entries: number;
  /** Entries whose extended attributes were left out. */
  readonly withAttributes: number;
}

export interface LayerOptions {
  /** A directory where a symbolic link to one is leaves the link: as dpkg unpacks, unlike a container's layer. Default: no. */
  readonly keepsLinks?: boolean;
}

/** Puts the layer number `layer` (0 is the lowest) on `root`. */
export function applyLayer(
  root: Directory,
  layer: number,
  archive: FileRange,
  options: LayerOptions = {},
): LayerSummary {
  const target = new LayerTarget(root, layer, archive, options.keepsLinks === true);
  let entries = 0;
  let withAttributes = 0;
  for (const entry of readTar(archive)) {
    if (++entries > MOST_ENTRIES) throw refused(entry.name, "the layer has too many files");
    if (entry.hasAttributes) withAttributes++;
    target.add(entry);
  }
  return { entries, withAttributes };
}

class LayerTarget {
  readonly #root: Directory;
  readonly #layer: number;
  readonly #archive: FileRange;
  readonly #keepsLinks: boolean;

  constructor(root: Directory, layer: number, archive: FileRange, keepsLinks: boolean) {
    this.#root = root;
    this.#layer = layer;
    this.#archive = archive;
    this.#keepsLinks = keepsLinks;
  }

  add(entry: TarEntry): void {
    const path = splitPath(entry.name, entry.name);
    const name = path.pop();
    if (name === undefined) {
      if (entry.type !== "directory") throw refused(entry.name, "it would replace the root");
      this.#root.attributes = attributesOf(entry);
    } else if (name.startsWith(WHITEOUT)) {
      this.#hide(path, name, entry);
    } else {
      if (this.#keepsLinks && entry.type === "directory" && this.#isLinkedFolder([...path, name]))
        return;
      this.#put(this.#folder(path, entry), name, entry);
    }
  }

  #isLinkedFolder(path: readonly string[]): boolean {
    const folder = lookUp(this.#root, path.slice(0, -1));
    if (typeof folder === "string" || folder.kind !== "directory") return false;
    if (folder.entries.get(path.at(-1)!)?.inode.kind !== "symlink") return false;
    const found = lookUp(this.#root, path);
    return typeof found !== "string" && found.kind === "directory";
  }

  #put(folder: Directory, name: string, entry: TarEntry): void {
    const layer = this.#layer;
    const before = folder.entries.get(name);
    if (entry.type === "directory" && before?.inode.kind === "directory") {
      before.inode.attributes = attributesOf(entry);
      before.layer = layer;
      return;
    }
    // A link to itself stays what it is; anything else takes the name.
    const inode = entry.type === "hardlink" ? this.#linked(entry) : this.#inode(entry);
    folder.entries.set(name, { inode, layer });
  }

  #inode(entry: TarEntry): Inode {
    const attributes = attributesOf(entry);
    switch (entry.type) {
      case "file": {
        const { descriptor, offset } = this.#archive;
        const content = { descriptor, offset: offset + entry.offset, size: entry.size };
        return { kind: "file", attributes, content };
      }
      case "symlink":
        if (entry.target === "" || entry.target.length >= 4096) {
          throw refused(entry.name, "it is a symbolic link to nothing");
        }
        return { kind: "symlink", attributes, target: entry.target };
      case "character":
      case "block":
      case "fifo":
        return { kind: entry.type, attributes, device: entry.device };
      default:
        return emptyDirectory(attributes);
    }
  }

  #linked(entry: TarEntry): Inode {
    const path = splitPath(entry.target, entry.name);
    const name = path.pop();
    const folder = lookUp(this.#root, path);
    if (typeof folder === "string" && folder !== "absent") throw refused(entry.name, WHY[folder]);
    const isFolder = typeof folder !== "string" && folder.kind === "directory";
    const inode = isFolder && name !== undefined ? folder.entries.get(name)?.inode : undefined;
    if (!inode)
      throw refused(entry.name, `it links to '${printable(entry.target)}', which is not there`);
    if (inode.kind === "directory") throw refused(entry.name, "it links to a directory");
    return inode;
  }

  #hide(path: readonly string[], name: string, entry: TarEntry): void {
    const folder = lookUp(this.#root, path);
    if (folder === "escapes" || folder === "loops") throw refused(entry.name, WHY[folder]);
    const isFolder = typeof folder !== "string" && folder.kind === "directory";
    if (name === OPAQUE) {
      if (isFolder) this.#hideLower(folder);
      // An opaque directory is the layer's own.
      this.#folder(path, entry);
      return;
    }
    if (name.startsWith(AUFS)) return;
    const hidden = name.slice(WHITEOUT.length);
    if (hidden === "" || hidden === "." || hidden === "..")
      throw refused(entry.name, "it hides nothing");
    const victim = isFolder ? folder.entries.get(hidden) : undefined;
    if (!isFolder || !victim) return;
    if (victim.layer < this.#layer) folder.entries.delete(hidden);
    else if (victim.inode.kind === "directory") this.#hideLower(victim.inode);
  }

  #hideLower(folder: Directory): void {
    for (const [name, { inode, layer }] of folder.entries) {
      if (layer < this.#layer) folder.entries.delete(name);
      else if (inode.kind === "directory") this.#hideLower(inode);
    }
  }

  /** The directory at a path, made where it is not there; all on the way to it belong to this layer, too. */
  #folder(path: readonly string[], entry: TarEntry): Directory {
    let at = this.#root;
    const walked: string[] = [];
    for (const name of path) {
      walked.push(name);
      const here = at.entries.get(name);
      if (!here) {
        const made = emptyDirectory();
        at.entries.set(name, { inode: made, layer: this.#layer });
        at = made;
        continue;
      }
      here.layer = this.#layer;
      const found = here.inode.kind === "symlink" ? lookUp(this.#root, walked) : here.inode;
      if (typeof found === "string") throw refused(entry.name, WHY[found]);
      if (found.kind !== "directory")
        throw refused(entry.name, `'${printable(walked.join("/"))}' is no directory`);
      at = found;
    }
    return at;
  }
}

const WHY: Readonly<Record<NoPath, string>> = {
  absent: "a symbolic link on its way leads nowhere",
  escapes: "a symbolic link on its way leads out of the image",
  loops: "the symbolic links on its way lead in a circle",
};

function attributesOf({ mode, uid, gid, mtime }: TarEntry): Attributes {
  return { mode, uid, gid, mtime };
}

function splitPath(path: string, entry: string): string[] {
  if (path.startsWith("/")) throw refused(entry, `'${printable(path)}' is an absolute path`);
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) throw refused(entry, `'${printable(path)}' leads out of the image`);
  if (parts.length > DEEPEST) throw refused(entry, "it lies too deep");
  if (parts.some(({ length }) => length > LONGEST_NAME))
    throw refused(entry, "its name is too long");
  if (path.includes("\0")) throw refused(entry, "its name holds a zero byte");
  return parts;
}

function refused(name: string, why: string): HypolithError {
  return new HypolithError(
    "layer-refused",
    `the layer is refused at '${printable(name)}': ${why}`,
    {
      hint: "a sound image has no such file; do not trust where it came from",
    },
  );
}
