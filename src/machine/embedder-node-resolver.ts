/**
 * Names by the machine's own resolver, as DNS records.
 *
 * Addresses come from getaddrinfo, as every program of the machine sees them (/etc/hosts, mDNS and all); how long they live from a DNS query
 * beside it, if that answers in time. Other types come from DNS alone. A type that Node cannot ask for is "not implemented", not "none".
 */
import type { SoaRecord } from "node:dns";
import * as dns from "node:dns/promises";
import { isIPv4, isIPv6 } from "node:net";
import { parseIpv4Address } from "../network/packet/address.ts";
import { joinBytes, put16, put32 } from "../network/packet/bytes.ts";
import { type DnsRecord, DnsStatus, DnsType, encodeName } from "../network/packet/dns.ts";
import { addressRecord } from "../network/user/dns-forwarder.ts";

export interface Resolution {
  readonly status: number;
  readonly records: readonly DnsRecord[];
}

/** Of records whose age nobody tells. */
const DEFAULT_TTL = 60;
/** How long an answer waits for the records' age. */
const TTL_PATIENCE_MS = 300;

/** Never rejects. */
export async function resolveOnHost(name: string, type: number): Promise<Resolution> {
  try {
    const records = await recordsOf(name, type);
    if (records === null) return { status: DnsStatus.NOT_IMPLEMENTED, records: [] };
    return { status: DnsStatus.OK, records };
  } catch (error) {
    return { status: statusOf((error as NodeJS.ErrnoException).code ?? ""), records: [] };
  }
}

function statusOf(code: string): number {
  if (code === "ENOTFOUND") return DnsStatus.NO_NAME;
  if (code === "ENODATA") return DnsStatus.OK;
  if (code === "EBADNAME" || code === "EFORMERR") return DnsStatus.FORMAT_ERROR;
  return code === "EREFUSED" ? DnsStatus.REFUSED : DnsStatus.SERVER_FAILURE;
}

async function recordsOf(name: string, type: number): Promise<DnsRecord[] | null> {
  switch (type) {
    case DnsType.A:
      return addresses(name, 4);
    case DnsType.AAAA:
      return addresses(name, 6);
    case DnsType.PTR:
      return names(type, await dns.reverse(reverseAddress(name)));
    case DnsType.CNAME:
      return names(type, await dns.resolveCname(name));
    case DnsType.NS:
      return names(type, await dns.resolveNs(name));
    case DnsType.MX:
      return (await dns.resolveMx(name)).map(({ priority, exchange }) =>
        record(type, [half(priority), nameBytes(exchange)]),
      );
    case DnsType.TXT:
      return (await dns.resolveTxt(name)).map((parts) => record(type, parts.map(characterString)));
    case DnsType.SRV:
      return (await dns.resolveSrv(name)).map(({ priority, weight, port, name: target }) =>
        record(type, [half(priority), half(weight), half(port), nameBytes(target)]),
      );
    case DnsType.SOA:
      return [startOfAuthority(await dns.resolveSoa(name))];
    default:
      return null;
  }
}

async function addresses(name: string, family: 4 | 6): Promise<DnsRecord[]> {
  const ages = agesOf(name, family);
  let found: { address: string }[];
  try {
    found = await dns.lookup(name, { all: true, family, order: "verbatim" });
  } catch (error) {
    // getaddrinfo says the same for "no such name" and "no address of this family".
    const other = await dns.lookup(name, { all: true }).catch(() => []);
    if (other.length > 0) return [];
    throw error;
  }
  const ttls = await Promise.race([ages, patience()]);
  return found.flatMap(({ address }) => {
    const ttl = ttls.get(address) ?? DEFAULT_TTL;
    if (family === 6)
      return isIPv6(address) ? [record(DnsType.AAAA, [ipv6Bytes(address)], ttl)] : [];
    return isIPv4(address) ? [addressRecord(parseIpv4Address(address)!, ttl)] : [];
  });
}

async function agesOf(name: string, family: 4 | 6): Promise<Map<string, number>> {
  const resolve = family === 4 ? dns.resolve4 : dns.resolve6;
  const found = await resolve(name, { ttl: true }).catch(() => []);
  return new Map(found.map(({ address, ttl }) => [address, ttl]));
}

function patience(): Promise<Map<string, number>> {
  return new Promise((resolve) => {
    setTimeout(resolve, TTL_PATIENCE_MS, new Map()).unref();
  });
}

// ---- encoding ----

function record(type: number, parts: readonly Uint8Array[], ttl = DEFAULT_TTL): DnsRecord {
  return { type, ttl, data: joinBytes(parts) };
}

const names = (type: number, found: readonly string[]): DnsRecord[] =>
  found.map((name) => record(type, [nameBytes(name)]));

function nameBytes(name: string): Uint8Array {
  const bytes = encodeName(name);
  if (!bytes) throw Object.assign(new Error(`no name: ${name}`), { code: "EBADRESP" });
  return bytes;
}

function half(value: number): Uint8Array {
  const bytes = new Uint8Array(2);
  put16(bytes, 0, value);
  return bytes;
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  put32(bytes, 0, value);
  return bytes;
}

function characterString(text: string): Uint8Array {
  const bytes = Buffer.from(text, "latin1").subarray(0, 255);
  return joinBytes([Uint8Array.of(bytes.length), bytes]);
}

function startOfAuthority(soa: SoaRecord): DnsRecord {
  const numbers = [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minttl];
  const parts = [nameBytes(soa.nsname), nameBytes(soa.hostmaster), ...numbers.map(word)];
  return record(DnsType.SOA, parts);
}

/** "4.3.2.1.in-addr.arpa" and the nibbles of ip6.arpa. */
function reverseAddress(name: string): string {
  const labels = name.split(".");
  if (name.endsWith(".in-addr.arpa")) return labels.slice(0, -2).reverse().join(".");
  const digits = labels.slice(0, -2).reverse().join("");
  return digits.replace(/....(?=.)/g, "$&:");
}

function ipv6Bytes(text: string): Uint8Array {
  const [head = "", tail] = text.replace(/%.*/, "").split("::");
  const groups = (part: string): number[] => (part === "" ? [] : part.split(":").flatMap(groupsOf));
  const front = groups(head);
  const back = tail === undefined ? [] : groups(tail);
  const middle = new Array(Math.max(0, 8 - front.length - back.length)).fill(0);
  const bytes = new Uint8Array(16);
  [...front, ...middle, ...back].slice(0, 8).forEach((group, i) => {
    put16(bytes, 2 * i, group);
  });
  return bytes;
}

function groupsOf(part: string): number[] {
  const address = parseIpv4Address(part);
  return address === null ? [Number.parseInt(part, 16)] : [address >>> 16, address & 0xffff];
}
