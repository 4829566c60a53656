/** What FUSE requests are answered by. Source: Linux, include/uapi/linux/fuse.h; offsets are those of its structures. */
import { Errno, FolderError } from "../errno.ts";
import type { FolderSpace } from "../folder-port.ts";
import type { GuestAttributes } from "../guest-attributes.ts";
import { ATTR_BYTES, DIRENT_BYTES, ENTRY_BYTES, OUT_HEADER_BYTES } from "./fuse-wire.ts";

/** How long a guest may believe what it was told, in nanoseconds. */
export const ENTRY_VALID_NS = 1_000_000_000;
export const ATTRIBUTES_VALID_NS = 1_000_000_000;
/** That there is nothing: shorter, since something that appears is often waited for. */
export const ABSENCE_VALID_NS = 250_000_000;

const NS = 1_000_000_000;

import { MAX_NAME_BYTES } from "../host-name.ts";

/** A reply of header and body, to be filled. */
export class FuseReply {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  /** `memory`: to be used again, whatever is in it. */
  constructor(bodyBytes: number, memory?: Uint8Array) {
    const length = OUT_HEADER_BYTES + bodyBytes;
    this.bytes = memory ? memory.subarray(0, length) : new Uint8Array(length);
    this.view = new DataView(this.bytes.buffer);
  }

  get body(): Uint8Array {
    return this.bytes.subarray(OUT_HEADER_BYTES);
  }
}

/** Writes the header; answers the reply cut to `length` bytes. */
export function sealed(reply: FuseReply, unique: bigint, length = reply.bytes.length): Uint8Array {
  reply.view.setUint32(0, length, true);
  reply.view.setBigUint64(8, unique, true);
  return length === reply.bytes.length ? reply.bytes : reply.bytes.subarray(0, length);
}

export function errorReply(unique: bigint, errno: number): Uint8Array {
  const reply = new FuseReply(0);
  reply.view.setInt32(4, -errno, true);
  return sealed(reply, unique);
}

function setWide(view: DataView, at: number, value: number): void {
  view.setUint32(at, value, true);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

/** struct fuse_attr */
function putAttributes(view: DataView, at: number, attributes: GuestAttributes): void {
  const { ino, size, blocks, atimeNs, mtimeNs, ctimeNs } = attributes;
  view.setBigUint64(at, ino, true);
  view.setBigUint64(at + 8, size, true);
  view.setBigUint64(at + 16, blocks, true);
  for (const [i, time] of [atimeNs, mtimeNs, ctimeNs].entries()) {
    const ns = ((time % BigInt(NS)) + BigInt(NS)) % BigInt(NS);
    view.setBigInt64(at + 24 + 8 * i, (time - ns) / BigInt(NS), true);
    view.setUint32(at + 48 + 4 * i, Number(ns), true);
  }
  const { mode, nlink, uid, gid, rdev, blksize } = attributes;
  for (const [i, value] of [mode, nlink, uid, gid, rdev, blksize].entries())
    view.setUint32(at + 60 + 4 * i, value, true);
}

/** struct fuse_attr_out */
export function attributesReply(attributes: GuestAttributes): FuseReply {
  const reply = new FuseReply(16 + ATTR_BYTES);
  setWide(reply.view, OUT_HEADER_BYTES, ATTRIBUTES_VALID_NS / NS);
  putAttributes(reply.view, OUT_HEADER_BYTES + 16, attributes);
  return reply;
}

/** struct fuse_entry_out. Node 0: there is no such entry, or it was not looked up. */
export function putEntry(
  view: DataView,
  at: number,
  node: number,
  attributes?: GuestAttributes,
): void {
  const valid = node === 0 ? ABSENCE_VALID_NS : ENTRY_VALID_NS;
  setWide(view, at, node);
  setWide(view, at + 16, Math.floor(valid / NS));
  view.setUint32(at + 32, valid % NS, true);
  if (!attributes) return;
  setWide(view, at + 24, ATTRIBUTES_VALID_NS / NS);
  putAttributes(view, at + 40, attributes);
}

export function entryReply(node: number, attributes?: GuestAttributes, more = 0): FuseReply {
  const reply = new FuseReply(ENTRY_BYTES + more);
  putEntry(reply.view, OUT_HEADER_BYTES, node, attributes);
  return reply;
}

/** struct fuse_open_out, at `at` */
export function putOpen(view: DataView, at: number, open: number, flags: number): void {
  setWide(view, at, open);
  view.setUint32(at + 8, flags, true);
}

export function openReply(open: number, flags: number): FuseReply {
  const reply = new FuseReply(16);
  putOpen(reply.view, OUT_HEADER_BYTES, open, flags);
  return reply;
}

/** struct fuse_write_out */
export function writeReply(size: number): FuseReply {
  const reply = new FuseReply(8);
  reply.view.setUint32(OUT_HEADER_BYTES, size, true);
  return reply;
}

/** struct fuse_statfs_out */
export function spaceReply(space: FolderSpace): FuseReply {
  const reply = new FuseReply(80);
  const { blocks, free, available, files, freeFiles, blockBytes } = space;
  const at = OUT_HEADER_BYTES;
  for (const [i, value] of [blocks, free, available, files, freeFiles].entries())
    setWide(reply.view, at + 8 * i, value);
  reply.view.setUint32(at + 40, blockBytes, true);
  reply.view.setUint32(at + 44, MAX_NAME_BYTES, true);
  reply.view.setUint32(at + 48, blockBytes, true);
  return reply;
}

export function bytesReply(bytes: Uint8Array): FuseReply {
  const reply = new FuseReply(bytes.length);
  reply.body.set(bytes);
  return reply;
}

/** What an entry of a directory says. */
export interface ListedEntry {
  /** as the file system sees it */
  readonly ino: bigint;
  readonly name: Uint8Array;
  /** type and permissions */
  readonly mode: number;
  /** Where to go on behind it. */
  readonly next: number;
}

/** The body of READDIR and READDIRPLUS, filled up to a size. */
export class ListReply {
  readonly reply: FuseReply;
  #at = OUT_HEADER_BYTES;
  readonly #end: number;
  readonly #isPlus: boolean;

  constructor(size: number, isPlus: boolean) {
    this.reply = new FuseReply(size);
    this.#end = this.reply.bytes.length;
    this.#isPlus = isPlus;
  }

  get length(): number {
    return this.#at;
  }

  fits(nameBytes: number): boolean {
    return this.#at + this.#sizeOf(nameBytes) <= this.#end;
  }

  /** With READDIRPLUS, `node` and `attributes` of what was looked up, or 0. */
  add({ ino, name, mode, next }: ListedEntry, node = 0, attributes?: GuestAttributes): void {
    if (!this.fits(name.length)) throw new FolderError(Errno.EINVAL);
    const { view, bytes } = this.reply;
    let at = this.#at;
    if (this.#isPlus) {
      if (node !== 0) putEntry(view, at, node, attributes);
      at += ENTRY_BYTES;
    }
    view.setBigUint64(at, ino, true);
    setWide(view, at + 8, next);
    view.setUint32(at + 16, name.length, true);
    view.setUint32(at + 20, mode >> 12, true);
    bytes.set(name, at + DIRENT_BYTES);
    this.#at += this.#sizeOf(name.length);
  }

  #sizeOf(nameBytes: number): number {
    const entry = (DIRENT_BYTES + nameBytes + 7) & ~7;
    return this.#isPlus ? ENTRY_BYTES + entry : entry;
  }
}
