/**
 * A raw image: the disk's bytes and nothing else.
 *
 * A guest owns every byte of it, so it could make the image look like another format, to be read as that, with files of the
 * guest's choice as backing, by whoever opens it next without naming a format. With `guardMagic` such a first sector is refused.
 */
import { HypolithError } from "../base/errors.ts";
import type { BlockPort, Io } from "./block-port.ts";
import { checkRange, checkWritable, type Disk } from "./disk.ts";
import { isQcow2 } from "./qcow2/header.ts";

const SECTOR_BYTES = 512;
const ZEROES = new Uint8Array(1 << 16);

export interface RawOptions {
  readonly readOnly?: boolean;
  /** The format was guessed, not named: refuse to make it look like another. */
  readonly guardMagic?: boolean;
}

export class RawDisk implements Disk {
  readonly size: number;
  readonly readOnly: boolean;
  readonly #port: BlockPort;
  readonly #guardMagic: boolean;

  /** A size that is not whole sectors is rounded up: the rest reads as zeros, until it is written. */
  constructor(port: BlockPort, options: RawOptions = {}) {
    this.#port = port;
    this.size = Math.ceil(port.size / SECTOR_BYTES) * SECTOR_BYTES;
    this.readOnly = port.readOnly || options.readOnly === true;
    this.#guardMagic = options.guardMagic === true;
  }

  *read(offset: number, into: Uint8Array): Io<void> {
    checkRange(this, offset, into.length);
    const pending = this.#port.read(offset, into);
    if (pending) yield pending;
  }

  *write(offset: number, bytes: Uint8Array): Io<void> {
    checkWritable(this);
    checkRange(this, offset, bytes.length);
    if (this.#guardMagic && offset < 4) yield* this.#refuseMagic(offset, bytes);
    const pending = this.#port.write(offset, bytes);
    if (pending) yield pending;
  }

  *writeZeroes(offset: number, length: number): Io<void> {
    checkWritable(this);
    checkRange(this, offset, length);
    for (let done = 0; done < length; done += ZEROES.length) {
      const part = ZEROES.subarray(0, Math.min(ZEROES.length, length - done));
      const pending = this.#port.write(offset + done, part);
      if (pending) yield pending;
    }
  }

  /** Nothing is given back: ports cannot punch holes. */
  *discard(offset: number, length: number): Io<void> {
    checkWritable(this);
    checkRange(this, offset, length);
    yield* [];
  }

  *flush(): Io<void> {
    const pending = this.#port.flush();
    if (pending) yield pending;
  }

  close(): Io<void> {
    return this.flush();
  }

  *#refuseMagic(offset: number, bytes: Uint8Array): Io<void> {
    const start = new Uint8Array(4);
    const pending = this.#port.read(0, start);
    if (pending) yield pending;
    start.set(bytes.subarray(0, 4 - offset), offset);
    if (!isQcow2(start)) return;
    throw new HypolithError(
      "disk-format-guessed",
      "a guest may not write the first bytes of a qcow2 image to a disk whose format was guessed",
      { hint: "name the format with the disk: format=raw" },
    );
  }
}
