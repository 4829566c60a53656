/** DHCP messages. RFC 2131, "Protocol Summary"; options of RFC 2132, overload (option 52) included. */
import { get16, get32, put16, put32 } from "./bytes.ts";

export const DhcpPort = { SERVER: 67, CLIENT: 68 } as const;

export const DhcpType = {
  DISCOVER: 1,
  OFFER: 2,
  REQUEST: 3,
  DECLINE: 4,
  ACK: 5,
  NAK: 6,
  RELEASE: 7,
  INFORM: 8,
} as const;

export const DhcpOption = {
  SUBNET_MASK: 1,
  ROUTER: 3,
  DNS: 6,
  HOST_NAME: 12,
  DOMAIN_NAME: 15,
  MTU: 26,
  BROADCAST: 28,
  REQUESTED_ADDRESS: 50,
  LEASE_SECONDS: 51,
  OVERLOAD: 52,
  MESSAGE_TYPE: 53,
  SERVER: 54,
  PARAMETER_LIST: 55,
  MESSAGE: 56,
} as const;

export type DhcpOptions = ReadonlyMap<number, Uint8Array>;

export interface DhcpMessage {
  /** 1 from a client, 2 from a server. */
  readonly op: number;
  readonly transaction: number;
  readonly seconds: number;
  /** Flag that asks for an answer to all. */
  readonly broadcast: boolean;
  /** The client's address if it has one. */
  readonly client: number;
  /** "Your" address. */
  readonly yours: number;
  readonly server: number;
  readonly relay: number;
  /** chaddr, 16 bytes of which an Ethernet address is the first six. */
  readonly hardware: Uint8Array;
  readonly type: number;
  readonly options: DhcpOptions;
}

const FIXED = 236;
const COOKIE = 0x6382_5363;
const SNAME = 44;
const FILE = 108;
const MIN_BYTES = 300;

/** Null for anything but a DHCP message for Ethernet with options in bounds and a message type. */
export function parseDhcp(b: Uint8Array): DhcpMessage | null {
  if (b.length < FIXED + 4 || get32(b, FIXED) !== COOKIE) return null;
  if (b[1] !== 1 || b[2] !== 6) return null;
  const options = new Map<number, Uint8Array>();
  if (!readOptions(b, FIXED + 4, b.length, options)) return null;
  const overload = options.get(DhcpOption.OVERLOAD)?.[0] ?? 0;
  if ((overload & 1) !== 0 && !readOptions(b, FILE, FIXED, options)) return null;
  if ((overload & 2) !== 0 && !readOptions(b, SNAME, FILE, options)) return null;
  const type = options.get(DhcpOption.MESSAGE_TYPE);
  if (type?.length !== 1) return null;
  return {
    op: b[0]!,
    transaction: get32(b, 4),
    seconds: get16(b, 8),
    broadcast: (b[10]! & 0x80) !== 0,
    client: get32(b, 12),
    yours: get32(b, 16),
    server: get32(b, 20),
    relay: get32(b, 24),
    hardware: b.slice(28, 44),
    type: type[0]!,
    options,
  };
}

/** RFC 3396: parts of an option that occurs more than once are one option. */
function readOptions(
  b: Uint8Array,
  from: number,
  to: number,
  options: Map<number, Uint8Array>,
): boolean {
  for (let at = from; at < to; ) {
    const code = b[at]!;
    if (code === 255) return true;
    if (code === 0) {
      at++;
      continue;
    }
    const end = at + 2 + (at + 1 < to ? b[at + 1]! : to);
    if (end > to) return false;
    const earlier = options.get(code) ?? new Uint8Array();
    const joined = new Uint8Array(earlier.length + end - at - 2);
    joined.set(earlier);
    joined.set(b.subarray(at + 2, end), earlier.length);
    options.set(code, joined);
    at = end;
  }
  return true;
}

export function buildDhcp(message: DhcpMessage): Uint8Array {
  let length = FIXED + 4 + 3 + 1;
  for (const [, value] of message.options) length += 2 + value.length;
  const b = new Uint8Array(Math.max(length, MIN_BYTES));
  b.set([message.op, 1, 6, 0]);
  put32(b, 4, message.transaction);
  put16(b, 8, message.seconds);
  put16(b, 10, message.broadcast ? 0x8000 : 0);
  put32(b, 12, message.client);
  put32(b, 16, message.yours);
  put32(b, 20, message.server);
  put32(b, 24, message.relay);
  b.set(message.hardware.subarray(0, 16), 28);
  put32(b, FIXED, COOKIE);
  let at = FIXED + 4;
  b.set([DhcpOption.MESSAGE_TYPE, 1, message.type], at);
  at += 3;
  for (const [code, value] of message.options) {
    if (code === DhcpOption.MESSAGE_TYPE) continue;
    b.set([code, value.length], at);
    b.set(value, at + 2);
    at += 2 + value.length;
  }
  b[at] = 255;
  return b;
}
