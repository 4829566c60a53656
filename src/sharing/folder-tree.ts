/**
 * What a guest knows of a shared folder: nodes by number, each with the name that leads to it, and open files.
 *
 * A node is one file of the folder (by device and inode number), however many names it has. It stays while the guest has references to it
 * or to something below it. Directories are kept open, the most recently used ones; from an open directory on, everything is one name
 * away, so no path is ever walked that somebody could bend meanwhile. A node whose name has come to mean another file is stale: ESTALE,
 * upon which Linux looks the name up again. A file that has lost its name is still reached through those who have it open.
 */
import { Errno, FolderError } from "./errno.ts";
import { FolderNode, type Name, NOT_OPEN, type OpenFile } from "./folder-node.ts";
import type {
  DirectoryHandle,
  FileAttributes,
  FileHandle,
  FolderPort,
  OpenMode,
  Place,
} from "./folder-port.ts";
import { isEntryName, MAX_NAME_BYTES } from "./host-name.ts";
import { checkedTree, type SavedTree } from "./saved-tree.ts";

/** Directories that are kept open. */
const OPEN_DIRECTORIES = 512;
const MAX_OPEN_FILES = 16_384;
/** Other names of a file with several. */
const MAX_ALIASES = 8;
/** Deeper than any path; renames outside may have made a circle of what we remember. */
const MAX_DEPTH = 2048;
export interface Found {
  readonly node: FolderNode;
  readonly attributes: FileAttributes;
}

/** Where a node is now; or, without a name, a file that reaches it. */
interface Located {
  readonly attributes: FileAttributes;
  readonly place: Place | undefined;
  readonly file: FileHandle;
}

const GONE: readonly number[] = [Errno.ENOENT, Errno.ENOTDIR, Errno.ELOOP];

/** The name that we remember is nobody's now, or a symbolic link's. */
const hasGone = (error: unknown): boolean =>
  error instanceof FolderError && GONE.includes(error.errno);

export class FolderTree {
  readonly port: FolderPort;
  readonly root: FolderNode;
  readonly #nodes = new Map<number, FolderNode>();
  /** by device, then by inode number */
  readonly #byFile = new Map<bigint, Map<bigint, FolderNode>>();
  readonly #files = new Map<number, OpenFile>();
  #nextNode = 2;
  #nextFile = 1;
  /** Directories but the root, for `#evict`. */
  #open: FolderNode[] = [];
  #clock = 0;

  constructor(port: FolderPort) {
    this.port = port;
    const attributes = port.stat({ directory: port.root, name: "." });
    if (!attributes) throw new FolderError(Errno.ENOENT);
    this.root = new FolderNode(1, attributes, undefined);
    this.root.handle = port.root;
    this.root.references = 1;
    this.#register(this.root);
  }

  /** Forgets what the guest knew. */
  clear(): void {
    for (const { file } of this.#files.values()) this.port.close(file);
    this.#files.clear();
    for (const node of this.#open) this.#closeDirectory(node);
    this.#open = [];
    this.#nodes.clear();
    this.#byFile.clear();
    this.root.files.clear();
    this.root.children = 0;
    this.#register(this.root);
  }

  get counts(): { readonly nodes: number; readonly files: number; readonly directories: number } {
    return {
      nodes: this.#nodes.size,
      files: this.#files.size,
      directories: this.#open.length,
    };
  }

  // ---- nodes ----

  /** Throws ESTALE if the guest has no such node. */
  node(id: number): FolderNode {
    const node = this.#nodes.get(id);
    if (!node) throw new FolderError(Errno.ESTALE);
    return node;
  }

  /** Finds an entry and counts a reference to it; undefined if there is none. */
  lookup(parent: FolderNode, name: string): Found | undefined {
    const attributes = this.port.stat(this.entry(parent, name));
    if (!attributes) return undefined;
    return { node: this.#know(parent, name, attributes), attributes };
  }

  /** The guest has given back `count` references. */
  forget(id: number, count: number): void {
    const node = this.#nodes.get(id);
    if (!node || node === this.root) return;
    node.references = Math.max(0, node.references - count);
    this.#release(node);
  }

  attributes(node: FolderNode, open?: OpenFile): FileAttributes {
    return open ? this.port.statFile(open.file) : this.#locate(node).attributes;
  }

  /** Where an entry of a directory is. Refuses names that are no entry's. */
  entry(parent: FolderNode, name: string): Place {
    if (name.length > MAX_NAME_BYTES) throw new FolderError(Errno.ENAMETOOLONG);
    if (!isEntryName(name)) throw new FolderError(Errno.EINVAL);
    return { directory: this.directory(parent), name };
  }

  /** An open directory. */
  directory(node: FolderNode, depth = 0): DirectoryHandle {
    if (node.handle === NOT_OPEN) this.#openDirectory(node, depth);
    node.usedAt = ++this.#clock;
    return node.handle;
  }

  /** Where a symbolic link is. */
  place(node: FolderNode): Place {
    const { place } = this.#locate(node);
    if (!place) throw new FolderError(Errno.ESTALE);
    return place;
  }

  /** After the guest has renamed: what we know under the old name has the new one. */
  renamed(from: FolderNode, oldName: string, to: FolderNode, newName: string): void {
    const attributes = this.port.stat(this.entry(to, newName));
    const node = attributes && this.#find(attributes);
    if (!node || node === this.root) return;
    node.aliases = node.aliases.filter(({ parent, name }) => parent !== from || name !== oldName);
    if (node.at?.parent === from && node.at.name === oldName) this.#move(node, to, newName);
    else this.#know(to, newName, attributes, 0);
  }

  // ---- files ----

  open(node: FolderNode, mode: OpenMode): number {
    const { at, aliases } = node;
    // What was opened is looked at; a look before it is only needed where there is a choice.
    const isSimple = at !== undefined && aliases.length === 0;
    const place = isSimple
      ? { directory: this.directory(at.parent), name: at.name }
      : this.place(node);
    try {
      return this.#keep(node, this.port.open(place, mode), mode);
    } catch (error) {
      throw hasGone(error) ? new FolderError(Errno.ESTALE) : error;
    }
  }

  /** Makes a file and opens it; one that is there is opened unless `isExclusive`. */
  create(
    parent: FolderNode,
    name: string,
    mode: OpenMode,
    isExclusive: boolean,
  ): { found: Found; open: number; isNew: boolean } {
    const place = this.entry(parent, name);
    let isNew = true;
    let file: FileHandle;
    try {
      file = this.port.open(place, mode);
    } catch (error) {
      if (isExclusive || !(error instanceof FolderError) || error.errno !== Errno.EEXIST)
        throw error;
      isNew = false;
      const { read, write, append = false } = mode;
      file = this.port.open(place, { read, write, append });
    }
    const attributes = this.port.statFile(file);
    const node = this.#know(parent, name, attributes);
    const { read, write, append = false } = mode;
    const open = this.#keep(node, file, { read, write, append });
    return { found: { node, attributes }, open, isNew };
  }

  /** Throws EBADF. */
  file(open: number): OpenFile {
    const found = this.#files.get(open);
    if (!found) throw new FolderError(Errno.EBADF);
    return found;
  }

  isOpen(open: number): boolean {
    return this.#files.has(open);
  }

  close(open: number): void {
    const found = this.file(open);
    this.#files.delete(open);
    found.node.files.delete(found);
    this.port.close(found.file);
    this.#release(found.node);
  }

  // ---- changes ----

  setMode(node: FolderNode, mode: number): void {
    const { place, file } = this.#locate(node);
    if (place) this.port.setMode(place, mode);
    else this.port.setModeOfFile(file, mode);
  }

  /** undefined: as it is */
  setOwner(node: FolderNode, uid: number | undefined, gid: number | undefined): void {
    const { place, file, attributes } = this.#locate(node);
    const owner = [uid ?? Number(attributes.uid), gid ?? Number(attributes.gid)] as const;
    if (place) this.port.setOwner(place, ...owner);
    else this.port.setOwnerOfFile(file, ...owner);
  }

  /** undefined: as it is */
  setTimes(node: FolderNode, accessed: bigint | undefined, modified: bigint | undefined): void {
    const { place, file, attributes } = this.#locate(node);
    const times = [accessed ?? attributes.atimeNs, modified ?? attributes.mtimeNs] as const;
    if (place) this.port.setTimes(place, ...times);
    else this.port.setTimesOfFile(file, ...times);
  }

  truncate(node: FolderNode, size: number, open?: OpenFile): void {
    const writable = open?.mode.write ? open : [...node.files].find(({ mode }) => mode.write);
    if (writable) {
      this.port.truncate(writable.file, size);
      return;
    }
    if (node.isDirectory) throw new FolderError(Errno.EISDIR);
    const file = this.port.open(this.place(node), { read: false, write: true });
    try {
      if (!node.is(this.port.statFile(file))) throw new FolderError(Errno.ESTALE);
      this.port.truncate(file, size);
    } finally {
      this.port.close(file);
    }
  }

  // ---- snapshots ----

  save(): SavedTree {
    const nodes = [...this.#nodes.values()].filter((node) => node !== this.root);
    return {
      nodes: nodes.map(({ id, dev, ino, type, references, at }) => ({
        ...{ id, dev, ino, type, references },
        ...{ parent: at!.parent.id, name: at!.name },
      })),
      files: [...this.#files].map(([open, { node, mode }]) => ({
        ...{ open, node: node.id, read: mode.read, write: mode.write },
        append: mode.append === true,
      })),
      nextNode: this.#nextNode,
      nextFile: this.#nextFile,
    };
  }

  /** Opens again what was open. What is not there any more is stale; whoever had it open finds it closed. Throws HypolithError "snapshot-shape". */
  restore(state: unknown): void {
    const saved = checkedTree(state);
    this.clear();
    for (const { id, dev, ino, type, references } of saved.nodes) {
      const node = new FolderNode(id, { dev, ino, mode: BigInt(type) }, undefined);
      node.references = references;
      this.#register(node);
    }
    for (const { id, parent: above, name } of saved.nodes) {
      const parent = this.#nodes.get(above) ?? this.root;
      this.#nodes.get(id)!.at = { parent, name };
      parent.children++;
    }
    for (const { open, node: id, ...mode } of saved.files) {
      const node = this.#nodes.get(id);
      if (node) this.#reopen(node, open, mode);
    }
    this.#nextNode = saved.nextNode;
    this.#nextFile = saved.nextFile;
  }

  #reopen(node: FolderNode, open: number, mode: OpenMode): void {
    this.#nextFile = open;
    try {
      this.open(node, mode);
    } catch (error) {
      if (!(error instanceof FolderError)) throw error;
    }
  }

  // ---- inside ----

  #find({ dev, ino }: FileAttributes): FolderNode | undefined {
    return this.#byFile.get(dev)?.get(ino);
  }

  #register(node: FolderNode): void {
    this.#nodes.set(node.id, node);
    let files = this.#byFile.get(node.dev);
    if (!files) {
      files = new Map();
      this.#byFile.set(node.dev, files);
    }
    files.set(node.ino, node);
  }

  /** The node of a file that was just seen under a name. */
  #know(parent: FolderNode, name: string, attributes: FileAttributes, references = 1): FolderNode {
    let node = this.#find(attributes);
    if (node && !node.is(attributes)) {
      this.#byFile.get(node.dev)!.delete(node.ino);
      node = undefined;
    }
    if (node === this.root) throw new FolderError(Errno.EINVAL);
    if (!node) {
      node = new FolderNode(this.#nextNode++, attributes, { parent, name });
      parent.children++;
      this.#register(node);
    } else if (node.at?.parent !== parent || node.at.name !== name) {
      if (attributes.nlink > 1n && !node.isDirectory && node.at) this.#addAlias(node, node.at);
      this.#move(node, parent, name);
    }
    node.references += references;
    return node;
  }

  #addAlias(node: FolderNode, alias: Name): void {
    const others = node.aliases.filter(
      ({ parent, name }) => parent !== alias.parent || name !== alias.name,
    );
    node.aliases = [alias, ...others].slice(0, MAX_ALIASES);
  }

  #move(node: FolderNode, parent: FolderNode, name: string): void {
    const before = node.at?.parent;
    node.at = { parent, name };
    parent.children++;
    if (!before) return;
    before.children--;
    this.#release(before);
  }

  /** Forgets a node that nobody needs, and what only it needed. */
  #release(from: FolderNode): void {
    let node: FolderNode | undefined = from;
    while (node && node !== this.root) {
      if (node.references > 0 || node.children > 0 || node.files.size > 0) return;
      if (!this.#nodes.delete(node.id)) return;
      const files = this.#byFile.get(node.dev);
      if (files?.get(node.ino) === node) files.delete(node.ino);
      if (node.handle !== NOT_OPEN) {
        this.#closeDirectory(node);
        this.#open.splice(this.#open.indexOf(node), 1);
      }
      const parent: FolderNode | undefined = node.at?.parent;
      if (parent) parent.children--;
      node = parent;
    }
  }

  #locate(node: FolderNode): Located {
    if (node.isDirectory) {
      const place = { directory: this.directory(node), name: "." };
      const attributes = this.port.stat(place);
      if (attributes) return { place, attributes, file: NOT_OPEN };
    }
    for (const name of node.at ? [node.at, ...node.aliases] : []) {
      const found = this.#at(node, name);
      if (!found) continue;
      if (name !== node.at) this.#move(node, name.parent, name.name);
      return found;
    }
    for (const { file } of node.files)
      return { place: undefined, attributes: this.port.statFile(file), file };
    throw new FolderError(Errno.ESTALE);
  }

  /** Whether a name still means the node. */
  #at(node: FolderNode, { parent, name }: Name): Located | undefined {
    let place: Place;
    try {
      place = { directory: this.directory(parent), name };
    } catch (error) {
      if (error instanceof FolderError && error.errno === Errno.ESTALE) return undefined;
      throw error;
    }
    const attributes = this.port.stat(place);
    return attributes && node.is(attributes) ? { place, attributes, file: NOT_OPEN } : undefined;
  }

  #keep(node: FolderNode, file: FileHandle, mode: OpenMode): number {
    const isFit = node.is(this.port.statFile(file)) && this.#files.size < MAX_OPEN_FILES;
    if (!isFit) {
      this.port.close(file);
      throw new FolderError(this.#files.size < MAX_OPEN_FILES ? Errno.ESTALE : Errno.ENFILE);
    }
    const open = this.#nextFile++;
    const kept = { node, file, mode };
    this.#files.set(open, kept);
    node.files.add(kept);
    return open;
  }

  #openDirectory(node: FolderNode, depth: number): void {
    const { at } = node;
    if (!at || depth > MAX_DEPTH) throw new FolderError(Errno.ESTALE);
    const place = { directory: this.directory(at.parent, depth + 1), name: at.name };
    let handle: DirectoryHandle;
    try {
      handle = this.port.openDirectory(place);
    } catch (error) {
      throw hasGone(error) ? new FolderError(Errno.ESTALE) : error;
    }
    const attributes = this.port.stat({ directory: handle, name: "." });
    if (!attributes || !node.is(attributes)) {
      this.port.closeDirectory(handle);
      throw new FolderError(Errno.ESTALE);
    }
    node.handle = handle;
    this.#open.push(node);
    // Not what has just been opened: somebody is about to use it.
    if (this.#open.length > OPEN_DIRECTORIES && depth === 0) this.#evict(node);
  }

  /** Closes the half that was not used for longest. */
  #evict(spared: FolderNode): void {
    const byUse = this.#open.filter((node) => node !== spared).sort((a, b) => a.usedAt - b.usedAt);
    const half = byUse.length >> 1;
    for (const node of byUse.slice(0, half)) this.#closeDirectory(node);
    this.#open = [...byUse.slice(half), spared];
  }

  #closeDirectory(node: FolderNode): void {
    this.port.closeDirectory(node.handle);
    node.handle = NOT_OPEN;
  }
}
