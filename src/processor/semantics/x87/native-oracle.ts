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
    m.setBigUint64(slot, view.getBigUint64(at + Rec.ST + 10 * i, true), true);
    m.setUint16(slot + 8, view.getUint16(at + Rec.ST + 10 * i + 8, true), true);
  }
  m.setUint32(S.CR0.at, 0x33, true);
  m.setUint32(GPR, view.getUint32(at + Rec.EAX, true), true);
  bench.setFlags(view.getUint32(at + Rec.RFLAGS, true));
  for (let i = 0; i < MEM_BYTES; i += 8) {
    m.setBigUint64(MEMORY_OPERAND + i, view.getBigUint64(at + Rec.MEM + i, true), true);
  }
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
    view.setBigUint64(at + Rec.ST + 10 * i, m.getBigUint64(slot, true), true);
    view.setUint16(at + Rec.ST + 10 * i + 8, m.getUint16(slot + 8, true), true);
  }
  view.setUint32(at + Rec.EAX, m.getUint32(GPR, true), true);
  view.setUint32(at + Rec.RFLAGS, bench.flags(), true);
  for (let i = 0; i < MEM_BYTES; i += 8) {
    view.setBigUint64(at + Rec.MEM + i, m.getBigUint64(MEMORY_OPERAND + i, true), true);
  }
}
