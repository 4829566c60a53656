/**
 * Writer of cpio archives in the "newc" format, as the Linux kernel unpacks them into its initial root file system.
 * Spec: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
 *
 * Uncompressed: a guest on a software processor spends more on unpacking than on copying. Times are zero and inode numbers count
 * up, so the same content gives the same bytes. Archives may be joined end to end; the kernel skips the zeros between them when
 * each starts at a multiple of four.
 */
import { invariant } from "../../../src/base/invariant.ts";

const Type = {
  FIFO: 0o010000,
  CHARACTER: 0o020000,
  DIRECTORY: 0o040000,
  FILE: 0o100000,
  LINK: 0o120000,
} as const;
export const CPIO_HEADER_SIZE = 110;
const TRAILER = "TRAILER!!!";

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly data: Uint8Array;
  readonly device: readonly [major: number, minor: number];
}

const EMPTY = new Uint8Array(0);
const NO_DEVICE = [0, 0] as const;

export class CpioArchive {
  readonly #entries: Entry[] = [];
  readonly #names = new Set<string>();

  directory(path: string, permissions = 0o755): this {
    return this.#add({
      name: path,
      mode: Type.DIRECTORY | permissions,
      data: EMPTY,
      device: NO_DEVICE,
    });
  }

  file(path: string, content: Uint8Array | string, permissions = 0o644): this {
    const data = typeof content === "string" ? new TextEncoder().encode(content) : content;
    return this.#add({ name: path, mode: Type.FILE | permissions, data, device: NO_DEVICE });
  }

  link(path: string, target: string): this {
    const data = new TextEncoder().encode(target);
    return this.#add({ name: path, mode: Type.LINK | 0o777, data, device: NO_DEVICE });
  }

  characterDevice(path: string, major: number, minor: number, permissions: number): this {
    return this.#add({
      name: path,
      mode: Type.CHARACTER | permissions,
      data: EMPTY,
      device: [major, minor],
    });
  }

  fifo(path: string, permissions = 0o600): this {
    return this.#add({ name: path, mode: Type.FIFO | permissions, data: EMPTY, device: NO_DEVICE });
  }

  toBytes(): Uint8Array {
    const trailer: Entry = { name: TRAILER, mode: 0, data: EMPTY, device: NO_DEVICE };
    const entries = [...this.#entries, trailer];
    const out = new Uint8Array(entries.reduce((size, entry) => size + entrySize(entry), 0));
    let at = 0;
    entries.forEach((entry, index) => {
      const inode = entry === trailer ? 0 : index + 1;
      out.set(new TextEncoder().encode(`${header(entry, inode)}${entry.name}\0`), at);
      out.set(entry.data, at + align4(CPIO_HEADER_SIZE + nameSize(entry)));
      at += entrySize(entry);
    });
    return out;
  }

  #add(entry: Entry): this {
    invariant(!entry.name.startsWith("/") && entry.name !== "", `cpio name ${entry.name}`);
    invariant(!this.#names.has(entry.name), `cpio name ${entry.name} twice`);
    this.#names.add(entry.name);
    this.#entries.push(entry);
    return this;
  }
}

/** Joins archives; each but an uncompressed one must come last, since kernels differ in what they accept after it. */
export function joinArchives(...archives: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(archives.reduce((size, archive) => align4(size) + archive.length, 0));
  let at = 0;
  for (const archive of archives) {
    at = align4(at);
    out.set(archive, at);
    at += archive.length;
  }
  return out;
}

function header(entry: Entry, inode: number): string {
  return cpioHeader({
    inode,
    mode: entry.mode,
    uid: 0,
    gid: 0,
    links: 1,
    mtime: 0,
    size: entry.data.length,
    device: entry.device,
    nameSize: nameSize(entry),
  });
}

export interface CpioFields {
  readonly inode: number;
  /** Type and permissions. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly links: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  readonly size: number;
  readonly device: readonly [major: number, minor: number];
  /** With the zero at its end. */
  readonly nameSize: number;
}

/** The fixed part of an entry: CPIO_HEADER_SIZE characters. */
export function cpioHeader({
  inode,
  mode,
  uid,
  gid,
  links,
  mtime,
  size,
  ...more
}: CpioFields): string {
  // Between size and device: the device that holds the file; at the end a checksum, unused in this format.
  const fields = [
    inode,
    mode,
    uid,
    gid,
    links,
    mtime,
    size,
    0,
    0,
    ...more.device,
    more.nameSize,
    0,
  ];
  return `070701${fields.map((field) => (field >>> 0).toString(16).padStart(8, "0")).join("")}`;
}

function entrySize(entry: Entry): number {
  return align4(CPIO_HEADER_SIZE + nameSize(entry)) + align4(entry.data.length);
}

function nameSize(entry: Entry): number {
  return new TextEncoder().encode(entry.name).length + 1;
}

function align4(size: number): number {
  return (size + 3) & ~3;
}
