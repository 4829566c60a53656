/**
 * A folder of this computer as a folder port, for Node on Linux.
 *
 * Node has no openat(2), but Linux has /proc/self/fd: a path that begins with an open directory's entry there and has one more name
 * is what openat would do with it. Directories are opened with O_PATH and O_NOFOLLOW, so neither needs a right to read them nor can be bent by a
 * link. Names that are no UTF-8 go as bytes; all others as strings, which Node takes faster.
 * What the system has and Node has no call for: extended attributes, rename flags, device nodes, holes, times finer than a double's.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  statfsSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { HypolithError } from "../base/errors.ts";
import { Errno, FolderError } from "../sharing/errno.ts";
import type {
  DirectoryHandle,
  FileAttributes,
  FileHandle,
  FolderPort,
  FolderSpace,
  OpenMode,
  Place,
} from "../sharing/folder-port.ts";
import { decodeName, encodeName, isEscaped } from "../sharing/host-name.ts";

const { O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;
const { O_RDONLY, O_RDWR, O_WRONLY } = constants;
/** The same on all architectures of Linux; Node does not name it. */
const O_PATH = 0o10000000;
const OPEN_FILES = "/proc/self/fd";
const PERMISSIONS = 0o7777;
const REPLACEMENT = "\ufffd";

export class NodeFolder implements FolderPort {
  readonly root: DirectoryHandle;
  readonly uid = process.getuid?.() ?? 0;
  readonly gid = process.getgid?.() ?? 0;
  readonly #umask = process.umask();

  /** Throws HypolithError "share-...". */
  constructor(path: string) {
    if (!existsSync(OPEN_FILES)) {
      throw new HypolithError("share-system", "folders can be shared on Linux only, with /proc", {
        hint: "hypo cp copies files in and out",
      });
    }
    try {
      this.root = openSync(path, O_PATH | O_DIRECTORY);
    } catch (cause) {
      throw unusable(path, cause);
    }
  }

  openDirectory(place: Place): DirectoryHandle {
    return open(place, O_PATH | O_DIRECTORY | O_NOFOLLOW);
  }

  closeDirectory(directory: DirectoryHandle): void {
    closeSync(directory);
  }

  list(directory: DirectoryHandle): readonly string[] {
    const path = `${OPEN_FILES}/${directory}/.`;
    return attempt(() => {
      const names = readdirSync(path);
      if (!names.some((name) => name.includes(REPLACEMENT))) return names;
      return readdirSync(path, "buffer").map(decodeName);
    });
  }

  syncDirectory(directory: DirectoryHandle): void {
    const file = open({ directory, name: "." }, O_RDONLY | O_DIRECTORY);
    try {
      attempt(() => fsyncSync(file));
    } finally {
      closeSync(file);
    }
  }

  space(): FolderSpace {
    const { bsize, blocks, bfree, bavail, files, ffree } = attempt(() =>
      statfsSync(`${OPEN_FILES}/${this.root}`),
    );
    return { blockBytes: bsize, blocks, free: bfree, available: bavail, files, freeFiles: ffree };
  }

  stat({ directory, name }: Place): FileAttributes | undefined {
    if (name === ".") return this.statFile(directory);
    return attempt(() => lstatSync(pathOf(directory, name), STAT));
  }

  readLink({ directory, name }: Place): string {
    return attempt(() => {
      const target = readlinkSync(pathOf(directory, name));
      if (!target.includes(REPLACEMENT)) return target;
      return decodeName(readlinkSync(pathOf(directory, name), "buffer"));
    });
  }

  setMode(place: Place, mode: number): void {
    const { directory, name } = place;
    if (name === ".") {
      attempt(() => chmodSync(`${OPEN_FILES}/${directory}`, mode));
      return;
    }
    // chmod(2) would follow a link that has come to the name; what is open stays what it is.
    const file = open(place, O_PATH | O_NOFOLLOW);
    try {
      attempt(() => chmodSync(`${OPEN_FILES}/${file}`, mode));
    } finally {
      closeSync(file);
    }
  }

  setOwner({ directory, name }: Place, uid: number, gid: number): void {
    attempt(() =>
      name === "."
        ? chownSync(`${OPEN_FILES}/${directory}`, uid, gid)
        : lchownSync(pathOf(directory, name), uid, gid),
    );
  }

  setTimes({ directory, name }: Place, accessed: bigint, modified: bigint): void {
    const [atime, mtime] = [seconds(accessed), seconds(modified)];
    attempt(() =>
      name === "."
        ? utimesSync(`${OPEN_FILES}/${directory}`, atime, mtime)
        : lutimesSync(pathOf(directory, name), atime, mtime),
    );
  }

  makeDirectory(place: Place, mode: number): void {
    attempt(() => mkdirSync(pathOf(place.directory, place.name), { mode }));
    if ((mode & (this.#umask | (~0o777 & PERMISSIONS))) === 0) return;
    // A directory below one with the group's bit has it, too.
    const inherited = Number(this.stat(place)?.mode ?? 0n) & 0o2000;
    this.setMode(place, mode | inherited);
  }

  makeSymbolicLink({ directory, name }: Place, target: string): void {
    attempt(() => symlinkSync(textOf(target), pathOf(directory, name)));
  }

  link(from: Place, to: Place): void {
    attempt(() => linkSync(pathOf(from.directory, from.name), pathOf(to.directory, to.name)));
  }

  rename(from: Place, to: Place): void {
    attempt(() => renameSync(pathOf(from.directory, from.name), pathOf(to.directory, to.name)));
  }

  unlink({ directory, name }: Place): void {
    attempt(() => unlinkSync(pathOf(directory, name)));
  }

  removeDirectory({ directory, name }: Place): void {
    attempt(() => rmdirSync(pathOf(directory, name)));
  }

  /** Never waits: something else than a file may have come to the name. */
  open(place: Place, { read, write, append, create }: OpenMode): FileHandle {
    const access = write ? (read ? O_RDWR : O_WRONLY) : O_RDONLY;
    const flags = access | O_NOFOLLOW | O_NONBLOCK | (append ? O_APPEND : 0);
    if (!create) return open(place, flags);
    const file = open(place, flags | O_CREAT | O_EXCL, create.mode);
    if ((create.mode & (this.#umask | (~0o777 & PERMISSIONS))) !== 0)
      this.setModeOfFile(file, create.mode);
    return file;
  }

  close(file: FileHandle): void {
    closeSync(file);
  }

  statFile(file: FileHandle): FileAttributes {
    return attempt(() => fstatSync(file, { bigint: true }));
  }

  setModeOfFile(file: FileHandle, mode: number): void {
    attempt(() => fchmodSync(file, mode));
  }

  setOwnerOfFile(file: FileHandle, uid: number, gid: number): void {
    attempt(() => fchownSync(file, uid, gid));
  }

  setTimesOfFile(file: FileHandle, accessed: bigint, modified: bigint): void {
    attempt(() => futimesSync(file, seconds(accessed), seconds(modified)));
  }

  read(file: FileHandle, into: Uint8Array, offset: number): number {
    let done = 0;
    while (done < into.length) {
      const count = attempt(() => readSync(file, into, done, into.length - done, offset + done));
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  write(file: FileHandle, bytes: Uint8Array, offset: number): void {
    for (let done = 0; done < bytes.length; )
      done += attempt(() => writeSync(file, bytes, done, bytes.length - done, offset + done));
  }

  truncate(file: FileHandle, size: number): void {
    attempt(() => ftruncateSync(file, size));
  }

  sync(file: FileHandle, dataOnly: boolean): void {
    attempt(() => (dataOnly ? fdatasyncSync(file) : fsyncSync(file)));
  }
}

const STAT = { bigint: true, throwIfNoEntry: false } as const;

function open({ directory, name }: Place, flags: number, mode?: number): number {
  return attempt(() => openSync(pathOf(directory, name), flags, mode));
}

function pathOf(directory: DirectoryHandle, name: string): string | Buffer {
  return textOf(`${OPEN_FILES}/${directory}/${name}`);
}

function textOf(text: string): string | Buffer {
  return isEscaped(text) ? Buffer.from(encodeName(text)) : text;
}

/** libuv's errors are Linux's, negated. */
function attempt<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    throw new FolderError(errno === undefined ? Errno.EIO : -errno);
  }
}

const NS = 1_000_000_000n;

/** What Node takes: a double, exact to a quarter of a microsecond; whole seconds are exact. One below zero would mean "now". */
function seconds(ns: bigint): number | Date {
  if (ns < 0n) return new Date(Number(ns / 1_000_000n));
  return Number(ns / NS) + Number(ns % NS) / 1e9;
}

function unusable(path: string, cause: unknown): HypolithError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const isFile = code === "ENOTDIR" && statSync(path, { throwIfNoEntry: false })?.isFile();
  const why =
    code === "ENOENT"
      ? "there is no such folder"
      : isFile
        ? "it is a file; only folders can be shared"
        : message;
  return new HypolithError("share-folder", `the folder ${path} cannot be shared: ${why}`, {
    cause,
    hint: "check the path given to --volume",
  });
}
