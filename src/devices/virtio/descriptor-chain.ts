/**
 * One descriptor chain that the driver made available: where the device may read, then where it may write.
 * Spec: virtio 1.2, "Message Framing": no meaning is in how a request is cut into descriptors, so a device sees byte offsets.
 *
 * The segments were read once from guest memory and all lie in granted memory; the bytes they point to stay the driver's and may
 * change at any time, so a device copies a thing once before it judges it.
 */
import { HypolithError } from "../../base/errors.ts";
import type { GuestMemory } from "./guest-memory.ts";

export interface SavedChain {
  readonly head: number;
  /** how many segments are readable: the first ones */
  readonly readable: number;
  readonly addresses: readonly number[];
  readonly lengths: readonly number[];
}

/** Guest-physical addresses and lengths, in order. */
export interface ChainPart {
  readonly addresses: readonly number[];
  readonly lengths: readonly number[];
}

export class DescriptorChain {
  /** Index of the first descriptor: names the chain to the driver. */
  readonly head: number;
  /** Bytes that the device may read, and that it may write. */
  readableBytes = 0;
  writableBytes = 0;
  /** Guest-physical address and length of each segment: the readable ones, then the writable ones. */
  readonly addresses: number[] = [];
  readonly lengths: number[] = [];
  #readable = 0;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory, head: number) {
    this.#memory = memory;
    this.head = head;
  }

  /** For the virtqueue: readable segments come first. */
  add(address: number, length: number, isWritable: boolean): void {
    this.addresses.push(address);
    this.lengths.push(length);
    if (isWritable) this.writableBytes += length;
    else {
      this.readableBytes += length;
      this.#readable++;
    }
  }

  get segments(): number {
    return this.addresses.length;
  }

  /** The segments once read stay what they are: a device saves the chains that it holds. */
  save(): SavedChain {
    return {
      head: this.head,
      readable: this.#readable,
      addresses: [...this.addresses],
      lengths: [...this.lengths],
    };
  }

  /** Throws HypolithError "snapshot-shape". */
  static restore(memory: GuestMemory, saved: unknown): DescriptorChain {
    const { head, readable, addresses, lengths } = (saved ?? {}) as Partial<SavedChain>;
    const isFit =
      Number.isInteger(head) &&
      Number.isInteger(readable) &&
      Array.isArray(addresses) &&
      Array.isArray(lengths) &&
      addresses.length === lengths.length &&
      addresses.every((address, i) => memory.contains(address, lengths[i]));
    if (!isFit) throw new HypolithError("snapshot-shape", "a saved descriptor chain does not fit");
    const chain = new DescriptorChain(memory, head!);
    for (const [i, address] of addresses.entries()) chain.add(address, lengths[i], i >= readable!);
    return chain;
  }

  /** Copies readable bytes from `offset` on; false if there are fewer, or they are no longer granted. */
  read(offset: number, into: Uint8Array): boolean {
    if (offset + into.length > this.readableBytes) return false;
    return this.#walk(0, offset, into.length, (gpa, from, to) =>
      this.#memory.read(gpa, into.subarray(from, to)),
    );
  }

  /** Copies into writable bytes from `offset` on; false if there are fewer, or they are no longer granted. */
  write(offset: number, bytes: Uint8Array): boolean {
    if (offset + bytes.length > this.writableBytes) return false;
    return this.#walk(this.#readable, offset, bytes.length, (gpa, from, to) =>
      this.#memory.write(gpa, bytes.subarray(from, to)),
    );
  }

  /** Where readable (or writable) bytes from `offset` on are, neighbours joined; undefined if there are fewer. */
  part(isWritable: boolean, offset: number, length: number): ChainPart | undefined {
    const room = isWritable ? this.writableBytes : this.readableBytes;
    if (offset + length > room) return undefined;
    const addresses: number[] = [];
    const lengths: number[] = [];
    this.#walk(isWritable ? this.#readable : 0, offset, length, (gpa, from, to) => {
      const last = addresses.length - 1;
      if (last >= 0 && addresses[last]! + lengths[last]! === gpa) lengths[last]! += to - from;
      else {
        addresses.push(gpa);
        lengths.push(to - from);
      }
      return true;
    });
    return { addresses, lengths };
  }

  /** Readable bytes as an array of their own, or undefined as `read`. */
  take(offset: number, length: number): Uint8Array | undefined {
    const bytes = new Uint8Array(length);
    return this.read(offset, bytes) ? bytes : undefined;
  }

  #walk(
    first: number,
    offset: number,
    length: number,
    copy: (gpa: number, from: number, to: number) => boolean,
  ): boolean {
    let skip = offset;
    let done = 0;
    for (let i = first; done < length; i++) {
      const size = this.lengths[i];
      if (skip >= size) {
        skip -= size;
        continue;
      }
      const part = Math.min(size - skip, length - done);
      if (!copy(this.addresses[i] + skip, done, done + part)) return false;
      done += part;
      skip = 0;
    }
    return true;
  }
}
