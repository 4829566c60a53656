/**
 * Instruction decoder: bytes to `Instruction`, by the rows of table.ts.
 * Spec: SDM Vol. 2, "Instruction Format", "Opcode Map"; Intel behaviour where vendors differ (near branches ignore 66 in 64-bit mode).
 *
 * Hot path: no allocation, no bigint, no throw. Bytes are read without bounds checks: near the end of the buffer they are first copied
 * to a zero-padded scratch; whether an instruction really ended inside its bytes is decided once, at the end, from its length.
 *
 * Raises as numbers what the processor raises while decoding (#UD, #GP for length). Not here: rings, CRx enables, real mode #UD
 * (`Row.noReal`), DR4/DR5; the executor checks those.
 */
import {
  buildDecodeTable,
  type DecodeTable,
  FACT_COUNT,
  Fact,
  PrefixClass,
  Rex,
  RowFlag,
} from "./decode-table.ts";
import { ALL_FEATURES, type CpuFeatures } from "./features.ts";
import { DecodeError, Instruction, type Mode, Seg } from "./instruction.ts";
import { OperandReader, rowTable } from "./operand-reader.ts";
import { ROWS } from "./table.ts";

const MAX_LENGTH = 15;
/** Most bytes looked at: the longest run of prefixes and the longest rest. */
const LOOKAHEAD = 32;

const Prefix = { NONE: 0, SEG: 1, OPSIZE: 2, ADDRSIZE: 3, LOCK: 4, REP: 5, REX: 6 } as const;
const PREFIX_KIND = new Uint8Array(256);
PREFIX_KIND.fill(Prefix.REX, 0x40, 0x50);
const SEGMENT_OF_PREFIX = new Int8Array(256).fill(-1);
for (const [byte, seg] of [
  [0x26, Seg.ES],
  [0x2e, Seg.CS],
  [0x36, Seg.SS],
  [0x3e, Seg.DS],
  [0x64, Seg.FS],
  [0x65, Seg.GS],
] as const) {
  PREFIX_KIND[byte] = Prefix.SEG;
  SEGMENT_OF_PREFIX[byte] = seg;
}
PREFIX_KIND[0x66] = Prefix.OPSIZE;
PREFIX_KIND[0x67] = Prefix.ADDRSIZE;
PREFIX_KIND[0xf0] = Prefix.LOCK;
PREFIX_KIND[0xf2] = Prefix.REP;
PREFIX_KIND[0xf3] = Prefix.REP;

/** Tables that have been built, by features: a thread has few processors. */
const tables = new Map<string, DecodeTable>();

function tableFor(features: CpuFeatures): DecodeTable {
  const key = [...features].sort().join();
  let table = tables.get(key);
  if (!table) {
    table = buildDecodeTable(ROWS, features);
    tables.set(key, table);
  }
  return table;
}

/** A decoder for one CPU model. Keeps the state of one decode in its fields; not reentrant, which nothing here needs. */
export class Decoder {
  readonly #table: DecodeTable;
  readonly #scratch = new Uint8Array(LOOKAHEAD);
  readonly #in = new OperandReader();
  #rep = 0;
  #has66 = false;
  #has67 = false;

  constructor(features: CpuFeatures = ALL_FEATURES) {
    this.#table = tableFor(features);
  }

  /**
   * Decodes one instruction at `bytes[offset]`; `end` is where the readable bytes stop. Answers its length or a DecodeError, and then
   * `out` is undefined.
   */
  decode(
    bytes: Uint8Array,
    offset: number,
    mode: Mode,
    out: Instruction,
    end = bytes.length,
  ): number {
    const input = this.#in;
    const isNearEnd = offset + LOOKAHEAD > bytes.length;
    const start = isNearEnd ? 0 : offset;
    input.code = isNearEnd ? this.#fillScratch(bytes, offset) : bytes;
    input.pos = start;
    input.isBad = false;
    const row = this.#decodeRow(mode, out);
    if (row >= 0) input.operands(row, out);
    const length = input.pos - start;
    const available = end - offset;
    if (length > available && available < MAX_LENGTH) return DecodeError.MORE;
    if (length > MAX_LENGTH) return DecodeError.TOO_LONG;
    if (row < 0 || input.isBad || (out.lock && !isLockable(row, out))) return DecodeError.UD;
    out.row = ROWS[row]!;
    out.length = length;
    out.mode = mode;
    return length;
  }

  #fillScratch(bytes: Uint8Array, offset: number): Uint8Array {
    const scratch = this.#scratch;
    for (let i = 0; i < LOOKAHEAD; i++) {
      scratch[i] = offset + i < bytes.length ? bytes[offset + i]! : 0;
    }
    return scratch;
  }

  /** Prefixes, opcode and ModRM; answers the row id or -1. Leaves the position after ModRM, or over the length limit. */
  #decodeRow(mode: Mode, out: Instruction): number {
    const input = this.#in;
    const is64 = mode === 64;
    input.is64 = is64;
    let byte = this.#prefixes(is64, out);
    if (byte < 0) return -1;
    const has66 = this.#has66;
    const has67 = this.#has67;
    const opsize = (input.rex & Rex.W) !== 0 ? 2 : (mode === 16) === has66 ? 1 : 0;
    const addrSize = is64 ? (has67 ? 1 : 2) : (mode === 16) === has67 ? 1 : 0;
    input.addrSize = addrSize;
    out.addrSize = (2 << addrSize) as 2 | 4 | 8;
    out.stackSize64 = is64;

    let key = (is64 ? 2 : mode === 32 ? 1 : 0) << 10;
    if (byte === 0x0f) {
      byte = input.code[input.pos++]!;
      key |= 1 << 8;
      if (byte === 0x38 || byte === 0x3a) {
        key += byte === 0x38 ? 1 << 8 : 2 << 8;
        byte = input.code[input.pos++]!;
      }
    }
    input.opcode = byte;
    const row = this.#lookUp(key | byte, opsize);
    if (row >= 0) this.#applyRow(row, opsize, out);
    return row;
  }

  /** Reads prefixes; answers the byte after them, or -1 if there are too many. */
  #prefixes(is64: boolean, out: Instruction): number {
    const input = this.#in;
    const code = input.code;
    let pos = input.pos;
    const last = pos + MAX_LENGTH;
    let rex = 0;
    let rep = 0;
    let seg = -1;
    let lock = false;
    let has66 = false;
    let has67 = false;
    let byte = code[pos++]!;
    for (let kind = PREFIX_KIND[byte]!; kind !== Prefix.NONE; kind = PREFIX_KIND[byte]!) {
      if (kind === Prefix.REX) {
        if (!is64) break;
        rex = byte;
      } else {
        rex = 0; // counts only just before the opcode
        if (kind === Prefix.OPSIZE) has66 = true;
        else if (kind === Prefix.REP) rep = byte;
        else if (kind === Prefix.ADDRSIZE) has67 = true;
        else if (kind === Prefix.LOCK) lock = true;
        else if (!is64 || byte >= 0x64) seg = SEGMENT_OF_PREFIX[byte]!;
      }
      byte = pos < last ? code[pos]! : 0;
      pos += 1;
    }
    input.pos = pos;
    input.rex = rex;
    input.segOverride = seg;
    this.#rep = rep;
    this.#has66 = has66;
    this.#has67 = has67;
    out.lock = lock;
    out.rep = rep as 0 | 0xf2 | 0xf3;
    out.segOverride = seg;
    out.rex = rex;
    return pos > last ? -1 : byte;
  }

  #lookUp(key: number, opsize: number): number {
    const input = this.#in;
    const table = this.#table;
    const slot = table.slots[key]!;
    const s = slot * FACT_COUNT;
    const strides = table.strides;
    const rep = this.#rep;
    const prefix =
      rep === 0
        ? this.#has66
          ? PrefixClass.P66
          : 0
        : rep === 0xf3
          ? PrefixClass.F3
          : PrefixClass.F2;
    let cell =
      table.bases[slot]! +
      prefix * strides[s + Fact.PREFIX]! +
      opsize * strides[s + Fact.OPSIZE]! +
      input.addrSize * strides[s + Fact.ADDRSIZE]! +
      (input.rex & Rex.B) * strides[s + Fact.REXB]!;
    if (table.needsModrm[slot] !== 0) {
      const modrm = input.code[input.pos++]!;
      input.modrm = modrm;
      cell +=
        (modrm >= 0xc0 ? 1 : 0) * strides[s + Fact.MOD3]! +
        ((modrm >> 3) & 7) * strides[s + Fact.REG]! +
        (modrm & 7) * strides[s + Fact.RM]!;
    }
    return table.cells[cell]!;
  }

  #applyRow(row: number, opsize: number, out: Instruction): void {
    const input = this.#in;
    const flags = rowTable.flags[row]!;
    let size = opsize;
    if (input.is64) {
      if ((flags & RowFlag.F64) !== 0 || ((flags & RowFlag.D64) !== 0 && size === 1)) size = 2;
      else if ((flags & RowFlag.NO64) !== 0 && size === 2) size = 1;
    }
    if ((flags & RowFlag.MOD_IGNORED) !== 0) input.modrm |= 0xc0;
    if ((flags & RowFlag.REP_IS_OPCODE) !== 0) out.rep = 0;
    input.opsize = size;
    out.opsize = (2 << size) as 2 | 4 | 8;
    out.modrm = input.modrm;
    out.opCount = rowTable.opCounts[row]!;
  }
}

function isLockable(row: number, out: Instruction): boolean {
  return (rowTable.flags[row]! & RowFlag.LOCKABLE) !== 0 && out.ops[0].kind === "mem";
}

let everything: Decoder | undefined;

/** Decodes for a processor with every known feature; see `Decoder.decode`. */
export function decode(
  bytes: Uint8Array,
  offset: number,
  mode: Mode,
  out: Instruction,
  end = bytes.length,
): number {
  everything ??= new Decoder();
  return everything.decode(bytes, offset, mode, out, end);
}

/** A work object for `decode`. */
export function createInstruction(): Instruction {
  return new Instruction(ROWS[0]!);
}
