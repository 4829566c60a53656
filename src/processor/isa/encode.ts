/**
 * Encoder: a row and operands to bytes, the inverse of decode.ts.
 * Spec: SDM Vol. 2, "Instruction Format".
 *
 * The operands are those the row lists, in its order, also the fixed ones. `seg` of a memory operand is the effective segment or -1 for
 * the default one. What the row cannot express (a register of another class, AH with REX, CS override in 64-bit mode, a displacement
 * that does not fit) throws HypolithError "encode". Whether a value may be shortened is the caller's affair (assemble.ts).
 */
import { HypolithError } from "../../base/errors.ts";
import { BASE_RIP, type Mode, type Operand, Seg } from "./instruction.ts";
import { type OperandPlace, type OperandSpec, SIZES } from "./operand.ts";
import type { Row } from "./row.ts";

export interface EncodeOptions {
  /** Effective operand size; default: the row's own in this mode. */
  readonly opsize?: 2 | 4 | 8;
  readonly addrSize?: 2 | 4 | 8;
  readonly lock?: boolean;
  readonly rep?: 0 | 0xf2 | 0xf3;
  /** Use this many bytes of displacement even if fewer would do; 0: the fewest. */
  readonly dispSize?: 0 | 1 | 2 | 4;
}

/** Bytes, and where in them the fields are that a label can fill in (-1: none). */
export interface Encoding {
  readonly bytes: number[];
  dispAt: number;
  dispSize: number;
  /** First immediate, relative or far offset. */
  immAt: number;
  immSize: number;
}

const SEGMENT_PREFIX = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
const MAP_BYTES = { "1": [], "0F": [0x0f], "0F38": [0x0f, 0x38], "0F3A": [0x0f, 0x3a] } as const;

const BASE16_OF: Record<string, number> = {
  "3,6": 0,
  "3,7": 1,
  "5,6": 2,
  "5,7": 3,
  "6,-1": 4,
  "7,-1": 5,
  "5,-1": 6,
  "3,-1": 7,
};

/** What the parts of one encoding share. */
interface Job {
  readonly row: Row;
  readonly mode: Mode;
  readonly operands: readonly Operand[];
  readonly opsize: 2 | 4 | 8;
  readonly addrSize: 2 | 4 | 8;
  readonly dispSize: 0 | 1 | 2 | 4;
  readonly out: Encoding;
}

function fail(row: Row, why: string): never {
  throw new HypolithError("encode", `${row.mnemonic} ${row.operands.join(",")}: ${why}`);
}

/** Effective operand size of a row without prefixes. */
export function naturalOpsize(row: Row, mode: Mode): 2 | 4 | 8 {
  if (mode === 16) return row.prefix === "66" ? 4 : 2;
  if (mode === 64 && (row.f64 || (row.d64 && row.prefix !== "66"))) return 8;
  return row.prefix === "66" ? 2 : 4;
}

/** 66 and REX.W that give the row this operand size, or undefined if nothing does. */
export function opsizePrefixes(
  row: Row,
  mode: Mode,
  opsize: number,
): { has66: boolean; w: boolean } | undefined {
  const is66 = row.prefix === "66";
  if (mode === 64 && row.f64) return opsize === 8 ? { has66: is66, w: false } : undefined;
  const isFree = !is66 && row.prefix !== "NP";
  if (opsize === naturalOpsize(row, mode)) return { has66: is66, w: false };
  if (mode !== 64) return isFree && opsize !== 8 ? { has66: true, w: false } : undefined;
  if (opsize === 8 && !row.d64 && !row.no64) return { has66: is66, w: true };
  return opsize === 2 && isFree ? { has66: true, w: false } : undefined;
}

export function naturalAddrSize(mode: Mode): 2 | 4 | 8 {
  return (mode / 8) as 2 | 4 | 8;
}

export function encode(
  row: Row,
  mode: Mode,
  operands: readonly Operand[],
  options: EncodeOptions = {},
): Uint8Array {
  return Uint8Array.from(encodeDetailed(row, mode, operands, options).bytes);
}

/** As `encode`, with the places of the fields. */
export function encodeDetailed(
  row: Row,
  mode: Mode,
  operands: readonly Operand[],
  options: EncodeOptions = {},
): Encoding {
  const opsize = options.opsize ?? naturalOpsize(row, mode);
  const addrSize = options.addrSize ?? naturalAddrSize(mode);
  const out: Encoding = { bytes: [], dispAt: -1, dispSize: 0, immAt: -1, immSize: 0 };
  const job: Job = { row, mode, operands, opsize, addrSize, dispSize: options.dispSize ?? 0, out };
  if (mode === 64 ? row.i64 : row.o64) fail(row, `not in ${mode}-bit mode`);
  if (mode === 64 ? addrSize === 2 : addrSize === 8) fail(row, `no address size ${addrSize}`);
  pushPrefixes(job, options);
  const opcode = row.opcode | (row.plusReg ? numberOf(job, "opreg") & 7 : 0);
  out.bytes.push(...MAP_BYTES[row.map], opcode);
  if (row.hasModrm) pushModrm(job);
  for (const [i, spec] of row.specs.entries()) pushTail(job, spec, operands[i]!);
  return out;
}

function pushPrefixes(job: Job, options: EncodeOptions): void {
  const { row, mode, opsize } = job;
  const { bytes } = job.out;
  const sizing = opsizePrefixes(row, mode, opsize);
  if (!sizing) fail(row, `no operand size ${opsize} in ${mode}-bit mode`);
  if (options.lock) bytes.push(0xf0);
  if (options.rep) bytes.push(options.rep);
  const segment = segmentPrefix(job);
  if (segment >= 0) bytes.push(SEGMENT_PREFIX[segment]!);
  if (job.addrSize !== naturalAddrSize(mode)) bytes.push(0x67);
  if (sizing.has66) bytes.push(0x66);
  if (row.prefix === "F3") bytes.push(0xf3);
  if (row.prefix === "F2") bytes.push(0xf2);
  pushRex(job, sizing.w);
}

/** Segment whose override the memory operand needs, or -1. */
function segmentPrefix(job: Job): number {
  for (const [i, spec] of job.row.specs.entries()) {
    const op = job.operands[i]!;
    if (op.kind !== "mem" || spec.fixedEs || op.seg < 0) continue;
    const isStack = spec.place === "rm" && (op.base === 4 || op.base === 5);
    if (op.seg === (isStack ? Seg.SS : Seg.DS)) continue;
    if (job.mode === 64 && op.seg < Seg.FS) fail(job.row, "override without effect in 64-bit mode");
    return op.seg;
  }
  return -1;
}

function operandAt(job: Job, place: OperandPlace): Operand | undefined {
  const i = job.row.specs.findIndex((s) => s.place === place);
  return i < 0 ? undefined : job.operands[i];
}

/** Number of a register as encoded: AH..BH are 4..7. */
function numberOf(job: Job, place: OperandPlace): number {
  const op = operandAt(job, place);
  if (op?.kind !== "reg") return 0;
  return op.cls === "gpr8h" ? op.num + 4 : op.num;
}

function pushRex(job: Job, w: boolean): void {
  const { row } = job;
  const memory = operandAt(job, "rm");
  const reg = numberOf(job, "reg");
  let base = numberOf(job, "rm") | numberOf(job, "opreg");
  let index = 0;
  if (memory?.kind === "mem") {
    base = memory.base === BASE_RIP ? 0 : Math.max(memory.base, 0);
    index = Math.max(memory.index, 0);
  }
  const registers = job.operands.filter(
    (op, i) => op.kind === "reg" && row.specs[i]!.place !== "fixed",
  );
  const needsRex = registers.some((op) => op.cls === "gpr" && op.size === 1 && op.num >= 4);
  const rex = (w ? 8 : 0) | (reg > 7 ? 4 : 0) | (index > 7 ? 2 : 0) | (base > 7 ? 1 : 0);
  if (rex === 0 && !needsRex) return;
  if (job.mode !== 64) fail(row, "register needs 64-bit mode");
  if (registers.some((op) => op.cls === "gpr8h")) fail(row, "AH, CH, DH, BH exclude REX");
  job.out.bytes.push(0x40 | rex);
}

function pushModrm(job: Job): void {
  const { row } = job;
  const reg = (row.ext >= 0 ? row.ext : numberOf(job, "reg") & 7) << 3;
  const rm = operandAt(job, "rm");
  if (rm?.kind !== "mem") {
    job.out.bytes.push(0xc0 | reg | (row.rm >= 0 ? row.rm : numberOf(job, "rm") & 7));
  } else if (job.addrSize === 2) {
    pushMemory16(job, rm, reg);
  } else {
    pushMemory32(job, rm, reg);
  }
}

function pushMemory16(job: Job, op: Operand, reg: number): void {
  const { bytes } = job.out;
  if (op.base < 0 && op.index < 0) {
    bytes.push(reg | 6);
    pushDisp(job.out, op.disp, 2);
    return;
  }
  const rm = BASE16_OF[`${op.base},${op.index}`] ?? BASE16_OF[`${op.index},${op.base}`];
  if (rm === undefined || op.scale !== 0) fail(job.row, "no such 16-bit address");
  const disp = (op.disp << 16) >> 16;
  const size = job.dispSize || (disp === 0 && rm !== 6 ? 0 : isSigned8(disp) ? 1 : 2);
  bytes.push((size << 6) | reg | rm);
  pushDisp(job.out, disp, size);
}

function pushMemory32(job: Job, op: Operand, reg: number): void {
  const { bytes } = job.out;
  const { base, index, disp } = op;
  const is64 = job.mode === 64;
  if (index === 4) fail(job.row, "RSP is no index");
  if (base === BASE_RIP && (!is64 || index >= 0)) fail(job.row, "RIP-relative");
  const sibIndex = (op.scale << 6) | ((index < 0 ? 4 : index & 7) << 3);
  if (base < 0 || base === BASE_RIP) {
    // Without SIB this is an absolute address outside 64-bit mode, and RIP-relative in it.
    if (base === BASE_RIP || (index < 0 && !is64)) bytes.push(reg | 5);
    else bytes.push(reg | 4, sibIndex | 5);
    pushDisp(job.out, disp, 4);
    return;
  }
  const size = job.dispSize || (disp === 0 && (base & 7) !== 5 ? 0 : isSigned8(disp) ? 1 : 4);
  const mod = (size === 4 ? 2 : size) << 6;
  if (index < 0 && (base & 7) !== 4) bytes.push(mod | reg | (base & 7));
  else bytes.push(mod | reg | 4, sibIndex | (base & 7));
  pushDisp(job.out, disp, size);
}

function isSigned8(n: number): boolean {
  return n >= -128 && n <= 127;
}

function pushDisp(out: Encoding, disp: number, size: number): void {
  if (size === 0) return;
  out.dispAt = out.bytes.length;
  out.dispSize = size;
  pushInt(out.bytes, disp, size);
}

function pushInt(bytes: number[], value: number, size: number): void {
  for (let i = 0; i < size; i++) bytes.push((value >> (8 * i)) & 255);
}

/** What follows ModRM: immediates, distances, far pointers, offsets. */
function pushTail(job: Job, spec: OperandSpec, op: Operand): void {
  const { out, opsize, addrSize } = job;
  const { bytes } = out;
  const size = SIZES[spec.size][opsize >> 2]!;
  if (spec.place === "moffs") {
    out.dispAt = bytes.length;
    out.dispSize = addrSize;
    pushInt(bytes, op.disp, Math.min(addrSize, 4));
    if (addrSize === 8) pushInt(bytes, op.dispHi, 4);
    return;
  }
  if (spec.place !== "imm" && spec.place !== "rel" && spec.place !== "far") return;
  if (op.kind !== spec.place) fail(job.row, `${spec.code} is no ${op.kind}`);
  if (out.immAt < 0) {
    out.immAt = bytes.length;
    out.immSize = spec.place === "far" ? Math.min(opsize, 4) : size;
  }
  if (spec.place === "imm") {
    pushInt(bytes, op.immLo, Math.min(size, 4));
    if (size === 8) pushInt(bytes, op.immHi, 4);
  } else if (spec.place === "rel") {
    pushInt(bytes, op.imm, size);
  } else {
    pushInt(bytes, op.imm | 0, opsize === 2 ? 2 : 4);
    pushInt(bytes, op.sel, 2);
  }
}
