/**
 * DHCP server of the virtual subnet. RFC 2131, "DHCP server behavior".
 *
 * A lease belongs to an Ethernet address, in order of appearance from 10.0.2.15 on; when all are taken the oldest goes to the newcomer.
 * Leases never run out otherwise: there is nobody else whom the address could be given to.
 */
import { BROADCAST_MAC, getMac, isUnicastMac, netmask } from "../packet/address.ts";
import { get32, put16, put32 } from "../packet/bytes.ts";
import {
  buildDhcp,
  type DhcpMessage,
  DhcpOption,
  DhcpPort,
  DhcpType,
  parseDhcp,
} from "../packet/dhcp.ts";
import { LIMITED_BROADCAST, Subnet } from "./subnet.ts";

const LEASE_SECONDS = 86_400;

export interface DhcpReply {
  readonly destination: number;
  readonly mac: number;
  readonly port: number;
  readonly payload: Uint8Array;
}

export interface DhcpConfig {
  readonly mtu: number;
  readonly hostName: string | undefined;
}

export class DhcpServer {
  readonly #config: DhcpConfig;
  /** Ethernet addresses; the index is the lease. */
  #leases: number[] = [];
  /** Whose lease goes next when there is none left; the first lease stays. */
  #next = 1;

  constructor(config: DhcpConfig) {
    this.#config = config;
  }

  /** The answer to a datagram for port 67, or null. */
  answer(datagram: Uint8Array): DhcpReply | null {
    const message = parseDhcp(datagram);
    if (message?.op !== 1) return null;
    const mac = getMac(message.hardware, 0);
    if (!isUnicastMac(mac)) return null;
    const server = message.options.get(DhcpOption.SERVER);
    if (server && (server.length !== 4 || get32(server, 0) !== Subnet.GATEWAY)) return null;
    switch (message.type) {
      case DhcpType.DISCOVER:
        return this.#reply(message, mac, DhcpType.OFFER, this.#leaseOf(mac));
      case DhcpType.REQUEST:
        return this.#request(message, mac);
      case DhcpType.INFORM:
        return this.#reply(message, mac, DhcpType.ACK, 0);
      default:
        return null;
    }
  }

  #request(message: DhcpMessage, mac: number): DhcpReply {
    const requested = message.options.get(DhcpOption.REQUESTED_ADDRESS);
    const wanted = requested?.length === 4 ? get32(requested, 0) : message.client;
    const lease = this.#leaseOf(mac);
    const isRight = wanted === lease;
    return this.#reply(message, mac, isRight ? DhcpType.ACK : DhcpType.NAK, isRight ? lease : 0);
  }

  #leaseOf(mac: number): number {
    const known = this.#leases.indexOf(mac);
    if (known >= 0) return Subnet.GUEST + known;
    if (this.#leases.length < Subnet.LEASES) return Subnet.GUEST + this.#leases.push(mac) - 1;
    const index = this.#next;
    this.#next = (index % (Subnet.LEASES - 1)) + 1;
    this.#leases[index] = mac;
    return Subnet.GUEST + index;
  }

  #reply(message: DhcpMessage, mac: number, type: number, yours: number): DhcpReply {
    const isNak = type === DhcpType.NAK;
    const payload = buildDhcp({
      ...message,
      op: 2,
      seconds: 0,
      client: isNak ? 0 : message.client,
      yours,
      server: isNak ? 0 : Subnet.GATEWAY,
      type,
      options: isNak ? new Map([[DhcpOption.SERVER, word(Subnet.GATEWAY)]]) : this.#options(yours),
    });
    const port = DhcpPort.CLIENT;
    // RFC 2131, "4.1": to the client's address if it has one, to its hardware otherwise, unless it cannot hear that.
    if (message.client !== 0 && !isNak) return { destination: message.client, mac, port, payload };
    const toAll = message.broadcast || isNak || yours === 0;
    return {
      destination: toAll ? LIMITED_BROADCAST : yours,
      mac: toAll ? BROADCAST_MAC : mac,
      port,
      payload,
    };
  }

  #options(yours: number): Map<number, Uint8Array> {
    const options = new Map([
      [DhcpOption.SERVER as number, word(Subnet.GATEWAY)],
      [DhcpOption.SUBNET_MASK, word(netmask(Subnet.CIDR.bits))],
      [DhcpOption.ROUTER, word(Subnet.GATEWAY)],
      [DhcpOption.DNS, word(Subnet.DNS)],
      [DhcpOption.BROADCAST, word(Subnet.BROADCAST)],
      [DhcpOption.MTU, half(this.#config.mtu)],
    ]);
    // An answer to INFORM names no lease.
    if (yours !== 0) options.set(DhcpOption.LEASE_SECONDS, word(LEASE_SECONDS));
    const { hostName } = this.#config;
    if (hostName) options.set(DhcpOption.HOST_NAME, ascii(hostName.slice(0, 63)));
    return options;
  }

  save(): SavedDhcp {
    return { leases: [...this.#leases], next: this.#next };
  }

  restore({ leases, next }: SavedDhcp): void {
    this.#leases = leases.slice(0, Subnet.LEASES);
    this.#next = next;
  }
}

export interface SavedDhcp {
  readonly leases: readonly number[];
  readonly next: number;
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  put32(bytes, 0, value);
  return bytes;
}

function half(value: number): Uint8Array {
  const bytes = new Uint8Array(2);
  put16(bytes, 0, value);
  return bytes;
}

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0) & 0x7f);
