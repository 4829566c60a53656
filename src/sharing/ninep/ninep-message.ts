/** 9P messages: a request read in order, a reply written in order. Little endian; strings are 16 bits of length and bytes. */
import { Errno, FolderError } from "../errno.ts";
import { decodeName, encodeName } from "../host-name.ts";
import { NINEP_HEADER_BYTES, NinepType } from "./ninep-wire.ts";

const WORD = 0x1_0000_0000;

/** Whatever is missing or no number that can be reads as EINVAL. */
export class NinepRequest {
  readonly type: number;
  readonly tag: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = NINEP_HEADER_BYTES;

  /** The driver may send more than the message. */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < NINEP_HEADER_BYTES) throw new FolderError(Errno.EINVAL);
    const size = view.getUint32(0, true);
    if (size < NINEP_HEADER_BYTES || size > bytes.length) throw new FolderError(Errno.EINVAL);
    this.#bytes = bytes.subarray(0, size);
    this.#view = view;
    this.type = view.getUint8(4);
    this.tag = view.getUint16(5, true);
  }

  u8(): number {
    return this.#view.getUint8(this.#step(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#step(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#step(4), true);
  }

  u64(): number {
    const at = this.#step(8);
    const value = this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * WORD;
    if (!Number.isSafeInteger(value)) throw new FolderError(Errno.EINVAL);
    return value;
  }

  i64(): bigint {
    return this.#view.getBigInt64(this.#step(8), true);
  }

  text(): string {
    return decodeName(this.data(this.u16()));
  }

  data(length: number): Uint8Array {
    const at = this.#step(length);
    return this.#bytes.subarray(at, at + length);
  }

  #step(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) throw new FolderError(Errno.EINVAL);
    this.#at = at + length;
    return at;
  }
}

/** Written into memory that is there, as far as there is room: more is EINVAL. */
export class NinepReply {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = NINEP_HEADER_BYTES;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.#at;
  }

  get room(): number {
    return this.#bytes.length - this.#at;
  }

  u8(value: number): this {
    this.#view.setUint8(this.#step(1), value);
    return this;
  }

  u16(value: number): this {
    this.#view.setUint16(this.#step(2), value, true);
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#step(4), value, true);
    return this;
  }

  u64(value: bigint | number): this {
    this.#view.setBigUint64(this.#step(8), BigInt.asUintN(64, BigInt(value)), true);
    return this;
  }

  text(text: string | Uint8Array): this {
    const bytes = typeof text === "string" ? encodeName(text) : text;
    this.u16(bytes.length);
    this.#bytes.set(bytes, this.#step(bytes.length));
    return this;
  }

  /** Where `length` bytes are to be filled in. */
  space(length: number): Uint8Array {
    const at = this.#step(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** A number that was left open at `at`. */
  patch(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  /** Takes back what was written last. */
  cut(length: number): void {
    this.#at -= length;
  }

  /** The reply, with its header. */
  sealed(type: number, tag: number): Uint8Array {
    this.#view.setUint32(0, this.#at, true);
    this.#view.setUint8(4, type);
    this.#view.setUint16(5, tag, true);
    return this.#bytes.subarray(0, this.#at);
  }

  #step(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) throw new FolderError(Errno.EINVAL);
    this.#at = at + length;
    return at;
  }
}

export function ninepError(bytes: Uint8Array, tag: number, errno: number): Uint8Array {
  return new NinepReply(bytes).u32(errno).sealed(NinepType.LERROR, tag);
}
