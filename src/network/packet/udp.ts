/** UDP datagrams. RFC 768. */
import { get16, put16 } from "./bytes.ts";
import { addWords, checksum, fold, pseudoHeaderSum } from "./checksum.ts";
import { IPV4_HEADER, IpProtocol, MAX_IPV4 } from "./ipv4.ts";

export const UDP_HEADER = 8;
/** The largest payload over IPv4. */
export const MAX_UDP_PAYLOAD = MAX_IPV4 - IPV4_HEADER - UDP_HEADER;

export interface UdpDatagram {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

/** `source` and `destination` are of the IPv4 header. A checksum of 0 means that the sender made none; `isVerified`: it is not to be looked at. */
export function parseUdp(
  b: Uint8Array,
  source: number,
  destination: number,
  isVerified = false,
): UdpDatagram | null {
  if (b.length < UDP_HEADER) return null;
  const length = get16(b, 4);
  if (length < UDP_HEADER || length > b.length) return null;
  if (!isVerified && get16(b, 6) !== 0) {
    const sum = pseudoHeaderSum(source, destination, IpProtocol.UDP, length);
    if (fold(addWords(sum, b, 0, length)) !== 0xffff) return null;
  }
  return {
    sourcePort: get16(b, 0),
    destinationPort: get16(b, 2),
    payload: b.subarray(UDP_HEADER, length),
  };
}

export function buildUdp(datagram: UdpDatagram, source: number, destination: number): Uint8Array {
  const b = new Uint8Array(UDP_HEADER + datagram.payload.length);
  put16(b, 0, datagram.sourcePort);
  put16(b, 2, datagram.destinationPort);
  put16(b, 4, b.length);
  b.set(datagram.payload, UDP_HEADER);
  const sum = pseudoHeaderSum(source, destination, IpProtocol.UDP, b.length);
  put16(b, 6, checksum(b, 0, b.length, sum) || 0xffff);
  return b;
}
