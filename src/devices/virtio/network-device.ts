/**
 * The network device: Ethernet frames in and out.
 * Spec: virtio 1.2, "Network Device".
 *
 * One pair of queues. The other end is a stack of ours that ends all connections: checksums may be left unfinished in both directions, and a frame may stand
 * for many TCP segments (segmentation offload), as far as the driver has agreed. The device never has a frame's bytes: it says where in guest memory they
 * are or shall be. A frame that no buffers can take is refused, so that the other end keeps it: nothing is queued here.
 * Not offered: several queues, a control queue, UDP fragmentation.
 */
import { restoreState, saveState } from "../state.ts";
import type { ChainPart, DescriptorChain } from "./descriptor-chain.ts";
import { FrameFlag, type FrameTag } from "./frame-tag.ts";
import { endReceiving, transmitWaiting } from "./packet-queues.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";
import type { Virtqueue } from "./virtqueue.ts";

/** Feature bits. */
export const NetworkFeature = {
  CSUM: 0,
  GUEST_CSUM: 1,
  MTU: 3,
  MAC: 5,
  GUEST_TSO4: 7,
  HOST_TSO4: 11,
  MRG_RXBUF: 15,
  STATUS: 16,
} as const;

export interface NetworkWires {
  /** A frame of the guest, without frame check sequence, in guest memory. */
  transmit(tag: FrameTag, memory: ChainPart): void;
  /** Whether another frame can be taken now; `resume` is called when it can again. Absent: always. */
  canTransmit?(): boolean;
  /** The next frame of those that `receive` was told of goes to this memory, which is as long; without memory it is lost. */
  place(memory: ChainPart): void;
  /** Whether another frame in so many pieces of memory can be placed now. Absent: always. */
  canPlace?(pieces: number): boolean;
  /** The driver has receive buffers again. */
  receiveReady?(): void;
}

export interface NetworkOptions {
  /** six bytes */
  readonly mac: Uint8Array;
  /** default 1500 */
  readonly mtu?: number;
}

const QUEUE_SIZE = 256;
const RECEIVE = 0;
const TRANSMIT = 1;
const HEADER_BYTES = 12;
const ETHERNET_BYTES = 14;
const IPV4_BYTES = 20;
const VLAN_BYTES = 4;
const DEFAULT_MTU = 1500;
/** An IPv4 packet can be no longer, whatever it stands for. */
const MAX_PACKET = 0xffff;
const LINK_UP = 1;
const HeaderFlag = { NEEDS_CSUM: 1 } as const;
const GSO_TCPV4 = 1;
const HeaderAt = {
  ...{ FLAGS: 0, GSO_TYPE: 1, HEADER_LENGTH: 2, GSO_SIZE: 4, CSUM_START: 6, CSUM_OFFSET: 8 },
  NUM_BUFFERS: 10,
} as const;
/** Of the checksum, in the header of TCP. */
const TCP_CHECKSUM = 16;
const TCP_BYTES = 20;
const ConfigAt = { MAC: 0, STATUS: 6, MTU: 10, END: 12 } as const;

export class NetworkDevice implements VirtioDevice {
  readonly type = DeviceType.NET;
  readonly classCode = 0x02_0000;
  readonly features: readonly number[] = Object.values(NetworkFeature);
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(ConfigAt.END);
  readonly #wires: NetworkWires;
  readonly #maxFrame: number;
  readonly #state = { isLinkUp: true, isReceiverFull: false, isHeldBack: false };
  /** the wire had no room for a frame that the driver had buffers for */
  #isPlacingHeldBack = false;
  #link: VirtioLink | undefined;

  constructor(wires: NetworkWires, options: NetworkOptions) {
    this.#wires = wires;
    const mtu = options.mtu ?? DEFAULT_MTU;
    this.#maxFrame = mtu + ETHERNET_BYTES + VLAN_BYTES;
    this.config.set(options.mac.subarray(0, 6), ConfigAt.MAC);
    new DataView(this.config.buffer).setUint16(ConfigAt.MTU, mtu, true);
    this.#describeLink();
  }

  connect(link: VirtioLink): void {
    this.#link = link;
  }

  setLinkUp(isUp: boolean): void {
    if (this.#state.isLinkUp === isUp) return;
    this.#state.isLinkUp = isUp;
    this.#describeLink();
    this.#link?.configChanged();
  }

  /** Frames for the guest, in order: answers how many found buffers. Frames that are too long count as taken, and are lost. */
  receive(tags: readonly FrameTag[]): number {
    const queue = this.#link?.queues[RECEIVE];
    this.#isPlacingHeldBack = false;
    if (!queue || !this.#link?.isActive) return 0;
    let taken = 0;
    while (taken < tags.length && this.#receiveOne(queue, tags[taken]!)) taken++;
    const ranDry = taken < tags.length && !this.#isPlacingHeldBack;
    this.#state.isReceiverFull = endReceiving(queue, ranDry);
    return taken;
  }

  /** Frames were left because the wire had no room: offer them again soon. */
  get isReceiving(): boolean {
    return this.#isPlacingHeldBack;
  }

  activate(): void {
    this.#wires.receiveReady?.();
  }

  notify(queue: number): void {
    if (queue === TRANSMIT) this.resume();
    else if (this.#state.isReceiverFull) {
      this.#state.isReceiverFull = false;
      this.#wires.receiveReady?.();
    }
  }

  /** Sends what waits, as far as the wire takes it. */
  resume(): void {
    const queue = this.#link?.queues[TRANSMIT];
    if (!queue || !this.#link?.isActive) return;
    const canTransmit = (): boolean => this.#wires.canTransmit?.() ?? true;
    this.#state.isHeldBack = transmitWaiting(queue, canTransmit, (chain) => this.#send(chain));
  }

  /** The wire had no room: frames may wait, and the driver was not asked to tell of more. Only `resume` ends it. */
  get isTransmitting(): boolean {
    return this.#state.isHeldBack && this.#link?.isActive === true;
  }

  reset(): void {
    this.#state.isHeldBack = false;
    this.#state.isReceiverFull = false;
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
    this.#describeLink();
  }

  #has(feature: number): boolean {
    return this.#link?.hasFeature(feature) === true;
  }

  /** False if there are no buffers for it, or no room on the wire. */
  #receiveOne(queue: Virtqueue, tag: FrameTag): boolean {
    if (!this.#isFit(tag)) {
      this.#wires.place(NO_MEMORY);
      return true;
    }
    const chains = this.#buffersFor(queue, HEADER_BYTES + tag.length);
    if (!chains) return false;
    const pieces = chains.reduce((sum, { segments }) => sum + segments, 0);
    if (!(this.#wires.canPlace?.(pieces) ?? true)) {
      for (const chain of chains.reverse()) queue.unpop(chain);
      this.#isPlacingHeldBack = true;
      return false;
    }
    this.#fill(queue, chains, tag);
    return true;
  }

  #isFit({ length, flags, segment }: FrameTag): boolean {
    const { isLinkUp } = this.#state;
    if (segment > 0)
      return (
        isLinkUp &&
        this.#has(NetworkFeature.GUEST_TSO4) &&
        length <= MAX_PACKET + ETHERNET_BYTES &&
        length >= ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES
      );
    const isFinished = (flags & FrameFlag.UNFINISHED) === 0;
    const fits = length > 0 && length <= this.#maxFrame;
    return isLinkUp && fits && (isFinished || this.#has(NetworkFeature.GUEST_CSUM));
  }

  /** As many chains as a frame with its header needs; undefined if there are not so many. */
  #buffersFor(queue: Virtqueue, bytes: number): DescriptorChain[] | undefined {
    const merges = this.#has(NetworkFeature.MRG_RXBUF);
    const chains: DescriptorChain[] = [];
    for (let room = 0; room < bytes; ) {
      const chain = queue.pop();
      if (!chain) {
        for (const taken of chains.reverse()) queue.unpop(taken);
        return undefined;
      }
      chains.push(chain);
      room += chain.writableBytes;
      // One buffer a frame: one that is too small comes back empty, the frame is lost as on a wire.
      if (!merges) break;
    }
    return chains;
  }

  #fill(queue: Virtqueue, chains: readonly DescriptorChain[], tag: FrameTag): void {
    const [first] = chains;
    const room = chains.reduce((sum, { writableBytes }) => sum + writableBytes, 0);
    const total = HEADER_BYTES + tag.length;
    const fits = room >= total && first!.write(0, headerOf(tag, chains.length));
    const addresses: number[] = [];
    const lengths: number[] = [];
    let left = fits ? total : 0;
    for (const [i, chain] of chains.entries()) {
      const length = Math.min(left, chain.writableBytes);
      const from = i === 0 ? Math.min(length, HEADER_BYTES) : 0;
      const part = chain.part(true, from, length - from)!;
      addresses.push(...part.addresses);
      lengths.push(...part.lengths);
      queue.push(chain, length);
      left -= length;
    }
    this.#wires.place({ addresses, lengths });
  }

  /** Hands a frame over, unless it is none that may be sent. */
  #send(chain: DescriptorChain): void {
    const length = chain.readableBytes - HEADER_BYTES;
    const header = chain.take(0, Math.min(HEADER_BYTES, chain.readableBytes));
    if (!header || length < ETHERNET_BYTES || !this.#state.isLinkUp) return;
    const isLarge = header[HeaderAt.GSO_TYPE] !== 0;
    const isUnfinished = (header[HeaderAt.FLAGS]! & HeaderFlag.NEEDS_CSUM) !== 0;
    if (isUnfinished && !this.#has(NetworkFeature.CSUM)) return;
    if (isLarge) {
      const isAllowed = this.#has(NetworkFeature.HOST_TSO4) && isUnfinished;
      if (!isAllowed || header[HeaderAt.GSO_TYPE] !== GSO_TCPV4) return;
    }
    if (length > (isLarge ? MAX_PACKET + ETHERNET_BYTES + VLAN_BYTES : this.#maxFrame)) return;
    const memory = chain.part(false, HEADER_BYTES, length);
    const flags =
      (isUnfinished ? FrameFlag.UNFINISHED : 0) |
      (this.#has(NetworkFeature.GUEST_CSUM) ? FrameFlag.TAKES_UNFINISHED : 0) |
      (this.#has(NetworkFeature.GUEST_TSO4) ? FrameFlag.TAKES_SEGMENTS : 0);
    if (memory) this.#wires.transmit({ length, flags, segment: 0 }, memory);
  }

  #describeLink(): void {
    this.config[ConfigAt.STATUS] = this.#state.isLinkUp ? LINK_UP : 0;
  }
}

const NO_MEMORY: ChainPart = { addresses: [], lengths: [] };

/** Of IPv4 without options and TCP: what our stack leaves unfinished is nothing else. */
function headerOf({ flags, segment }: FrameTag, buffers: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(HeaderAt.NUM_BUFFERS, buffers, true);
  if (!(flags & FrameFlag.UNFINISHED)) return bytes;
  const start = ETHERNET_BYTES + IPV4_BYTES;
  bytes[HeaderAt.FLAGS] = HeaderFlag.NEEDS_CSUM;
  view.setUint16(HeaderAt.CSUM_START, start, true);
  view.setUint16(HeaderAt.CSUM_OFFSET, TCP_CHECKSUM, true);
  if (segment === 0) return bytes;
  bytes[HeaderAt.GSO_TYPE] = GSO_TCPV4;
  view.setUint16(HeaderAt.HEADER_LENGTH, start + TCP_BYTES, true);
  view.setUint16(HeaderAt.GSO_SIZE, segment, true);
  return bytes;
}
