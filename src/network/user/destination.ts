/** Where a guest's packet to some address goes in the end. */
import { formatIpv4Address } from "../packet/address.ts";
import { Unreachable } from "../packet/icmp.ts";
import type { EgressPolicy } from "./egress.ts";
import { isForwardable, Subnet } from "./subnet.ts";

export type Destination =
  | { readonly kind: "host"; readonly address: string }
  /** ICMP code of "destination unreachable". */
  | { readonly kind: "unreachable"; readonly code: number };

const HOST_LOOPBACK = "127.0.0.1";

export interface Routing {
  readonly policy: EgressPolicy;
  /** May the guest reach the embedder's loopback by the gateway's address? */
  readonly hostAccess: boolean;
}

export function route(routing: Routing, address: number, port: number, now: number): Destination {
  const { policy, hostAccess } = routing;
  const isGateway = address === Subnet.GATEWAY;
  if (!isGateway && !isForwardable(address)) return { kind: "unreachable", code: Unreachable.HOST };
  if ((isGateway && !hostAccess) || !policy.allows(address, port, now))
    return { kind: "unreachable", code: Unreachable.ADMINISTRATIVELY_PROHIBITED };
  return { kind: "host", address: isGateway ? HOST_LOOPBACK : formatIpv4Address(address) };
}

/** The address under which the guest knows a peer of the embedder's, or null. */
export function guestView(address: number | null): number | null {
  if (address === null) return null;
  return address >>> 24 === 127 ? Subnet.GATEWAY : address;
}
