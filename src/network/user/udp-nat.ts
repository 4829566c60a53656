/**
 * Datagrams between guest and embedder. RFC 4787: a mapping belongs to a guest's endpoint and serves all destinations; what comes in must come
 * from an address that the endpoint has sent to.
 *
 * Bounded: MAX_MAPPINGS sockets, the one that was idle longest goes; MAX_PEERS addresses each. Datagrams that come in through a forwarded
 * port get a port of the gateway's for each sender, so that answers find their way back.
 */
import { parseIpv4Address } from "../packet/address.ts";
import { IpProtocol } from "../packet/ipv4.ts";
import { buildUdp, MAX_UDP_PAYLOAD, type UdpDatagram } from "../packet/udp.ts";
import { guestView, type Routing, route } from "./destination.ts";
import type { GuestLink } from "./guest-link.ts";
import type { HostFailure, HostNetwork } from "./host-network.ts";
import { isInSubnet, Subnet } from "./subnet.ts";
import { codeOf, sendUnreachable } from "./unreachable.ts";

const MAX_MAPPINGS = 256;
const MAX_PEERS = 64;
/** RFC 4787, REQ-5. */
const IDLE_NS = 300e9;
const FIRST_VISITOR_PORT = 49_152;
const MAX_VISITORS = 256;

interface Mapping {
  readonly socket: number;
  readonly guest: number;
  readonly port: number;
  /** Host-side addresses it has sent to, latest last. */
  readonly peers: Set<string>;
  usedAt: number;
}

/** Somebody outside who talks to a forwarded port. */
interface Visitor {
  readonly listener: number;
  readonly address: string;
  readonly port: number;
  readonly guestPort: number;
  usedAt: number;
}

/** What came to a socket or listener. */
export interface HostDatagram {
  readonly socket: number;
  readonly address: string;
  readonly port: number;
  readonly bytes: Uint8Array;
}

export interface FailedDatagram extends Omit<HostDatagram, "bytes"> {
  readonly failure: HostFailure;
}

export interface UdpParts {
  readonly host: HostNetwork;
  readonly link: GuestLink;
  readonly routing: Routing;
  readonly newId: () => number;
}

export class UdpNat {
  readonly #parts: UdpParts;
  /** By guest endpoint; the one idle longest is the first. */
  readonly #mappings = new Map<number, Mapping>();
  readonly #bySocket = new Map<number, Mapping>();
  /** By port of the gateway. */
  readonly #visitors = new Map<number, Visitor>();
  readonly #forwards = new Map<number, number>();
  #nextPort = FIRST_VISITOR_PORT;

  constructor(parts: UdpParts) {
    this.#parts = parts;
  }

  get mappings(): number {
    return this.#mappings.size;
  }

  /** Datagrams to `listener` go to the guest's `port`. */
  forward(listener: number, port: number): void {
    this.#forwards.set(listener, port);
  }

  /** A datagram of the guest for outside. Answers an ICMP code if it cannot go there. */
  fromGuest(
    source: number,
    destination: number,
    datagram: UdpDatagram,
    now: number,
  ): number | null {
    if (destination === Subnet.GATEWAY && this.#toVisitor(datagram, now)) return null;
    const { host, routing } = this.#parts;
    const to = route(routing, destination, datagram.destinationPort, now);
    if (to.kind === "unreachable") return to.code;
    if (datagram.destinationPort === 0) return null;
    const mapping = this.#mappingFor(source, datagram.sourcePort, now);
    mapping.peers.delete(to.address);
    if (mapping.peers.size >= MAX_PEERS) {
      const [oldest] = mapping.peers;
      mapping.peers.delete(oldest!);
    }
    mapping.peers.add(to.address);
    host.sendUdp(mapping.socket, to.address, datagram.destinationPort, datagram.payload.slice());
    return null;
  }

  #mappingFor(guest: number, port: number, now: number): Mapping {
    this.#expire(now);
    const key = guest * 0x1_0000 + port;
    const known = this.#mappings.get(key);
    if (known) {
      known.usedAt = now;
      this.#mappings.delete(key);
      this.#mappings.set(key, known);
      return known;
    }
    if (this.#mappings.size >= MAX_MAPPINGS) {
      const [first] = this.#mappings.values();
      this.#drop(first!);
    }
    const socket = this.#parts.newId();
    const mapping = { socket, guest, port, peers: new Set<string>(), usedAt: now };
    this.#mappings.set(key, mapping);
    this.#bySocket.set(socket, mapping);
    this.#parts.host.openUdp(socket);
    return mapping;
  }

  #drop(mapping: Mapping): void {
    this.#mappings.delete(mapping.guest * 0x1_0000 + mapping.port);
    this.#bySocket.delete(mapping.socket);
    this.#parts.host.close(mapping.socket);
  }

  #expire(now: number): void {
    for (const mapping of this.#mappings.values()) {
      if (mapping.usedAt + IDLE_NS > now) break;
      this.#drop(mapping);
    }
    for (const [port, visitor] of this.#visitors) {
      if (visitor.usedAt + IDLE_NS > now) break;
      this.#visitors.delete(port);
    }
  }

  /** When `advance` has something to do next. */
  deadline(): number {
    let first = Infinity;
    for (const mapping of this.#mappings.values()) {
      first = mapping.usedAt + IDLE_NS;
      break;
    }
    for (const visitor of this.#visitors.values()) return Math.min(first, visitor.usedAt + IDLE_NS);
    return first;
  }

  advance(now: number): void {
    this.#expire(now);
  }

  #toVisitor(datagram: UdpDatagram, now: number): boolean {
    const visitor = this.#visitors.get(datagram.destinationPort);
    if (visitor?.guestPort !== datagram.sourcePort) return false;
    this.#touch(datagram.destinationPort, visitor, now);
    const { listener, address, port } = visitor;
    this.#parts.host.sendUdp(listener, address, port, datagram.payload.slice());
    return true;
  }

  #touch(gatewayPort: number, visitor: Visitor, now: number): void {
    visitor.usedAt = now;
    this.#visitors.delete(gatewayPort);
    this.#visitors.set(gatewayPort, visitor);
  }

  onDatagram({ socket, address, port, bytes: payload }: HostDatagram, now: number): void {
    if (payload.length > MAX_UDP_PAYLOAD) return;
    const guestPort = this.#forwards.get(socket);
    if (guestPort !== undefined) {
      this.#visit({ listener: socket, address, port, guestPort, usedAt: now }, payload);
      return;
    }
    const mapping = this.#bySocket.get(socket);
    if (!mapping?.peers.has(address)) return;
    const source = guestView(parseIpv4Address(address));
    if (source === null) return;
    mapping.usedAt = now;
    const ports = { sourcePort: port, destinationPort: mapping.port };
    this.#send(source, mapping.guest, { ...ports, payload }, now);
  }

  /** A datagram of the guest's could not be sent. */
  onDatagramFailed({ socket, address, port, failure }: FailedDatagram, now: number): void {
    const mapping = this.#bySocket.get(socket);
    const remote = guestView(parseIpv4Address(address));
    if (!mapping?.peers.has(address) || remote === null) return;
    const { guest, port: guestPort } = mapping;
    const subject = {
      address: { guest, guestPort, remote, remotePort: port },
      protocol: IpProtocol.UDP,
    };
    sendUnreachable(this.#parts.link, subject, codeOf(failure), now);
  }

  #visit(visitor: Visitor, payload: Uint8Array): void {
    const now = visitor.usedAt;
    this.#expire(now);
    let gatewayPort = this.#portOf(visitor);
    if (gatewayPort < 0) {
      if (this.#visitors.size >= MAX_VISITORS) {
        const [oldest] = this.#visitors.keys();
        this.#visitors.delete(oldest!);
      }
      do {
        gatewayPort = this.#nextPort;
        this.#nextPort = gatewayPort === 0xffff ? FIRST_VISITOR_PORT : gatewayPort + 1;
      } while (this.#visitors.has(gatewayPort));
    }
    this.#touch(gatewayPort, visitor, now);
    const ports = { sourcePort: gatewayPort, destinationPort: visitor.guestPort };
    this.#send(Subnet.GATEWAY, Subnet.GUEST, { ...ports, payload }, now);
  }

  #portOf(wanted: Visitor): number {
    for (const [gatewayPort, { listener, address, port }] of this.#visitors) {
      if (listener === wanted.listener && address === wanted.address && port === wanted.port)
        return gatewayPort;
    }
    return -1;
  }

  #send(source: number, destination: number, datagram: UdpDatagram, now: number): void {
    if (!isInSubnet(destination)) return;
    const payload = buildUdp(datagram, source, destination);
    this.#parts.link.sendPacket({ source, destination, protocol: IpProtocol.UDP, payload }, now);
  }

  /** Forgets all but the forwards: the embedder's sockets are gone. */
  abandon(): void {
    this.#mappings.clear();
    this.#bySocket.clear();
    this.#visitors.clear();
  }

  save(): SavedUdp {
    return {
      mappings: [...this.#mappings.values()].map((m) => ({ ...m, peers: [...m.peers] })),
      visitors: [...this.#visitors].map(([gatewayPort, v]) => ({ ...v, gatewayPort })),
      nextPort: this.#nextPort,
    };
  }

  restore(saved: SavedUdp): void {
    this.abandon();
    for (const from of saved.mappings.slice(0, MAX_MAPPINGS)) {
      const mapping = { ...from, peers: new Set(from.peers) };
      this.#mappings.set(mapping.guest * 0x1_0000 + mapping.port, mapping);
      this.#bySocket.set(mapping.socket, mapping);
    }
    for (const { gatewayPort, ...visitor } of saved.visitors.slice(0, MAX_VISITORS))
      this.#visitors.set(gatewayPort, visitor);
    this.#nextPort = saved.nextPort;
  }
}

export interface SavedUdp {
  readonly mappings: readonly (Omit<Mapping, "peers"> & { readonly peers: readonly string[] })[];
  readonly visitors: readonly (Visitor & { readonly gatewayPort: number })[];
  readonly nextPort: number;
}
