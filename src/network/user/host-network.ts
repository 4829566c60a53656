/**
 * What the stack needs of the embedder's network: streams, datagrams and names. Declared here, implemented by embedder adapters.
 *
 * Both sides only call, nobody waits: what comes of a call is told by an event later, in order for each stream. The caller of a stream or
 * socket names it; accepted streams are named by the embedder, with odd numbers, all others by the stack, with even ones. A number is used
 * again never. Unknown numbers are ignored on both sides, since an end may be on its way.
 *
 * Back pressure is by credit, so that memory stays bounded without a common thread. The embedder reads no more from a stream than was
 * granted; the stack has no more in flight than its window, and `onSent` gives it back. Byte arrays belong to the receiver of a call.
 *
 * Addresses are text, as the embedder's own interfaces have them; IPv4 in dotted form.
 */
import type { DnsRecord } from "../packet/dns.ts";

export interface HostNetwork {
  /** Answered by onConnected or onFailed. */
  connect(stream: number, address: string, port: number): void;
  /** The embedder may deliver so many more bytes. */
  grant(stream: number, bytes: number): void;
  send(stream: number, bytes: Uint8Array): void;
  /** No more bytes will be sent; the other direction goes on. */
  shutdown(stream: number): void;
  /** Ends the stream at once, with a reset if the embedder can. No event comes after. */
  reset(stream: number): void;

  /** Answered by onListening or onFailed. */
  listen(listener: number, kind: "tcp" | "udp", address: string, port: number): void;

  /** A socket that sends to anyone and hears from anyone. */
  openUdp(socket: number): void;
  /** May be lost, as datagrams may. Also to who has sent to a listener of kind "udp". */
  sendUdp(socket: number, address: string, port: number, bytes: Uint8Array): void;
  /** Closes a socket or a listener. */
  close(socket: number): void;

  /** Answered by onResolved. Types are those of DNS records. */
  resolve(query: number, name: string, type: number): void;

  /** An ICMP echo request, answered by onEcho or by nothing. Absent where the embedder may not send them. */
  readonly echo?: (query: number, address: string, data: Uint8Array) => void;
}

export type HostFailure =
  | "refused"
  | "host-unreachable"
  | "net-unreachable"
  | "timeout"
  /** The embedder's own rules forbid it. */
  | "denied"
  /** Address or port in use, or not there. */
  | "unavailable"
  | "too-long"
  | "failed";

export const HOST_FAILURES: readonly HostFailure[] = [
  ...(["refused", "host-unreachable", "net-unreachable", "timeout"] as const),
  ...(["denied", "unavailable", "too-long", "failed"] as const),
];

export interface HostEvents {
  onConnected(stream: number): void;
  /** Of connect and listen; no event for the number comes after. */
  onFailed(number: number, failure: HostFailure): void;
  onData(stream: number, bytes: Uint8Array): void;
  /** So many bytes of what was sent have left the embedder's buffers. */
  onSent(stream: number, bytes: number): void;
  /** The peer sends no more. */
  onEnd(stream: number): void;
  /** The stream broke. No event for it comes after. */
  onReset(stream: number): void;
  onListening(listener: number, port: number): void;
  onAccepted(listener: number, stream: number): void;
  onDatagram(socket: number, address: string, port: number, bytes: Uint8Array): void;
  /** A datagram to this peer could not be sent. */
  onDatagramFailed(socket: number, address: string, port: number, failure: HostFailure): void;
  onResolved(query: number, status: number, records: readonly DnsRecord[]): void;
  onEcho(query: number): void;
}
