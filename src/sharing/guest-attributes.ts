/** Attributes as the guest is told them: owners of its own side, inode numbers that differ where files differ. */
import type { FileAttributes } from "./folder-port.ts";
import type { OwnerMap } from "./owner-map.ts";

export interface GuestAttributes {
  readonly ino: bigint;
  readonly size: bigint;
  readonly blocks: bigint;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly blksize: number;
}

/** A guest sees one device: inode numbers of another file system below the folder get bits that nobody's have. */
const DEVICE_SHIFT = 48n;

export class AttributeMap {
  readonly #owners: OwnerMap;
  readonly #devices = new Map<bigint, bigint>();

  /** `root`: the folder itself, whose file system keeps its numbers. */
  constructor(owners: OwnerMap, root: FileAttributes) {
    this.#owners = owners;
    this.#devices.set(root.dev, 0n);
  }

  seen(attributes: FileAttributes): GuestAttributes {
    const { size, blocks, atimeNs, mtimeNs, ctimeNs } = attributes;
    return {
      ...{ ino: this.inode(attributes), size, blocks, atimeNs, mtimeNs, ctimeNs },
      mode: Number(attributes.mode),
      nlink: Number(attributes.nlink),
      uid: this.#owners.guestUid(Number(attributes.uid)),
      gid: this.#owners.guestGid(Number(attributes.gid)),
      rdev: Number(attributes.rdev & 0xffff_ffffn),
      blksize: Number(attributes.blksize),
    };
  }

  inode({ dev, ino }: FileAttributes): bigint {
    let number = this.#devices.get(dev);
    if (number === undefined) {
      number = BigInt(this.#devices.size) << DEVICE_SHIFT;
      this.#devices.set(dev, number);
    }
    return BigInt.asUintN(64, ino ^ number);
  }
}
