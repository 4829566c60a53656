/**
 * A tree as an EROFS image: read-only, uncompressed, as Linux mounts it since 5.4.
 * Spec: Linux Documentation/filesystems/erofs.rst, "On-disk details"; fs/erofs/erofs_fs.h for the structures.
 *
 *   block 0     1024 bytes free, superblock, first inodes
 *   ...         inodes of 64 bytes, each followed by the tail of its content if that is short (FLAT_INLINE)
 *   ...         content in whole blocks, one run for each inode
 *
 * An inode's number is its offset divided by 32; the root comes first, for the superblock has 16 bits for it. Directories list their
 * entries in the order of the names' bytes, for lookups search by halves. The same tree gives the same bytes.
 * Deliberately not here: extended attributes, compression, chunks shared between files.
 */
import { readSync } from "node:fs";
import { HypolithError } from "../../../src/base/errors.ts";
import { invariant } from "../../../src/base/invariant.ts";
import { crc32c } from "./crc32c.ts";
import { directoryBytes, directorySize, FILE_TYPES } from "./erofs-directory.ts";
import { type Directory, type Inode, walkTree } from "./file-tree.ts";
import { writeAll } from "./layer-file.ts";

export const EROFS_BLOCK = 4096;
const SUPER_OFFSET = 1024;
const SUPER_SIZE = 128;
const MAGIC = 0xe0f5e1e2;
const INODE_SIZE = 64;
const SLOT = 32;
const FeatureCompat = { SUPERBLOCK_CHECKSUM: 1, MTIME: 2 } as const;
const Layout = { PLAIN: 0, INLINE: 2 } as const;
const EXTENDED = 1;
/** A longer tail gets a block of its own: what would not fit behind its inode leaves a hole. */
const LONGEST_TAIL = 2048;
const COPY_CHUNK = 1 << 20;

/** Where an inode and its content go. */
interface Place {
  readonly inode: Inode;
  readonly index: number;
  /** Of the inode, in the image. */
  readonly offset: number;
  readonly size: number;
  readonly isInline: boolean;
  /** First block of the content in whole blocks. */
  readonly block: number;
  links: number;
  parent: Place | undefined;
}

export interface ErofsSummary {
  readonly inodes: number;
  /** Of the image. */
  readonly bytes: number;
}

/** Writes the image to the start of an empty file. */
export function writeErofs(
  root: Directory,
  descriptor: number,
  onBytes?: (bytes: number) => void,
): ErofsSummary {
  const plan = layOut(root);
  const bytes = plan.blocks * EROFS_BLOCK;
  writeAll(descriptor, metadata(plan));
  let written = plan.metaBlocks * EROFS_BLOCK;
  for (const place of plan.places.values()) {
    const whole = wholeBytes(place);
    if (whole === 0) continue;
    invariant(place.block * EROFS_BLOCK === written, "EROFS content out of place");
    written += writeContent(place, whole, plan, descriptor);
    onBytes?.(written);
  }
  invariant(written === bytes, "EROFS image of another size than planned");
  return { inodes: plan.places.size, bytes };
}

interface Plan {
  readonly places: ReadonlyMap<Inode, Place>;
  readonly metaBlocks: number;
  readonly blocks: number;
}

function layOut(root: Directory): Plan {
  const inodes: Inode[] = [];
  walkTree(root, (inode) => inodes.push(inode));
  const drafts: Place[] = [];
  let at = SUPER_OFFSET + SUPER_SIZE;
  for (const inode of inodes) {
    const size = contentSize(inode);
    const tail = size % EROFS_BLOCK;
    const isInline = tail > 0 && tail <= LONGEST_TAIL;
    const length = INODE_SIZE + (isInline ? tail : 0);
    // Neither an inode nor the tail behind it crosses a block.
    const room = EROFS_BLOCK - (at % EROFS_BLOCK);
    if (length > room) at += room;
    drafts.push({
      inode,
      index: drafts.length,
      offset: at,
      size,
      isInline,
      block: 0,
      links: 0,
      parent: undefined,
    });
    at = roundUp(at + length, INODE_SIZE);
  }
  const metaBlocks = Math.ceil(at / EROFS_BLOCK);
  const places = new Map<Inode, Place>();
  let blocks = metaBlocks;
  for (const draft of drafts) {
    const place = { ...draft, block: blocks };
    places.set(place.inode, place);
    blocks += wholeBytes(place) / EROFS_BLOCK;
  }
  if (blocks >= 2 ** 32)
    throw new HypolithError("image-too-large", "the image is larger than a disk of ours can be");
  countLinks(places);
  return { places, metaBlocks, blocks };
}

function countLinks(places: ReadonlyMap<Inode, Place>): void {
  for (const place of places.values()) {
    const { inode } = place;
    if (inode.kind !== "directory") continue;
    // Its own name and "."; the root's name is in itself.
    place.links += place.parent ? 1 : 2;
    place.parent ??= place;
    for (const entry of inode.entries.values()) {
      const child = places.get(entry.inode)!;
      child.links++;
      if (entry.inode.kind !== "directory") continue;
      child.parent = place;
      // Its "..".
      place.links++;
    }
  }
}

function contentSize(inode: Inode): number {
  if (inode.kind === "directory") return directorySize(inode);
  if (inode.kind === "file") return inode.content.size;
  return inode.kind === "symlink" ? inode.target.length : 0;
}

/** Bytes of the content's run of blocks. */
function wholeBytes({ size, isInline }: Pick<Place, "size" | "isInline">): number {
  return isInline ? size - (size % EROFS_BLOCK) : roundUp(size, EROFS_BLOCK);
}

function metadata(plan: Plan): Buffer {
  const bytes = Buffer.alloc(plan.metaBlocks * EROFS_BLOCK);
  for (const place of plan.places.values()) {
    writeInode(bytes, place);
    if (!place.isInline) continue;
    const tail = place.size % EROFS_BLOCK;
    readContent(
      place,
      plan,
      place.size - tail,
      bytes.subarray(place.offset + INODE_SIZE, place.offset + INODE_SIZE + tail),
    );
  }
  writeSuperblock(bytes, plan);
  return bytes;
}

function writeSuperblock(bytes: Buffer, { places, blocks }: Plan): void {
  const sb = bytes.subarray(SUPER_OFFSET, EROFS_BLOCK);
  sb.writeUInt32LE(MAGIC, 0);
  sb.writeUInt32LE(FeatureCompat.SUPERBLOCK_CHECKSUM | FeatureCompat.MTIME, 8);
  sb.writeUInt8(Math.log2(EROFS_BLOCK), 12);
  const [root] = places.values();
  sb.writeUInt16LE(root!.offset / SLOT, 14);
  sb.writeBigUInt64LE(BigInt(places.size), 16);
  sb.writeUInt32LE(blocks, 36);
  // Block of the inodes (40): 0, they are counted from the start. UUID and name stay empty: the file is named by its content.
  sb.writeUInt32LE(crc32c(sb), 4);
}

function writeInode(
  bytes: Buffer,
  { inode, index, offset, size, isInline, block, links }: Place,
): void {
  const { mode, uid, gid, mtime } = inode.attributes;
  const out = bytes.subarray(offset, offset + INODE_SIZE);
  out.writeUInt16LE(EXTENDED | ((isInline ? Layout.INLINE : Layout.PLAIN) << 1), 0);
  out.writeUInt16LE(FILE_TYPES[inode.kind].mode | mode, 4);
  out.writeBigUInt64LE(BigInt(size), 8);
  const hasDevice = inode.kind === "character" || inode.kind === "block";
  out.writeUInt32LE(hasDevice ? deviceNumber(inode.device) : block, 16);
  out.writeUInt32LE(index + 1, 20);
  out.writeUInt32LE(uid >>> 0, 24);
  out.writeUInt32LE(gid >>> 0, 28);
  out.writeBigUInt64LE(BigInt(mtime), 32);
  out.writeUInt32LE(links, 44);
}

/** As the kernel's new_encode_dev. */
function deviceNumber([major, minor]: readonly [number, number]): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

/** Writes `whole` bytes: the content, and zeros up to a whole block. */
function writeContent(place: Place, whole: number, plan: Plan, descriptor: number): number {
  const buffer = Buffer.alloc(Math.min(whole, COPY_CHUNK));
  for (let at = 0; at < whole; ) {
    const part = buffer.subarray(0, Math.min(buffer.length, whole - at));
    const used = Math.max(0, Math.min(part.length, place.size - at));
    readContent(place, plan, at, part.subarray(0, used));
    part.fill(0, used);
    writeAll(descriptor, part);
    at += part.length;
  }
  return whole;
}

function readContent(
  { inode, index, parent }: Place,
  plan: Plan,
  from: number,
  target: Buffer,
): void {
  if (target.length === 0) return;
  if (inode.kind === "file") {
    readFile(inode.content.descriptor, inode.content.offset + from, target);
    return;
  }
  invariant(
    inode.kind === "directory" || inode.kind === "symlink",
    `inode ${index} has no content`,
  );
  const bytes =
    inode.kind === "symlink"
      ? Buffer.from(inode.target, "latin1")
      : directoryBytes(inode, {
          own: numberOf(plan, inode),
          parent: parent!.offset / SLOT,
          of: (child) => numberOf(plan, child),
        });
  bytes.copy(target, 0, from, from + target.length);
}

function numberOf({ places }: Plan, inode: Inode): number {
  return places.get(inode)!.offset / SLOT;
}

function readFile(descriptor: number, position: number, target: Buffer): void {
  for (let at = 0; at < target.length; ) {
    const got = readSync(descriptor, target, at, target.length - at, position + at);
    if (got === 0)
      throw new HypolithError("layer-changed", "a layer has become shorter while it was read");
    at += got;
  }
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
