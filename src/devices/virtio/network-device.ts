/**
 * The network device: Ethernet frames in and out.
 * Spec: virtio 1.2, "Network Device".
 *
 * One pair of queues. The driver may leave checksums to the device, which finishes them before a frame leaves, and need not verify those
 * of received frames if the other end is our own stack (`isTrusted`). A frame that no buffer can take is refused, so that the other end keeps
 * it: nothing is queued here.
 * Not offered: segmentation offload, merged receive buffers, several queues, a control queue.
 */
import { restoreState, saveState } from "../state.ts";
import { internetChecksum } from "./checksum.ts";
import { endReceiving, transmitWaiting } from "./packet-queues.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";

/** Feature bits. */
export const NetworkFeature = { CSUM: 0, GUEST_CSUM: 1, MTU: 3, MAC: 5, STATUS: 16 } as const;

export interface NetworkWires {
  /** A frame of the guest, without frame check sequence. */
  transmit(frame: Uint8Array): void;
  /** Whether another frame can be taken now; `resume` is called when it can again. Absent: always. */
  canTransmit?(): boolean;
  /** The driver has receive buffers again. */
  receiveReady?(): void;
}

export interface NetworkOptions {
  /** six bytes */
  readonly mac: Uint8Array;
  /** default 1500 */
  readonly mtu?: number;
  /** received frames need no verification by the guest */
  readonly isTrusted?: boolean;
}

const QUEUE_SIZE = 256;
const RECEIVE = 0;
const TRANSMIT = 1;
const HEADER_BYTES = 12;
const ETHERNET_BYTES = 14;
const VLAN_BYTES = 4;
const DEFAULT_MTU = 1500;
const LINK_UP = 1;
const HeaderFlag = { NEEDS_CSUM: 1, DATA_VALID: 2 } as const;
const HeaderAt = { FLAGS: 0, GSO_TYPE: 1, CSUM_START: 6, CSUM_OFFSET: 8, NUM_BUFFERS: 10 } as const;
const ConfigAt = { MAC: 0, STATUS: 6, MTU: 10, END: 12 } as const;

export class NetworkDevice implements VirtioDevice {
  readonly type = DeviceType.NET;
  readonly classCode = 0x02_0000;
  readonly features: readonly number[];
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(ConfigAt.END);
  readonly #wires: NetworkWires;
  readonly #maxFrame: number;
  readonly #isTrusted: boolean;
  readonly #state = { isLinkUp: true, isReceiverFull: false, isHeldBack: false };
  #link: VirtioLink | undefined;

  constructor(wires: NetworkWires, options: NetworkOptions) {
    this.#wires = wires;
    const mtu = options.mtu ?? DEFAULT_MTU;
    this.#maxFrame = mtu + ETHERNET_BYTES + VLAN_BYTES;
    this.#isTrusted = options.isTrusted === true;
    const { CSUM, GUEST_CSUM, MTU, MAC, STATUS } = NetworkFeature;
    this.features = [CSUM, MTU, MAC, STATUS, ...(this.#isTrusted ? [GUEST_CSUM] : [])];
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

  /** Frames for the guest, in order: answers how many found a buffer. Frames that are too long count as taken, and are lost. */
  receive(frames: readonly Uint8Array[]): number {
    const queue = this.#link?.queues[RECEIVE];
    if (!queue || !this.#link?.isActive) return 0;
    let taken = 0;
    for (const frame of frames) {
      if (this.#state.isLinkUp && frame.length <= this.#maxFrame && frame.length > 0) {
        const chain = queue.pop();
        if (!chain) break;
        queue.push(chain, this.#fill(chain, frame));
      }
      taken++;
    }
    this.#state.isReceiverFull = endReceiving(queue, taken < frames.length);
    return taken;
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
    this.#state.isHeldBack = transmitWaiting(queue, canTransmit, (chain) => {
      const frame = this.#frameOf(chain);
      if (frame && this.#state.isLinkUp) this.#wires.transmit(frame);
    });
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

  #fill(chain: { write(offset: number, bytes: Uint8Array): boolean }, frame: Uint8Array): number {
    const bytes = new Uint8Array(HEADER_BYTES + frame.length);
    const verified = this.#isTrusted && this.#link?.hasFeature(NetworkFeature.GUEST_CSUM);
    bytes[HeaderAt.FLAGS] = verified ? HeaderFlag.DATA_VALID : 0;
    bytes[HeaderAt.NUM_BUFFERS] = 1;
    bytes.set(frame, HEADER_BYTES);
    // A buffer that is too small comes back empty: the frame is lost, as on a wire.
    return chain.write(0, bytes) ? bytes.length : 0;
  }

  /** The frame of a chain with its checksum finished; undefined if it is none that may be sent. */
  #frameOf(chain: {
    readonly readableBytes: number;
    take(offset: number, length: number): Uint8Array | undefined;
  }): Uint8Array | undefined {
    const length = chain.readableBytes - HEADER_BYTES;
    if (length < ETHERNET_BYTES || length > this.#maxFrame) return undefined;
    const bytes = chain.take(0, chain.readableBytes);
    if (bytes?.[HeaderAt.GSO_TYPE] !== 0) return undefined;
    const frame = bytes.subarray(HEADER_BYTES);
    const isPartial = (bytes[HeaderAt.FLAGS] & HeaderFlag.NEEDS_CSUM) !== 0;
    if (!isPartial) return frame;
    const header = new DataView(bytes.buffer, 0, HEADER_BYTES);
    const from = header.getUint16(HeaderAt.CSUM_START, true);
    const at = from + header.getUint16(HeaderAt.CSUM_OFFSET, true);
    if (at + 2 > frame.length || !this.#link?.hasFeature(NetworkFeature.CSUM)) return undefined;
    // The field holds the sum of the pseudo header. A UDP checksum of zero would say that there is none.
    const checksum = internetChecksum(frame, from) || 0xffff;
    frame[at] = checksum >> 8;
    frame[at + 1] = checksum & 0xff;
    return frame;
  }

  #describeLink(): void {
    this.config[ConfigAt.STATUS] = this.#state.isLinkUp ? LINK_UP : 0;
  }
}
