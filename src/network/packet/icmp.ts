/** ICMP for IPv4: echo, and the errors that a gateway sends. RFC 792; RFC 1122, "Internet Control Message Protocol". */
import { get16, put16 } from "./bytes.ts";
import { checksum } from "./checksum.ts";
import { IPV4_HEADER, IpProtocol, type Ipv4Packet } from "./ipv4.ts";

export const ICMP_HEADER = 8;

export const IcmpType = {
  ECHO_REPLY: 0,
  UNREACHABLE: 3,
  ECHO_REQUEST: 8,
  TIME_EXCEEDED: 11,
} as const;

/** Codes of UNREACHABLE. */
export const Unreachable = {
  NET: 0,
  HOST: 1,
  PORT: 3,
  FRAGMENTATION_NEEDED: 4,
  ADMINISTRATIVELY_PROHIBITED: 13,
} as const;

export interface IcmpMessage {
  readonly type: number;
  readonly code: number;
  /** Identifier and sequence number of an echo. */
  readonly id: number;
  readonly sequence: number;
  readonly data: Uint8Array;
}

export function parseIcmp(b: Uint8Array): IcmpMessage | null {
  if (b.length < ICMP_HEADER || checksum(b, 0, b.length) !== 0) return null;
  return {
    type: b[0]!,
    code: b[1]!,
    id: get16(b, 4),
    sequence: get16(b, 6),
    data: b.subarray(ICMP_HEADER),
  };
}

export function buildIcmp(message: IcmpMessage): Uint8Array {
  const b = new Uint8Array(ICMP_HEADER + message.data.length);
  b[0] = message.type;
  b[1] = message.code;
  put16(b, 4, message.id);
  put16(b, 6, message.sequence);
  b.set(message.data, ICMP_HEADER);
  put16(b, 2, checksum(b, 0, b.length));
  return b;
}

/** What an error quotes of the packet it is about: header and eight bytes (RFC 792), more if there is (RFC 1812), to 548 in all. */
export function quoteOf(packet: Ipv4Packet): Uint8Array {
  return packet.bytes.slice(0, 576 - IPV4_HEADER - ICMP_HEADER);
}

/** RFC 1122, "Destination Unreachable": no error about errors, fragments but the first, or what was for many. */
export function mayProvokeError(packet: Ipv4Packet): boolean {
  if (packet.fragmentOffset !== 0 || packet.destination >>> 28 >= 14) return false;
  if (packet.destination === 0xffff_ffff || packet.source === 0) return false;
  if (packet.protocol !== IpProtocol.ICMP) return true;
  return packet.bytes[packet.headerLength] === IcmpType.ECHO_REQUEST;
}
