/** The virtual subnet, as QEMU's user network and its relatives have it, so that guests' habits fit. */
import { isInCidr } from "../packet/address.ts";

export const Subnet = {
  CIDR: { base: 0x0a00_0200, bits: 24 },
  /** 10.0.2.2: the gateway; connections to it reach the embedder's own loopback. */
  GATEWAY: 0x0a00_0202,
  /** 10.0.2.3 */
  DNS: 0x0a00_0203,
  /** 10.0.2.15, the first lease. */
  GUEST: 0x0a00_020f,
  LEASES: 16,
  BROADCAST: 0x0a00_02ff,
  /** 52:55:0a:00:02:02 */
  GATEWAY_MAC: 0x5255_0a00_0202,
} as const;

export const LIMITED_BROADCAST = 0xffff_ffff;

/** A name for the embedder's loopback, answered by our DNS. */
export const HOST_NAME = "host.hypolith.internal";

export const isInSubnet = (address: number): boolean => isInCidr(address, Subnet.CIDR);

/** Ours to answer for. */
export const isOwn = (address: number): boolean =>
  address === Subnet.GATEWAY || address === Subnet.DNS;

const NEVER_FORWARDED = [
  // "This network", loopback: RFC 1122, "Addressing: Section 3.2.1.3".
  { base: 0, bits: 8 },
  { base: 0x7f00_0000, bits: 8 },
  // Link-local: RFC 3927, "Link-Local Packets Are Not Forwarded"; also where clouds keep their machines' credentials.
  { base: 0xa9fe_0000, bits: 16 },
  // Multicast, reserved, broadcast.
  { base: 0xe000_0000, bits: 4 },
  { base: 0xf000_0000, bits: 4 },
  Subnet.CIDR,
];

/** Destinations that no gateway forwards to, whatever the policy says. */
export const isForwardable = (address: number): boolean =>
  !NEVER_FORWARDED.some((cidr) => isInCidr(address, cidr));
