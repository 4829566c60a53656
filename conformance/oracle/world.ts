/**
 * The test's world: linear addresses and segments, the same on the native processor (native-oracle.c) and in the emulated machine.
 *
 * Everything lies below 2 GiB with nothing else near it, so that 64-, 32- and 16-bit code can use the same addresses:
 *   CODE       two pages, executable and read-only, then nothing
 *   DATA       two writable pages, then a read-only one, then nothing
 *   WINDOW     the bytes around the boundary of the writable pages; part of each test's state
 */
export const PAGE = 0x1000;
export const DATA = 0x2000_0000;
export const DATA_BYTES = 2 * PAGE;
export const READ_ONLY = DATA + DATA_BYTES;
export const DATA_END = READ_ONLY + PAGE;
export const WINDOW_BYTES = 1024;
/** The page boundary in the middle of the window. */
export const BOUNDARY = DATA + PAGE;
export const WINDOW = BOUNDARY - WINDOW_BYTES / 2;
export const CODE = 0x4000_0000;
export const CODE_BYTES = 2 * PAGE;
/** Bases of FS and GS in 64-bit code, where their selectors are null. */
export const FS_BASE = DATA + 0x1234;
export const GS_BASE = 0x1234_5678;

/** What is in the data pages outside the window: word i. */
export const patternWord = (i: number): number => Math.imul(i, 0x9e37_79b1);

/** Global descriptor table of 64-bit Linux, as far as it is the same on every machine. */
export const Selector = {
  KERNEL_CODE: 0x10,
  KERNEL_DATA: 0x18,
  USER_CODE32: 0x23,
  USER_DATA: 0x2b,
  USER_CODE64: 0x33,
  TSS: 0x40,
  LDT: 0x50,
  /** Data segment whose limit is the processor's number. */
  PROCESSOR: 0x78,
} as const;

export interface Segment {
  readonly selector: number;
  readonly base: number;
  /** In bytes. */
  readonly limit: number;
  /** Access rights as in the second word of a descriptor, bits 15:0 of VMCS format without the limit. */
  readonly rights: number;
}

const PRESENT = 0x80;
const USER = 0x60;
const MEMORY = 0x10;
const ACCESSED = 1;
const WIDE = 0x4000;
const PAGES = 0x8000;
const LONG = 0x2000;
const AVAILABLE = 0x1000;
const CODE_TYPE = 8;
const CODE_READ = 2;
const CONFORMING = 4;
const DATA_WRITE = 2;
const DATA_DOWN = 4;

function local(index: number, base: number, limit: number, type: number, other: number): Segment {
  const inPages = limit > 0xfffff;
  const rights = type | ACCESSED | MEMORY | USER | AVAILABLE | other | (inPages ? PAGES : 0);
  return { selector: 8 * index + 7, base, limit, rights };
}

const ALL = 0xffff_ffff;
const P = PRESENT;

/** Local descriptor table; the same list is in native-oracle.c. */
export const LOCAL_TABLE: readonly Segment[] = [
  local(0, CODE, 0xffff, CODE_TYPE | CODE_READ, P),
  local(1, CODE, 0xffff, CODE_TYPE | CODE_READ, P | WIDE),
  local(2, DATA - 0x7000, 0xffff, DATA_WRITE, P | WIDE),
  local(3, DATA + 0x1234, ALL, DATA_WRITE, P | WIDE),
  local(4, 0x1234_5678, ALL, DATA_WRITE, P | WIDE),
  local(5, DATA - 0x7000, 0xffff, DATA_WRITE, P),
  local(6, DATA - 0x7000, 0x7fff, DATA_WRITE | DATA_DOWN, P | WIDE),
  local(7, DATA - 0x7000, 0x80ff, 0, P | WIDE),
  local(8, DATA, 0xffff, DATA_WRITE, WIDE),
  local(9, DATA - 0x7000, 0x7f7f, DATA_WRITE | DATA_DOWN, P),
  local(10, CODE, ALL, CODE_TYPE | CODE_READ | CONFORMING, WIDE),
  local(11, 0, ALL, CODE_TYPE, P | WIDE),
  local(12, 0, ALL, CODE_TYPE | CODE_READ, WIDE),
];

const user = (selector: number, type: number, other: number): Segment => ({
  selector,
  base: 0,
  limit: ALL,
  rights: type | ACCESSED | MEMORY | USER | PRESENT | PAGES | other,
});

/** Segments of the global table that ring 3 can load. */
export const GLOBAL_SEGMENTS: readonly Segment[] = [
  user(Selector.USER_CODE32, CODE_TYPE | CODE_READ, WIDE),
  user(Selector.USER_DATA, DATA_WRITE, WIDE),
  user(Selector.USER_CODE64, CODE_TYPE | CODE_READ, LONG),
];

const segments = new Map<number, Segment>(
  [...GLOBAL_SEGMENTS, ...LOCAL_TABLE].map((s) => [s.selector, s]),
);

/** The segment of a selector, or undefined if it is null or not for ring 3. */
export function segmentOf(selector: number): Segment | undefined {
  return segments.get(selector);
}

export const Local = {
  CODE16: 0x07,
  CODE32: 0x0f,
  DATA: 0x17,
  FS: 0x1f,
  GS: 0x27,
  STACK16: 0x2f,
  DOWN: 0x37,
  READ_ONLY: 0x3f,
  ABSENT: 0x47,
  DOWN16: 0x4f,
  CONFORMING: 0x57,
  EXECUTE_ONLY: 0x5f,
  CODE_ABSENT: 0x67,
} as const;

/** Base of the segment a code selector names. */
export function codeBase(selector: number): number {
  return selector === Local.CODE16 || selector === Local.CODE32 ? CODE : 0;
}

/** A descriptor as the processor reads it. */
export function descriptorOf(s: Segment): bigint {
  const limit = s.rights & PAGES ? s.limit >>> 12 : s.limit;
  const low = (limit & 0xffff) | ((s.base & 0xffff) << 16);
  const middle = (s.base >>> 16) & 0xff;
  const rights = ((s.rights & 0xff) << 8) | ((s.rights & 0xf000) << 8);
  const high = middle | rights | (limit & 0xf0000) | (s.base & 0xff00_0000);
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}
