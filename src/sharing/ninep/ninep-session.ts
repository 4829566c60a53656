/**
 * 9P2000.L over a shared folder: for guests whose kernels have no virtio-fs.
 * Source: Linux, net/9p and fs/9p; diod, "9P2000.L Protocol".
 *
 * A fid is the guest's number for a node, open or not; VERSION takes them all back. Locks are granted: the guest's kernel has looked
 * among its own processes before, and nobody else is asked.
 * Not here: authentication, since there is one guest; extended attributes.
 */
import { HypolithError } from "../../base/errors.ts";
import { Errno, errnoOf, FolderError } from "../errno.ts";
import { FileType, type FolderNode } from "../folder-node.ts";
import type { FileAttributes, FolderPort } from "../folder-port.ts";
import { encodeName, isEntryName } from "../host-name.ts";
import type { ShareSession } from "../share-session.ts";
import { type Changes, SharedFolder, type SharedFolderOptions } from "../shared-folder.ts";
import { NinepReply, NinepRequest, ninepError } from "./ninep-message.ts";
import {
  AT_REMOVEDIR,
  F_UNLCK,
  GETATTR_BASIC,
  MAX_WALK,
  NINEP_HEADER_BYTES,
  NINEP_VERSION,
  NinepSetAttr,
  NinepType,
  QID_BYTES,
  QidType,
} from "./ninep-wire.ts";

const MAX_MESSAGE_BYTES = 1 << 20;
const MIN_MESSAGE_BYTES = 4096;
const ERROR_BYTES = NINEP_HEADER_BYTES + 4;
const MAX_FIDS = 65_536;
const NS = 1_000_000_000n;
/** V9FS_MAGIC */
const FILE_SYSTEM = 0x0102_1997;
const NOTHING = new Uint8Array(0);

interface Fid {
  node: FolderNode;
  /** Who attached: what is made by it belongs to. */
  readonly uid: number;
  /** of an open file */
  open: number | undefined;
  /** of an open directory, as it was when it was read from the beginning */
  names: readonly string[] | undefined;
}

type Handler = (request: NinepRequest, reply: NinepReply) => void;

export class NinepSession implements ShareSession {
  readonly #folder: SharedFolder;
  readonly #fids = new Map<number, Fid>();
  readonly #handlers: Readonly<Record<number, Handler>>;
  /** What replies are written to. */
  readonly #memory = new Uint8Array(MAX_MESSAGE_BYTES);
  #messageBytes = MIN_MESSAGE_BYTES;

  constructor(port: FolderPort, options: SharedFolderOptions) {
    this.#folder = new SharedFolder(port, options);
    this.#handlers = {
      ...this.#ofSession(),
      ...this.#ofAttributes(),
      ...this.#ofNames(),
      ...this.#ofFiles(),
    };
  }

  handle(bytes: Uint8Array, room: number): Uint8Array {
    if (room < ERROR_BYTES) return NOTHING;
    const memory = this.#memory.subarray(0, Math.min(room, this.#messageBytes));
    let tag = 0xffff;
    try {
      const request = new NinepRequest(bytes);
      tag = request.tag;
      const handler = this.#handlers[request.type];
      if (!handler) throw new FolderError(Errno.EOPNOTSUPP);
      const reply = new NinepReply(memory);
      handler(request, reply);
      return reply.sealed(request.type + 1, tag);
    } catch (error) {
      return ninepError(memory, tag, errnoOf(error));
    }
  }

  close(): void {
    this.#fids.clear();
    this.#folder.tree.clear();
  }

  save(): unknown {
    return {
      tree: this.#folder.tree.save(),
      messageBytes: this.#messageBytes,
      fids: [...this.#fids].map(([fid, { node, uid, open, names }]) => ({
        ...{ fid, node: node.id, uid, open: open ?? null, names: names ? [...names] : null },
      })),
    };
  }

  restore(state: unknown): void {
    const { tree, messageBytes, fids } = checkedSession(state);
    this.#fids.clear();
    this.#folder.tree.restore(tree);
    this.#messageBytes = messageBytes;
    for (const { fid, node, uid, open, names } of fids) {
      const found = this.#folder.tree.node(node);
      this.#fids.set(fid, { node: found, uid, open: open ?? undefined, names: names ?? undefined });
    }
  }

  get counts() {
    return { ...this.#folder.tree.counts, fids: this.#fids.size };
  }

  // ---- the session ----

  #ofSession(): Record<number, Handler> {
    const { tree } = this.#folder;
    return {
      [NinepType.VERSION]: (request, reply) => {
        const wanted = request.u32();
        const version = request.text();
        if (wanted < MIN_MESSAGE_BYTES) throw new FolderError(Errno.EINVAL);
        this.close();
        this.#messageBytes = Math.min(wanted, MAX_MESSAGE_BYTES);
        const known = version === NINEP_VERSION ? NINEP_VERSION : "unknown";
        reply.u32(this.#messageBytes).text(known);
      },
      [NinepType.ATTACH]: (request, reply) => {
        const fid = request.u32();
        request.u32();
        request.text();
        request.text();
        tree.root.references++;
        this.#add(fid, { node: tree.root, uid: request.u32(), open: undefined, names: undefined });
        this.#qid(reply, tree.attributes(tree.root));
      },
      [NinepType.FLUSH]: () => {},
      [NinepType.WALK]: (request, reply) => this.#walk(request, reply),
      [NinepType.CLUNK]: (request) => this.#clunk(request.u32()),
      [NinepType.REMOVE]: (request) => {
        const fid = request.u32();
        const { node } = this.#fid(fid);
        const { at, isDirectory } = node;
        try {
          if (!at) throw new FolderError(Errno.EINVAL);
          if (isDirectory) this.#folder.removeDirectory(at.parent, at.name);
          else this.#folder.unlink(at.parent, at.name);
        } finally {
          this.#clunk(fid);
        }
      },
    };
  }

  #fid(number: number): Fid {
    const fid = this.#fids.get(number);
    if (!fid) throw new FolderError(Errno.EBADF);
    return fid;
  }

  /** The node's reference is the fid's from here on. */
  #add(number: number, fid: Fid): void {
    if (this.#fids.has(number) || this.#fids.size >= MAX_FIDS) {
      this.#folder.tree.forget(fid.node.id, 1);
      throw new FolderError(this.#fids.has(number) ? Errno.EEXIST : Errno.ENFILE);
    }
    this.#fids.set(number, fid);
  }

  #clunk(number: number): void {
    const { node, open } = this.#fid(number);
    this.#fids.delete(number);
    const { tree } = this.#folder;
    if (open !== undefined && tree.isOpen(open)) tree.close(open);
    tree.forget(node.id, 1);
  }

  /** The first name that is not there is an error; a later one ends the walk, and the new fid is none then. */
  #walk(request: NinepRequest, reply: NinepReply): void {
    const { tree } = this.#folder;
    const [from, to, count] = [request.u32(), request.u32(), request.u16()];
    if (count > MAX_WALK) throw new FolderError(Errno.EINVAL);
    const names = Array.from({ length: count }, () => request.text());
    const { node: start, uid } = this.#fid(from);
    const place = reply.space(2);
    let node = start;
    node.references++;
    let done = 0;
    try {
      for (; done < count; done++) {
        const next = this.#step(node, names[done]);
        tree.forget(node.id, 1);
        node = next.node;
        this.#qid(reply, next.attributes);
      }
    } catch (error) {
      tree.forget(node.id, 1);
      if (done === 0) throw error;
    }
    place[0] = done;
    place[1] = 0;
    if (done < count) return;
    if (from === to) this.#clunk(from);
    this.#add(to, { node, uid, open: undefined, names: undefined });
  }

  #step(node: FolderNode, name: string): { node: FolderNode; attributes: FileAttributes } {
    const { tree } = this.#folder;
    if (name !== "..") {
      const found = tree.lookup(node, name);
      if (!found) throw new FolderError(Errno.ENOENT);
      return found;
    }
    // Above the folder there is nothing.
    const above = node.at?.parent ?? tree.root;
    const attributes = tree.attributes(above);
    above.references++;
    return { node: above, attributes };
  }

  // ---- attributes ----

  #ofAttributes(): Record<number, Handler> {
    const { tree } = this.#folder;
    return {
      [NinepType.STATFS]: (_, reply) => {
        const { blockBytes, blocks, free, available, files, freeFiles } = tree.port.space();
        reply.u32(FILE_SYSTEM).u32(blockBytes);
        for (const count of [blocks, free, available, files, freeFiles, 0]) reply.u64(count);
        reply.u32(255);
      },
      [NinepType.GETATTR]: (request, reply) => {
        const attributes = tree.attributes(this.#fid(request.u32()).node);
        const { mode, uid, gid, ...seen } = this.#folder.seen(attributes);
        reply.u64(GETATTR_BASIC);
        this.#qid(reply, attributes);
        reply.u32(mode).u32(uid).u32(gid);
        for (const value of [seen.nlink, seen.rdev, seen.size, seen.blksize, seen.blocks])
          reply.u64(value);
        for (const time of [seen.atimeNs, seen.mtimeNs, seen.ctimeNs, 0n]) {
          const ns = ((time % NS) + NS) % NS;
          reply.u64((time - ns) / NS).u64(ns);
        }
        reply.u64(0).u64(0);
      },
      [NinepType.SETATTR]: (request) => {
        const { node, open } = this.#fid(request.u32());
        const file = open !== undefined && tree.isOpen(open) ? tree.file(open) : undefined;
        this.#folder.change(node, changesOf(request), file);
      },
      [NinepType.READLINK]: (request, reply) => {
        const place = tree.place(this.#fid(request.u32()).node);
        reply.text(tree.port.readLink(place));
      },
    };
  }

  #qid(reply: NinepReply, attributes: FileAttributes): void {
    const type = Number(attributes.mode) & FileType.MASK;
    const { DIRECTORY, SYMBOLIC_LINK, FILE } = QidType;
    const isLink = type === FileType.SYMBOLIC_LINK;
    reply.u8(type === FileType.DIRECTORY ? DIRECTORY : isLink ? SYMBOLIC_LINK : FILE);
    // Changes with the content.
    reply.u32(Number(BigInt.asUintN(32, attributes.mtimeNs ^ attributes.size)));
    reply.u64(this.#folder.inode(attributes));
  }

  // ---- names ----

  #ofNames(): Record<number, Handler> {
    const folder = this.#folder;
    const { tree } = folder;
    return {
      [NinepType.SYMLINK]: (request, reply) => {
        const { node, uid } = this.#fid(request.u32());
        const [name, target] = [request.text(), request.text()];
        const creator = { uid, gid: request.u32() };
        this.#made(reply, folder.makeSymbolicLink(node, name, target, creator));
      },
      [NinepType.MKNOD]: (request, reply) => {
        const { node, uid } = this.#fid(request.u32());
        const [name, mode] = [request.text(), request.u32()];
        request.u64();
        this.#made(reply, folder.makeNode(node, name, mode, { uid, gid: request.u32() }));
      },
      [NinepType.MKDIR]: (request, reply) => {
        const { node, uid } = this.#fid(request.u32());
        const [name, mode] = [request.text(), request.u32()];
        this.#made(reply, folder.makeDirectory(node, name, mode, { uid, gid: request.u32() }));
      },
      [NinepType.LINK]: (request) => {
        const [directory, { node }] = [this.#fid(request.u32()), this.#fid(request.u32())];
        folder.link(node, directory.node, request.text());
        tree.forget(node.id, 1);
      },
      [NinepType.UNLINKAT]: (request) => {
        const { node } = this.#fid(request.u32());
        const name = request.text();
        if ((request.u32() & AT_REMOVEDIR) !== 0) folder.removeDirectory(node, name);
        else folder.unlink(node, name);
      },
      [NinepType.RENAMEAT]: (request) => {
        const [from, name] = [this.#fid(request.u32()).node, request.text()];
        const to = { parent: this.#fid(request.u32()).node, name: request.text() };
        folder.rename(from, name, to);
      },
      [NinepType.RENAME]: (request) => {
        const { at } = this.#fid(request.u32()).node;
        const to = { parent: this.#fid(request.u32()).node, name: request.text() };
        if (!at) throw new FolderError(Errno.EINVAL);
        folder.rename(at.parent, at.name, to);
      },
    };
  }

  /** The guest walks to what it has made; the reference is not its. */
  #made(reply: NinepReply, found: { node: FolderNode; attributes: FileAttributes }): void {
    this.#qid(reply, found.attributes);
    this.#folder.tree.forget(found.node.id, 1);
  }

  // ---- files ----

  #ofFiles(): Record<number, Handler> {
    const folder = this.#folder;
    const { tree } = folder;
    return {
      [NinepType.LOPEN]: (request, reply) => {
        const fid = this.#fid(request.u32());
        if (fid.open !== undefined || fid.names) throw new FolderError(Errno.EINVAL);
        if (fid.node.isDirectory) fid.names = [];
        else fid.open = folder.open(fid.node, request.u32());
        this.#qid(reply, tree.attributes(fid.node));
        reply.u32(0);
      },
      [NinepType.LCREATE]: (request, reply) => {
        const fid = this.#fid(request.u32());
        if (fid.open !== undefined || fid.names) throw new FolderError(Errno.EINVAL);
        const [name, flags, mode] = [request.text(), request.u32(), request.u32()];
        const creator = { uid: fid.uid, gid: request.u32() };
        const { found, open } = folder.create(fid.node, name, { flags, mode, creator });
        tree.forget(fid.node.id, 1);
        Object.assign(fid, { node: found.node, open });
        this.#qid(reply, found.attributes);
        reply.u32(0);
      },
      [NinepType.READ]: (request, reply) => {
        const { open } = this.#fid(request.u32());
        const [offset, wanted] = [request.u64(), request.u32()];
        const at = reply.length;
        reply.u32(0);
        const space = reply.space(Math.min(wanted, reply.room));
        const count = tree.port.read(tree.file(open ?? -1).file, space, offset);
        reply.patch(at, count);
        reply.cut(space.length - count);
      },
      [NinepType.WRITE]: (request, reply) => {
        folder.refuseIfReadOnly();
        const { open } = this.#fid(request.u32());
        const [offset, count] = [request.u64(), request.u32()];
        tree.port.write(tree.file(open ?? -1).file, request.data(count), offset);
        reply.u32(count);
      },
      [NinepType.FSYNC]: (request) => {
        const { node, open } = this.#fid(request.u32());
        if (open !== undefined) tree.port.sync(tree.file(open).file, request.u32() !== 0);
        else if (node.isDirectory) tree.port.syncDirectory(tree.directory(node));
      },
      [NinepType.READDIR]: (request, reply) => this.#list(request, reply),
      [NinepType.LOCK]: (request, reply) => {
        this.#fid(request.u32());
        reply.u8(0);
      },
      [NinepType.GETLOCK]: (request, reply) => {
        this.#fid(request.u32());
        request.u8();
        reply.u8(F_UNLCK).u64(request.u64()).u64(request.u64());
        reply.u32(request.u32()).text(request.text());
      },
    };
  }

  #list(request: NinepRequest, reply: NinepReply): void {
    const fid = this.#fid(request.u32());
    const [offset, wanted] = [request.u64(), request.u32()];
    if (!fid.names) throw new FolderError(Errno.EBADF);
    const { tree } = this.#folder;
    if (offset === 0) fid.names = tree.port.list(tree.directory(fid.node));
    const at = reply.length;
    reply.u32(0);
    const end = reply.length + Math.min(wanted, reply.room);
    for (let i = offset; i < fid.names.length + DOTS.length; i++) {
      const name = DOTS[i] ?? fid.names[i - DOTS.length];
      const bytes = encodeName(name);
      if (reply.length + QID_BYTES + ENTRY_BYTES + bytes.length > end) break;
      const attributes = this.#listed(fid.node, name);
      if (!attributes) continue;
      this.#qid(reply, attributes);
      reply
        .u64(i + 1)
        .u8(Number(attributes.mode) >> 12)
        .text(bytes);
    }
    reply.patch(at, reply.length - at - 4);
  }

  #listed(node: FolderNode, name: string): FileAttributes | undefined {
    const { tree } = this.#folder;
    if (name === ".") return tree.attributes(node);
    if (name === "..") return tree.attributes(node.at?.parent ?? node);
    return tree.port.stat(tree.entry(node, name));
  }
}

const DOTS: readonly string[] = [".", ".."];
/** offset, type, length of the name */
const ENTRY_BYTES = 8 + 1 + 2;

function changesOf(request: NinepRequest): Changes {
  const [valid, mode, uid, gid] = [request.u32(), request.u32(), request.u32(), request.u32()];
  const size = request.u64();
  const times = [0, 0].map(() => request.i64() * NS + request.i64());
  const has = (bit: number): boolean => (valid & bit) !== 0;
  const time = (is: number, isSet: number, value: bigint) =>
    has(is) ? (has(isSet) ? value : ("now" as const)) : undefined;
  const atimeNs = time(NinepSetAttr.ATIME, NinepSetAttr.ATIME_SET, times[0]);
  const mtimeNs = time(NinepSetAttr.MTIME, NinepSetAttr.MTIME_SET, times[1]);
  return {
    ...(has(NinepSetAttr.MODE) && { mode }),
    ...(has(NinepSetAttr.UID) && { uid }),
    ...(has(NinepSetAttr.GID) && { gid }),
    ...(has(NinepSetAttr.SIZE) && { size }),
    ...(atimeNs !== undefined && { atimeNs }),
    ...(mtimeNs !== undefined && { mtimeNs }),
  };
}

interface SavedFid {
  readonly fid: number;
  readonly node: number;
  readonly uid: number;
  readonly open: number | null;
  readonly names: string[] | null;
}

interface SavedSession {
  readonly tree: unknown;
  readonly messageBytes: number;
  readonly fids: readonly SavedFid[];
}

function checkedSession(state: unknown): SavedSession {
  const { tree, messageBytes, fids } = (state ?? {}) as Partial<SavedSession>;
  const isFit =
    Number.isSafeInteger(messageBytes) &&
    messageBytes! >= MIN_MESSAGE_BYTES &&
    messageBytes! <= MAX_MESSAGE_BYTES &&
    Array.isArray(fids) &&
    fids.every(
      ({ fid, node, uid, open, names }: Partial<SavedFid>) =>
        [fid, node, uid, open ?? 0].every((value) => Number.isSafeInteger(value)) &&
        (names === null || (Array.isArray(names) && names.every((name) => isEntryName(name)))),
    );
  if (!isFit) throw new HypolithError("snapshot-shape", "a saved 9P session does not fit");
  return { tree, messageBytes: messageBytes!, fids };
}
