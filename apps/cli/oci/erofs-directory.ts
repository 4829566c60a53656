/**
 * Directories of EROFS: blocks of entries (12 bytes: inode number, offset of the name, type) followed by the names, sorted by bytes.
 * Spec: Linux Documentation/filesystems/erofs.rst, "Directories".
 */
import type { Directory, Inode } from "./file-tree.ts";

const BLOCK = 4096;
const ENTRY = 12;

/** Bits of st_mode, and EROFS's name for the type. */
export const FILE_TYPES: Readonly<
  Record<Inode["kind"], { readonly mode: number; readonly type: number }>
> = {
  file: { mode: 0o100000, type: 1 },
  directory: { mode: 0o040000, type: 2 },
  character: { mode: 0o020000, type: 3 },
  block: { mode: 0o060000, type: 4 },
  fifo: { mode: 0o010000, type: 5 },
  symlink: { mode: 0o120000, type: 7 },
};

export interface InodeNumbers {
  readonly own: number;
  readonly parent: number;
  of(inode: Inode): number;
}

interface DirectoryBlock {
  readonly names: string[];
  size: number;
}

export function directorySize(directory: Directory): number {
  const blocks = blocksOf(directory);
  return (blocks.length - 1) * BLOCK + blocks.at(-1)!.size;
}

export function directoryBytes(directory: Directory, numbers: InodeNumbers): Buffer {
  const blocks = blocksOf(directory);
  const out = Buffer.alloc((blocks.length - 1) * BLOCK + blocks.at(-1)!.size);
  blocks.forEach(({ names }, index) => {
    const start = index * BLOCK;
    let nameAt = names.length * ENTRY;
    names.forEach((name, slot) => {
      const at = start + slot * ENTRY;
      const inode = name === "." || name === ".." ? directory : directory.entries.get(name)!.inode;
      const number =
        name === "." ? numbers.own : name === ".." ? numbers.parent : numbers.of(inode);
      out.writeBigUInt64LE(BigInt(number), at);
      out.writeUInt16LE(nameAt, at + 8);
      out.writeUInt8(FILE_TYPES[inode.kind].type, at + 10);
      out.write(name, start + nameAt, "latin1");
      nameAt += name.length;
    });
  });
  return out;
}

/** No entry crosses a block. */
function blocksOf({ entries }: Directory): DirectoryBlock[] {
  const names = [".", "..", ...entries.keys()].sort();
  const blocks: DirectoryBlock[] = [{ names: [], size: 0 }];
  for (const name of names) {
    const size = ENTRY + name.length;
    if (blocks.at(-1)!.size + size > BLOCK) blocks.push({ names: [], size: 0 });
    const block = blocks.at(-1)!;
    block.names.push(name);
    block.size += size;
  }
  return blocks;
}
