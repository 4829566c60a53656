/**
 * A driver for tests: finds a virtio function by its capabilities, sets it up, and exchanges buffers with it, all through
 * configuration space, the BAR and guest memory, as an operating system would.
 */
import assert from "node:assert/strict";
import type { MmioSize } from "../model.ts";
import { PciHost } from "../platform/pci-host.ts";
import { MemoryMap } from "../platform/platform-map.ts";
import { RecordingLine } from "../test-wires.ts";
import { FlatMemory } from "./guest-memory.ts";
import { DeviceStatus, Feature, type VirtioDevice } from "./virtio-device.ts";
import { VirtioPci } from "./virtio-pci.ts";

export const RAM_BYTES = 1 << 20;
const SLOT = 3;
const QUEUE_BYTES = 0x4000;
/** In half of a small memory, or above the hole of a larger one. */
const heapOf = (ram: Uint8Array): number => (ram.length > RAM_BYTES ? 0x10_0000 : 0x8_0000);

export interface DriverOptions {
  readonly features?: readonly number[];
  readonly indirect?: boolean;
  readonly eventIndex?: boolean;
  readonly msix?: boolean;
  readonly queueSize?: number;
}

export interface Segment {
  readonly bytes?: Uint8Array;
  /** length of a writable buffer */
  readonly room?: number;
  /** readable bytes that are in guest memory already */
  readonly at?: number;
  readonly length?: number;
}

interface DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly desc: number;
  readonly available: number;
  readonly used: number;
  readonly notify: number;
  next: number;
  seen: number;
  free: number[];
  readonly chains: Map<
    number,
    { descriptors: number[]; rooms: [address: number, length: number][] }
  >;
}

/** What a driver has of a machine: memory, one function's configuration space, its memory BAR, its messages. */
export interface TestBus {
  readonly ram: Uint8Array;
  /** data of interrupt messages */
  readonly messages: number[];
  readConfig(register: number, size: 1 | 2 | 4): number;
  writeConfig(register: number, size: 1 | 2 | 4, value: number): void;
  readMemory(address: number, size: MmioSize): number | bigint;
  writeMemory(address: number, size: MmioSize, value: number | bigint): void;
}

/** The device itself, plugged into a bus of its own. */
class PluggedDevice implements TestBus {
  readonly ram = new Uint8Array(RAM_BYTES);
  readonly messages: number[] = [];
  readonly refusals: string[] = [];
  readonly line = new RecordingLine();
  readonly host = new PciHost({ intx: Array.from({ length: 4 }, () => this.line) });
  readonly transport: VirtioPci;

  constructor(device: VirtioDevice) {
    this.transport = new VirtioPci(device, {
      memory: new FlatMemory(this.ram),
      send: (_, data) => this.messages.push(data),
      refused: (reason) => this.refusals.push(reason),
    });
    this.host.plug(SLOT, 0, this.transport.pci);
  }

  readConfig(register: number, size: 1 | 2 | 4): number {
    return Number(this.host.ecam.readMmio(SLOT * 0x8000 + register, size));
  }

  writeConfig(register: number, size: 1 | 2 | 4, value: number): void {
    this.host.ecam.writeMmio(SLOT * 0x8000 + register, size, value);
  }

  readMemory(address: number, size: MmioSize): number | bigint {
    return this.host.memoryWindow.readMmio(address - MemoryMap.PCI_MMIO_BASE, size);
  }

  writeMemory(address: number, size: MmioSize, value: number | bigint): void {
    this.host.memoryWindow.writeMmio(address - MemoryMap.PCI_MMIO_BASE, size, value);
  }
}

/** A driver on any bus. */
export class BusDriver {
  readonly bus: TestBus;
  readonly ram: Uint8Array;
  readonly view: DataView;
  readonly queues: DriverQueue[] = [];
  features = new Set<number>();
  #heap: number;
  readonly #windows = new Map<number, { offset: number; length: number; extra: number }>();

  constructor(bus: TestBus) {
    this.bus = bus;
    this.ram = bus.ram;
    this.view = new DataView(bus.ram.buffer);
    this.#heap = heapOf(bus.ram);
    this.config(0x10, 4, MemoryMap.PCI_MMIO_BASE);
    this.config(4, 2, 6);
    this.#findCapabilities();
  }

  /** Reads or writes configuration space. */
  config(register: number, size: 1 | 2 | 4, value?: number): number {
    if (value !== undefined) this.bus.writeConfig(register, size, value);
    return this.bus.readConfig(register, size);
  }

  read(type: number, offset: number, size: MmioSize): number {
    const window = this.#windows.get(type)!;
    const at = this.#bar() + window.offset + offset;
    return Number(this.bus.readMemory(at, size));
  }

  write(type: number, offset: number, size: MmioSize, value: number | bigint): void {
    const window = this.#windows.get(type)!;
    this.bus.writeMemory(this.#bar() + window.offset + offset, size, value);
  }

  get status(): number {
    return this.read(1, 20, 1);
  }

  set status(value: number) {
    this.write(1, 20, 1, value);
  }

  offered(): Set<number> {
    const bits = new Set<number>();
    for (const word of [0, 1]) {
      this.write(1, 0, 4, word);
      const features = this.read(1, 4, 4);
      for (let i = 0; i < 32; i++) if ((features >>> i) & 1) bits.add(32 * word + i);
    }
    return bits;
  }

  take(features: Iterable<number>): void {
    const words = [0, 0];
    this.features = new Set(features);
    for (const bit of this.features) words[bit >> 5] |= 1 << (bit & 31);
    for (const [i, word] of words.entries()) {
      this.write(1, 8, 4, i);
      this.write(1, 12, 4, word >>> 0);
    }
  }

  /** The whole of "Device Initialization". */
  start(options: DriverOptions = {}): this {
    const { features = [], indirect = false, eventIndex = false, msix = true } = options;
    this.status = 0;
    this.status = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER;
    const wanted = [...features, Feature.VERSION_1];
    if (indirect) wanted.push(Feature.INDIRECT_DESC);
    if (eventIndex) wanted.push(Feature.EVENT_IDX);
    const offered = this.offered();
    for (const bit of wanted) assert.ok(offered.has(bit), `feature ${bit} is offered`);
    this.take(wanted);
    this.status = this.status | DeviceStatus.FEATURES_OK;
    assert.ok(this.status & DeviceStatus.FEATURES_OK, "the features are accepted");
    if (msix) this.#enableMsix();
    this.queues.length = 0;
    for (let i = 0; i < this.read(1, 18, 2); i++) this.setUpQueue(i, options.queueSize);
    this.status = this.status | DeviceStatus.DRIVER_OK;
    return this;
  }

  setUpQueue(index: number, wantedSize?: number): DriverQueue {
    this.write(1, 22, 2, index);
    const size = Math.min(wantedSize ?? 64, this.read(1, 24, 2));
    const desc = 0x1_0000 + index * QUEUE_BYTES;
    const queue: DriverQueue = {
      index,
      size,
      desc,
      available: desc + 0x2000,
      used: desc + 0x3000,
      notify: this.read(1, 30, 2) * this.#windows.get(2)!.extra,
      next: 0,
      seen: 0,
      free: Array.from({ length: size }, (_, i) => i),
      chains: new Map(),
    };
    this.ram.fill(0, desc, desc + QUEUE_BYTES);
    this.write(1, 24, 2, size);
    for (const [i, address] of [queue.desc, queue.available, queue.used].entries()) {
      this.write(1, 32 + 8 * i, 4, address);
      this.write(1, 36 + 8 * i, 4, 0);
    }
    this.write(1, 26, 2, index + 1);
    this.write(1, 28, 2, 1);
    this.queues[index] = queue;
    return queue;
  }

  /** Memory for a buffer; never given back. */
  allocate(length: number): number {
    const address = this.#heap;
    this.#heap += (length + 15) & ~15;
    assert.ok(this.#heap <= this.ram.length, "the test's heap is large enough");
    return address;
  }

  resetHeap(): void {
    this.#heap = heapOf(this.ram);
  }

  /** Makes a chain available and notifies; answers its head. */
  add(index: number, segments: readonly Segment[], options: { kick?: boolean } = {}): number {
    const queue = this.queues[index]!;
    const rooms: [number, number][] = [];
    const parts = segments.map(({ bytes, room = 0, at, length = 0 }) => {
      if (at !== undefined) return { address: at, length, flags: 0 };
      const address = this.allocate(bytes?.length ?? room);
      if (bytes) this.ram.set(bytes, address);
      else rooms.push([address, room]);
      return { address, length: bytes?.length ?? room, flags: bytes ? 0 : 2 };
    });
    const useIndirect = this.features.has(Feature.INDIRECT_DESC);
    const descriptors = queue.free.splice(0, useIndirect ? 1 : parts.length);
    const table = useIndirect ? this.allocate(16 * parts.length) : queue.desc;
    for (const [i, part] of parts.entries()) {
      const slot = useIndirect ? i : descriptors[i]!;
      const next = useIndirect ? i + 1 : (descriptors[i + 1] ?? 0);
      this.#descriptor(table + 16 * slot, part, i + 1 < parts.length ? next : undefined);
    }
    const head = descriptors[0]!;
    if (useIndirect) {
      const outer = { address: table, length: 16 * parts.length, flags: 4 };
      this.#descriptor(queue.desc + 16 * head, outer, undefined);
    }
    queue.chains.set(head, { descriptors, rooms });
    this.offer(queue, head);
    if (options.kick !== false) this.kick(index);
    return head;
  }

  offer(queue: DriverQueue, head: number): void {
    this.view.setUint16(queue.available + 4 + 2 * (queue.next % queue.size), head, true);
    queue.next = (queue.next + 1) & 0xffff;
    this.view.setUint16(queue.available + 2, queue.next, true);
  }

  kick(index: number): void {
    this.write(2, this.queues[index]!.notify, 2, index);
  }

  /** What the device has given back since the last call: the bytes in the writable buffers, cut to the length it said. */
  collect(index: number): { head: number; length: number; data: Uint8Array }[] {
    const queue = this.queues[index]!;
    const results = [];
    while (queue.seen !== this.view.getUint16(queue.used + 2, true)) {
      const at = queue.used + 4 + 8 * (queue.seen % queue.size);
      const head = this.view.getUint32(at, true);
      const length = this.view.getUint32(at + 4, true);
      queue.seen = (queue.seen + 1) & 0xffff;
      const chain = queue.chains.get(head);
      assert.ok(chain, `head ${head} was given to the device`);
      queue.chains.delete(head);
      queue.free.push(...chain.descriptors);
      const parts = chain.rooms.map(([address, size]) => this.ram.slice(address, address + size));
      results.push({ head, length, data: concat(parts).subarray(0, length) });
    }
    return results;
  }

  /** Adds one chain and answers what came back for it; it must come back at once. */
  exchange(index: number, segments: readonly Segment[]): Uint8Array {
    this.add(index, segments);
    const results = this.collect(index);
    assert.equal(results.length, 1, "one buffer comes back");
    return results[0]!.data;
  }

  vectors(): number[] {
    return this.bus.messages.splice(0);
  }

  /** Goes on with what another driver of the same machine had set up. */
  protected continueFrom(other: BusDriver): void {
    this.queues.push(...other.queues.map((queue) => structuredClone(queue)));
    this.features = new Set(other.features);
    this.#heap = other.#heap;
  }

  #bar(): number {
    return this.config(0x10, 4);
  }

  #descriptor(
    at: number,
    part: { address: number; length: number; flags: number },
    next: number | undefined,
  ): void {
    this.view.setUint32(at, part.address, true);
    this.view.setUint32(at + 4, 0, true);
    this.view.setUint32(at + 8, part.length, true);
    this.view.setUint16(at + 12, part.flags | (next === undefined ? 0 : 1), true);
    this.view.setUint16(at + 14, next ?? 0, true);
  }

  #findCapabilities(): void {
    for (let at = this.config(0x34, 1); at !== 0; at = this.config(at + 1, 1)) {
      if (this.config(at, 1) === 0x11) this.#windows.set(0x11, { offset: at, length: 0, extra: 0 });
      if (this.config(at, 1) !== 9) continue;
      this.#windows.set(this.config(at + 3, 1), {
        offset: this.config(at + 8, 4),
        length: this.config(at + 12, 4),
        extra: this.config(at + 2, 1) > 16 ? this.config(at + 16, 4) : 0,
      });
    }
  }

  /** Vector i sends interrupt 0x40 + i. */
  #enableMsix(): void {
    const at = this.#windows.get(0x11)!.offset;
    const table = this.config(at + 4, 4) & ~7;
    this.config(at + 2, 2, 0xc000);
    const count = (this.config(at + 2, 2) & 0x7ff) + 1;
    for (let i = 0; i < count; i++) {
      const entry = this.#bar() + table + 16 * i;
      const words = [0xfee0_0000, 0, 0x40 + i, 0];
      for (const [w, word] of words.entries()) this.bus.writeMemory(entry + 4 * w, 4, word);
    }
    this.config(at + 2, 2, 0x8000);
    this.write(1, 16, 2, 0);
  }
}

/** A driver of one device model. */
export class TestDriver extends BusDriver {
  readonly #plugged: PluggedDevice;

  constructor(device: VirtioDevice) {
    const plugged = new PluggedDevice(device);
    super(plugged);
    this.#plugged = plugged;
  }

  get transport(): VirtioPci {
    return this.#plugged.transport;
  }

  get host(): PciHost {
    return this.#plugged.host;
  }

  get line(): RecordingLine {
    return this.#plugged.line;
  }

  get refusals(): string[] {
    return this.#plugged.refusals;
  }

  get messages(): number[] {
    return this.#plugged.messages;
  }

  /** The same machine in a new process: memory as it is, devices by save and restore. */
  moveTo(device: VirtioDevice, throughFile: (state: unknown) => unknown): TestDriver {
    const copy = new TestDriver(device);
    copy.ram.set(this.ram);
    copy.host.restore(throughFile(this.host.save()));
    copy.transport.restore(throughFile(this.transport.save()));
    copy.continueFrom(this);
    return copy;
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
