/**
 * A folder as a guest may use it: what both protocols do the same way. Rights beyond what the system gives us are not added here;
 * what the guest may not change is refused.
 */
import { Errno, FolderError } from "./errno.ts";
import { FileType, type FolderNode, type OpenFile } from "./folder-node.ts";
import type { FileAttributes, FolderPort, Place } from "./folder-port.ts";
import { FolderTree, type Found } from "./folder-tree.ts";
import { AttributeMap, type GuestAttributes } from "./guest-attributes.ts";
import { type Owner, OwnerMap } from "./owner-map.ts";

export interface SharedFolderOptions {
  readonly readOnly: boolean;
  /** Who in the guest has what is ours. */
  readonly owner: Owner;
  /** Milliseconds since 1970, for times that are to be "now". */
  now(): number;
}

/** Open flags of Linux on x86. */
export const OpenFlag = {
  ACCESS: 3,
  WRITE_ONLY: 1,
  READ_WRITE: 2,
  EXCLUSIVE: 0o200,
  TRUNCATE: 0o1000,
  APPEND: 0o2000,
} as const;

/** renameat2(2) */
export const RENAME_NOREPLACE = 1;

export interface Changes {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atimeNs?: bigint | "now";
  readonly mtimeNs?: bigint | "now";
}

const PERMISSIONS = 0o7777;
const SET_GROUP = 0o2000;
const COPY_BYTES = 1 << 18;

export class SharedFolder {
  readonly tree: FolderTree;
  readonly readOnly: boolean;
  readonly #owners: OwnerMap;
  readonly #attributes: AttributeMap;
  /** Milliseconds since 1970. */
  readonly now: () => number;

  constructor(port: FolderPort, { readOnly, owner, now }: SharedFolderOptions) {
    this.tree = new FolderTree(port);
    this.readOnly = readOnly;
    this.#owners = new OwnerMap(port, owner);
    this.#attributes = new AttributeMap(this.#owners, this.tree.attributes(this.tree.root));
    this.now = now;
  }

  get port(): FolderPort {
    return this.tree.port;
  }

  seen(attributes: FileAttributes): GuestAttributes {
    return this.#attributes.seen(attributes);
  }

  inode(attributes: FileAttributes): bigint {
    return this.#attributes.inode(attributes);
  }

  /** Throws EROFS where nothing may be changed. */
  refuseIfReadOnly(): void {
    if (this.readOnly) throw new FolderError(Errno.EROFS);
  }

  open(node: FolderNode, flags: number): number {
    if (node.isDirectory) throw new FolderError(Errno.EISDIR);
    const { read, write } = accessOf(flags);
    if (write || (flags & OpenFlag.TRUNCATE) !== 0) this.refuseIfReadOnly();
    const append = (flags & OpenFlag.APPEND) !== 0;
    const open = this.tree.open(node, { read, write, append });
    if ((flags & OpenFlag.TRUNCATE) !== 0) this.#truncateOpened(open);
    return open;
  }

  #truncateOpened(open: number): void {
    try {
      this.tree.truncate(this.tree.file(open).node, 0, this.tree.file(open));
    } catch (error) {
      this.tree.close(open);
      throw error;
    }
  }

  create(
    parent: FolderNode,
    name: string,
    how: { readonly flags: number; readonly mode: number; readonly creator: Owner },
  ): { found: Found; open: number } {
    this.refuseIfReadOnly();
    const { flags, mode, creator } = how;
    const access = { ...accessOf(flags), append: (flags & OpenFlag.APPEND) !== 0 };
    const { found, open, isNew } = this.tree.create(
      parent,
      name,
      { ...access, create: { mode: mode & PERMISSIONS } },
      (flags & OpenFlag.EXCLUSIVE) !== 0,
    );
    if (isNew) return { found: this.#own(found, parent, creator), open };
    if ((flags & OpenFlag.TRUNCATE) === 0) return { found, open };
    this.#truncateOpened(open);
    return { found: { ...found, attributes: this.tree.attributes(found.node) }, open };
  }

  makeDirectory(parent: FolderNode, name: string, mode: number, creator: Owner): Found {
    this.refuseIfReadOnly();
    this.port.makeDirectory(this.tree.entry(parent, name), mode & PERMISSIONS);
    return this.#made(parent, name, creator);
  }

  makeSymbolicLink(parent: FolderNode, name: string, target: string, creator: Owner): Found {
    this.refuseIfReadOnly();
    this.port.makeSymbolicLink(this.tree.entry(parent, name), target);
    return this.#made(parent, name, creator);
  }

  /** Regular files only: Node has no call for others. */
  makeNode(parent: FolderNode, name: string, mode: number, creator: Owner): Found {
    this.refuseIfReadOnly();
    const type = mode & FileType.MASK;
    if (type !== 0 && type !== FileType.REGULAR) throw new FolderError(Errno.EPERM);
    const create = { mode: mode & PERMISSIONS };
    const access = { read: false, write: true, create };
    const file = this.port.open(this.tree.entry(parent, name), access);
    this.port.close(file);
    return this.#made(parent, name, creator);
  }

  link(node: FolderNode, parent: FolderNode, name: string): Found {
    this.refuseIfReadOnly();
    if (node.isDirectory) throw new FolderError(Errno.EPERM);
    this.port.link(this.tree.place(node), this.tree.entry(parent, name));
    const found = this.#lookup(parent, name);
    if (found.node !== node) throw new FolderError(Errno.ESTALE);
    return found;
  }

  unlink(parent: FolderNode, name: string): void {
    this.refuseIfReadOnly();
    this.port.unlink(this.tree.entry(parent, name));
  }

  removeDirectory(parent: FolderNode, name: string): void {
    this.refuseIfReadOnly();
    this.port.removeDirectory(this.tree.entry(parent, name));
  }

  /** `flags` as renameat2(2) has them; of these Node can do one. */
  rename(
    from: FolderNode,
    name: string,
    to: { parent: FolderNode; name: string },
    flags = 0,
  ): void {
    this.refuseIfReadOnly();
    if ((flags & ~RENAME_NOREPLACE) !== 0) throw new FolderError(Errno.EINVAL);
    const source = this.tree.entry(from, name);
    const target = this.tree.entry(to.parent, to.name);
    if (flags === 0) this.port.rename(source, target);
    else this.#renameToNothing(source, target);
    this.tree.renamed(from, name, to.parent, to.name);
  }

  /** A second name is refused where there is one; only directories have to be looked for. */
  #renameToNothing(source: Place, target: Place): void {
    const attributes = this.port.stat(source);
    if (!attributes) throw new FolderError(Errno.ENOENT);
    if (modeType(attributes) === FileType.DIRECTORY) {
      if (this.port.stat(target)) throw new FolderError(Errno.EEXIST);
      this.port.rename(source, target);
      return;
    }
    this.port.link(source, target);
    this.port.unlink(source);
  }

  /** All that is asked for, in an order in which none undoes another. Answers what is there then. */
  change(node: FolderNode, changes: Changes, open?: OpenFile): FileAttributes {
    this.refuseIfReadOnly();
    const { mode, uid, gid, size, atimeNs, mtimeNs } = changes;
    if (size !== undefined) this.tree.truncate(node, size, open);
    if (uid !== undefined || gid !== undefined) {
      const { hostUid, hostGid } = this.#hostOwner(uid, gid);
      this.tree.setOwner(node, hostUid, hostGid);
    }
    if (mode !== undefined) this.tree.setMode(node, mode & PERMISSIONS);
    if (atimeNs !== undefined || mtimeNs !== undefined) {
      const now = BigInt(Math.round(this.now() * 1000)) * 1000n;
      const time = (wish: bigint | "now" | undefined): bigint | undefined =>
        wish === "now" ? now : wish;
      this.tree.setTimes(node, time(atimeNs), time(mtimeNs));
    }
    return this.tree.attributes(node, open);
  }

  /** copy_file_range(2): answers how much was copied. */
  copy(
    from: { readonly file: OpenFile; readonly offset: number },
    to: { readonly file: OpenFile; readonly offset: number },
    length: number,
  ): number {
    this.refuseIfReadOnly();
    const buffer = new Uint8Array(Math.min(length, COPY_BYTES));
    let done = 0;
    while (done < length) {
      const part = buffer.subarray(0, Math.min(buffer.length, length - done));
      const count = this.port.read(from.file.file, part, from.offset + done);
      if (count === 0) break;
      this.port.write(to.file.file, part.subarray(0, count), to.offset + done);
      done += count;
    }
    return done;
  }

  #lookup(parent: FolderNode, name: string): Found {
    const found = this.tree.lookup(parent, name);
    if (!found) throw new FolderError(Errno.ENOENT);
    return found;
  }

  #made(parent: FolderNode, name: string, creator: Owner): Found {
    return this.#own(this.#lookup(parent, name), parent, creator);
  }

  /** As root we made it; it belongs to whoever asked. In a directory with the group's bit the group stays. */
  #own(found: Found, parent: FolderNode, { uid, gid }: Owner): Found {
    if (!this.#owners.isPrivileged || (uid === 0 && gid === 0)) return found;
    const keepsGroup = (Number(this.tree.attributes(parent).mode) & SET_GROUP) !== 0;
    const { node } = found;
    this.tree.setOwner(node, uid, keepsGroup ? undefined : gid);
    const mode = Number(found.attributes.mode) & PERMISSIONS;
    const isLink = modeType(found.attributes) === FileType.SYMBOLIC_LINK;
    // A change of owner takes these bits away.
    if (!isLink && (mode & 0o6000) !== 0) this.tree.setMode(node, mode);
    return { node, attributes: this.tree.attributes(node) };
  }

  #hostOwner(uid: number | undefined, gid: number | undefined) {
    return {
      hostUid: uid === undefined ? undefined : this.#owners.hostUid(uid),
      hostGid: gid === undefined ? undefined : this.#owners.hostGid(gid),
    };
  }
}

function modeType({ mode }: FileAttributes): number {
  return Number(mode) & FileType.MASK;
}

function accessOf(flags: number): { read: boolean; write: boolean } {
  const access = flags & OpenFlag.ACCESS;
  return {
    read: access !== OpenFlag.WRITE_ONLY,
    write: access === OpenFlag.WRITE_ONLY || access === OpenFlag.READ_WRITE,
  };
}
