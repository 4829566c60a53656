/** IPv4 addresses as unsigned 32-bit numbers, prefixes, and Ethernet addresses as numbers below 2^48. */
import { get16, get32, put16, put32 } from "./bytes.ts";

export interface Cidr {
  readonly base: number;
  /** Length of the prefix, 0 to 32. */
  readonly bits: number;
}

/** Dotted quad without leading zeros, or null. */
export function parseIpv4Address(text: string): number | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return null;
  let address = 0;
  for (const part of match.slice(1)) {
    const byte = Number(part);
    if (byte > 255 || String(byte) !== part) return null;
    address = address * 256 + byte;
  }
  return address;
}

export const formatIpv4Address = (a: number): string =>
  `${a >>> 24}.${(a >>> 16) & 255}.${(a >>> 8) & 255}.${a & 255}`;

/** "ADDRESS/BITS" or a single address; bits of the host part must be clear. Null if it is neither. */
export function parseCidr(text: string): Cidr | null {
  const [address = "", length, ...rest] = text.split("/");
  const base = parseIpv4Address(address);
  if (base === null || rest.length > 0) return null;
  if (length !== undefined && !/^\d{1,2}$/.test(length)) return null;
  const bits = length === undefined ? 32 : Number(length);
  if (bits > 32 || (base & hostMask(bits)) !== 0) return null;
  return { base, bits };
}

export const isInCidr = (address: number, { base, bits }: Cidr): boolean =>
  ((address ^ base) & ~hostMask(bits)) === 0;

const hostMask = (bits: number): number => (bits === 0 ? -1 : 2 ** (32 - bits) - 1);

export const netmask = (bits: number): number => ~hostMask(bits) >>> 0;

export const BROADCAST_MAC = 0xffff_ffff_ffff;

export const getMac = (b: Uint8Array, at: number): number =>
  get16(b, at) * 0x1_0000_0000 + get32(b, at + 2);

export function putMac(b: Uint8Array, at: number, mac: number): void {
  put16(b, at, Math.floor(mac / 0x1_0000_0000));
  put32(b, at + 2, mac >>> 0);
}

/** Multicast and broadcast addresses are nobody's own. */
export const isUnicastMac = (mac: number): boolean =>
  mac !== 0 && (Math.floor(mac / 0x100_0000_0000) & 1) === 0;

export function formatMac(mac: number): string {
  const digits = mac.toString(16).padStart(12, "0");
  return digits.replace(/..(?=.)/g, "$&:");
}

export function parseMac(text: string): number | null {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return null;
  return Number.parseInt(text.replaceAll(":", ""), 16);
}
