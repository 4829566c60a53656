/**
 * The folder port: files of the embedder below one folder, by a directory that is open and a name in it, as openat(2) and its kin.
 *
 * No operation follows a symbolic link at the name, and a name is one entry or ".", so nothing outside the folder can be reached through
 * it. All calls answer at once. A refusal of the system is thrown as FolderError with Linux's number. Names as host-name.ts has them.
 */

/** Numbers that an embedder gives out; used by nobody but itself. */
export type DirectoryHandle = number;
export type FileHandle = number;

/** stat(2). Whatever has these as bigints fits. */
export interface FileAttributes {
  readonly dev: bigint;
  readonly ino: bigint;
  /** type and permissions */
  readonly mode: bigint;
  readonly nlink: bigint;
  readonly uid: bigint;
  readonly gid: bigint;
  readonly rdev: bigint;
  readonly size: bigint;
  readonly blksize: bigint;
  /** of 512 bytes */
  readonly blocks: bigint;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/** statvfs(3) */
export interface FolderSpace {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly free: number;
  /** for users other than root */
  readonly available: number;
  readonly files: number;
  readonly freeFiles: number;
}

/** Where an operation happens: an entry of an open directory; name "." is the directory itself. */
export interface Place {
  readonly directory: DirectoryHandle;
  readonly name: string;
}

/** What files are opened for. */
export interface OpenMode {
  readonly read: boolean;
  readonly write: boolean;
  readonly append?: boolean;
  /** Makes the file; EEXIST if something is there. */
  readonly create?: { readonly mode: number };
}

export interface FolderPort {
  readonly root: DirectoryHandle;
  /** Ids of whoever does the work, 0 if it may act for anybody. */
  readonly uid: number;
  readonly gid: number;

  openDirectory(place: Place): DirectoryHandle;
  closeDirectory(directory: DirectoryHandle): void;
  /** All names but "." and "..". */
  list(directory: DirectoryHandle): readonly string[];
  syncDirectory(directory: DirectoryHandle): void;
  space(): FolderSpace;

  /** undefined: there is no such entry. */
  stat(place: Place): FileAttributes | undefined;
  readLink(place: Place): string;
  setMode(place: Place, mode: number): void;
  setOwner(place: Place, uid: number, gid: number): void;
  setTimes(place: Place, accessed: bigint, modified: bigint): void;

  /** Permissions are as asked for, whatever the embedder's umask. */
  makeDirectory(place: Place, mode: number): void;
  makeSymbolicLink(place: Place, target: string): void;
  link(from: Place, to: Place): void;
  rename(from: Place, to: Place): void;
  unlink(place: Place): void;
  removeDirectory(place: Place): void;

  open(place: Place, mode: OpenMode): FileHandle;
  close(file: FileHandle): void;
  statFile(file: FileHandle): FileAttributes;
  setModeOfFile(file: FileHandle, mode: number): void;
  setOwnerOfFile(file: FileHandle, uid: number, gid: number): void;
  setTimesOfFile(file: FileHandle, accessed: bigint, modified: bigint): void;
  /** Answers how many bytes there were. */
  read(file: FileHandle, into: Uint8Array, offset: number): number;
  /** Writes all of it. */
  write(file: FileHandle, bytes: Uint8Array, offset: number): void;
  truncate(file: FileHandle, size: number): void;
  sync(file: FileHandle, dataOnly: boolean): void;
}
