/**
 * TCP segments on the wire. RFC 9293, "Header Format"; options of RFC 7323 (window scale) and RFC 2018 (SACK).
 *
 * Options that nobody knows are skipped; a list that does not fit its lengths makes the segment malformed.
 */
import { get16, get32, put16, put32 } from "./bytes.ts";
import { addWords, checksum, fold, pseudoHeaderSum } from "./checksum.ts";
import { IpProtocol } from "./ipv4.ts";

export const TCP_HEADER = 20;
const MAX_OPTIONS = 40;

export const TcpFlag = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;

const Option = { END: 0, NOP: 1, MSS: 2, WINDOW_SCALE: 3, SACK_PERMITTED: 4, SACK: 5 } as const;

export interface TcpHeader {
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  /** As in the header: unscaled. */
  readonly window: number;
  /** Maximum segment size, or 0. */
  readonly mss: number;
  /** Shift count, or -1. */
  readonly windowScale: number;
  readonly sackPermitted: boolean;
  /** Edges in pairs, left and right. */
  readonly sack: readonly number[];
}

export interface TcpSegment extends TcpHeader {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

interface Options {
  mss: number;
  windowScale: number;
  sackPermitted: boolean;
  sack: readonly number[];
}

const NO_SACK: readonly number[] = [];

/** `source` and `destination` are of the IPv4 header. The payload shares memory with `b`. `isVerified`: the checksum is not to be looked at. */
export function parseTcp(
  b: Uint8Array,
  source: number,
  destination: number,
  isVerified = false,
): TcpSegment | null {
  if (b.length < TCP_HEADER) return null;
  const headerLength = (b[12]! >> 4) * 4;
  if (headerLength < TCP_HEADER || headerLength > b.length) return null;
  const sum = isVerified ? 0 : pseudoHeaderSum(source, destination, IpProtocol.TCP, b.length);
  if (!isVerified && fold(addWords(sum, b, 0, b.length)) !== 0xffff) return null;
  const options = { mss: 0, windowScale: -1, sackPermitted: false, sack: NO_SACK };
  if (!parseOptions(b, headerLength, options)) return null;
  return {
    sourcePort: get16(b, 0),
    destinationPort: get16(b, 2),
    seq: get32(b, 4),
    ack: get32(b, 8),
    flags: b[13]! & 0x3f,
    window: get16(b, 14),
    mss: options.mss,
    windowScale: options.windowScale,
    sackPermitted: options.sackPermitted,
    sack: options.sack,
    payload: b.subarray(headerLength),
  };
}

function parseOptions(b: Uint8Array, end: number, options: Options): boolean {
  for (let at = TCP_HEADER; at < end; ) {
    const kind = b[at]!;
    if (kind === Option.END) return true;
    if (kind === Option.NOP) {
      at++;
      continue;
    }
    const length = at + 1 < end ? b[at + 1]! : 0;
    if (length < 2 || at + length > end) return false;
    if (!parseOption(b, at, length, options)) return false;
    at += length;
  }
  return true;
}

function parseOption(b: Uint8Array, at: number, length: number, options: Options): boolean {
  switch (b[at]) {
    case Option.MSS:
      options.mss = get16(b, at + 2);
      return length === 4;
    case Option.WINDOW_SCALE:
      options.windowScale = Math.min(b[at + 2]!, 14);
      return length === 3;
    case Option.SACK_PERMITTED:
      options.sackPermitted = true;
      return length === 2;
    case Option.SACK:
      options.sack = Array.from({ length: (length - 2) >> 2 }, (_, i) => get32(b, at + 2 + 4 * i));
      return (length - 2) % 8 === 0;
    default:
      return true;
  }
}

export interface TcpPorts {
  readonly source: number;
  readonly destination: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export function tcpHeaderLength(header: TcpHeader): number {
  const options =
    (header.mss > 0 ? 4 : 0) +
    (header.windowScale >= 0 ? 4 : 0) +
    (header.sackPermitted ? 4 : 0) +
    (header.sack.length > 0 ? 4 + 4 * header.sack.length : 0);
  return TCP_HEADER + Math.min(options, MAX_OPTIONS);
}

/**
 * Writes the header before `payloadLength` bytes that are already in place after it, and the checksum over both; `isUnfinished`: over the pseudo header
 * alone, as whoever finishes it wants it.
 */
export function writeTcp(
  b: Uint8Array,
  at: number,
  segment: TcpHeader & TcpPorts,
  payloadLength: number,
  isUnfinished = false,
): void {
  const headerLength = tcpHeaderLength(segment);
  put16(b, at, segment.sourcePort);
  put16(b, at + 2, segment.destinationPort);
  put32(b, at + 4, segment.seq);
  put32(b, at + 8, segment.ack);
  b[at + 12] = (headerLength / 4) << 4;
  b[at + 13] = segment.flags;
  put16(b, at + 14, segment.window);
  put16(b, at + 16, 0);
  put16(b, at + 18, 0);
  writeOptions(b, at + TCP_HEADER, segment);
  const length = headerLength + payloadLength;
  const sum = pseudoHeaderSum(segment.source, segment.destination, IpProtocol.TCP, length);
  put16(b, at + 16, isUnfinished ? fold(sum) : checksum(b, at, at + length, sum));
}

function writeOptions(b: Uint8Array, at: number, header: TcpHeader): void {
  if (header.mss > 0) {
    put16(b, at, (Option.MSS << 8) | 4);
    put16(b, at + 2, header.mss);
    at += 4;
  }
  if (header.windowScale >= 0) {
    put32(b, at, (Option.NOP << 24) | (Option.WINDOW_SCALE << 16) | 0x300 | header.windowScale);
    at += 4;
  }
  if (header.sackPermitted) {
    put32(b, at, (Option.NOP << 24) | (Option.NOP << 16) | (Option.SACK_PERMITTED << 8) | 2);
    at += 4;
  }
  if (header.sack.length === 0) return;
  put16(b, at, (Option.NOP << 8) | Option.NOP);
  put16(b, at + 2, (Option.SACK << 8) | (2 + 4 * header.sack.length));
  header.sack.forEach((edge, index) => {
    put32(b, at + 4 + 4 * index, edge);
  });
}
