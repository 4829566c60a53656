/**
 * The wire to the guest: neighbours, and frames on their way out.
 *
 * Frames for a neighbour nobody has heard of wait for an answer to an ARP request; frames that find the link full wait, too. Both queues are
 * bounded; what does not fit is dropped, as on any wire. TCP asks for room first and writes its frames in place (`sendTcp`).
 */
import { BROADCAST_MAC, isUnicastMac } from "../packet/address.ts";
import { ArpOperation, buildArp } from "../packet/arp.ts";
import { ETHERNET_HEADER, EtherType, MAX_FRAME, writeEthernet } from "../packet/ethernet.ts";
import { IPV4_HEADER, IpProtocol, MAX_IPV4, writeIpv4 } from "../packet/ipv4.ts";
import { TCP_HEADER, type TcpPorts, tcpHeaderLength, writeTcp } from "../packet/tcp-segment.ts";
import type { OutSegment } from "../tcp/connection.ts";
import type { SendQueue } from "../tcp/send-queue.ts";
import { isInSubnet, LIMITED_BROADCAST, Subnet } from "./subnet.ts";

/** The device's end of the wire. */
export interface FramePort {
  /** False while the guest has no room for a frame of the largest size. */
  ready(): boolean;
  /**
   * The frame is valid during the call. `isUnfinished`: its TCP checksum covers the pseudo header alone. `segment`: it stands for TCP segments of so
   * many bytes of payload. Only as the guest takes them.
   */
  send(frame: Uint8Array, isUnfinished?: boolean, segment?: number): void;
}

/** What a guest takes besides finished packets of no more than an MTU. */
export interface LinkOffload {
  /** unfinished checksums */
  readonly checksums: boolean;
  /** frames that stand for many TCP segments */
  readonly segments: boolean;
}

export interface Packet {
  readonly source: number;
  readonly destination: number;
  readonly protocol: number;
  readonly payload: Uint8Array;
}

const MAX_QUEUED_BYTES = 256 * 1024;
const MAX_QUEUED_FRAMES = 256;
const MAX_NEIGHBOURS = 64;
const MAX_UNRESOLVED = 16;
const ARP_INTERVAL_NS = 1e9;

export class GuestLink {
  readonly mtu: number;
  readonly #port: FramePort;
  /** By address; the latest heard is the last. */
  #neighbours = new Map<number, number>();
  #unresolved: { destination: number; frame: Uint8Array }[] = [];
  #asked = new Map<number, number>();
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #nextId = 1;
  readonly #scratch = new Uint8Array(MAX_FRAME);
  offload: LinkOffload = { checksums: false, segments: false };
  dropped = 0;

  constructor(port: FramePort, mtu: number) {
    this.#port = port;
    this.mtu = mtu;
  }

  /** May a TCP segment go out now? */
  ready(): boolean {
    return this.#queue.length === 0 && this.#port.ready();
  }

  /** Sends what waited for room. */
  flush(): void {
    while (this.#queue.length > 0 && this.#port.ready()) {
      const frame = this.#queue.shift()!;
      this.#queuedBytes -= frame.length;
      this.#port.send(frame);
    }
  }

  /** `mac` has spoken for `address`. */
  learn(address: number, mac: number): void {
    if (!isInSubnet(address) || !isUnicastMac(mac)) return;
    if (address === Subnet.GATEWAY || address === Subnet.DNS || address === Subnet.BROADCAST)
      return;
    if (this.#neighbours.get(address) === mac) return;
    this.#neighbours.delete(address);
    if (this.#neighbours.size >= MAX_NEIGHBOURS) {
      const [oldest] = this.#neighbours.keys();
      this.#neighbours.delete(oldest!);
    }
    this.#neighbours.set(address, mac);
    this.#asked.delete(address);
    const waiting = this.#unresolved.filter(({ destination }) => destination === address);
    this.#unresolved = this.#unresolved.filter(({ destination }) => destination !== address);
    for (const { frame } of waiting) {
      setDestination(frame, mac);
      this.sendFrame(frame);
    }
  }

  knows(address: number): boolean {
    return this.#neighbours.has(address);
  }

  /** A frame of its own memory. */
  sendFrame(frame: Uint8Array): void {
    if (this.ready()) {
      this.#port.send(frame);
      return;
    }
    const isFull =
      this.#queue.length >= MAX_QUEUED_FRAMES ||
      this.#queuedBytes + frame.length > MAX_QUEUED_BYTES;
    if (isFull) {
      this.dropped++;
      return;
    }
    this.#queue.push(frame);
    this.#queuedBytes += frame.length;
  }

  /** A packet in as many fragments as the MTU asks for. `mac` overrides the neighbour table. */
  sendPacket(packet: Packet, now: number, mac?: number): void {
    const { payload, ...rest } = packet;
    const most = this.mtu - IPV4_HEADER;
    const id = this.#id();
    if (payload.length > MAX_IPV4 - IPV4_HEADER) return;
    if (payload.length <= most) {
      const header = { ...rest, id, dontFragment: false };
      this.#sendIpv4(packet.destination, ipv4Frame(header, payload), now, mac);
      return;
    }
    const step = most & ~7;
    for (let at = 0; at < payload.length; at += step) {
      const moreFragments = at + step < payload.length;
      const header = { ...rest, id, dontFragment: false, moreFragments, fragmentOffset: at };
      const frame = ipv4Frame(header, payload.subarray(at, at + step));
      this.#sendIpv4(packet.destination, frame, now, mac);
    }
  }

  #id(): number {
    this.#nextId = (this.#nextId + 1) & 0xffff;
    return this.#nextId;
  }

  #sendIpv4(destination: number, frame: Uint8Array, now: number, mac?: number): void {
    const to = mac ?? this.#macOf(destination);
    if (to === undefined) {
      this.#resolve(destination, frame, now);
      return;
    }
    setDestination(frame, to);
    this.sendFrame(frame);
  }

  #macOf(address: number): number | undefined {
    if (address === LIMITED_BROADCAST || address === Subnet.BROADCAST) return BROADCAST_MAC;
    return this.#neighbours.get(address);
  }

  #resolve(destination: number, frame: Uint8Array, now: number): void {
    if (!isInSubnet(destination)) return;
    if (this.#unresolved.length >= MAX_UNRESOLVED) {
      this.#unresolved.shift();
      this.dropped++;
    }
    this.#unresolved.push({ destination, frame });
    this.#askFor(destination, now);
  }

  #askFor(destination: number, now: number): void {
    if (!isInSubnet(destination)) return;
    const asked = this.#asked.get(destination);
    if (asked !== undefined && now - asked < ARP_INTERVAL_NS) return;
    if (this.#asked.size >= MAX_NEIGHBOURS) this.#asked.clear();
    this.#asked.set(destination, now);
    const request = {
      operation: ArpOperation.REQUEST,
      senderMac: Subnet.GATEWAY_MAC,
      sender: Subnet.GATEWAY,
      targetMac: 0,
      target: destination,
    };
    this.sendFrame(buildArp(request, BROADCAST_MAC));
  }

  /** Payload bytes of a TCP segment that the link cuts itself, or 0: it cuts none. */
  get burst(): number {
    const { checksums, segments } = this.offload;
    return checksums && segments ? MAX_IPV4 - IPV4_HEADER - TCP_HEADER : 0;
  }

  /** Hot path: one segment, written in place. The caller has asked `ready`. */
  sendTcp(
    ports: TcpPorts,
    segment: OutSegment,
    queue: SendQueue,
    { now, mss = MAX_IPV4 }: { readonly now: number; readonly mss?: number },
  ): void {
    const frame = this.#scratch;
    const at = ETHERNET_HEADER + IPV4_HEADER;
    const headerLength = tcpHeaderLength(segment);
    const length = headerLength + segment.length;
    if (segment.length > 0) queue.copy(segment.position, segment.length, frame, at + headerLength);
    const { source, destination } = ports;
    const header = { source, destination, protocol: IpProtocol.TCP, id: this.#id() };
    writeIpv4(frame, ETHERNET_HEADER, { ...header, dontFragment: true }, length);
    const mac = this.#neighbours.get(destination);
    // What waits for its neighbour is sent later, by who knows nothing of this.
    const isUnfinished = this.offload.checksums && mac !== undefined;
    writeTcp(frame, at, { ...segment, ...ports }, segment.length, isUnfinished);
    const whole = frame.subarray(0, at + length);
    writeEthernet(whole, {
      destination: mac ?? 0,
      source: Subnet.GATEWAY_MAC,
      type: EtherType.IPV4,
    });
    const isBurst = segment.length > mss;
    if (mac !== undefined) this.#port.send(whole, isUnfinished, isBurst ? mss : 0);
    else if (!isBurst) this.#resolve(destination, whole.slice(), now);
    // Too large to wait here; its connection sends it again.
    else this.#askFor(destination, now);
  }

  save(): SavedLink {
    return {
      neighbours: [...this.#neighbours].map(([address, mac]) => ({ address, mac })),
      unresolved: this.#unresolved.map(({ destination, frame }) => ({
        ...{ destination, frame: frame.slice() },
      })),
      asked: [...this.#asked].map(([address, at]) => ({ address, at })),
      queue: this.#queue.map((frame) => frame.slice()),
      nextId: this.#nextId,
    };
  }

  restore(saved: SavedLink): void {
    const neighbours = saved.neighbours.slice(0, MAX_NEIGHBOURS);
    this.#neighbours = new Map(neighbours.map(({ address, mac }) => [address, mac]));
    this.#unresolved = saved.unresolved.slice(0, MAX_UNRESOLVED);
    const asked = saved.asked.slice(0, MAX_NEIGHBOURS);
    this.#asked = new Map(asked.map(({ address, at }) => [address, at]));
    this.#queue = saved.queue.slice(0, MAX_QUEUED_FRAMES).map((frame) => frame.slice());
    this.#queuedBytes = this.#queue.reduce((sum, { length }) => sum + length, 0);
    this.#nextId = saved.nextId & 0xffff;
  }
}

export interface SavedLink {
  readonly neighbours: readonly { readonly address: number; readonly mac: number }[];
  readonly unresolved: { readonly destination: number; readonly frame: Uint8Array }[];
  readonly asked: readonly { readonly address: number; readonly at: number }[];
  readonly queue: readonly Uint8Array[];
  readonly nextId: number;
}

function ipv4Frame(header: Parameters<typeof writeIpv4>[2], payload: Uint8Array): Uint8Array {
  const at = ETHERNET_HEADER + IPV4_HEADER;
  const frame = new Uint8Array(at + payload.length);
  writeEthernet(frame, { destination: 0, source: Subnet.GATEWAY_MAC, type: EtherType.IPV4 });
  writeIpv4(frame, ETHERNET_HEADER, header, payload.length);
  frame.set(payload, at);
  return frame;
}

function setDestination(frame: Uint8Array, mac: number): void {
  writeEthernet(frame, {
    destination: mac,
    source: Subnet.GATEWAY_MAC,
    type: (frame[12]! << 8) | frame[13]!,
  });
}
