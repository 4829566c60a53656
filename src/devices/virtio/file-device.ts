/**
 * Devices for shared folders: each request of the driver is a readable part, its reply a writable one; what they mean is the other end's.
 * Spec: virtio 1.2, "File System Device" (FUSE); "9P Transport" (9P2000.L), whose device has a tag and one queue.
 *
 * The device never has the bytes: it says where in guest memory a request is and where its reply may be. What is in flight is bounded, in
 * requests and in segments, and is all that is saved.
 * Not here: the protocols, the files (src/sharing). Not offered: notification queue, DAX.
 */
import { HypolithError } from "../../base/errors.ts";
import type { ChainPart, DescriptorChain, SavedChain } from "./descriptor-chain.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";
import type { Virtqueue } from "./virtqueue.ts";

export interface FileRequest {
  readonly tag: number;
  /** bytes of the request, and of the reply at most */
  readonly length: number;
  readonly room: number;
  /** where they are */
  readonly request: ChainPart;
  readonly reply: ChainPart;
}

export interface FileWires {
  /** Passes a request on; `complete` answers it. False: not now, `resume` will be called; the request is then made anew. */
  submit(request: FileRequest): boolean;
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
const TAG_HEADS = 0x1_0000;
const TAG_QUEUES = 2;

interface Request {
  readonly queue: number;
  readonly chain: DescriptorChain;
  /** the other end has it, and has not answered */
  isAsked: boolean;
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

  /** The other end has answered by `written` bytes; `resume` tells the driver. Unknown tags do nothing. */
  complete(tag: number, written: number): void {
    const life = Math.floor(tag / (TAG_HEADS * TAG_QUEUES));
    const request = this.#requests.get(tag % (TAG_HEADS * TAG_QUEUES));
    if (life !== this.#life || !request?.isAsked) return;
    this.#requests.delete(keyOf(request));
    this.#segments -= request.chain.segments;
    const length = Math.min(written, request.chain.writableBytes);
    this.#link?.queues[request.queue].push(request.chain, length);
  }

  /** Takes requests as far as there is room, and gives the driver what is done. */
  resume(): void {
    const { queues = [] } = this.#link ?? {};
    for (const request of this.#requests.values()) {
      if (!request.isAsked && !this.#submit(request)) break;
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
        const request = { queue: index, chain, isAsked: false };
        this.#keep(request);
        this.#submit(request);
      }
    } while (this.#hasRoom() && queue.setNotify(true));
  }

  #hasRoom(): boolean {
    return this.#requests.size < MAX_IN_FLIGHT && this.#segments < MAX_SEGMENTS_IN_FLIGHT;
  }

  /** False if there is no room now. */
  #submit(request: Request): boolean {
    const { chain } = request;
    const { readableBytes: length, writableBytes: room } = chain;
    request.isAsked = this.#wires.submit({
      tag: this.#life * TAG_HEADS * TAG_QUEUES + keyOf(request),
      ...{ length, room },
      request: chain.part(false, 0, length)!,
      reply: chain.part(true, 0, room)!,
    });
    return request.isAsked;
  }

  #keep(request: Request): void {
    this.#requests.set(keyOf(request), request);
    this.#segments += request.chain.segments;
  }
}

const keyOf = ({ queue, chain }: Request): number => queue * TAG_HEADS + chain.head;

function ascii(text: string): number[] {
  return [...text].map((character) => character.charCodeAt(0) & 0x7f);
}

function isRequest(request: SavedRequest | null): boolean {
  const { queue, isAsked } = (request ?? {}) as Partial<SavedRequest>;
  return Number.isSafeInteger(queue) && queue! >= 0 && typeof isAsked === "boolean";
}
