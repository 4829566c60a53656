/**
 * IPv4 reassembly. RFC 791, "An Example Reassembly Procedure"; RFC 1122, "Reassembly".
 *
 * Bounded: MAX_DATAGRAMS at once, each of 64 KiB and MAX_FRAGMENTS at most, for LIFETIME_NS. The oldest goes when room is needed.
 * Fragments that overlap otherwise than by being the same again make their datagram refused (as RFC 5722 does for IPv6): no honest sender
 * makes them. Plain state.
 */
import { IPV4_HEADER, type Ipv4Packet, writeIpv4 } from "./ipv4.ts";

const MAX_DATAGRAMS = 16;
const MAX_FRAGMENTS = 1024;
const LIFETIME_NS = 30e9;
const FLAG_BYTES = 8;

interface Partial {
  readonly key: string;
  readonly expires: number;
  readonly fragments: { offset: number; bytes: Uint8Array }[];
  received: number;
  /** Payload bytes of the whole datagram, or -1 while the last fragment is not there. */
  total: number;
}

export class Ipv4Reassembly {
  #partials: Partial[] = [];

  get pending(): number {
    return this.#partials.length;
  }

  /** The packet itself if it is whole; a whole packet that this fragment completes; or null. */
  take(packet: Ipv4Packet, now: number): Ipv4Packet | null {
    if (!packet.moreFragments && packet.fragmentOffset === 0) return packet;
    this.#partials = this.#partials.filter(({ expires }) => expires > now);
    const key = `${packet.source}:${packet.destination}:${packet.protocol}:${packet.id}`;
    const partial = this.#partials.find((p) => p.key === key) ?? this.#begin(key, now);
    const verdict = add(partial, packet);
    if (verdict === "more") return null;
    this.#partials = this.#partials.filter((p) => p !== partial);
    return verdict === "whole" ? assemble(partial, packet) : null;
  }

  #begin(key: string, now: number): Partial {
    if (this.#partials.length >= MAX_DATAGRAMS) this.#partials.shift();
    const partial = { key, expires: now + LIFETIME_NS, fragments: [], received: 0, total: -1 };
    this.#partials.push(partial);
    return partial;
  }

  clear(): void {
    this.#partials = [];
  }
}

function add(partial: Partial, packet: Ipv4Packet): "more" | "whole" | "refused" {
  const bytes = packet.bytes.slice(packet.headerLength);
  const offset = packet.fragmentOffset;
  const end = offset + bytes.length;
  if (packet.moreFragments && (bytes.length === 0 || bytes.length % FLAG_BYTES !== 0))
    return "refused";
  if (!packet.moreFragments) {
    if (partial.total >= 0 && partial.total !== end) return "refused";
    partial.total = end;
  }
  if (partial.total >= 0 && end > partial.total) return "refused";
  for (const other of partial.fragments) {
    if (other.offset === offset && other.bytes.length === bytes.length) return "more";
    if (offset < other.offset + other.bytes.length && other.offset < end) return "refused";
    if (partial.total >= 0 && other.offset + other.bytes.length > partial.total) return "refused";
  }
  if (partial.fragments.length >= MAX_FRAGMENTS) return "refused";
  partial.fragments.push({ offset, bytes });
  partial.received += bytes.length;
  return partial.received === partial.total ? "whole" : "more";
}

function assemble(partial: Partial, last: Ipv4Packet): Ipv4Packet {
  const bytes = new Uint8Array(IPV4_HEADER + partial.total);
  writeIpv4(bytes, 0, { ...last, moreFragments: false, fragmentOffset: 0 }, partial.total);
  for (const { offset, bytes: part } of partial.fragments) bytes.set(part, IPV4_HEADER + offset);
  return {
    ...last,
    bytes,
    headerLength: IPV4_HEADER,
    moreFragments: false,
    fragmentOffset: 0,
  };
}
