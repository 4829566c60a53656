/**
 * IPv4 packets. RFC 791, "Internet Header Format"; RFC 1122, "Internet Protocol -- IP".
 *
 * Options are skipped, never followed: source routes mean nothing to a stack that ends every connection itself.
 */
import { get16, get32, put16, put32 } from "./bytes.ts";
import { checksum } from "./checksum.ts";

export const IPV4_HEADER = 20;
export const MAX_IPV4 = 0xffff;
export const DEFAULT_TTL = 64;

export const IpProtocol = { ICMP: 1, TCP: 6, UDP: 17 } as const;

export interface Ipv4Packet {
  readonly source: number;
  readonly destination: number;
  readonly protocol: number;
  readonly ttl: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly moreFragments: boolean;
  /** Of the payload in the whole datagram, bytes. */
  readonly fragmentOffset: number;
  /** The packet alone, without what an Ethernet frame is padded with. Shares the frame's memory. */
  readonly bytes: Uint8Array;
  readonly headerLength: number;
}

/** Null for what RFC 1122 says to discard silently: wrong version, lengths or checksum. */
export function parseIpv4(b: Uint8Array): Ipv4Packet | null {
  if (b.length < IPV4_HEADER || b[0]! >> 4 !== 4) return null;
  const headerLength = (b[0]! & 15) * 4;
  const total = get16(b, 2);
  if (headerLength < IPV4_HEADER || total < headerLength || total > b.length) return null;
  if (checksum(b, 0, headerLength) !== 0) return null;
  const fragment = get16(b, 6);
  const fragmentOffset = (fragment & 0x1fff) * 8;
  if (fragmentOffset + total - headerLength > MAX_IPV4 - IPV4_HEADER) return null;
  return {
    source: get32(b, 12),
    destination: get32(b, 16),
    protocol: b[9]!,
    ttl: b[8]!,
    id: get16(b, 4),
    dontFragment: (fragment & 0x4000) !== 0,
    moreFragments: (fragment & 0x2000) !== 0,
    fragmentOffset,
    bytes: b.subarray(0, total),
    headerLength,
  };
}

export interface Ipv4Header {
  readonly source: number;
  readonly destination: number;
  readonly protocol: number;
  readonly ttl?: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly moreFragments?: boolean;
  /** Bytes, a multiple of 8. */
  readonly fragmentOffset?: number;
}

/** Writes a header without options for `payloadLength` bytes after it. */
export function writeIpv4(
  b: Uint8Array,
  at: number,
  header: Ipv4Header,
  payloadLength: number,
): void {
  const flags = (header.dontFragment ? 0x4000 : 0) | (header.moreFragments ? 0x2000 : 0);
  b[at] = 0x45;
  b[at + 1] = 0;
  put16(b, at + 2, IPV4_HEADER + payloadLength);
  put16(b, at + 4, header.id);
  put16(b, at + 6, flags | ((header.fragmentOffset ?? 0) >> 3));
  b[at + 8] = header.ttl ?? DEFAULT_TTL;
  b[at + 9] = header.protocol;
  put16(b, at + 10, 0);
  put32(b, at + 12, header.source);
  put32(b, at + 16, header.destination);
  put16(b, at + 10, checksum(b, at, at + IPV4_HEADER));
}
