/**
 * DNS messages as far as a forwarder needs them: one question in, records out. RFC 1035, "Messages"; EDNS size of RFC 6891.
 *
 * Names are lower-case text with dots, without the last one; labels are limited to printable ASCII without dots and backslashes, which is
 * what resolvers of operating systems take. Questions with other labels are refused as malformed.
 */
import { get16, joinBytes, put16, put32 } from "./bytes.ts";

export const DNS_PORT = 53;
const HEADER = 12;
const MAX_NAME = 255;
/** Without EDNS no answer over UDP may be larger. */
export const MIN_UDP_ANSWER = 512;

export const DnsType = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  CAA: 257,
} as const;

export const DnsStatus = {
  OK: 0,
  FORMAT_ERROR: 1,
  SERVER_FAILURE: 2,
  NO_NAME: 3,
  NOT_IMPLEMENTED: 4,
  REFUSED: 5,
} as const;

const CLASS_IN = 1;
const OPCODE = 0x7800;
const FLAG = { RESPONSE: 0x8000, TRUNCATED: 0x0200, WANTED: 0x0100, AVAILABLE: 0x0080 } as const;

export interface DnsQuestion {
  readonly id: number;
  readonly name: string;
  readonly type: number;
  readonly recursionWanted: boolean;
  /** Largest answer that the asker takes over UDP. */
  readonly udpBytes: number;
  readonly hasEdns: boolean;
}

export interface DnsRecord {
  readonly type: number;
  /** Seconds. */
  readonly ttl: number;
  /** RDATA without compression. */
  readonly data: Uint8Array;
}

/** A query that cannot be answered with records gets the status here, or is dropped (null). */
export type ParsedQuery =
  | { readonly question: DnsQuestion }
  | { readonly id: number; readonly status: number };

export function parseQuery(b: Uint8Array): ParsedQuery | null {
  if (b.length < HEADER) return null;
  const id = get16(b, 0);
  const flags = get16(b, 2);
  if ((flags & FLAG.RESPONSE) !== 0) return null;
  if ((flags & OPCODE) !== 0) return { id, status: DnsStatus.NOT_IMPLEMENTED };
  const name = get16(b, 4) === 1 ? readName(b, HEADER) : null;
  if (!name || name.end + 4 > b.length) return { id, status: DnsStatus.FORMAT_ERROR };
  if (get16(b, name.end + 2) !== CLASS_IN) return { id, status: DnsStatus.NOT_IMPLEMENTED };
  const edns = readEdns(b, name.end + 4);
  if (edns === null) return { id, status: DnsStatus.FORMAT_ERROR };
  return {
    question: {
      id,
      name: name.text,
      type: get16(b, name.end),
      recursionWanted: (flags & FLAG.WANTED) !== 0,
      udpBytes: Math.max(edns, MIN_UDP_ANSWER),
      hasEdns: edns > 0,
    },
  };
}

/** Labels without pointers: the first name of a message has nothing before it to point to. */
function readName(b: Uint8Array, from: number): { text: string; end: number } | null {
  const labels: string[] = [];
  for (let at = from; at < b.length; ) {
    const length = b[at]!;
    if (length === 0) return { text: labels.join("."), end: at + 1 };
    if (length > 63 || at + 1 + length > b.length || at + 1 + length - from > MAX_NAME) return null;
    const label = String.fromCharCode(...b.subarray(at + 1, at + 1 + length));
    if (!/^[!-[\]-~]+$/.test(label) || label.includes(".")) return null;
    labels.push(label.toLowerCase());
    at += 1 + length;
  }
  return null;
}

/** UDP size of an OPT record, 0 without one, null if the rest of the message is malformed. */
function readEdns(b: Uint8Array, from: number): number | null {
  const count = get16(b, 6) + get16(b, 8) + get16(b, 10);
  if (count > 8) return null;
  let size = 0;
  let at = from;
  for (let i = 0; i < count; i++) {
    while (at < b.length && b[at] !== 0 && b[at]! < 64) at += 1 + b[at]!;
    at += b[at]! >= 0xc0 ? 2 : 1;
    if (at + 10 > b.length) return null;
    if (get16(b, at) === DnsType.OPT) size = Math.max(get16(b, at + 2), 1);
    at += 10 + get16(b, at + 8);
    if (at > b.length) return null;
  }
  return size;
}

/** Null if it is no name of the DNS. */
export function encodeName(name: string): Uint8Array | null {
  const labels = name.replace(/\.$/, "").split(".");
  if (name === "" || name === ".") return new Uint8Array(1);
  const bytes = new Uint8Array(name.replace(/\.$/, "").length + 2);
  if (bytes.length > MAX_NAME) return null;
  let at = 0;
  for (const label of labels) {
    if (label.length === 0 || label.length > 63) return null;
    bytes[at++] = label.length;
    for (let i = 0; i < label.length; i++) {
      const code = label.charCodeAt(i);
      if (code > 0x7e) return null;
      bytes[at++] = code;
    }
  }
  return bytes;
}

/** An answer to `question`. Records that do not fit into `limit` bytes are left out and the answer says that it is truncated. */
export function buildAnswer(
  question: DnsQuestion,
  status: number,
  records: readonly DnsRecord[],
  limit: number,
): Uint8Array {
  const name = encodeName(question.name) ?? new Uint8Array(1);
  const head = new Uint8Array(HEADER + name.length + 4);
  const edns = question.hasEdns ? ednsRecord() : new Uint8Array();
  let room = limit - head.length - edns.length;
  const parts: Uint8Array[] = [];
  for (const record of records) {
    const bytes = answerRecord(record);
    if (bytes.length > room) break;
    room -= bytes.length;
    parts.push(bytes);
  }
  const truncated = parts.length < records.length ? FLAG.TRUNCATED : 0;
  const wanted = question.recursionWanted ? FLAG.WANTED : 0;
  put16(head, 0, question.id);
  put16(head, 2, FLAG.RESPONSE | FLAG.AVAILABLE | truncated | wanted | status);
  put16(head, 4, 1);
  put16(head, 6, parts.length);
  put16(head, 10, question.hasEdns ? 1 : 0);
  head.set(name, HEADER);
  put16(head, HEADER + name.length, question.type);
  put16(head, HEADER + name.length + 2, CLASS_IN);
  return joinBytes([head, ...parts, edns]);
}

/** An answer that says no more than why there is none. */
export function buildFailure(id: number, status: number): Uint8Array {
  const b = new Uint8Array(HEADER);
  put16(b, 0, id);
  put16(b, 2, FLAG.RESPONSE | FLAG.AVAILABLE | status);
  return b;
}

function answerRecord({ type, ttl, data }: DnsRecord): Uint8Array {
  const b = new Uint8Array(12 + data.length);
  put16(b, 0, 0xc000 | HEADER);
  put16(b, 2, type);
  put16(b, 4, CLASS_IN);
  put32(b, 6, ttl);
  put16(b, 10, data.length);
  b.set(data, 12);
  return b;
}

const EDNS_BYTES = 1232;

function ednsRecord(): Uint8Array {
  const b = new Uint8Array(11);
  put16(b, 1, DnsType.OPT);
  put16(b, 3, EDNS_BYTES);
  return b;
}
