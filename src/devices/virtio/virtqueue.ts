/**
 * Split virtqueue, device side.
 * Spec: virtio 1.2, "Split Virtqueues": descriptor table, available ring, used ring, indirect descriptors, used_event and avail_event.
 *
 * The driver is hostile. Each ring index, ring entry and descriptor is read once, and judged by that copy; a walk visits at most as many
 * descriptors as there can be, so loops end; each buffer is checked against granted memory when it is popped. A breach
 * makes the queue broken: it pops nothing more and reports once, and its transport asks for a reset. Nothing here throws for a driver's doing.
 *
 * Used elements are written by `push` and published together by `flush`, which also decides about the interrupt.
 * Chains that were popped and not pushed are the device's to save; which heads they have is in the state.
 *
 * Departure: a chain may have up to MAX_SEGMENTS descriptors by an indirect table even if the queue is smaller, since Linux
 * makes such chains.
 */
import { DescriptorChain } from "./descriptor-chain.ts";
import { type GuestMemory, guestAddress } from "./guest-memory.ts";

const DescriptorFlag = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;
const DESCRIPTOR_BYTES = 16;
const USED_BYTES = 8;
/** flags and idx before either ring; the other side's event index after it */
const RING_HEADER = 4;
const RING_TRAILER = 2;
const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;
/** As QEMU: bounds the work for one indirect table. */
export const MAX_SEGMENTS = 1024;
/** "the total length of the chain must not exceed 2^32 bytes" */
const MAX_CHAIN_BYTES = 2 ** 32;

/** Plain state of one queue; addresses are low and high words of descriptor table, available ring and used ring. */
export interface VirtqueueState {
  size: number;
  enabled: boolean;
  broken: boolean;
  addresses: number[];
  lastAvailable: number;
  /** the available index as it was read last */
  seen: number;
  used: number;
  /** `used` when the interrupt was last considered */
  signalled: number;
  /** whether the driver was told that we need no notifications (without event index) */
  quiet: boolean;
  /** for each head: whether it was popped and not pushed */
  inFlight: Uint8Array;
}

export interface VirtqueueWires {
  /** The driver wants to hear of used buffers. */
  interrupt(): void;
  /** The driver broke the rules; called once. */
  broken(reason: string): void;
}

export interface RingFeatures {
  readonly indirect: boolean;
  readonly eventIndex: boolean;
}

export class Virtqueue {
  readonly maxSize: number;
  readonly state: VirtqueueState;
  readonly #memory: GuestMemory;
  readonly #wires: VirtqueueWires;
  #features: RingFeatures = { indirect: false, eventIndex: false };
  #dirty = false;
  readonly #descriptor = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #descriptorView = new DataView(this.#descriptor.buffer);
  readonly #scratch = new Uint8Array(USED_BYTES);
  readonly #scratchView = new DataView(this.#scratch.buffer);

  /** `maxSize`: a power of two up to 32768. */
  constructor(maxSize: number, memory: GuestMemory, wires: VirtqueueWires) {
    this.maxSize = maxSize;
    this.#memory = memory;
    this.#wires = wires;
    this.state = freshState(maxSize);
  }

  reset(): void {
    Object.assign(this.state, freshState(this.maxSize));
    this.#dirty = false;
  }

  /** Makes the queue live with what the driver set up; a set-up that cannot be breaks it. */
  enable(features: RingFeatures): void {
    this.#features = features;
    this.state.enabled = true;
    const problem = this.#problem();
    if (problem) this.#fail(problem);
  }

  /** A chain of a saved device. Throws HypolithError "snapshot-shape". */
  restoreChain(saved: unknown): DescriptorChain {
    return DescriptorChain.restore(this.#memory, saved);
  }

  /** For a transport that restored the state of a live queue. */
  resume(features: RingFeatures): void {
    this.#features = features;
    this.#dirty = false;
    const problem = this.isLive ? this.#problem() : undefined;
    if (problem) this.#fail(problem);
  }

  get isLive(): boolean {
    return this.state.enabled && !this.state.broken;
  }

  /** Chains that wait to be popped. */
  available(): number {
    if (!this.isLive) return 0;
    const { state } = this;
    state.seen = this.#read16(this.#availableAt(2));
    const waiting = (state.seen - state.lastAvailable) & 0xffff;
    if (waiting > state.size)
      this.#fail(`the available index is ${waiting} ahead in a queue of ${state.size}`);
    return this.isLive ? waiting : 0;
  }

  /** The next available chain, or undefined if there is none or the queue is broken. */
  pop(): DescriptorChain | undefined {
    const { state } = this;
    if (!this.isLive) return undefined;
    if (state.seen === state.lastAvailable && this.available() === 0) return undefined;
    const slot = state.lastAvailable & (state.size - 1);
    const head = this.#read16(this.#availableAt(RING_HEADER + 2 * slot));
    if (head < state.size && state.inFlight[head] !== 0)
      return this.#fail(`head ${head} is available again before it was used`);
    const chain = this.#walk(head);
    if (!chain) return undefined;
    state.lastAvailable = (state.lastAvailable + 1) & 0xffff;
    state.inFlight[head] = 1;
    return chain;
  }

  /** Takes back a pop: the chain waits again. Several in the reverse order of their pops. */
  unpop(chain: DescriptorChain): void {
    const { state } = this;
    if (!this.isLive || !state.inFlight[chain.head]) return;
    state.inFlight[chain.head] = 0;
    state.lastAvailable = (state.lastAvailable - 1) & 0xffff;
  }

  /** Gives a chain back with the number of bytes written to it. Invisible to the driver until flush(). */
  push(chain: DescriptorChain, written: number): void {
    const { state } = this;
    if (!this.isLive || !state.inFlight[chain.head]) return;
    state.inFlight[chain.head] = 0;
    const slot = state.used & (state.size - 1);
    this.#scratchView.setUint32(0, chain.head, true);
    this.#scratchView.setUint32(4, written, true);
    this.#write(this.#usedAt(RING_HEADER + USED_BYTES * slot), this.#scratch);
    state.used = (state.used + 1) & 0xffff;
    this.#dirty = true;
  }

  /** Publishes what was pushed, and interrupts if the driver wants that. */
  flush(): void {
    const { state } = this;
    if (!this.#dirty || !this.isLive) return;
    this.#dirty = false;
    this.#write16(this.#usedAt(2), state.used);
    const before = state.signalled;
    state.signalled = state.used;
    if (this.isLive && this.#wantsInterrupt(before)) this.#wires.interrupt();
  }

  /** Asks for a notification at the next available buffer, or for none; true if buffers wait already. */
  setNotify(wanted: boolean): boolean {
    if (!this.isLive) return false;
    const { state } = this;
    if (this.#features.eventIndex) {
      // An event index that lies behind asks for nothing until the indices have wrapped.
      if (wanted) {
        const at = RING_HEADER + USED_BYTES * state.size;
        this.#write16(this.#usedAt(at), state.lastAvailable);
      }
    } else if (state.quiet === wanted) {
      state.quiet = !wanted;
      this.#write16(this.#usedAt(0), wanted ? 0 : NO_NOTIFY);
    }
    return this.available() > 0;
  }

  /** For a device whose request makes no sense: the device needs a reset. */
  refuse(reason: string): void {
    this.#fail(reason);
  }

  #wantsInterrupt(before: number): boolean {
    if (!this.#features.eventIndex)
      return (this.#read16(this.#availableAt(0)) & NO_INTERRUPT) === 0;
    const { used, size } = this.state;
    const event = this.#read16(this.#availableAt(RING_HEADER + 2 * size));
    return ((used - event - 1) & 0xffff) < ((used - before) & 0xffff);
  }

  /** Follows a chain from its head; undefined, with the queue broken, if it breaks a rule. */
  #walk(head: number): DescriptorChain | undefined {
    const chain = new DescriptorChain(this.#memory, head);
    /** the copy of an indirect table, once there is one */
    let table: DataView | undefined;
    let entries = this.state.size;
    let index = head;
    for (let visited = 0; ; visited++) {
      if (visited >= entries) return this.#fail("a descriptor chain has a loop");
      if (index >= entries) return this.#fail(`descriptor ${index} of ${entries}`);
      const view = table ?? this.#descriptorAt(index);
      if (!view) return this.#fail("a ring outside memory");
      const at = table ? index * DESCRIPTOR_BYTES : 0;
      const address = guestAddress(view.getUint32(at, true), view.getUint32(at + 4, true));
      const length = view.getUint32(at + 8, true);
      const flags = view.getUint16(at + 12, true);
      const next = view.getUint16(at + 14, true);
      if (flags & DescriptorFlag.INDIRECT) {
        table = table ? undefined : this.#indirectTable(address, length, flags);
        if (!table) return this.#fail("an indirect descriptor that may not be");
        entries = length / DESCRIPTOR_BYTES;
        index = 0;
        visited = -1;
        continue;
      }
      const problem = this.#add(chain, { address, length, flags });
      if (problem) return this.#fail(problem);
      if (!(flags & DescriptorFlag.NEXT)) return chain;
      index = next;
    }
  }

  #add(
    chain: DescriptorChain,
    { address, length, flags }: { address: number; length: number; flags: number },
  ): string | undefined {
    const isWritable = (flags & DescriptorFlag.WRITE) !== 0;
    if (!isWritable && chain.writableBytes > 0) return "a readable buffer after a writable one";
    if (chain.readableBytes + chain.writableBytes + length > MAX_CHAIN_BYTES)
      return "a descriptor chain of more than 4 GiB";
    if (!this.#memory.contains(address, length)) return "a buffer outside memory";
    // An empty buffer carries nothing, and would not order readable before writable.
    if (length > 0) chain.add(address, length, isWritable);
    return undefined;
  }

  /** A copy, so that each of its descriptors is read once even when the driver makes it its own table. */
  #indirectTable(address: number, length: number, flags: number): DataView | undefined {
    const entries = length / DESCRIPTOR_BYTES;
    const isAllowed = this.#features.indirect && !(flags & DescriptorFlag.NEXT);
    if (!isAllowed || entries < 1 || entries > MAX_SEGMENTS || !Number.isInteger(entries)) return;
    const bytes = new Uint8Array(length);
    return this.#memory.read(address, bytes) ? new DataView(bytes.buffer) : undefined;
  }

  /** What is wrong with the driver's set-up. Spec: "Split Virtqueues", alignment and size of the parts. */
  #problem(): string | undefined {
    const { size } = this.state;
    if (size === 0 || size > this.maxSize || (size & (size - 1)) !== 0)
      return `a queue of ${size} descriptors`;
    const parts = [0, 1, 2].map((part) => this.#part(part));
    const alignments = [16, 2, 4];
    for (const [i, { address, length }] of parts.entries()) {
      if (address % alignments[i] !== 0) return "a misaligned ring";
      if (!this.#memory.contains(address, length)) return "a ring outside memory";
    }
    const [table, available, used] = parts;
    // We write the used ring: it must not change what we read by.
    for (const other of [table, available])
      if (used.address < other.address + other.length && other.address < used.address + used.length)
        return "a used ring that overlaps another part";
    return undefined;
  }

  /** Address and length of descriptor table, available ring, used ring. */
  #part(part: number): { address: number; length: number } {
    const { addresses, size } = this.state;
    const entry = [DESCRIPTOR_BYTES, 2, USED_BYTES][part];
    return {
      address: guestAddress(addresses[2 * part], addresses[2 * part + 1]),
      length: entry * size + (part === 0 ? 0 : RING_HEADER + RING_TRAILER),
    };
  }

  #usedAt(offset: number): number {
    const { addresses } = this.state;
    return guestAddress(addresses[4], addresses[5]) + offset;
  }

  #availableAt(offset: number): number {
    const { addresses } = this.state;
    return guestAddress(addresses[2], addresses[3]) + offset;
  }

  /** A copy of one descriptor of the queue's own table, valid until the next. */
  #descriptorAt(index: number): DataView | undefined {
    const { addresses } = this.state;
    const table = guestAddress(addresses[0], addresses[1]);
    const isRead = this.#memory.read(table + index * DESCRIPTOR_BYTES, this.#descriptor);
    return isRead ? this.#descriptorView : undefined;
  }

  /** 0, with the queue broken, if it cannot be read. */
  #read16(gpa: number): number {
    const bytes = this.#scratch.subarray(0, 2);
    if (this.#memory.read(gpa, bytes)) return this.#scratchView.getUint16(0, true);
    this.#fail("a ring outside memory");
    return 0;
  }

  #write16(gpa: number, value: number): void {
    this.#scratchView.setUint16(0, value, true);
    this.#write(gpa, this.#scratch.subarray(0, 2));
  }

  #write(gpa: number, bytes: Uint8Array): void {
    if (!this.#memory.write(gpa, bytes)) this.#fail("a used ring outside memory");
  }

  #fail(reason: string): undefined {
    if (this.state.broken) return;
    this.state.broken = true;
    this.#wires.broken(reason);
  }
}

function freshState(maxSize: number): VirtqueueState {
  return {
    size: maxSize,
    enabled: false,
    broken: false,
    addresses: [0, 0, 0, 0, 0, 0],
    lastAvailable: 0,
    seen: 0,
    used: 0,
    signalled: 0,
    quiet: false,
    inFlight: new Uint8Array(maxSize),
  };
}
