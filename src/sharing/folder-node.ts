/** A file of a shared folder as the guest knows it: by device and inode number, with the names that lead to it. */
import type { DirectoryHandle, FileAttributes, FileHandle, OpenMode } from "./folder-port.ts";

export const FileType = {
  MASK: 0o170000,
  DIRECTORY: 0o040000,
  REGULAR: 0o100000,
  SYMBOLIC_LINK: 0o120000,
} as const;

export const NOT_OPEN = -1;

export const typeOf = (mode: bigint): number => Number(mode) & FileType.MASK;

export interface Name {
  readonly parent: FolderNode;
  readonly name: string;
}

type FileIdentity = Pick<FileAttributes, "dev" | "ino" | "mode">;

export class FolderNode {
  readonly id: number;
  readonly dev: bigint;
  readonly ino: bigint;
  /** Of FileType: an inode number that is used again may be for something else. */
  readonly type: number;
  /** undefined: the root */
  at: Name | undefined;
  aliases: Name[] = [];
  /** of the guest */
  references = 0;
  /** of nodes that have their names here */
  children = 0;
  handle: DirectoryHandle = NOT_OPEN;
  usedAt = 0;
  readonly files = new Set<OpenFile>();
  /** What the guest was told last at an open: its cache is good while that is so. */
  toldMtimeNs = -1n;
  toldSize = -1n;

  constructor(id: number, { dev, ino, mode }: FileIdentity, at: Name | undefined) {
    this.id = id;
    this.dev = dev;
    this.ino = ino;
    this.type = typeOf(mode);
    this.at = at;
  }

  get isDirectory(): boolean {
    return this.type === FileType.DIRECTORY;
  }

  is({ dev, ino, mode }: FileIdentity): boolean {
    return ino === this.ino && dev === this.dev && typeOf(mode) === this.type;
  }
}

export interface OpenFile {
  readonly node: FolderNode;
  readonly file: FileHandle;
  readonly mode: OpenMode;
}
