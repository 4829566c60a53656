/**
 * The socket device (vsock): packets between the guest and the host's end.
 * Spec: virtio 1.2, "Socket Device".
 *
 * The device looks at lengths and addresses; connections and their credit are the other end's (socket-host.ts), so a restart of the one does
 * not touch the other. A packet for which the guest has no buffer is refused, so that the other end keeps it.
 */
import { restoreState, saveState } from "../state.ts";
import type { DescriptorChain } from "./descriptor-chain.ts";
import { endReceiving, transmitWaiting } from "./packet-queues.ts";
import { SOCKET_HEADER_BYTES } from "./socket-packet.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";

export interface SocketWires {
  /** A packet of the guest, header and data, with its length and source right. */
  transmit(packet: Uint8Array): void;
  /** Whether another packet can be taken now; `resume` is called when it can again. Absent: always. */
  canTransmit?(): boolean;
  /** The guest has receive buffers again. */
  receiveReady?(): void;
}

const QUEUE_SIZE = 128;
const RECEIVE = 0;
const TRANSMIT = 1;
const EVENT = 2;
/** An event is its number, u32. Spec: "Device Operation: Device Events". */
const EVENT_TRANSPORT_RESET = 0;
const EVENT_BYTES = 4;
/** Linux sends up to 64 KiB. */
const MAX_DATA_BYTES = 64 << 10;

export class SocketDevice implements VirtioDevice {
  readonly type = DeviceType.SOCKET;
  readonly classCode = 0x02_8000;
  readonly features = [];
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(8);
  readonly #wires: SocketWires;
  readonly #cid: number;
  readonly #state = { isReceiverFull: false, isHeldBack: false };
  #link: VirtioLink | undefined;

  /** `cid`: the guest's context, 3 or more, below 2^32. */
  constructor(wires: SocketWires, cid: number) {
    this.#wires = wires;
    this.#cid = cid;
    new DataView(this.config.buffer).setUint32(0, cid, true);
  }

  connect(link: VirtioLink): void {
    this.#link = link;
  }

  /** Packets for the guest, in order: answers how many found a buffer. One that its buffer cannot hold counts, and is lost. */
  receive(packets: readonly Uint8Array[]): number {
    const queue = this.#link?.queues[RECEIVE];
    if (!queue || !this.#link?.isActive) return 0;
    let taken = 0;
    for (; taken < packets.length; taken++) {
      const chain = queue.pop();
      if (!chain) break;
      queue.push(chain, chain.write(0, packets[taken]) ? packets[taken].length : 0);
    }
    this.#state.isReceiverFull = endReceiving(queue, taken < packets.length);
    return taken;
  }

  /** The other ends of all connections are gone: tells the guest, if it has a buffer for events. */
  resetTransport(): void {
    this.reset();
    const queue = this.#link?.queues[EVENT];
    if (!queue || !this.#link?.isActive) return;
    const chain = queue.pop();
    if (chain) {
      const event = new Uint8Array(EVENT_BYTES).fill(EVENT_TRANSPORT_RESET);
      queue.push(chain, chain.write(0, event) ? EVENT_BYTES : 0);
    }
    queue.flush();
    // What the driver was to tell of may have been told already, to a device that is no more.
    this.resume();
  }

  activate(): void {
    this.#wires.receiveReady?.();
  }

  notify(queue: number): void {
    if (queue === TRANSMIT) this.resume();
    else if (queue === RECEIVE && this.#state.isReceiverFull) {
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
      const packet = this.#packetOf(chain);
      if (packet) this.#wires.transmit(packet);
    });
  }

  /** The wire had no room: packets may wait, and the driver was not asked to tell of more. Only `resume` ends it. */
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
  }

  #packetOf(chain: DescriptorChain): Uint8Array | undefined {
    const header = chain.take(0, SOCKET_HEADER_BYTES);
    if (!header) return undefined;
    const view = new DataView(header.buffer);
    const length = view.getUint32(24, true);
    const isFromGuest = view.getUint32(0, true) === this.#cid && view.getUint32(4, true) === 0;
    const fits = length <= MAX_DATA_BYTES && SOCKET_HEADER_BYTES + length <= chain.readableBytes;
    if (!isFromGuest || !fits) return undefined;
    const packet = new Uint8Array(SOCKET_HEADER_BYTES + length);
    packet.set(header);
    return chain.read(SOCKET_HEADER_BYTES, packet.subarray(SOCKET_HEADER_BYTES))
      ? packet
      : undefined;
  }
}
