/**
 * Comparison of every x87 instruction with the processor this runs on. By hand:
 *
 *     node src/processor/semantics/x87/x87.native.ts [count per instruction] [name pattern] [seed]
 *
 * Random and edge operands, all rounding and precision controls, all exception masks, empty registers. Prints the first differences.
 */
import { S } from "../../core/layout.ts";
import { Vector } from "../cpu.ts";
import { type BenchShape, createBench, NUMBERS } from "./test-bench.ts";
import { compileOracle, loadRecord, MEM_BYTES, Rec, runOracle, storeRecord } from "./native-oracle.ts";
import { CASES, type Case, type MemoryFormat } from "./native-cases.ts";
import { binary, extended, type Extended, integer, Random, related } from "./operands.ts";

function putExtended(view: DataView, at: number, x: Extended): void {
  view.setBigUint64(at, x.sig, true);
  view.setUint16(at + 8, x.se, true);
}

function putMemory(r: Random, view: DataView, at: number, format: MemoryFormat): void {
  for (let i = 0; i < MEM_BYTES; i += 16) view.setBigUint64(at + i, r.bits(), true);
  switch (format) {
    case "f32":
      return view.setUint32(at, Number(binary(r, 4)), true);
    case "f64":
      return view.setBigUint64(at, binary(r, 8), true);
    case "f80":
      return putExtended(view, at, extended(r));
    case "int":
      return view.setBigUint64(at, integer(r), true);
    case "bcd":
      for (let i = 0; i < 9; i++) view.setUint8(at + i, r.below(10) | (r.below(10) << 4));
      return view.setUint8(at + 9, r.below(2) << 7);
    default:
  }
}

/** A state to start from: exception flags mostly where they are masked; an unmasked one is pending. */
function randomRecord(r: Random, view: DataView, at: number, c: Case): void {
  const masks = r.chance(60) ? 0x3f : r.below(64);
  const precision = r.chance(50) ? 3 : [0, 2, 3, c.reservedPrecision ? 1 : 3][r.below(4)]!;
  const fcw = masks | 0x40 | (precision << 8) | (r.below(4) << 10) | (r.below(8) === 0 ? 0x1000 : 0);
  const flags = r.chance(70) ? 0 : r.below(64) & (r.chance(4) ? 0x3f : masks);
  const fsw = flags | (r.chance(20) ? 0x40 : 0) | (r.below(16) << 8 & 0x700) | (r.below(2) << 14) | (r.below(8) << 11);
  view.setUint16(at + Rec.FCW, fcw, true);
  view.setUint16(at + Rec.FSW, fsw, true);
  const top = (fsw >> 11) & 7;
  // Registers in use by ST number, then as physical bits.
  let used = r.chance(85) ? c.used ?? 0xff : r.below(256);
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
    putExtended(view, at + Rec.ST + 10 * (c.second ?? 1), r.chance(30) ? related(r, a) : extended(r));
  }
  putMemory(r, view, at + Rec.MEM, c.memory ?? "any");
}

/** Contents of the registers that hardly matter. */
const pool = Array.from({ length: 1024 }, (_, i) => extended(new Random(i)));

const hex = (n: number | bigint, width: number): string => n.toString(16).padStart(width, "0");

function show(view: DataView, at: number, c: Case): string {
  const st = (i: number): string =>
    `${hex(view.getUint16(at + Rec.ST + 10 * i + 8, true), 4)}:${hex(view.getBigUint64(at + Rec.ST + 10 * i, true), 16)}`;
  const all = c.second ? [0, 1, c.second] : [0, 1, 7];
  return (
    `cw ${hex(view.getUint16(at + Rec.FCW, true), 4)} sw ${hex(view.getUint16(at + Rec.FSW, true), 4)} ` +
    `valid ${hex(view.getUint8(at + Rec.VALID), 2)} sig ${view.getUint8(at + Rec.SIGNALLED)} fl ${hex(view.getUint32(at + Rec.RFLAGS, true), 3)} ` +
    `${all.map((i) => `st${i} ${st(i)}`).join(" ")} mem ${hex(view.getUint16(at + Rec.MEM + 8, true), 4)}:${hex(view.getBigUint64(at + Rec.MEM, true), 16)}`
  );
}

/** Distance in units of the last place if only a result register differs, else Infinity. */
function differs(expected: DataView, actual: DataView, at: number, c: Case): boolean {
  // C1 of the transcendental instructions is no better than their last place, unless it tells a stack fault.
  const stackFault = (expected.getUint16(at + Rec.FSW, true) & 0x41) === 0x41 && expected.getUint16(at + Rec.ST + 8, true) === 0xffff;
  const mask = c.tolerance !== undefined && !stackFault ? 0xfdff : c.statusMask ?? 0xffff;
  if ((expected.getUint16(at + Rec.FSW, true) ^ actual.getUint16(at + Rec.FSW, true)) & mask) return true;
  for (let i = 0; i < Rec.BYTES; i++) {
    if (i === Rec.FSW || i === Rec.FSW + 1 || i === Rec.FOP || i === Rec.FOP + 1) continue;
    const m = i - Rec.MEM;
    if (c.ignoreMemory && m >= c.ignoreMemory[0] && m < c.ignoreMemory[1]) continue;
    if (i >= Rec.ST && i < Rec.MEM && c.tolerance !== undefined) continue;
    if (expected.getUint8(at + i) !== actual.getUint8(at + i)) return true;
  }
  if (c.tolerance === undefined) return false;
  for (let i = 0; i < 8; i++) {
    const o = at + Rec.ST + 10 * i;
    const value = (v: DataView): bigint => (BigInt(v.getUint16(o + 8, true) & 0x7fff) << 63n) + (v.getBigUint64(o, true) & (TOP_BIT - 1n));
    if ((expected.getUint16(o + 8, true) ^ actual.getUint16(o + 8, true)) & 0x8000) return true;
    const distance = value(expected) - value(actual);
    if (distance > BigInt(c.tolerance) || distance < -BigInt(c.tolerance)) return true;
    if (distance !== 0n) c.inexact = (c.inexact ?? 0) + 1;
  }
  return false;
}
const TOP_BIT = 1n << 63n;

/** How Linux reports #MF. */
const SIGFPE = 8;
const BATCH = 20_000;

function compare(c: Case, index: number, count: number, seed: number): number {
  const r = new Random(seed * 1000 + index + 7);
  let differences = 0;
  for (let done = 0; done < count; done += BATCH) {
    const n = Math.min(BATCH, count - done);
    const input = new Uint8Array(n * Rec.BYTES);
    const before = new DataView(input.buffer);
    for (let i = 0; i < n; i++) randomRecord(r, before, i * Rec.BYTES, c);
    const native = runOracle(c.code, input);
    const expected = new DataView(native.buffer, native.byteOffset, native.byteLength);
    const actual = new DataView(new ArrayBuffer(n * Rec.BYTES));
    (c.numbers ?? []).forEach((x, i) => bench.memory.setUint32(NUMBERS + 4 * i, x, true));
    for (let i = 0; i < n; i++) {
      const at = i * Rec.BYTES;
      loadRecord(bench, before, at);
      const status = bench.run(index);
      if (status === 0) storeRecord(bench, actual, at);
      else {
        new Uint8Array(actual.buffer).set(input.subarray(at, at + Rec.BYTES), at);
        actual.setUint8(at + Rec.SIGNALLED, bench.memory.getUint32(S.PENDING_VECTOR.at, true) === Vector.MF ? SIGFPE : 0xff);
      }
      if (!differs(expected, actual, at, c)) continue;
      if (differences++ < (Number(process.env.SHOW ?? 3))) {
        console.log(`${c.name}\n  in   ${show(before, at, c)}\n  cpu  ${show(expected, at, c)}\n  ours ${show(actual, at, c)}`);
      }
    }
  }
  return differences;
}

const [count = "20000", pattern = "", seed = "1"] = process.argv.slice(2);
const cases = CASES.filter((c) => new RegExp(pattern).test(c.name));
compileOracle();
const bench = createBench(cases.map((c): BenchShape => ({ sem: c.sem, operands: c.shape, opsize: c.opsize ?? 4 })));
let total = 0;
cases.forEach((c, i) => {
  const differences = compare(c, i, Number(count), Number(seed));
  total += differences;
  const rounding = c.inexact ? `, ${c.inexact} results 1 ulp apart` : "";
  console.log(`${differences === 0 ? "ok  " : "FAIL"} ${c.name}: ${differences} differences in ${count}${rounding}`);
});
process.exitCode = total === 0 ? 0 : 1;
