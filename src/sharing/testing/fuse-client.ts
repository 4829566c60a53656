/** A FUSE client for tests: requests as Linux makes them, replies taken apart. */
import assert from "node:assert/strict";
import { FuseOp, IN_HEADER_BYTES, OUT_HEADER_BYTES } from "../fuse/fuse-wire.ts";
import { encodeName } from "../host-name.ts";
import type { ShareSession } from "../share-session.ts";

const ROOM = (1 << 20) + 4096;

export interface ClientEntry {
  readonly node: number;
  readonly ino: bigint;
  readonly size: number;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
}

/** A reply: its error as a positive number, 0 if there is none, and its body. */
export interface ClientReply {
  readonly errno: number;
  readonly body: Uint8Array;
  readonly view: DataView;
}

/** Words are numbers (u32), bigints (u64), strings (with their zero) or bytes. */
export type Word = number | bigint | string | Uint8Array;

export class FuseClient {
  session: ShareSession;
  uid = 0;
  gid = 0;
  #unique = 0;

  constructor(session: ShareSession) {
    this.session = session;
    assert.equal(this.call(FuseOp.INIT, 0, [7, 38, 131072, 0xffff_ffff]).errno, 0);
  }

  request(opcode: number, node: number, words: readonly Word[]): Uint8Array {
    const body = words.flatMap((word) => [...bytesOf(word)]);
    const bytes = new Uint8Array(IN_HEADER_BYTES + body.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, bytes.length, true);
    view.setUint32(4, opcode, true);
    view.setBigUint64(8, BigInt(++this.#unique), true);
    view.setBigUint64(16, BigInt(node), true);
    view.setUint32(24, this.uid, true);
    view.setUint32(28, this.gid, true);
    bytes.set(body, IN_HEADER_BYTES);
    return bytes;
  }

  call(opcode: number, node: number, words: readonly Word[] = [], room = ROOM): ClientReply {
    const reply = this.session.handle(this.request(opcode, node, words), room);
    const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
    assert.equal(view.getUint32(0, true), reply.length);
    assert.equal(Number(view.getBigUint64(8, true)), this.#unique);
    const body = reply.slice(OUT_HEADER_BYTES);
    return { errno: Math.abs(view.getInt32(4, true)), body, view: new DataView(body.buffer) };
  }

  /** Must succeed. */
  good(opcode: number, node: number, words: readonly Word[] = []): ClientReply {
    const reply = this.call(opcode, node, words);
    assert.equal(reply.errno, 0, `opcode ${opcode} of node ${node}`);
    return reply;
  }

  lookup(parent: number, name: string): ClientEntry {
    return entryOf(this.good(FuseOp.LOOKUP, parent, [name]).view);
  }

  attributes(node: number): Omit<ClientEntry, "node"> {
    return attributesOf(this.good(FuseOp.GETATTR, node, [0, 0, 0n]).view, 16);
  }

  create(
    parent: number,
    name: string,
    mode = 0o644,
    flags = 0o102,
  ): { node: number; open: number } {
    const { view } = this.good(FuseOp.CREATE, parent, [flags, mode, 0o022, 0, name]);
    return { node: entryOf(view).node, open: Number(view.getBigUint64(128, true)) };
  }

  open(node: number, flags = 0): { open: number; flags: number } {
    const { view } = this.good(FuseOp.OPEN, node, [flags, 0]);
    return { open: Number(view.getBigUint64(0, true)), flags: view.getUint32(8, true) };
  }

  write(open: number, bytes: Uint8Array, offset = 0): number {
    const words = [BigInt(open), BigInt(offset), bytes.length, 0, 0n, 0, 0, bytes];
    return this.good(FuseOp.WRITE, 1, words).view.getUint32(0, true);
  }

  read(open: number, offset: number, size: number): Uint8Array {
    return this.good(FuseOp.READ, 1, [BigInt(open), BigInt(offset), size, 0, 0n, 0, 0]).body;
  }

  release(open: number): void {
    this.good(FuseOp.RELEASE, 1, [BigInt(open), 0, 0, 0n]);
  }

  /** Names with their inode numbers and types, and nodes of READDIRPLUS. */
  list(node: number, size = 4096, isPlus = true): { name: string; node: number; ino: bigint }[] {
    const open = this.good(FuseOp.OPENDIR, node, [0, 0]).view.getBigUint64(0, true);
    const found: { name: string; node: number; ino: bigint }[] = [];
    const opcode = isPlus ? FuseOp.READDIRPLUS : FuseOp.READDIR;
    for (let offset = 0n; ; ) {
      const { view, body } = this.good(opcode, node, [open, offset, size, 0, 0n, 0, 0]);
      if (body.length === 0) break;
      for (let at = 0; at < body.length; ) {
        const entry = isPlus ? Number(view.getBigUint64(at, true)) : 0;
        const dirent = isPlus ? at + 128 : at;
        const length = view.getUint32(dirent + 16, true);
        const name = Buffer.from(body.subarray(dirent + 24, dirent + 24 + length)).toString();
        found.push({ name, node: entry, ino: view.getBigUint64(dirent, true) });
        offset = view.getBigUint64(dirent + 8, true);
        at = dirent + ((24 + length + 7) & ~7);
      }
    }
    this.good(FuseOp.RELEASEDIR, node, [open, 0, 0, 0n]);
    return found;
  }
}

/** struct fuse_setattr_in behind `valid` */
export function setAttributes(
  valid: number,
  values: { open?: number; size?: number; mode?: number; mtime?: bigint; uid?: number } = {},
): Word[] {
  const { open = 0, size = 0, mode = 0, mtime = 0n, uid = 0 } = values;
  return [
    ...[valid, 0, BigInt(open), BigInt(size), 0n],
    ...[0n, mtime, 0n, 0, 0, 0, mode, 0, uid, 0, 0],
  ];
}

export function entryOf(view: DataView): ClientEntry {
  return { node: Number(view.getBigUint64(0, true)), ...attributesOf(view, 40) };
}

function attributesOf(view: DataView, at: number): Omit<ClientEntry, "node"> {
  const word = (offset: number): number => view.getUint32(at + offset, true);
  return {
    ino: view.getBigUint64(at, true),
    size: Number(view.getBigUint64(at + 8, true)),
    mtimeNs: view.getBigUint64(at + 32, true) * 1_000_000_000n + BigInt(word(52)),
    mode: word(60),
    nlink: word(64),
    uid: word(68),
    gid: word(72),
  };
}

function bytesOf(word: Word): Uint8Array {
  if (word instanceof Uint8Array) return word;
  if (typeof word === "string") return Uint8Array.of(...encodeName(word), 0);
  const bytes = new Uint8Array(typeof word === "bigint" ? 8 : 4);
  const view = new DataView(bytes.buffer);
  if (typeof word === "bigint") view.setBigUint64(0, BigInt.asUintN(64, word), true);
  else view.setUint32(0, word, true);
  return bytes;
}
