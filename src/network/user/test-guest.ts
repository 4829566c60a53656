/** A guest by hand: builds frames, reads what comes back, in virtual time; and an embedder that only takes notes. */

import { BROADCAST_MAC } from "../packet/address.ts";
import { ArpOperation, type ArpPacket, buildArp, parseArp } from "../packet/arp.ts";
import { ETHERNET_HEADER, EtherType, parseEthernet, writeEthernet } from "../packet/ethernet.ts";
import { type IcmpMessage, parseIcmp } from "../packet/icmp.ts";
import { IPV4_HEADER, IpProtocol, type Ipv4Packet, parseIpv4, writeIpv4 } from "../packet/ipv4.ts";
import { Ipv4Reassembly } from "../packet/reassembly.ts";
import {
  parseTcp,
  type TcpHeader,
  type TcpSegment,
  tcpHeaderLength,
  writeTcp,
} from "../packet/tcp-segment.ts";
import { buildUdp, parseUdp, type UdpDatagram } from "../packet/udp.ts";
import type { LinkOffload } from "./guest-link.ts";
import type { HostEvents, HostNetwork } from "./host-network.ts";
import { Subnet } from "./subnet.ts";
import { UserNetwork, type UserNetworkOptions } from "./user-network.ts";

export const GUEST_MAC = 0x5254_0012_3456;
export const OUTSIDE = 0xc633_6407; // 198.51.100.7

/** Calls of a HostNetwork, as they came. */
export type HostCall = {
  readonly [K in keyof Required<HostNetwork>]: [K, ...Parameters<Required<HostNetwork>[K]>];
}[keyof HostNetwork];

export class TestHost {
  calls: HostCall[] = [];
  readonly network: HostNetwork;

  constructor(canEcho = false) {
    const note =
      (name: string) =>
      (...args: unknown[]): void => {
        this.calls.push([name, ...args] as unknown as HostCall);
      };
    this.network = {
      ...{ connect: note("connect"), grant: note("grant"), send: note("send") },
      ...{ shutdown: note("shutdown"), reset: note("reset"), listen: note("listen") },
      ...{ openUdp: note("openUdp"), sendUdp: note("sendUdp"), close: note("close") },
      resolve: note("resolve"),
      ...(canEcho ? { echo: note("echo") } : {}),
    };
  }

  /** The only call by this name, taken out. */
  one<K extends HostCall[0]>(name: K): Extract<HostCall, readonly [K, ...unknown[]]> {
    const [call, ...more] = this.take(name);
    if (!call || more.length > 0) throw new Error(`${more.length + 1} calls of ${name}`);
    return call;
  }

  /** Calls by this name, taken out. */
  take<K extends HostCall[0]>(name: K): Extract<HostCall, readonly [K, ...unknown[]]>[] {
    const [found, rest] = [
      this.calls.filter((c) => c[0] === name),
      this.calls.filter((c) => c[0] !== name),
    ];
    this.calls = rest;
    return found as Extract<HostCall, readonly [K, ...unknown[]]>[];
  }
}

type TestOptions = Omit<UserNetworkOptions, "clock" | "link" | "host"> & { canEcho?: boolean };

export class TestGuest {
  now = 1e9;
  frames: Uint8Array[] = [];
  /** What was said with each frame. */
  readonly offloads: { isUnfinished: boolean; segment: number; length: number }[] = [];
  /** What is said with each frame that we send. */
  offload: { isVerified: boolean; takes: LinkOffload } | undefined;
  room = Number.POSITIVE_INFINITY;
  readonly host: TestHost;
  network: UserNetwork;
  readonly reports: string[] = [];
  readonly #options: TestOptions;

  constructor(options: TestOptions = {}) {
    this.#options = options;
    this.host = new TestHost(options.canEcho);
    this.network = this.create();
  }

  create(): UserNetwork {
    const { canEcho: _, ...options } = this.#options;
    return new UserNetwork({
      ...options,
      clock: { now: () => this.now },
      link: {
        ready: () => this.room > 0,
        send: (frame, isUnfinished = false, segment = 0) => {
          this.room--;
          this.frames.push(frame.slice());
          this.offloads.push({ isUnfinished, segment, length: frame.length });
        },
      },
      host: this.host.network,
      report: (_, text) => this.reports.push(text),
    });
  }

  get events(): HostEvents {
    return this.network.events;
  }

  send(frame: Uint8Array): void {
    this.network.receive(frame, this.offload?.isVerified, this.offload?.takes);
    this.network.flush();
  }

  /** Lets time pass to `now`, deadline by deadline. */
  sleep(ns: number): void {
    const until = this.now + ns;
    while (this.network.deadline() <= until) {
      this.now = Math.max(this.now, this.network.deadline());
      this.network.advance(this.now);
    }
    this.now = until;
  }

  /** Answers ARP so that the network knows us. */
  arp(fields: Partial<ArpPacket> = {}): void {
    const packet = {
      ...{
        operation: ArpOperation.REQUEST as number,
        senderMac: GUEST_MAC,
        sender: Subnet.GUEST as number,
      },
      ...{ targetMac: 0, target: Subnet.GATEWAY as number },
      ...fields,
    };
    this.send(buildArp(packet, BROADCAST_MAC));
  }

  sendIp(
    protocol: number,
    destination: number,
    payload: Uint8Array,
    fields: Partial<{ source: number; ttl: number }> = {},
  ): void {
    const frame = new Uint8Array(ETHERNET_HEADER + IPV4_HEADER + payload.length);
    writeEthernet(frame, {
      destination: Subnet.GATEWAY_MAC,
      source: GUEST_MAC,
      type: EtherType.IPV4,
    });
    const header = {
      source: Subnet.GUEST,
      destination,
      protocol,
      id: 1,
      dontFragment: false,
      ...fields,
    };
    writeIpv4(frame, ETHERNET_HEADER, header, payload.length);
    frame.set(payload, ETHERNET_HEADER + IPV4_HEADER);
    this.send(frame);
  }

  sendUdp(destination: number, datagram: UdpDatagram, source: number = Subnet.GUEST): void {
    this.sendIp(IpProtocol.UDP, destination, buildUdp(datagram, source, destination), { source });
  }

  sendTcp(
    destination: number,
    ports: readonly [number, number],
    header: Partial<TcpHeader>,
    payload: Uint8Array = new Uint8Array(),
  ): void {
    const full = {
      ...{ seq: 0, ack: 0, flags: 0, window: 65_535, mss: 0, windowScale: -1 },
      ...{ sackPermitted: false, sack: [] },
      ...header,
    };
    const length = tcpHeaderLength(full);
    const segment = new Uint8Array(length + payload.length);
    segment.set(payload, length);
    const [sourcePort, destinationPort] = ports;
    const addresses = { source: Subnet.GUEST, destination, sourcePort, destinationPort };
    writeTcp(segment, 0, { ...full, ...addresses }, payload.length);
    this.sendIp(IpProtocol.TCP, destination, segment);
  }

  /** IPv4 packets received since the last call, put together. */
  packets(): Ipv4Packet[] {
    const reassembly = new Ipv4Reassembly();
    const frames = this.frames;
    this.frames = [];
    return frames.flatMap((frame) => {
      if (parseEthernet(frame)?.type !== EtherType.IPV4) return [];
      const packet = parseIpv4(frame.subarray(ETHERNET_HEADER));
      if (!packet) throw new Error("the network sent a malformed packet");
      return reassembly.take(packet, 0) ?? [];
    });
  }

  arps(): ArpPacket[] {
    const frames = this.frames;
    this.frames = [];
    return frames.flatMap((frame) =>
      parseEthernet(frame)?.type === EtherType.ARP ? [parseArp(frame)!] : [],
    );
  }

  tcps(): TcpSegment[] {
    return this.packets()
      .filter(({ protocol }) => protocol === IpProtocol.TCP)
      .map(({ bytes, headerLength, source, destination }) => {
        const isVerified = this.offload?.takes.checksums;
        const segment = parseTcp(bytes.subarray(headerLength), source, destination, isVerified);
        if (!segment) throw new Error("the network sent a malformed segment");
        return segment;
      });
  }

  udps(): (UdpDatagram & { source: number; destination: number })[] {
    return this.packets()
      .filter(({ protocol }) => protocol === IpProtocol.UDP)
      .map(({ bytes, headerLength, source, destination }) => {
        const datagram = parseUdp(bytes.subarray(headerLength), source, destination);
        if (!datagram) throw new Error("the network sent a malformed datagram");
        return { ...datagram, source, destination };
      });
  }

  icmps(): IcmpMessage[] {
    return this.packets()
      .filter(({ protocol }) => protocol === IpProtocol.ICMP)
      .map(({ bytes, headerLength }) => parseIcmp(bytes.subarray(headerLength))!);
  }
}
