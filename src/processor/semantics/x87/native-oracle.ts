/**
 * The x87 FPU of the machine this runs on, as an oracle: compiles native-oracle.c with the C compiler and runs one instruction
 * on many states. Also moves such states into a bench (test-bench.ts) and back. By-hand tests only.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FPR, GPR, S } from "../../core/layout.ts";
import { type Bench, MEMORY_OPERAND } from "./test-bench.ts";

/** Record of native-oracle.c. */
export const Rec = { FCW: 0, FSW: 2, VALID: 4, SIGNALLED: 5, FOP: 6, RFLAGS: 8, EAX: 12, ST: 16, MEM: 96, BYTES: 208 } as const;
export const MEM_BYTES = 112;

let program = "";

export function compileOracle(): void {
  program = join(mkdtempSync(join(tmpdir(), "x87-oracle-")), "oracle");
  execFileSync("gcc", ["-O1", "-o", program, new URL("native-oracle.c", import.meta.url).pathname]);
}

export function runOracle(code: readonly number[], records: Uint8Array): Uint8Array {
  const head = Buffer.alloc(32);
  head.writeUInt32LE(records.length / Rec.BYTES, 0);
  head.writeUInt32LE(code.length, 4);
  head.set(code, 8);
  const r = spawnSync(program, { input: Buffer.concat([head, records]), maxBuffer: 1 << 30 });
  if (r.status !== 0) throw new Error(`oracle: status ${r.status} ${r.signal}`);
  return r.stdout;
}

/** Copies 16-bit words; quicker than two typed arrays over ten bytes. */
function copyWords(to: DataView, at: number, from: DataView, start: number, count: number): void {
  for (let i = 0; i < 2 * count; i += 2) to.setUint16(at + i, from.getUint16(start + i, true), true);
}

/** Puts record `at` of `view` into the bench's state. */
export function loadRecord(bench: Bench, view: DataView, at: number): void {
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
export function storeRecord(bench: Bench, view: DataView, at: number): void {
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
