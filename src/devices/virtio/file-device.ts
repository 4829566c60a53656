/**
 * Devices for shared folders: each request of the driver is a readable part, its reply a writable one; what they mean is the other end's.
 * Spec: virtio 1.2, "File System Device" (FUSE); "9P Transport" (9P2000.L), whose device has a tag and one queue.
 *
 * A request goes out in pieces that fit, and the next piece when the last has been taken; so does a reply come in. What is in flight is
 * bounded, in requests and in segments, and is all that is saved: the chains, and how far each has got.
 * Not here: the protocols, the files (src/sharing). Not offered: notification queue, DAX.
 */
import { HypolithError } from "../../base/errors.ts";
import type { DescriptorChain, SavedChain } from "./descriptor-chain.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";
import type { Virtqueue } from "./virtqueue.ts";

/** A part of a request. */
export interface FilePiece {
  readonly tag: number;
  /** bytes of the whole request, and of the reply at most */
  readonly length: number;
  readonly room: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface FileWires {
  /** How many bytes of a request can be taken now. */
  readonly room: number;
  /** Answered by `accepted` for all pieces but the last, and by `reply` for that. */
  submit(piece: FilePiece): void;
}

export type FileDeviceKind = "fs" | "9p";

interface Shape {
  readonly type: number;
  readonly queueSizes: readonly number[];
  readonly features: readonly number[];
  readonly config: (tag: string) => Uint8Array;
}

/** Mount tag. */
export const MOUNT_TAG_FEATURE = 0;
const FS_TAG_BYTES = 36;
/** Linux makes requests of up to 256 pages where a queue has that many entries. */
const REQUEST_QUEUE = 512;
const FORGET_QUEUE = 128;
const QUEUE_9P = 128;

const SHAPES: Readonly<Record<FileDeviceKind, Shape>> = {
  fs: {
    type: DeviceType.FILE_SYSTEM,
    queueSizes: [FORGET_QUEUE, REQUEST_QUEUE],
    features: [],
    config(tag) {
      const config = new Uint8Array(FS_TAG_BYTES + 4);
      config.set(ascii(tag));
      config[FS_TAG_BYTES] = 1;
      return config;
    },
  },
  "9p": {
    type: DeviceType.TRANSPORT_9P,
    queueSizes: [QUEUE_9P],
    features: [MOUNT_TAG_FEATURE],
    config: (tag) => Uint8Array.of(tag.length & 0xff, tag.length >> 8, ...ascii(tag)),
  },
};

/** The longest tag that both kinds can show. */
export const MAX_TAG = 31;
/** A request of the most data that either protocol carries, and what goes with it. */
export const MAX_REQUEST_BYTES = (1 << 20) + (64 << 10);
const MAX_IN_FLIGHT = 64;
const MAX_SEGMENTS_IN_FLIGHT = 2048;
/** Smaller pieces are not worth a message, but as the last. */
const MIN_PIECE_BYTES = 4096;
const TAG_HEADS = 0x1_0000;
const TAG_QUEUES = 2;

/** Which life of the device a tag is from: it counts the driver's resets. */
export const lifeOf = (tag: number): number => Math.floor(tag / (TAG_HEADS * TAG_QUEUES));

interface Request {
  readonly queue: number;
  readonly chain: DescriptorChain;
  /** bytes of it that have gone out */
  sent: number;
  /** the other end has a piece, and has not answered */
  isAsked: boolean;
  /** bytes of the reply that have come in */
  received: number;
}

interface SavedRequest extends Omit<Request, "chain"> {
  readonly chain: SavedChain;
}

export class FileDevice implements VirtioDevice {
  readonly type: number;
  readonly classCode = 0x01_8000;
  readonly features: readonly number[];
  readonly queueSizes: readonly number[];
  readonly config: Uint8Array;
  readonly #wires: FileWires;
  readonly #requests = new Map<number, Request>();
  #segments = 0;
  /** counts resets: an answer to an earlier life is dropped */
  #life = 0;
  #link: VirtioLink | undefined;

  /** `tag`: ASCII, at most MAX_TAG characters. */
  constructor(wires: FileWires, { kind, tag }: { kind: FileDeviceKind; tag: string }) {
    this.#wires = wires;
    const { type, queueSizes, features, config } = SHAPES[kind];
    this.type = type;
    this.queueSizes = queueSizes;
    this.features = features;
    this.config = config(tag);
  }

  connect(link: VirtioLink): void {
    this.#link = link;
  }

  activate(): void {}

  notify(): void {
    this.resume();
  }

  /** The other end has taken a piece; `resume` sends the next. Unknown tags do nothing. */
  accepted(tag: number): void {
    const request = this.#find(tag);
    if (request) request.isAsked = false;
  }

  /**
   * A part of a reply, from `offset` on; `length` is that of the whole. The parts come in order, and `resume` tells the driver. One that the driver left no room for
   * breaks the queue, since its request said how much there is.
   */
  reply(tag: number, part: { length: number; offset: number; bytes: Uint8Array }): void {
    const request = this.#find(tag);
    const queue = request && this.#link?.queues[request.queue];
    if (!request || !queue) return;
    const { length, offset, bytes } = part;
    const isNext = offset === request.received && request.sent === request.chain.readableBytes;
    if (!isNext || !request.chain.write(offset, bytes)) {
      queue.refuse("a reply that does not fit its request");
      return;
    }
    request.received += bytes.length;
    if (request.received < length) return;
    this.#drop(request);
    queue.push(request.chain, length);
  }

  /** Takes requests and sends pieces as far as there is room, and gives the driver what is done. */
  resume(): void {
    const { queues = [] } = this.#link ?? {};
    for (const request of this.#requests.values()) {
      if (!request.isAsked && !this.#send(request)) break;
    }
    for (const [index, queue] of queues.entries()) this.#fill(index, queue);
    for (const queue of queues) queue.flush();
  }

  /** Something waits for room, and no answer will come that could make some. */
  get isHeldBack(): boolean {
    if (!this.#link?.isActive) return false;
    const requests = [...this.#requests.values()];
    const isWaiting = requests.some(({ isAsked }) => !isAsked);
    return isWaiting && !requests.some(({ isAsked }) => isAsked);
  }

  reset(): void {
    this.#life++;
    this.#requests.clear();
    this.#segments = 0;
  }

  save(): unknown {
    const requests = [...this.#requests.values()].map((request) => ({
      ...request,
      chain: request.chain.save(),
    }));
    return { life: this.#life, requests };
  }

  restore(state: unknown): void {
    const { life, requests } = (state ?? {}) as { life?: number; requests?: SavedRequest[] };
    const queues = this.#link?.queues ?? [];
    const isFit =
      Number.isSafeInteger(life) &&
      Array.isArray(requests) &&
      requests.every((request) => isRequest(request) && request.queue < queues.length);
    if (!isFit) throw new HypolithError("snapshot-shape", "a saved file device does not fit");
    const chains = requests.map(({ chain, queue }) => queues[queue].restoreChain(chain));
    this.reset();
    this.#life = life!;
    for (const [i, request] of requests.entries()) this.#keep({ ...request, chain: chains[i] });
  }

  // ---- inside ----

  #fill(index: number, queue: Virtqueue): void {
    do {
      while (this.#hasRoom()) {
        const chain = queue.pop();
        if (!chain) break;
        const { readableBytes } = chain;
        if (readableBytes === 0 || readableBytes > MAX_REQUEST_BYTES) {
          queue.refuse(`a request of ${readableBytes} bytes`);
          return;
        }
        const request = { queue: index, chain, sent: 0, isAsked: false, received: 0 };
        this.#keep(request);
        this.#send(request);
      }
    } while (this.#hasRoom() && queue.setNotify(true));
  }

  #hasRoom(): boolean {
    return this.#requests.size < MAX_IN_FLIGHT && this.#segments < MAX_SEGMENTS_IN_FLIGHT;
  }

  /** False if there is no room now. */
  #send(request: Request): boolean {
    const { chain, sent, queue } = request;
    const length = chain.readableBytes;
    const rest = length - sent;
    if (rest === 0) return true;
    const { room } = this.#wires;
    if (room < Math.min(rest, MIN_PIECE_BYTES)) return false;
    const bytes = chain.take(sent, Math.min(rest, room));
    if (!bytes) {
      this.#link?.queues[queue].refuse("a request outside memory");
      return true;
    }
    request.sent += bytes.length;
    request.isAsked = true;
    const tag = this.#tagOf(queue, chain.head);
    this.#wires.submit({ tag, length, room: chain.writableBytes, offset: sent, bytes });
    return true;
  }

  /** Life, queue and head in one number. */
  #tagOf(queue: number, head: number): number {
    return (this.#life * TAG_QUEUES + queue) * TAG_HEADS + head;
  }

  #keyOf({ queue, chain }: Request): number {
    return queue * TAG_HEADS + chain.head;
  }

  #find(tag: number): Request | undefined {
    if (lifeOf(tag) !== this.#life) return undefined;
    const request = this.#requests.get(tag % (TAG_HEADS * TAG_QUEUES));
    return request?.isAsked ? request : undefined;
  }

  #keep(request: Request): void {
    this.#requests.set(this.#keyOf(request), request);
    this.#segments += request.chain.segments;
  }

  #drop(request: Request): void {
    this.#requests.delete(this.#keyOf(request));
    this.#segments -= request.chain.segments;
  }
}

function ascii(text: string): number[] {
  return [...text].map((character) => character.charCodeAt(0) & 0x7f);
}

function isRequest(request: SavedRequest | null): boolean {
  const { queue, sent, received, isAsked } = (request ?? {}) as Partial<SavedRequest>;
  const numbers = [queue, sent, received];
  return (
    numbers.every((value) => Number.isSafeInteger(value) && value! >= 0) &&
    typeof isAsked === "boolean"
  );
}
