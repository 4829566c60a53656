/**
 * One FUSE request as it came: the header, and its arguments read in order.
 * Source: Linux, include/uapi/linux/fuse.h. Whatever is missing or no number that can be reads as EINVAL.
 */
import { Errno, FolderError } from "../errno.ts";
import { decodeName } from "../host-name.ts";
import { IN_HEADER_BYTES } from "./fuse-wire.ts";

const WORD = 0x1_0000_0000;

export class FuseRequest {
  readonly opcode: number;
  readonly unique: bigint;
  readonly node: number;
  readonly uid: number;
  readonly gid: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = IN_HEADER_BYTES;

  /** Throws FolderError if there is no header, or its length is not the request's. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < IN_HEADER_BYTES || this.#view.getUint32(0, true) !== bytes.length)
      throw new FolderError(Errno.EINVAL);
    this.opcode = this.#view.getUint32(4, true);
    this.unique = this.#view.getBigUint64(8, true);
    this.uid = this.#view.getUint32(24, true);
    this.gid = this.#view.getUint32(28, true);
    this.node = wide(this.#view, 16);
  }

  u32(): number {
    this.#need(4);
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4, true);
  }

  /** A number, since nothing that we gave out and no size of a file is above 2^53. */
  u64(): number {
    this.#need(8);
    this.#at += 8;
    const value = wide(this.#view, this.#at - 8);
    if (!Number.isSafeInteger(value)) throw new FolderError(Errno.EINVAL);
    return value;
  }

  /** Seconds, signed. */
  i64(): bigint {
    this.#need(8);
    this.#at += 8;
    return this.#view.getBigInt64(this.#at - 8, true);
  }

  skip(bytes: number): void {
    this.#need(bytes);
    this.#at += bytes;
  }

  /** Bytes up to a zero. */
  name(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0) throw new FolderError(Errno.EINVAL);
    const name = decodeName(this.#bytes.subarray(this.#at, end));
    this.#at = end + 1;
    return name;
  }

  data(length: number): Uint8Array {
    this.#need(length);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  #need(length: number): void {
    if (this.#at + length > this.#bytes.length) throw new FolderError(Errno.EINVAL);
  }
}

function wide(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * WORD;
}
