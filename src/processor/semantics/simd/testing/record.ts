/**
 * Processor states as native-oracle.c takes them, and the oracle itself: compiled with the C compiler of this machine, run on batches.
 * Moves such states into a bench and back. By-hand tests only.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FPR, GPR, S, XMM } from "../../../state/layout.ts";
import { type Bench, DATA, resetState } from "./harness.ts";

/** Bytes of memory in a record, unless said otherwise. */
export const MEMORY = 64;
export const AT = { FX: 0, REGS: 512, VECTOR: 552, MEMORY: 576, BYTES: 576 + MEMORY };
export const FX = { FCW: 0, FSW: 2, TAGS: 4, FOP: 6, FIP: 8, FDP: 16, MXCSR: 24, ST: 32, XMM: 160 };
export const FLAGS = 0x8d5;
const HEAD_BYTES = 48;

export interface Job {
  readonly code: readonly number[];
  /** Where the memory operand starts in the record's memory. */
  readonly offset: number;
  readonly records: Buffer;
}

export function compileOracle(memory: number): string {
  const program = join(mkdtempSync(join(tmpdir(), "simd-oracle-")), "oracle");
  const source = new URL("native-oracle.c", import.meta.url).pathname;
  execFileSync("gcc", ["-O1", `-DMEMORY=${memory}`, "-o", program, source]);
  return program;
}

function headOf(job: Job, count: number): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(count, 0);
  head.writeUInt32LE(job.code.length, 4);
  head.writeUInt32LE(job.offset, 8);
  head.set(job.code, 16);
  return head;
}

/** All records as the processor leaves them, in the order of the jobs. */
export function runOracle(program: string, jobs: readonly Job[], memory = MEMORY): Buffer {
  const input = Buffer.concat(
    jobs.flatMap((job) => [headOf(job, job.records.length / (AT.MEMORY + memory)), job.records]),
  );
  const r = spawnSync(program, { input, maxBuffer: 1 << 30 });
  if (r.status !== 0) throw new Error(`oracle ${r.status} ${r.signal}`);
  return r.stdout;
}

/** FXSAVE order to physical registers and back: ST(i) is R(top + i). */
export function load(b: Bench, view: DataView, at: number, memory = MEMORY): void {
  resetState(b);
  const m = b.view;
  const fsw = view.getUint16(at + FX.FSW, true);
  const fcw = view.getUint16(at + FX.FCW, true);
  m.setUint32(S.FCW.at, fcw, true);
  m.setUint32(S.FSW.at, fsw, true);
  m.setUint32(S.FTAG_EMPTY.at, ~view.getUint8(at + FX.TAGS) & 0xff, true);
  m.setUint32(S.FOP.at, view.getUint16(at + FX.FOP, true), true);
  m.setBigUint64(S.FIP.at, view.getBigUint64(at + FX.FIP, true), true);
  m.setBigUint64(S.FDP.at, view.getBigUint64(at + FX.FDP, true), true);
  m.setUint32(S.MXCSR.at, view.getUint32(at + FX.MXCSR, true), true);
  const top = (fsw >> 11) & 7;
  const source = new Uint8Array(view.buffer, view.byteOffset + at, AT.MEMORY + memory);
  for (let i = 0; i < 8; i++) {
    const from = FX.ST + 16 * i;
    b.bytes.set(source.subarray(from, from + 10), FPR + 16 * ((top + i) & 7));
  }
  b.bytes.set(source.subarray(FX.XMM, FX.XMM + 256), XMM);
  // rflags rax rcx rdx rbx
  for (let i = 0; i < 4; i++)
    m.setBigUint64(GPR + 8 * i, view.getBigUint64(at + AT.REGS + 8 * (i + 1), true), true);
  b.setFlags(view.getUint32(at + AT.REGS, true));
  b.bytes.set(source.subarray(AT.MEMORY, AT.MEMORY + memory), DATA);
}

export function store(b: Bench, view: DataView, at: number, status: number, memory = MEMORY): void {
  const m = b.view;
  const fsw = m.getUint32(S.FSW.at, true);
  view.setUint16(at + FX.FSW, fsw, true);
  view.setUint16(at + FX.FCW, m.getUint32(S.FCW.at, true), true);
  view.setUint8(at + FX.TAGS, ~m.getUint32(S.FTAG_EMPTY.at, true) & 0xff);
  view.setUint32(at + FX.MXCSR, m.getUint32(S.MXCSR.at, true), true);
  const target = new Uint8Array(view.buffer, view.byteOffset + at, AT.MEMORY + memory);
  const top = (fsw >> 11) & 7;
  for (let i = 0; i < 8; i++) {
    const from = FPR + 16 * ((top + i) & 7);
    target.set(b.bytes.subarray(from, from + 10), FX.ST + 16 * i);
  }
  target.set(b.bytes.subarray(XMM, XMM + 256), FX.XMM);
  for (let i = 0; i < 4; i++)
    view.setBigUint64(at + AT.REGS + 8 * (i + 1), m.getBigUint64(GPR + 8 * i, true), true);
  view.setUint32(at + AT.REGS, b.flags() & FLAGS, true);
  target.set(b.bytes.subarray(DATA, DATA + memory), AT.MEMORY);
  view.setUint32(
    at + AT.VECTOR,
    status === 0 ? 0 : m.getUint32(S.PENDING_VECTOR.at, true) + 1,
    true,
  );
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).reverse().toString("hex");

export function describe(view: DataView, at: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, AT.BYTES);
  const x = (n: number): string => hex(bytes.subarray(FX.XMM + 16 * n, FX.XMM + 16 * n + 16));
  const st = (n: number): string => hex(bytes.subarray(FX.ST + 16 * n, FX.ST + 16 * n + 10));
  const regs = [0, 1, 2, 3, 4].map((i) =>
    view.getBigUint64(at + AT.REGS + 8 * i, true).toString(16),
  );
  return [
    `  mxcsr ${view.getUint32(at + FX.MXCSR, true).toString(16)} vector ${view.getUint32(at + AT.VECTOR, true) - 1} fsw ${view.getUint16(at + FX.FSW, true).toString(16)} tags ${view.getUint8(at + FX.TAGS).toString(16)}`,
    `  xmm0 ${x(0)} xmm1 ${x(1)} xmm2 ${x(2)}`,
    `  st0 ${st(0)} st1 ${st(1)} st2 ${st(2)}`,
    `  flags, rax.. ${regs.join(" ")}`,
    `  memory ${hex(bytes.subarray(AT.MEMORY, AT.MEMORY + 33))}`,
  ].join("\n");
}
