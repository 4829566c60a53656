/**
 * Test support: x87 states as records, random ones, and their way into a bench and back. The record is that of native-oracle.c.
 */
import { FPR, GPR, S } from "../../state/layout.ts";
import { Vector } from "../cpu.ts";
import { type Bench, type BenchShape, MEMORY_OPERAND, NUMBERS } from "./test-bench.ts";
import type { Case, MemoryFormat } from "./test-cases.ts";
import { binary, type Extended, extended, integer, Random, related } from "./test-operands.ts";

/** Record of native-oracle.c. */
export const Rec = {
  FCW: 0,
  FSW: 2,
  VALID: 4,
  SIGNALLED: 5,
  FOP: 6,
  RFLAGS: 8,
  EAX: 12,
  ST: 16,
  MEM: 96,
  BYTES: 208,
} as const;
export const MEM_BYTES = 112;

/** How Linux reports #MF. */
const SIGFPE = 8;

/** Contents of the registers that hardly matter. */
const pool = Array.from({ length: 1024 }, (_, i) => extended(new Random(i)));

function putExtended(view: DataView, at: number, x: Extended): void {
  view.setBigUint64(at, x.sig, true);
  view.setUint16(at + 8, x.se, true);
}

function putMemory(r: Random, view: DataView, at: number, format: MemoryFormat): void {
  for (let i = 0; i < MEM_BYTES; i += 16) view.setBigUint64(at + i, r.bits(), true);
  switch (format) {
    case "f32":
      view.setUint32(at, Number(binary(r, 4)), true);
      break;
    case "f64":
      view.setBigUint64(at, binary(r, 8), true);
      break;
    case "f80":
      putExtended(view, at, extended(r));
      break;
    case "int":
      view.setBigUint64(at, integer(r), true);
      break;
    case "bcd":
      for (let i = 0; i < 9; i++) view.setUint8(at + i, r.below(10) | (r.below(10) << 4));
      view.setUint8(at + 9, r.below(2) << 7);
      break;
    default:
  }
}

/** A state to start from: exception flags mostly where they are masked; an unmasked one is pending. */
export function randomRecord(r: Random, view: DataView, at: number, c: Case): void {
  const masks = r.chance(60) ? 0x3f : r.below(64);
  const precision = r.chance(50) ? 3 : [0, 2, 3, c.reservedPrecision ? 1 : 3][r.below(4)]!;
  const fcw =
    masks | 0x40 | (precision << 8) | (r.below(4) << 10) | (r.below(8) === 0 ? 0x1000 : 0);
  const flags = r.chance(70) ? 0 : r.below(64) & (r.chance(4) ? 0x3f : masks);
  const fsw =
    flags |
    (r.chance(20) ? 0x40 : 0) |
    ((r.below(16) << 8) & 0x700) |
    (r.below(2) << 14) |
    (r.below(8) << 11);
  view.setUint16(at + Rec.FCW, fcw, true);
  view.setUint16(at + Rec.FSW, fsw, true);
  const top = (fsw >> 11) & 7;
  // Registers in use by ST number, then as physical bits.
  let used = r.chance(85) ? (c.used ?? 0xff) : r.below(256);
  if (r.chance(30)) used &= ~(1 << r.below(8)) | (c.used ?? 0xff);
  let valid = 0;
  for (let i = 0; i < 8; i++) if (used & (1 << i)) valid |= 1 << ((top + i) & 7);
  view.setUint8(at + Rec.VALID, valid);
  view.setUint8(at + Rec.SIGNALLED, 0);
  view.setUint16(at + Rec.FOP, 0, true);
  view.setUint32(at + Rec.RFLAGS, r.below(0x1000) & 0x8d5, true);
  view.setUint32(at + Rec.EAX, Number(r.bits() & 0xffff_ffffn), true);
  for (let i = 0; i < 8; i++) putExtended(view, at + Rec.ST + 10 * i, pool[r.below(pool.length)]!);
  if (c.operands) {
    const [a, b] = c.operands(r);
    putExtended(view, at + Rec.ST, a);
    if (b) putExtended(view, at + Rec.ST + 10 * (c.second ?? 1), b);
  } else {
    const a = extended(r);
    putExtended(view, at + Rec.ST, a);
    putExtended(
      view,
      at + Rec.ST + 10 * (c.second ?? 1),
      r.chance(30) ? related(r, a) : extended(r),
    );
  }
  putMemory(r, view, at + Rec.MEM, c.memory ?? "any");
}

/** Copies 16-bit words; quicker than two typed arrays over ten bytes. */
function copyWords(to: DataView, at: number, from: DataView, start: number, count: number): void {
  for (let i = 0; i < 2 * count; i += 2)
    to.setUint16(at + i, from.getUint16(start + i, true), true);
}

/** Puts record `at` of `view` into the bench's state. */
function loadRecord(bench: Bench, view: DataView, at: number): void {
  const m = bench.memory;
  const fsw = view.getUint16(at + Rec.FSW, true);
  const fcw = view.getUint16(at + Rec.FCW, true);
  const valid = view.getUint8(at + Rec.VALID);
  m.setUint32(S.FCW.at, fcw, true);
  const pending = fsw & ~fcw & 0x3f ? 0x8080 : 0;
  m.setUint32(S.FSW.at, (fsw & 0x7f7f) | pending, true);
  m.setUint32(S.FTAG_EMPTY.at, ~valid & 0xff, true);
  const top = (fsw >> 11) & 7;
  for (let i = 0; i < 8; i++) {
    const slot = FPR + 16 * ((top + i) & 7);
    copyWords(m, slot, view, at + Rec.ST + 10 * i, 5);
  }
  m.setUint32(S.CR0.at, 0x33, true);
  m.setUint32(GPR, view.getUint32(at + Rec.EAX, true), true);
  bench.setFlags(view.getUint32(at + Rec.RFLAGS, true));
  copyWords(m, MEMORY_OPERAND, view, at + Rec.MEM, MEM_BYTES / 2);
}

/** Reads the bench's state into a record. */
function storeRecord(bench: Bench, view: DataView, at: number): void {
  const m = bench.memory;
  const fsw = m.getUint32(S.FSW.at, true);
  view.setUint16(at + Rec.FSW, fsw, true);
  view.setUint16(at + Rec.FCW, m.getUint32(S.FCW.at, true), true);
  view.setUint8(at + Rec.VALID, ~m.getUint32(S.FTAG_EMPTY.at, true) & 0xff);
  view.setUint8(at + Rec.SIGNALLED, 0);
  const top = (fsw >> 11) & 7;
  for (let i = 0; i < 8; i++) {
    const slot = FPR + 16 * ((top + i) & 7);
    copyWords(view, at + Rec.ST + 10 * i, m, slot, 5);
  }
  view.setUint32(at + Rec.EAX, m.getUint32(GPR, true), true);
  view.setUint32(at + Rec.RFLAGS, bench.flags(), true);
  copyWords(view, at + Rec.MEM, m, MEMORY_OPERAND, MEM_BYTES / 2);
}

export const benchShape = (c: Case): BenchShape => ({
  sem: c.sem,
  operands: c.shape,
  opsize: c.opsize ?? 4,
});

/** Runs shape `index` of the bench on `count` records. */
export function runRecords(bench: Bench, index: number, c: Case, before: Uint8Array): DataView {
  const input = new DataView(before.buffer, before.byteOffset, before.byteLength);
  const output = new Uint8Array(before.length);
  const actual = new DataView(output.buffer);
  (c.numbers ?? []).forEach((x, i) => {
    bench.memory.setUint32(NUMBERS + 4 * i, x, true);
  });
  for (let at = 0; at < before.length; at += Rec.BYTES) {
    loadRecord(bench, input, at);
    if (bench.run(index) === 0) storeRecord(bench, actual, at);
    else {
      output.set(before.subarray(at, at + Rec.BYTES), at);
      const isMf = bench.memory.getUint32(S.PENDING_VECTOR.at, true) === Vector.MF;
      actual.setUint8(at + Rec.SIGNALLED, isMf ? SIGFPE : 0xff);
    }
  }
  return actual;
}

export function randomRecords(r: Random, c: Case, count: number): Uint8Array {
  const bytes = new Uint8Array(count * Rec.BYTES);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) randomRecord(r, view, i * Rec.BYTES, c);
  return bytes;
}

/** FNV-1a of the outcome of some random states; the digests of results that were compared with silicon are in x87.digests.ts. */
export function digest(bench: Bench, index: number, c: Case): string {
  const records = randomRecords(new Random(0x87), c, DIGEST_COUNT);
  const outcome = runRecords(bench, index, c, records);
  let h = 0x811c_9dc5;
  for (let i = 0; i < outcome.byteLength; i++) h = Math.imul(h ^ outcome.getUint8(i), 0x0100_0193);
  return (h >>> 0).toString(16).padStart(8, "0");
}
const DIGEST_COUNT = 300;
