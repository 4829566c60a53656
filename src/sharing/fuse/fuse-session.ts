/**
 * FUSE over a shared folder: what virtio-fs carries.
 * Source: Linux, include/uapi/linux/fuse.h and fs/fuse; virtio 1.2, "File System Device".
 *
 * Changes on this side are seen when what the guest was told runs out (fuse-reply.ts): its kernel asks again, and drops cached pages of a file whose
 * time or size is another. Writes come at once; a cache for them would have the guest believe its own sizes and times for ever.
 * Files and nodes are the guest's to give back, and INIT takes them all.
 * Not here: extended attributes, which Node has no calls for; locks, which the guest's kernel keeps among its own processes;
 * holes. Their requests answer ENOSYS, and Linux does not ask again.
 */
import { HypolithError } from "../../base/errors.ts";
import { Errno, errnoOf, FolderError } from "../errno.ts";
import type { FolderNode } from "../folder-node.ts";
import type { FileAttributes, FolderPort } from "../folder-port.ts";
import type { Found } from "../folder-tree.ts";
import { encodeName, isEntryName } from "../host-name.ts";
import type { ShareSession } from "../share-session.ts";
import { type Changes, SharedFolder, type SharedFolderOptions } from "../shared-folder.ts";
import {
  attributesReply,
  bytesReply,
  entryReply,
  errorReply,
  FuseReply,
  ListReply,
  openReply,
  putOpen,
  sealed,
  spaceReply,
  writeReply,
} from "./fuse-reply.ts";
import { FuseRequest } from "./fuse-request.ts";
import {
  ENTRY_BYTES,
  FOPEN_KEEP_CACHE,
  FUSE_FSYNC_DATA,
  FUSE_GETATTR_FH,
  FUSE_MAJOR,
  FUSE_MINOR,
  FUSE_OLDEST_MINOR,
  FuseFlag,
  FuseOp,
  OUT_HEADER_BYTES,
  SetAttr,
} from "./fuse-wire.ts";

/** Of one request's data: 256 pages, the most that Linux asks for by itself. */
export const MAX_DATA_BYTES = 1 << 20;
const MAX_PAGES = 256;
const MAX_BACKGROUND = 64;
const MAX_COPY_BYTES = 8 << 20;
const MAX_OPEN_DIRECTORIES = 4096;
const NS = 1_000_000_000n;
const TICK_MS = 20;

interface OpenDirectory {
  readonly node: FolderNode;
  /** What was there when it was read from the beginning. */
  names: readonly string[];
}

type Handler = (request: FuseRequest) => FuseReply | Uint8Array;

const NOTHING = new Uint8Array(0);

export class FuseSession implements ShareSession {
  readonly #folder: SharedFolder;
  readonly #directories = new Map<number, OpenDirectory>();
  #nextDirectory = 1;
  /** What reads are answered from. */
  readonly #data = new Uint8Array(OUT_HEADER_BYTES + MAX_DATA_BYTES);
  readonly #handlers: Readonly<Record<number, Handler>>;

  constructor(port: FolderPort, options: SharedFolderOptions) {
    this.#folder = new SharedFolder(port, options);
    this.#handlers = { ...this.#ofNodes(), ...this.#ofNames(), ...this.#ofFiles() };
  }

  handle(bytes: Uint8Array, room: number): Uint8Array {
    let unique = 0n;
    try {
      const request = new FuseRequest(bytes);
      unique = request.unique;
      const { opcode } = request;
      if (opcode === FuseOp.FORGET || opcode === FuseOp.BATCH_FORGET) return this.#forget(request);
      if (opcode === FuseOp.INTERRUPT) return NOTHING;
      const handler = this.#handlers[opcode];
      if (!handler) throw new FolderError(Errno.ENOSYS);
      const reply = handler(request);
      const answer = reply instanceof FuseReply ? sealed(reply, unique) : reply;
      if (answer.length > room) throw new FolderError(Errno.EINVAL);
      return answer;
    } catch (error) {
      return room >= OUT_HEADER_BYTES ? errorReply(unique, errnoOf(error)) : NOTHING;
    }
  }

  close(): void {
    this.#folder.tree.clear();
    this.#directories.clear();
  }

  save(): unknown {
    return {
      tree: this.#folder.tree.save(),
      nextDirectory: this.#nextDirectory,
      directories: [...this.#directories].map(([open, { node, names }]) => ({
        ...{ open, node: node.id, names },
      })),
    };
  }

  restore(state: unknown): void {
    const { tree, nextDirectory, directories } = checkedSession(state);
    this.#directories.clear();
    this.#folder.tree.restore(tree);
    for (const { open, node, names } of directories)
      this.#directories.set(open, { node: this.#folder.tree.node(node), names });
    this.#nextDirectory = nextDirectory;
  }

  /** What the guest holds, for tests. */
  get counts() {
    return { ...this.#folder.tree.counts, lists: this.#directories.size };
  }

  // ---- the session and its nodes ----

  #ofNodes(): Record<number, Handler> {
    const { tree } = this.#folder;
    return {
      [FuseOp.INIT]: (request) => this.#init(request),
      [FuseOp.DESTROY]: () => {
        this.close();
        return new FuseReply(0);
      },
      [FuseOp.GETATTR]: (request) => {
        const [flags, , open] = [request.u32(), request.u32(), request.u64()];
        const file = (flags & FUSE_GETATTR_FH) !== 0 ? tree.file(open) : undefined;
        return this.#attributes(tree.attributes(tree.node(request.node), file));
      },
      [FuseOp.SETATTR]: (request) => this.#setAttributes(request),
      [FuseOp.READLINK]: (request) =>
        bytesReply(encodeName(tree.port.readLink(tree.place(tree.node(request.node))))),
      [FuseOp.STATFS]: () => spaceReply(tree.port.space()),
      [FuseOp.OPENDIR]: (request) => {
        const node = tree.node(request.node);
        if (!node.isDirectory) throw new FolderError(Errno.ENOTDIR);
        if (this.#directories.size >= MAX_OPEN_DIRECTORIES) throw new FolderError(Errno.ENFILE);
        const open = this.#nextDirectory++;
        this.#directories.set(open, { node, names: [] });
        return openReply(open, 0);
      },
      [FuseOp.READDIR]: (request) => this.#list(request, false),
      [FuseOp.READDIRPLUS]: (request) => this.#list(request, true),
      [FuseOp.RELEASEDIR]: (request) => {
        if (!this.#directories.delete(request.u64())) throw new FolderError(Errno.EBADF);
        return new FuseReply(0);
      },
      [FuseOp.FSYNCDIR]: (request) => {
        tree.port.syncDirectory(tree.directory(tree.node(request.node)));
        return new FuseReply(0);
      },
    };
  }

  #init(request: FuseRequest): FuseReply {
    const [major, minor, readAhead, offered] = [0, 0, 0, 0].map(() => request.u32());
    if (major < FUSE_MAJOR || (major === FUSE_MAJOR && minor < FUSE_OLDEST_MINOR))
      throw new FolderError(Errno.EPROTO);
    const reply = new FuseReply(64);
    const set = (at: number, value: number): void =>
      reply.view.setUint32(OUT_HEADER_BYTES + at, value, true);
    set(0, FUSE_MAJOR);
    set(4, FUSE_MINOR);
    // One that is newer than we are asks once more, with our version.
    if (major > FUSE_MAJOR) return reply;
    this.close();
    const wanted = Object.values(FuseFlag).reduce((all, flag) => all | flag, 0);
    set(8, readAhead);
    set(12, offered & wanted);
    set(16, MAX_BACKGROUND | (((MAX_BACKGROUND * 3) / 4) << 16));
    set(20, MAX_DATA_BYTES);
    set(24, 1);
    set(28, MAX_PAGES);
    return reply;
  }

  #forget(request: FuseRequest): Uint8Array {
    const { tree } = this.#folder;
    if (request.opcode === FuseOp.FORGET) {
      tree.forget(request.node, request.u64());
      return NOTHING;
    }
    const count = request.u32();
    request.skip(4);
    for (let i = 0; i < count; i++) tree.forget(request.u64(), request.u64());
    return NOTHING;
  }

  #attributes(attributes: FileAttributes): FuseReply {
    return attributesReply(this.#folder.seen(attributes));
  }

  #entry({ node, attributes }: Found): FuseReply {
    return entryReply(node.id, this.#folder.seen(attributes));
  }

  #setAttributes(request: FuseRequest): FuseReply {
    const valid = request.u32();
    request.skip(4);
    const [open, size, , atime, mtime] = [
      ...[request.u64(), request.u64(), request.skip(8)],
      ...[request.i64(), request.i64(), request.i64()],
    ] as [number, number, unknown, bigint, bigint];
    const [atimeNs, mtimeNs, , mode] = [0, 0, 0, 0].map(() => request.u32());
    request.skip(4);
    const [uid, gid] = [request.u32(), request.u32()];
    const has = (bit: number): boolean => (valid & bit) !== 0;
    const changes: Changes = {
      ...(has(SetAttr.MODE) && { mode }),
      ...(has(SetAttr.UID) && { uid }),
      ...(has(SetAttr.GID) && { gid }),
      ...(has(SetAttr.SIZE) && { size }),
      ...(has(SetAttr.ATIME) && { atimeNs: atime * NS + BigInt(atimeNs) }),
      ...(has(SetAttr.MTIME) && { mtimeNs: mtime * NS + BigInt(mtimeNs) }),
      ...(has(SetAttr.ATIME_NOW) && { atimeNs: "now" as const }),
      ...(has(SetAttr.MTIME_NOW) && { mtimeNs: "now" as const }),
    };
    const { tree } = this.#folder;
    const file = has(SetAttr.FH) ? tree.file(open) : undefined;
    return this.#attributes(this.#folder.change(tree.node(request.node), changes, file));
  }

  #list(request: FuseRequest, isPlus: boolean): FuseReply | Uint8Array {
    const [open, offset, size] = [request.u64(), request.u64(), request.u32()];
    const directory = this.#directories.get(open);
    if (!directory) throw new FolderError(Errno.EBADF);
    if (size > MAX_DATA_BYTES) throw new FolderError(Errno.EINVAL);
    const { tree } = this.#folder;
    if (offset === 0) directory.names = tree.port.list(tree.directory(directory.node));
    const list = new ListReply(size, isPlus);
    for (let i = offset; i < directory.names.length + DOTS.length; i++) {
      const name = DOTS[i] ?? directory.names[i - DOTS.length];
      const bytes = encodeName(name);
      if (!list.fits(bytes.length)) break;
      this.#listOne(list, directory.node, { name, bytes, next: i + 1, isPlus });
    }
    return sealed(list.reply, request.unique, list.length);
  }

  /** One that has gone meanwhile is left out. */
  #listOne(
    list: ListReply,
    parent: FolderNode,
    entry: { name: string; bytes: Uint8Array; next: number; isPlus: boolean },
  ): void {
    const { tree } = this.#folder;
    const { name, bytes, next, isPlus } = entry;
    const isDots = next <= DOTS.length;
    const found = isPlus && !isDots ? tree.lookup(parent, name) : undefined;
    const attributes = found?.attributes ?? this.#listed(parent, name, isDots);
    if (!attributes) return;
    const ino = this.#folder.inode(attributes);
    const listed = { ino, name: bytes, mode: Number(attributes.mode), next };
    list.add(listed, found?.node.id, found && this.#folder.seen(attributes));
  }

  #listed(parent: FolderNode, name: string, isDots: boolean): FileAttributes | undefined {
    const { tree } = this.#folder;
    if (!isDots) return tree.port.stat(tree.entry(parent, name));
    // Above the folder there is nothing.
    const node = name === ".." ? (parent.at?.parent ?? parent) : parent;
    return tree.attributes(node);
  }

  // ---- names ----

  #ofNames(): Record<number, Handler> {
    const folder = this.#folder;
    const { tree } = folder;
    const parentOf = (request: FuseRequest): FolderNode => tree.node(request.node);
    return {
      [FuseOp.LOOKUP]: (request) => {
        const found = tree.lookup(parentOf(request), request.name());
        return found ? this.#entry(found) : entryReply(0);
      },
      [FuseOp.SYMLINK]: (request) => {
        const [name, target] = [request.name(), request.name()];
        return this.#entry(folder.makeSymbolicLink(parentOf(request), name, target, request));
      },
      [FuseOp.MKNOD]: (request) => {
        const mode = request.u32();
        request.skip(12);
        return this.#entry(folder.makeNode(parentOf(request), request.name(), mode, request));
      },
      [FuseOp.MKDIR]: (request) => {
        const mode = request.u32();
        request.skip(4);
        return this.#entry(folder.makeDirectory(parentOf(request), request.name(), mode, request));
      },
      [FuseOp.UNLINK]: (request) => {
        folder.unlink(parentOf(request), request.name());
        return new FuseReply(0);
      },
      [FuseOp.RMDIR]: (request) => {
        folder.removeDirectory(parentOf(request), request.name());
        return new FuseReply(0);
      },
      [FuseOp.RENAME]: (request) => this.#rename(request, request.u64(), 0),
      [FuseOp.RENAME2]: (request) => {
        const [parent, flags] = [request.u64(), request.u32()];
        request.skip(4);
        return this.#rename(request, parent, flags);
      },
      [FuseOp.LINK]: (request) => {
        const node = tree.node(request.u64());
        return this.#entry(folder.link(node, parentOf(request), request.name()));
      },
      [FuseOp.CREATE]: (request) => {
        const [flags, mode] = [request.u32(), request.u32()];
        request.skip(8);
        const how = { flags, mode, creator: request };
        const { found, open } = folder.create(parentOf(request), request.name(), how);
        const { node, attributes } = found;
        const reply = entryReply(node.id, folder.seen(attributes), 16);
        putOpen(reply.view, OUT_HEADER_BYTES + ENTRY_BYTES, open, this.#cacheFlag(open));
        return reply;
      },
    };
  }

  #rename(request: FuseRequest, parent: number, flags: number): FuseReply {
    const { tree } = this.#folder;
    const [name, newName] = [request.name(), request.name()];
    const to = { parent: tree.node(parent), name: newName };
    this.#folder.rename(tree.node(request.node), name, to, flags);
    return new FuseReply(0);
  }

  // ---- files ----

  #ofFiles(): Record<number, Handler> {
    const folder = this.#folder;
    const { tree } = folder;
    return {
      [FuseOp.OPEN]: (request) => {
        const open = folder.open(tree.node(request.node), request.u32());
        return openReply(open, this.#cacheFlag(open));
      },
      [FuseOp.RELEASE]: (request) => {
        tree.close(request.u64());
        return new FuseReply(0);
      },
      [FuseOp.READ]: (request) => {
        const [open, offset, size] = [request.u64(), request.u64(), request.u32()];
        if (size > MAX_DATA_BYTES) throw new FolderError(Errno.EINVAL);
        const reply = new FuseReply(size, this.#data);
        const count = tree.port.read(tree.file(open).file, reply.body, offset);
        return sealed(reply, request.unique, OUT_HEADER_BYTES + count);
      },
      [FuseOp.WRITE]: (request) => {
        folder.refuseIfReadOnly();
        const [open, offset, size] = [request.u64(), request.u64(), request.u32()];
        request.skip(20);
        tree.port.write(tree.file(open).file, request.data(size), offset);
        return writeReply(size);
      },
      [FuseOp.FSYNC]: (request) => {
        const [open, flags] = [request.u64(), request.u32()];
        tree.port.sync(tree.file(open).file, (flags & FUSE_FSYNC_DATA) !== 0);
        return new FuseReply(0);
      },
      [FuseOp.COPY_FILE_RANGE]: (request) => this.#copy(request),
    };
  }

  #copy(request: FuseRequest): FuseReply {
    const [from, fromOffset, , to, toOffset, length] = [0, 0, 0, 0, 0, 0].map(() => request.u64());
    const { tree } = this.#folder;
    const copied = this.#folder.copy(
      { file: tree.file(from), offset: fromOffset },
      { file: tree.file(to), offset: toOffset },
      Math.min(length, MAX_COPY_BYTES),
    );
    return writeReply(copied);
  }

  /** What the guest has of a file is good if the file is as it was when the guest opened it last. */
  #cacheFlag(open: number): number {
    const { tree } = this.#folder;
    const { node, file } = tree.file(open);
    const { mtimeNs, size } = tree.port.statFile(file);
    const isSame = node.toldMtimeNs === mtimeNs && node.toldSize === size;
    // Of two changes in one tick of the system's clock the second does not show.
    const isSettled = this.#folder.now() - Number(mtimeNs / 1_000_000n) > TICK_MS;
    node.toldMtimeNs = mtimeNs;
    node.toldSize = size;
    return isSame && isSettled ? FOPEN_KEEP_CACHE : 0;
  }
}

interface SavedSession {
  readonly tree: unknown;
  readonly nextDirectory: number;
  readonly directories: readonly { open: number; node: number; names: string[] }[];
}

function checkedSession(state: unknown): SavedSession {
  const { tree, nextDirectory, directories } = (state ?? {}) as Partial<SavedSession>;
  const isFit =
    Number.isSafeInteger(nextDirectory) &&
    Array.isArray(directories) &&
    directories.every(
      ({ open, node, names }) =>
        Number.isSafeInteger(open) &&
        Number.isSafeInteger(node) &&
        Array.isArray(names) &&
        names.every((name) => isEntryName(name)),
    );
  if (!isFit) throw new HypolithError("snapshot-shape", "a saved FUSE session does not fit");
  return { tree, nextDirectory: nextDirectory!, directories };
}

const DOTS: readonly string[] = [".", ".."];
