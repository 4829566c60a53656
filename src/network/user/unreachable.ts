/** "Destination unreachable" about something the guest has sent and nobody has kept: its headers are made anew. RFC 792. */
import { put16, put32 } from "../packet/bytes.ts";
import { buildIcmp, IcmpType, Unreachable } from "../packet/icmp.ts";
import { IPV4_HEADER, IpProtocol, writeIpv4 } from "../packet/ipv4.ts";
import type { FlowAddress } from "./flow.ts";
import type { GuestLink } from "./guest-link.ts";
import type { HostFailure } from "./host-network.ts";
import { Subnet } from "./subnet.ts";

export interface Subject {
  readonly address: FlowAddress;
  readonly protocol: number;
  /** Of a TCP segment. */
  readonly seq?: number;
}

export function sendUnreachable(
  link: GuestLink,
  subject: Subject,
  code: number,
  now: number,
): void {
  const data = quote(subject);
  const payload = buildIcmp({ type: IcmpType.UNREACHABLE, code, id: 0, sequence: 0, data });
  const { GATEWAY: source } = Subnet;
  const { guest: destination } = subject.address;
  link.sendPacket({ source, destination, protocol: IpProtocol.ICMP, payload }, now);
}

/** The guest's IP header, and ports and sequence number. */
function quote({ address, protocol, seq = 0 }: Subject): Uint8Array {
  const { guest: source, remote: destination } = address;
  const bytes = new Uint8Array(IPV4_HEADER + 8);
  writeIpv4(bytes, 0, { source, destination, protocol, id: 0, dontFragment: true }, 20);
  put16(bytes, IPV4_HEADER, address.guestPort);
  put16(bytes, IPV4_HEADER + 2, address.remotePort);
  put32(bytes, IPV4_HEADER + 4, seq);
  return bytes;
}

const CODES: Readonly<Record<HostFailure, number>> = {
  refused: Unreachable.PORT,
  "host-unreachable": Unreachable.HOST,
  "net-unreachable": Unreachable.NET,
  timeout: Unreachable.HOST,
  denied: Unreachable.ADMINISTRATIVELY_PROHIBITED,
  unavailable: Unreachable.HOST,
  "too-long": Unreachable.HOST,
  failed: Unreachable.HOST,
};

export const codeOf = (failure: HostFailure): number => CODES[failure];
