/**
 * The block device: reads, writes, flushes, discards, write-zeroes, identification.
 * Spec: virtio 1.2, "Block Device".
 *
 * Each request goes to the medium one operation after the other, of at most PIECE_BYTES; requests overtake each other as the medium answers.
 * The device never has the data: an operation says where in guest memory it is or shall be. What is in flight is bounded, in
 * requests and in segments; the rest waits in the queue. All of it is in the saved state: the medium's answers may come after a
 * restore, or `resubmit` asks again, which does no harm.
 *
 * Not here: what stores the data. Not offered: several queues, write-cache switching, lifetime, secure erase, zones.
 */
import { HypolithError } from "../../base/errors.ts";
import type { ChainPart, DescriptorChain, SavedChain } from "./descriptor-chain.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";
import type { Virtqueue } from "./virtqueue.ts";

export const SECTOR_BYTES = 512;

/** Feature bits. */
export const BlockFeature = {
  SEG_MAX: 2,
  READ_ONLY: 5,
  BLK_SIZE: 6,
  FLUSH: 9,
  TOPOLOGY: 10,
  DISCARD: 13,
  WRITE_ZEROES: 14,
} as const;

export const BlockRequestType = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  DISCARD: 11,
  WRITE_ZEROES: 13,
} as const;

export const BlockStatus = { OK: 0, IO_ERROR: 1, UNSUPPORTED: 2 } as const;

/** One operation on the medium, in whole sectors inside it. */
export type BlockOperation =
  | {
      readonly kind: "read" | "write";
      readonly offset: number;
      readonly length: number;
      /** `length` bytes of guest memory */
      readonly memory: ChainPart;
    }
  | {
      readonly kind: "discard" | "zeroes";
      readonly offset: number;
      readonly length: number;
      /** whether the space may be given back */
      readonly unmap: boolean;
    }
  | { readonly kind: "flush" };

export interface BlockWires {
  /**
   * Asks the medium; it answers by `complete` with the same tag, at once or later, and moves the data before. False: not now, `resume` will be called;
   * the operation is then made anew.
   */
  submit(tag: number, operation: BlockOperation): boolean;
}

export interface BlockOptions {
  /** Size of the medium in bytes; a multiple of SECTOR_BYTES. */
  readonly size: number;
  readonly readOnly: boolean;
  /** At most 20 bytes of ASCII, as /sys/block/vda/serial shows it. */
  readonly serial: string;
}

const QUEUE_SIZE = 256;
const HEADER_BYTES = 16;
const ID_BYTES = 20;
const RANGE_BYTES = 16;
const MAX_RANGES = 32;
const MAX_RANGE_SECTORS = 0x40_0000;
/** Of one operation: what the medium does without looking up. */
export const PIECE_BYTES = 1 << 20;
const MAX_IN_FLIGHT = 64;
const MAX_SEGMENTS_IN_FLIGHT = 2048;
const TAG_HEADS = 0x1_0000;
const UNMAP = 1;
/** 4 KiB physical blocks over 512-byte logical ones */
const PHYSICAL_EXPONENT = 3;
const DISCARD_ALIGNMENT = 128;

const ConfigAt = {
  CAPACITY: 0,
  SEG_MAX: 12,
  BLK_SIZE: 20,
  TOPOLOGY: 24,
  DISCARD: 36,
  WRITE_ZEROES: 48,
  END: 60,
} as const;

interface Range {
  readonly offset: number;
  readonly length: number;
  readonly unmap: boolean;
}

/** A request that the medium works on. */
interface Request {
  readonly chain: DescriptorChain;
  readonly kind: BlockOperation["kind"];
  /** of a transfer: first byte on the medium, and how many */
  readonly offset: number;
  readonly length: number;
  /** of a discard or write-zeroes */
  readonly ranges: readonly Range[];
  /** bytes or ranges that are done */
  done: number;
  /** the medium has the operation, and has not answered */
  isAsked: boolean;
  /** inside `submit` */
  isAsking: boolean;
}

interface SavedRequest {
  readonly chain: SavedChain;
  readonly kind: BlockOperation["kind"];
  readonly offset: number;
  readonly length: number;
  readonly ranges: readonly Range[];
  readonly done: number;
  readonly isAsked: boolean;
}

export class BlockDevice implements VirtioDevice {
  readonly type = DeviceType.BLOCK;
  readonly classCode = 0x01_0000;
  readonly features: readonly number[];
  readonly queueSizes = [QUEUE_SIZE];
  readonly config = new Uint8Array(ConfigAt.END);
  readonly #wires: BlockWires;
  readonly #options: BlockOptions;
  #size: number;
  #link: VirtioLink | undefined;
  readonly #requests = new Map<number, Request>();
  #segments = 0;
  /** counts resets: an answer to an earlier life is dropped */
  #life = 0;
  #isBatch = false;

  constructor(wires: BlockWires, options: BlockOptions) {
    this.#wires = wires;
    this.#options = options;
    this.#size = options.size;
    const { SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY } = BlockFeature;
    const writable = [BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES];
    this.features = [
      ...[SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY],
      ...(options.readOnly ? [BlockFeature.READ_ONLY] : writable),
    ];
    this.#describe();
  }

  connect(link: VirtioLink): void {
    this.#link = link;
  }

  /** The medium has another size now. */
  resize(size: number): void {
    this.#size = size;
    this.#describe();
    this.#link?.configChanged();
  }

  /** The medium's answer to one operation. Unknown tags do nothing. */
  complete(tag: number, ok: boolean): void {
    this.completeAll([{ tag, ok }]);
  }

  /** Several at once: what they end is published together. */
  completeAll(answers: readonly { readonly tag: number; readonly ok: boolean }[]): void {
    this.#batch((queue) => {
      let isNested = false;
      for (const { tag, ok } of answers) {
        const request = this.#requests.get(tag % TAG_HEADS);
        if (!request?.isAsked || Math.floor(tag / TAG_HEADS) !== this.#life) continue;
        request.isAsked = false;
        this.#take(queue, request, ok);
        if (request.isAsking) isNested = true;
        else this.#run(queue, request);
      }
      if (!isNested) this.#fill(queue);
    });
  }

  /** The wire takes operations again. */
  resume(): void {
    if (this.#requests.size === 0) return;
    this.#batch((queue) => {
      for (const request of [...this.#requests.values()])
        if (!request.isAsked && !this.#run(queue, request)) break;
      this.#fill(queue);
    });
  }

  /** After a restore with a medium that knows nothing of what was asked before. */
  resubmit(): void {
    for (const request of this.#requests.values()) request.isAsked = false;
    this.resume();
  }

  activate(): void {}

  notify(): void {
    this.#batch((queue) => this.#fill(queue));
  }

  reset(): void {
    this.#life++;
    this.#requests.clear();
    this.#segments = 0;
  }

  save(): unknown {
    const requests = [...this.#requests.values()].map((request): SavedRequest => {
      const { kind, offset, length, ranges, done, isAsked } = request;
      return {
        ...{ kind, offset, length, done, isAsked, chain: request.chain.save() },
        ranges: ranges.map((range) => ({ ...range })),
      };
    });
    return { life: this.#life, size: this.#size, requests };
  }

  restore(state: unknown): void {
    const saved = (state ?? {}) as { life?: number; size?: number; requests?: SavedRequest[] };
    const queue = this.#link?.queues[0];
    const isFit =
      queue !== undefined &&
      Number.isSafeInteger(saved.life) &&
      Number.isSafeInteger(saved.size) &&
      Array.isArray(saved.requests) &&
      saved.requests.every(isRequest);
    if (!isFit) throw new HypolithError("snapshot-shape", "a saved block device does not fit");
    const chains = saved.requests!.map(({ chain }) => queue.restoreChain(chain));
    this.#requests.clear();
    this.#segments = 0;
    this.#life = saved.life!;
    this.#size = saved.size!;
    this.#describe();
    for (const [i, request] of saved.requests!.entries())
      this.#keep({ ...request, chain: chains[i], isAsking: false });
  }

  /** What `work` gives back to the driver is published together. */
  #batch(work: (queue: Virtqueue) => void): void {
    const queue = this.#link?.queues[0];
    if (!queue) return;
    const isOuter = !this.#isBatch;
    this.#isBatch = true;
    work(queue);
    if (!isOuter) return;
    this.#isBatch = false;
    queue.flush();
  }

  /** Takes from the queue as much as may be in flight. */
  #fill(queue: Virtqueue): void {
    do {
      while (this.#hasRoom()) {
        const chain = queue.pop();
        if (!chain) break;
        this.#begin(queue, chain);
      }
    } while (this.#hasRoom() && queue.setNotify(true));
  }

  #hasRoom(): boolean {
    return this.#requests.size < MAX_IN_FLIGHT && this.#segments < MAX_SEGMENTS_IN_FLIGHT;
  }

  #begin(queue: Virtqueue, chain: DescriptorChain): void {
    const header = chain.take(0, HEADER_BYTES);
    if (!header || chain.writableBytes < 1) {
      queue.refuse("a block request without header or status");
      return;
    }
    const view = new DataView(header.buffer);
    const sector = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
    const request = this.#parse(chain, view.getUint32(0, true), sector);
    if (typeof request === "number") finish(queue, chain, request);
    else if (request) {
      this.#keep(request);
      this.#run(queue, request);
    } else {
      const room = Math.min(ID_BYTES, chain.writableBytes - 1);
      const ok = chain.write(0, this.#identification().subarray(0, room));
      finish(queue, chain, statusOf(ok), ok ? room : 0);
    }
  }

  #keep(request: Request): void {
    this.#requests.set(request.chain.head, request);
    this.#segments += request.chain.segments;
  }

  #end(queue: Virtqueue, request: Request, status: number, written = 0): void {
    this.#requests.delete(request.chain.head);
    this.#segments -= request.chain.segments;
    finish(queue, request.chain, status, written);
  }

  /** What a request asks of the medium; a status that refuses it; or undefined for identification, which needs no medium. */
  #parse(chain: DescriptorChain, type: number, sector: number): Request | number | undefined {
    const isChange =
      type === BlockRequestType.OUT ||
      type === BlockRequestType.DISCARD ||
      type === BlockRequestType.WRITE_ZEROES;
    if (isChange && this.#options.readOnly) return BlockStatus.IO_ERROR;
    switch (type) {
      case BlockRequestType.IN:
        return this.#transfer(chain, "read", sector);
      case BlockRequestType.OUT:
        return this.#transfer(chain, "write", sector);
      case BlockRequestType.FLUSH:
        return newRequest(chain, "flush", {});
      case BlockRequestType.DISCARD:
        return this.#ranges(chain, "discard");
      case BlockRequestType.WRITE_ZEROES:
        return this.#ranges(chain, "zeroes");
      case BlockRequestType.GET_ID:
        return undefined;
      default:
        return BlockStatus.UNSUPPORTED;
    }
  }

  #transfer(chain: DescriptorChain, kind: "read" | "write", sector: number): Request | number {
    const isRead = kind === "read";
    const length = isRead ? chain.writableBytes - 1 : chain.readableBytes - HEADER_BYTES;
    const offset = sector * SECTOR_BYTES;
    const fits = length % SECTOR_BYTES === 0 && offset <= this.#size - length;
    return fits ? newRequest(chain, kind, { offset, length }) : BlockStatus.IO_ERROR;
  }

  /** Discard and write-zeroes: all ranges are judged before the first is carried out. */
  #ranges(chain: DescriptorChain, kind: "discard" | "zeroes"): Request | number {
    const length = chain.readableBytes - HEADER_BYTES;
    const count = length / RANGE_BYTES;
    const isSane = Number.isInteger(count) && count >= 1 && count <= MAX_RANGES;
    const bytes = isSane ? chain.take(HEADER_BYTES, length) : undefined;
    if (!bytes) return BlockStatus.IO_ERROR;
    const ranges: Range[] = [];
    for (let i = 0; i < count; i++) {
      const view = new DataView(bytes.buffer, i * RANGE_BYTES, RANGE_BYTES);
      const range = this.#range(view, kind);
      if (typeof range === "number") return range;
      ranges.push(range);
    }
    return newRequest(chain, kind, { ranges });
  }

  /** Asks the medium as long as it answers at once, without nesting; false if the wire takes nothing now. */
  #run(queue: Virtqueue, request: Request): boolean {
    const { head } = request.chain;
    const tag = this.#life * TAG_HEADS + head;
    while (this.#requests.get(head) === request) {
      const operation = this.#next(queue, request);
      if (!operation) return true;
      request.isAsked = true;
      request.isAsking = true;
      const isTaken = this.#wires.submit(tag, operation);
      request.isAsking = false;
      if (!isTaken) {
        request.isAsked = false;
        return false;
      }
      if (request.isAsked) return true;
    }
    return true;
  }

  /** The next operation of a request; undefined, with the request ended, if there is none. */
  #next(queue: Virtqueue, request: Request): BlockOperation | undefined {
    const { chain, kind, offset, length, ranges, done } = request;
    if (kind === "flush") {
      if (done === 0) return { kind };
    } else if (kind === "discard" || kind === "zeroes") {
      if (done < ranges.length) return { kind, ...ranges[done] };
    } else if (done < length) {
      const size = Math.min(PIECE_BYTES, length - done);
      const isRead = kind === "read";
      const memory = chain.part(isRead, isRead ? done : HEADER_BYTES + done, size);
      if (memory) return { kind, offset: offset + done, length: size, memory };
      this.#end(queue, request, BlockStatus.IO_ERROR);
      return undefined;
    }
    this.#end(queue, request, BlockStatus.OK, kind === "read" ? length : 0);
    return undefined;
  }

  /** Takes the answer to one operation. */
  #take(queue: Virtqueue, request: Request, ok: boolean): void {
    const { kind, length, done } = request;
    const isTransfer = kind === "read" || kind === "write";
    const step = isTransfer ? Math.min(PIECE_BYTES, length - done) : 1;
    if (ok) request.done += step;
    else this.#end(queue, request, BlockStatus.IO_ERROR, kind === "read" ? done : 0);
  }

  #identification(): Uint8Array {
    const id = new Uint8Array(ID_BYTES);
    const { serial } = this.#options;
    for (let i = 0; i < Math.min(ID_BYTES, serial.length); i++) id[i] = serial.charCodeAt(i);
    return id;
  }

  /** One range, or the status that refuses the request. */
  #range(view: DataView, kind: "discard" | "zeroes"): Range | number {
    const sector = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
    const sectors = view.getUint32(8, true);
    const flags = view.getUint32(12, true);
    const allowed = kind === "zeroes" ? UNMAP : 0;
    if (flags & ~allowed) return BlockStatus.UNSUPPORTED;
    const offset = sector * SECTOR_BYTES;
    const length = sectors * SECTOR_BYTES;
    const fits = sectors <= MAX_RANGE_SECTORS && offset <= this.#size - length;
    if (!fits) return BlockStatus.IO_ERROR;
    return { offset, length, unmap: kind === "discard" || (flags & UNMAP) !== 0 };
  }

  #describe(): void {
    const view = new DataView(this.config.buffer);
    view.setBigUint64(ConfigAt.CAPACITY, BigInt(this.#size / SECTOR_BYTES), true);
    view.setUint32(ConfigAt.SEG_MAX, QUEUE_SIZE - 2, true);
    view.setUint32(ConfigAt.BLK_SIZE, SECTOR_BYTES, true);
    view.setUint8(ConfigAt.TOPOLOGY, PHYSICAL_EXPONENT);
    if (this.#options.readOnly) return;
    const limits = [MAX_RANGE_SECTORS, MAX_RANGES];
    for (const [i, value] of [...limits, DISCARD_ALIGNMENT, ...limits].entries())
      view.setUint32(ConfigAt.DISCARD + 4 * i, value, true);
    view.setUint8(ConfigAt.WRITE_ZEROES + 8, 1);
  }
}

const statusOf = (ok: boolean): number => (ok ? BlockStatus.OK : BlockStatus.IO_ERROR);

function newRequest(
  chain: DescriptorChain,
  kind: BlockOperation["kind"],
  { offset = 0, length = 0, ranges = [] }: { offset?: number; length?: number; ranges?: Range[] },
): Request {
  return { chain, kind, offset, length, ranges, done: 0, isAsked: false, isAsking: false };
}

/** The status byte is the last that the device may write. */
function finish(queue: Virtqueue, chain: DescriptorChain, status: number, written = 0): void {
  const isWritten = chain.write(chain.writableBytes - 1, Uint8Array.of(status));
  // The length covers the status byte only if all before it was written, too.
  const whole = written === chain.writableBytes - 1 ? written + 1 : written;
  queue.push(chain, isWritten ? whole : 0);
}

const KINDS = ["read", "write", "discard", "zeroes", "flush"];

function isRequest(saved: Partial<SavedRequest> | null): boolean {
  const numbers = [saved?.offset, saved?.length, saved?.done];
  return (
    numbers.every((n) => Number.isSafeInteger(n) && n! >= 0) &&
    typeof saved?.isAsked === "boolean" &&
    KINDS.includes(saved?.kind ?? "") &&
    Array.isArray(saved?.ranges) &&
    saved.ranges.every((range) => Number.isSafeInteger(range?.offset + range?.length))
  );
}
