/** Address resolution for IPv4 over Ethernet. RFC 826. */
import { getMac, putMac } from "./address.ts";
import { get16, get32, put16, put32 } from "./bytes.ts";
import { ETHERNET_HEADER, EtherType, writeEthernet } from "./ethernet.ts";

const ARP_BYTES = 28;
const ETHERNET = 1;

export const ArpOperation = { REQUEST: 1, REPLY: 2 } as const;

export interface ArpPacket {
  readonly operation: number;
  readonly senderMac: number;
  readonly sender: number;
  readonly targetMac: number;
  readonly target: number;
}

/** Null unless the frame holds a whole request or reply for IPv4 over Ethernet. */
export function parseArp(frame: Uint8Array): ArpPacket | null {
  const at = ETHERNET_HEADER;
  if (frame.length < at + ARP_BYTES) return null;
  if (get16(frame, at) !== ETHERNET || get16(frame, at + 2) !== EtherType.IPV4) return null;
  if (frame[at + 4] !== 6 || frame[at + 5] !== 4) return null;
  const operation = get16(frame, at + 6);
  if (operation !== ArpOperation.REQUEST && operation !== ArpOperation.REPLY) return null;
  return {
    operation,
    senderMac: getMac(frame, at + 8),
    sender: get32(frame, at + 14),
    targetMac: getMac(frame, at + 18),
    target: get32(frame, at + 24),
  };
}

/** A whole frame, to `destination`. */
export function buildArp(packet: ArpPacket, destination: number): Uint8Array {
  const frame = new Uint8Array(ETHERNET_HEADER + ARP_BYTES);
  writeEthernet(frame, { destination, source: packet.senderMac, type: EtherType.ARP });
  const at = ETHERNET_HEADER;
  put16(frame, at, ETHERNET);
  put16(frame, at + 2, EtherType.IPV4);
  frame[at + 4] = 6;
  frame[at + 5] = 4;
  put16(frame, at + 6, packet.operation);
  putMac(frame, at + 8, packet.senderMac);
  put32(frame, at + 14, packet.sender);
  putMac(frame, at + 18, packet.targetMac);
  put32(frame, at + 24, packet.target);
  return frame;
}
