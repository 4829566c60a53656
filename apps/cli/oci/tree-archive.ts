/**
 * A tree as a cpio archive for the kernel's initial root file system, below a folder of it.
 * Spec: Linux Documentation/driver-api/early-userspace/buffer-format.rst; of a hard-linked file the first entry has the content.
 */
import { readSync } from "node:fs";
import { HypolithError } from "../../../src/base/errors.ts";
import { formatSize } from "../../common/size.ts";
import { CPIO_HEADER_SIZE, cpioHeader } from "../image/cpio.ts";
import { FILE_TYPES } from "./erofs-directory.ts";
import { type Directory, type Inode, sortedNames } from "./file-tree.ts";

/** The kernel reads lengths as 32 bits, and a longer file has no place in memory anyway. */
const LARGEST_FILE = 2 ** 31;

interface Item {
  readonly path: string;
  readonly inode: Inode;
  readonly number: number;
  readonly links: number;
  /** Its content comes with it, not with another name. */
  readonly isFirst: boolean;
}

/** Throws HypolithError "image-too-large" if it would have more than `limit` bytes. */
export function treeArchive(root: Directory, prefix: string, limit: number): Uint8Array {
  const items = listItems(root, prefix);
  const size = items.reduce((sum, item) => sum + itemSize(item), 0);
  if (size > limit) {
    throw new HypolithError(
      "image-too-large",
      `an image of ${formatSize(size)} does not fit into the guest's memory`,
      {
        hint: "give the machine more with --memory, or leave the image on its disk: --root disk",
      },
    );
  }
  const out = Buffer.alloc(size);
  let at = 0;
  for (const item of items) at += writeItem(out, at, item);
  return out;
}

/** Each name, folders before what is in them. */
function listItems(root: Directory, prefix: string): Item[] {
  const links = new Map<Inode, number>();
  const paths: Array<readonly [path: string, inode: Inode]> = [[prefix, root]];
  const walk = (directory: Directory, above: string): void => {
    for (const name of sortedNames(directory)) {
      const { inode } = directory.entries.get(name)!;
      paths.push([`${above}/${name}`, inode]);
      if (inode.kind === "directory") walk(inode, `${above}/${name}`);
    }
  };
  walk(root, prefix);
  for (const [, inode] of paths) links.set(inode, (links.get(inode) ?? 0) + 1);
  const numbers = new Map<Inode, number>();
  return paths.map(([path, inode]) => {
    const before = numbers.get(inode);
    // Numbers of the archives beside this one begin at 1: these begin far above.
    const number = before ?? (1 << 24) + numbers.size;
    numbers.set(inode, number);
    return { path, inode, number, links: links.get(inode)!, isFirst: before === undefined };
  });
}

function contentSize({ inode, isFirst }: Item): number {
  if (inode.kind === "symlink") return inode.target.length;
  return inode.kind === "file" && isFirst ? inode.content.size : 0;
}

function itemSize(item: Item): number {
  return align4(CPIO_HEADER_SIZE + item.path.length + 1) + align4(contentSize(item));
}

function writeItem(out: Buffer, at: number, item: Item): number {
  const { inode, path } = item;
  const size = contentSize(item);
  if (size >= LARGEST_FILE)
    throw new HypolithError("image-too-large", "a file of the image does not fit into memory");
  const { mode, uid, gid, mtime } = inode.attributes;
  const header = cpioHeader({
    inode: item.number,
    mode: FILE_TYPES[inode.kind].mode | mode,
    uid,
    gid,
    links: item.links,
    mtime,
    size,
    device: inode.kind === "character" || inode.kind === "block" ? inode.device : [0, 0],
    nameSize: path.length + 1,
  });
  out.write(`${header}${path}\0`, at, "latin1");
  const start = at + align4(CPIO_HEADER_SIZE + path.length + 1);
  if (inode.kind === "symlink") out.write(inode.target, start, "latin1");
  else if (size > 0 && inode.kind === "file") {
    const { descriptor, offset } = inode.content;
    for (let got = 0; got < size; ) {
      const count = readSync(descriptor, out, start + got, size - got, offset + got);
      if (count === 0)
        throw new HypolithError("layer-changed", "a layer has become shorter while it was read");
      got += count;
    }
  }
  return itemSize(item);
}

function align4(size: number): number {
  return (size + 3) & ~3;
}
