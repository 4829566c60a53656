/** Ethernet II frames, without preamble and frame check sequence. IEEE 802.3; RFC 894. */
import { getMac, putMac } from "./address.ts";
import { get16, put16 } from "./bytes.ts";

export const ETHERNET_HEADER = 14;
/** Header, and an IPv4 packet of the largest size. */
export const MAX_FRAME = ETHERNET_HEADER + 0xffff;

export const EtherType = { IPV4: 0x0800, ARP: 0x0806, IPV6: 0x86dd } as const;

export interface EthernetHeader {
  readonly destination: number;
  readonly source: number;
  readonly type: number;
}

/** Null for a frame that is too short or too long. */
export function parseEthernet(frame: Uint8Array): EthernetHeader | null {
  if (frame.length < ETHERNET_HEADER || frame.length > MAX_FRAME) return null;
  return { destination: getMac(frame, 0), source: getMac(frame, 6), type: get16(frame, 12) };
}

export function writeEthernet(frame: Uint8Array, header: EthernetHeader): void {
  putMac(frame, 0, header.destination);
  putMac(frame, 6, header.source);
  put16(frame, 12, header.type);
}
