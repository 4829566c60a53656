/**
 * Initial sequence numbers: a clock of 4 us that differs for each connection. RFC 9293, "Initial Sequence Number Selection"; RFC 6528 for
 * the shape. The mixing is no cryptography: the only one who could use a guess is the guest, whose connection it is.
 */
import type { FlowAddress } from "./flow.ts";

const TICK_NS = 4000;

export function initialSequence(
  { guest, guestPort, remote, remotePort }: FlowAddress,
  seed: number,
  now: number,
  serial: number,
): number {
  let hash = seed | 0;
  for (const value of [guest, guestPort, remote, remotePort, serial]) {
    hash = Math.imul(hash ^ value, 0x9e37_79b1);
    hash ^= hash >>> 15;
  }
  return (hash + Math.floor(now / TICK_NS)) >>> 0;
}
