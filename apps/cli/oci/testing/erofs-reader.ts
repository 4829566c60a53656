/**
 * A reader of EROFS images for tests, written from the documentation and not from our writer: plain and inline layouts, both inode versions,
 * lookups as the kernel does them, by halves.
 */
export interface ErofsInode {
  readonly number: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly links: number;
  readonly size: number;
  readonly raw: number;
  readonly data: Buffer;
}

export class ErofsReader {
  readonly #image: Buffer;
  readonly rootNumber: number;
  readonly inodes: number;
  readonly blocks: number;

  constructor(image: Buffer) {
    this.#image = image;
    const sb = image.subarray(1024, 1024 + 128);
    if (sb.readUInt32LE(0) !== 0xe0f5e1e2) throw new Error("no EROFS");
    if (sb.readUInt8(12) !== 12 || sb.readUInt32LE(80) !== 0) throw new Error("features");
    this.rootNumber = sb.readUInt16LE(14);
    this.inodes = Number(sb.readBigUInt64LE(16));
    this.blocks = sb.readUInt32LE(36);
  }

  inode(number: number): ErofsInode {
    const at = number * 32;
    const format = this.#image.readUInt16LE(at);
    if ((format & 1) !== 1) throw new Error("compact inodes are not written by us");
    const layout = (format >> 1) & 7;
    const size = Number(this.#image.readBigUInt64LE(at + 8));
    const raw = this.#image.readUInt32LE(at + 16);
    const mode = this.#image.readUInt16LE(at + 4);
    const hasData = [0o100000, 0o040000, 0o120000].includes(mode & 0o170000);
    return {
      ...{ number, mode, size, raw },
      uid: this.#image.readUInt32LE(at + 24),
      gid: this.#image.readUInt32LE(at + 28),
      mtime: Number(this.#image.readBigUInt64LE(at + 32)),
      links: this.#image.readUInt32LE(at + 44),
      data: hasData ? this.#data(at, layout, size, raw) : Buffer.alloc(0),
    };
  }

  #data(at: number, layout: number, size: number, raw: number): Buffer {
    if (layout === 0) return this.#image.subarray(raw * 4096, raw * 4096 + size);
    if (layout !== 2) throw new Error(`layout ${layout}`);
    const tail = size % 4096;
    const start = at + 64;
    if (Math.floor(at / 4096) !== Math.floor((start + tail - 1) / 4096))
      throw new Error("a tail crosses a block");
    const whole = this.#image.subarray(raw * 4096, raw * 4096 + size - tail);
    return Buffer.concat([whole, this.#image.subarray(start, start + tail)]);
  }

  /** All entries in the order of the directory. */
  entries({ data }: ErofsInode): Array<readonly [name: string, number: number, type: number]> {
    const all: Array<readonly [string, number, number]> = [];
    for (let start = 0; start < data.length; start += 4096) {
      all.push(...blockEntries(data.subarray(start, start + 4096)));
    }
    return all;
  }

  /** As the kernel: the last block whose first name is not above, then the name in it. */
  lookUp({ data }: ErofsInode, name: string): number | undefined {
    let low = 0;
    let high = Math.ceil(data.length / 4096) - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      const [first] = blockEntries(data.subarray(middle * 4096, (middle + 1) * 4096));
      if (first![0] <= name) low = middle;
      else high = middle - 1;
    }
    const entries = blockEntries(data.subarray(low * 4096, (low + 1) * 4096));
    let from = 0;
    let to = entries.length - 1;
    while (from <= to) {
      const middle = (from + to) >> 1;
      const found = entries[middle]!;
      if (found[0] === name) return found[1];
      if (found[0] < name) from = middle + 1;
      else to = middle - 1;
    }
    return undefined;
  }
}

function blockEntries(block: Buffer): Array<readonly [string, number, number]> {
  const count = block.readUInt16LE(8) / 12;
  return Array.from({ length: count }, (_, slot) => {
    const start = block.readUInt16LE(slot * 12 + 8);
    const end = slot + 1 < count ? block.readUInt16LE((slot + 1) * 12 + 8) : block.length;
    const name = block.toString("latin1", start, end).replace(/\0.*$/s, "");
    return [
      name,
      Number(block.readBigUInt64LE(slot * 12)),
      block.readUInt8(slot * 12 + 10),
    ] as const;
  });
}
