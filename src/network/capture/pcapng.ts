/**
 * pcapng: packet captures that Wireshark and tcpdump read. draft-ietf-opsawg-pcapng, "Section Header Block", "Interface Description Block",
 * "Enhanced Packet Block".
 *
 * Little endian, one section, one interface, times in nanoseconds. Blocks are answered as bytes; who writes them where is the embedder's.
 */
import { joinBytes } from "../packet/bytes.ts";

const BlockType = { SECTION: 0x0a0d_0d0a, INTERFACE: 1, ENHANCED_PACKET: 6 } as const;
const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
const LINK_ETHERNET = 1;
const NANOSECONDS = 9;
const Option = {
  END: 0,
  COMMENT: 1,
  NAME: 2,
  FLAGS: 2,
  TIME_RESOLUTION: 9,
  APPLICATION: 4,
} as const;

/** Of an enhanced packet block's flags: seen from the guest's card. */
export const Direction = { INBOUND: 1, OUTBOUND: 2 } as const;
export type Direction = (typeof Direction)[keyof typeof Direction];

export interface CaptureOptions {
  readonly interfaceName: string;
  readonly application: string;
  /** Bytes that are kept of a frame; default: all. */
  readonly snapLength?: number;
}

export interface CapturedFrame {
  /** Nanoseconds since 1970 UTC. */
  readonly timeNs: bigint;
  readonly direction: Direction;
  readonly frame: Uint8Array;
  readonly comment?: string;
}

const ALL = 0x4_0000;

/** What a file begins with. */
export function captureHeader(options: CaptureOptions): Uint8Array {
  const { interfaceName, application, snapLength = ALL } = options;
  const section = joinBytes([
    ...[word(BYTE_ORDER_MAGIC), half(1), half(0)],
    // The section's length is not known.
    ...[word(0xffff_ffff), word(0xffff_ffff)],
    ...[option(Option.APPLICATION, utf8(application)), option(Option.END)],
  ]);
  const description = joinBytes([
    ...[half(LINK_ETHERNET), half(0), word(snapLength)],
    option(Option.NAME, utf8(interfaceName)),
    option(Option.TIME_RESOLUTION, Uint8Array.of(NANOSECONDS)),
    option(Option.END),
  ]);
  return joinBytes([block(BlockType.SECTION, section), block(BlockType.INTERFACE, description)]);
}

export function captureFrame(captured: CapturedFrame, snapLength = ALL): Uint8Array {
  const { timeNs, direction, frame, comment } = captured;
  const kept = frame.subarray(0, snapLength);
  const body = joinBytes([
    ...[word(0), word(Number(timeNs >> 32n)), word(Number(timeNs & 0xffff_ffffn))],
    ...[word(kept.length), word(frame.length), padded(kept)],
    option(Option.FLAGS, word(direction)),
    ...(comment === undefined ? [] : [option(Option.COMMENT, utf8(comment))]),
    option(Option.END),
  ]);
  return block(BlockType.ENHANCED_PACKET, body);
}

function block(type: number, body: Uint8Array): Uint8Array {
  const length = word(12 + body.length);
  return joinBytes([word(type), length, body, length]);
}

function option(code: number, value: Uint8Array = new Uint8Array()): Uint8Array {
  return joinBytes([half(code), half(value.length), padded(value)]);
}

function padded(bytes: Uint8Array): Uint8Array {
  if (bytes.length % 4 === 0) return bytes;
  const result = new Uint8Array((bytes.length + 3) & ~3);
  result.set(bytes);
  return result;
}

const half = (value: number): Uint8Array => Uint8Array.of(value & 255, value >>> 8);

const word = (value: number): Uint8Array =>
  Uint8Array.of(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
