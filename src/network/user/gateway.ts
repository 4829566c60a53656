/**
 * The gateway's network layer: what a frame of the guest is and who takes it. RFC 1122 and RFC 1812 as far as a gateway of one host needs them.
 */
import { BROADCAST_MAC, getMac } from "../packet/address.ts";
import { ArpOperation, buildArp, parseArp } from "../packet/arp.ts";
import { DhcpPort } from "../packet/dhcp.ts";
import { DNS_PORT } from "../packet/dns.ts";
import { ETHERNET_HEADER, EtherType, parseEthernet } from "../packet/ethernet.ts";
import {
  buildIcmp,
  IcmpType,
  mayProvokeError,
  parseIcmp,
  quoteOf,
  Unreachable,
} from "../packet/icmp.ts";
import { IpProtocol, type Ipv4Packet, parseIpv4 } from "../packet/ipv4.ts";
import { Ipv4Reassembly } from "../packet/reassembly.ts";
import { parseTcp } from "../packet/tcp-segment.ts";
import { buildUdp, parseUdp, type UdpDatagram } from "../packet/udp.ts";
import type { DhcpServer } from "./dhcp-server.ts";
import type { DnsForwarder } from "./dns-forwarder.ts";
import type { EchoNat } from "./echo-nat.ts";
import type { GuestLink } from "./guest-link.ts";
import { isInSubnet, isOwn, LIMITED_BROADCAST, Subnet } from "./subnet.ts";
import type { TcpNat } from "./tcp-nat.ts";
import type { UdpNat } from "./udp-nat.ts";

export interface GatewayParts {
  readonly link: GuestLink;
  readonly now: () => number;
  readonly dhcp: DhcpServer;
  readonly dns: DnsForwarder;
  readonly tcp: TcpNat;
  readonly udp: UdpNat;
  readonly echo: EchoNat;
}

export class Gateway {
  readonly #parts: GatewayParts;
  readonly reassembly = new Ipv4Reassembly();

  constructor(parts: GatewayParts) {
    this.#parts = parts;
  }

  /** A frame, valid during the call; `isVerified`: its TCP or UDP checksum is not to be looked at. */
  receive(frame: Uint8Array, isVerified = false): void {
    const header = parseEthernet(frame);
    if (!header) return;
    const { destination, type } = header;
    if (destination !== Subnet.GATEWAY_MAC && destination !== BROADCAST_MAC) return;
    if (type === EtherType.ARP) this.#receiveArp(frame);
    else if (type === EtherType.IPV4) this.#receiveIpv4(frame, isVerified);
  }

  #receiveArp(frame: Uint8Array): void {
    const arp = parseArp(frame);
    if (!arp) return;
    this.#parts.link.learn(arp.sender, arp.senderMac);
    if (arp.operation !== ArpOperation.REQUEST || !isOwn(arp.target)) return;
    const reply = {
      operation: ArpOperation.REPLY,
      ...{ senderMac: Subnet.GATEWAY_MAC, sender: arp.target },
      ...{ targetMac: arp.senderMac, target: arp.sender },
    };
    this.#parts.link.sendFrame(buildArp(reply, getMac(frame, 6)));
  }

  #receiveIpv4(frame: Uint8Array, isVerified: boolean): void {
    const first = parseIpv4(frame.subarray(ETHERNET_HEADER));
    if (!first) return;
    // Only the subnet's own addresses have business here; DHCP clients have none yet.
    if (!isInSubnet(first.source) && first.source !== 0) return;
    if (isOwn(first.source)) return;
    this.#parts.link.learn(first.source, getMac(frame, 6));
    const packet = this.reassembly.take(first, this.#parts.now());
    if (!packet) return;
    const isHere = isOwn(packet.destination) || packet.destination === LIMITED_BROADCAST;
    if (!isHere && packet.ttl <= 1) {
      this.#sendError(packet, IcmpType.TIME_EXCEEDED, 0);
      return;
    }
    if (packet.protocol === IpProtocol.TCP) this.#receiveTcp(packet, isVerified);
    else if (packet.protocol === IpProtocol.UDP) this.#receiveUdp(packet, isVerified);
    else if (packet.protocol === IpProtocol.ICMP) this.#receiveIcmp(packet);
    else this.#sendError(packet, IcmpType.UNREACHABLE, PROTOCOL_UNREACHABLE);
  }

  #receiveTcp(packet: Ipv4Packet, isVerified: boolean): void {
    const { source, destination, bytes, headerLength } = packet;
    if (source === 0 || destination >>> 28 >= 14) return;
    const segment = parseTcp(bytes.subarray(headerLength), source, destination, isVerified);
    if (!segment) return;
    const address = {
      ...{ guest: source, guestPort: segment.sourcePort },
      ...{ remote: destination, remotePort: segment.destinationPort },
    };
    this.#parts.tcp.fromGuest(address, segment);
  }

  #receiveUdp(packet: Ipv4Packet, isVerified: boolean): void {
    const { source, destination, bytes, headerLength } = packet;
    const datagram = parseUdp(bytes.subarray(headerLength), source, destination, isVerified);
    if (!datagram) return;
    const port = datagram.destinationPort;
    const isToGateway =
      destination === Subnet.GATEWAY ||
      destination === LIMITED_BROADCAST ||
      destination === Subnet.BROADCAST;
    if (port === DhcpPort.SERVER && isToGateway) this.#receiveDhcp(datagram);
    else if (source === 0) return;
    else if (destination === Subnet.DNS && port === DNS_PORT) {
      const asker = { kind: "udp", guest: source, guestPort: datagram.sourcePort } as const;
      this.#parts.dns.ask(datagram.payload, asker, this.#parts.now());
    } else if (destination === Subnet.DNS)
      this.#sendError(packet, IcmpType.UNREACHABLE, Unreachable.PORT);
    else {
      const code = this.#parts.udp.fromGuest(source, destination, datagram, this.#parts.now());
      if (code !== null) this.#sendError(packet, IcmpType.UNREACHABLE, code);
    }
  }

  #receiveDhcp(datagram: UdpDatagram): void {
    const reply = this.#parts.dhcp.answer(datagram.payload);
    if (!reply) return;
    const source = Subnet.GATEWAY;
    const ports = { sourcePort: DhcpPort.SERVER, destinationPort: reply.port };
    const payload = buildUdp({ ...ports, payload: reply.payload }, source, reply.destination);
    const packet = { source, destination: reply.destination, protocol: IpProtocol.UDP, payload };
    this.#parts.link.sendPacket(packet, this.#parts.now(), reply.mac);
  }

  #receiveIcmp(packet: Ipv4Packet): void {
    const message = parseIcmp(packet.bytes.subarray(packet.headerLength));
    if (message?.type !== IcmpType.ECHO_REQUEST || packet.source === 0) return;
    const { source: guest, destination: remote } = packet;
    const { id, sequence } = message;
    const echo = { guest, remote, id, sequence, data: message.data.slice() };
    const { echo: nat, now } = this.#parts;
    if (isOwn(remote)) nat.reply(echo, now());
    else if (remote >>> 28 < 14) {
      const code = nat.forward(echo, now());
      if (code !== null) this.#sendError(packet, IcmpType.UNREACHABLE, code);
    }
  }

  #sendError(packet: Ipv4Packet, type: number, code: number): void {
    if (!mayProvokeError(packet)) return;
    const payload = buildIcmp({ type, code, id: 0, sequence: 0, data: quoteOf(packet) });
    const { link, now } = this.#parts;
    const { GATEWAY: source } = Subnet;
    link.sendPacket(
      { source, destination: packet.source, protocol: IpProtocol.ICMP, payload },
      now(),
    );
  }
}

const PROTOCOL_UNREACHABLE = 2;
