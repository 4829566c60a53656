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
  buildRowTable,
  type DecodeTable,
  FACT_COUNT,
  Fact,
  PrefixClass,
  RowFlag,
} from "./decode-table.ts";
import { ALL_FEATURES, type CpuFeatures } from "./features.ts";
import { BASE_RIP, DecodeError, Instruction, type Mode, type Operand, Seg } from "./instruction.ts";
import { OPERAND_CLASSES, SIZE_CODES, SIZES } from "./operand.ts";
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

const Rex = { B: 1, X: 2, R: 4, W: 8 } as const;

/** 16-bit address forms by ModRM.rm: base and index. rm 6 with mod 0 is a displacement alone. */
const BASE16 = Int8Array.of(3, 3, 5, 5, 6, 7, 5, 3);
const INDEX16 = Int8Array.of(6, 7, 6, 7, -1, -1, -1, -1);

/** Bytes of (size code << 2 | operand size index). */
const SIZE_BYTES = new Uint16Array(SIZE_CODES.length << 2);
for (const [code, name] of SIZE_CODES.entries()) SIZE_BYTES.set(SIZES[name], code << 2);

// Operand places, as packed: the order of OPERAND_PLACES.
const Place = {
  RM: 0,
  REG: 1,
  OPREG: 2,
  IMM: 3,
  REL: 4,
  FAR: 5,
  MOFFS: 6,
  STRING: 7,
  FIXED: 8,
  ONE: 9,
} as const;

// Operand classes, as packed: the order of OPERAND_CLASSES.
const CLS_GPR = 0;
const CLS_CR = 3;
const CLS_DR = 4;
const CLS_XMM = 6;

// Bits of a packed operand.
const IS_SIGNED = 1 << 24;
const IS_FIXED_ES = 1 << 25;

const REG_SP = 4;
const REG_BP = 5;

const rowTable = buildRowTable(ROWS);

/** A decoder for one CPU model. Keeps the state of one decode in its fields; not reentrant, which nothing here needs. */
export class Decoder {
  readonly #table: DecodeTable;
  readonly #scratch = new Uint8Array(LOOKAHEAD);
  #code: Uint8Array = this.#scratch;
  #pos = 0;
  #rex = 0;
  #hasRex = false;
  #modrm = 0;
  #opcode = 0;
  #segOverride = -1;
  #opsize = 0; // 0, 1, 2 for 2, 4, 8 bytes; so is the address size
  #addrSize = 0;
  #is64 = false;
  #isBad = false; // a register that does not exist

  constructor(features: CpuFeatures = ALL_FEATURES) {
    this.#table = buildDecodeTable(ROWS, features);
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
    let start = offset;
    this.#code = bytes;
    if (offset + LOOKAHEAD > bytes.length) {
      this.#fillScratch(bytes, offset);
      start = 0;
    }
    const available = end - offset;
    this.#pos = start;
    const row = this.#decodeRow(start, mode, out);
    if (row >= 0) this.#operands(row, out);
    const length = this.#pos - start;
    if (length > available && available < MAX_LENGTH) return DecodeError.MORE;
    if (length > MAX_LENGTH) return DecodeError.TOO_LONG;
    if (row < 0 || this.#isBad) return DecodeError.UD;
    if (
      out.lock &&
      !((rowTable.flags[row]! & RowFlag.LOCKABLE) !== 0 && out.ops[0].kind === "mem")
    ) {
      return DecodeError.UD;
    }
    out.row = ROWS[row]!;
    out.length = length;
    out.mode = mode;
    return length;
  }

  #fillScratch(bytes: Uint8Array, offset: number): void {
    const scratch = this.#scratch;
    for (let i = 0; i < LOOKAHEAD; i++) {
      scratch[i] = offset + i < bytes.length ? bytes[offset + i]! : 0;
    }
    this.#code = scratch;
  }

  /** Prefixes, opcode and ModRM; answers the row id or -1. Leaves the position after ModRM, or over the length limit. */
  #decodeRow(start: number, mode: Mode, out: Instruction): number {
    const code = this.#code;
    const is64 = mode === 64;
    let pos = start;
    let rex = 0;
    let rep = 0;
    let seg = -1;
    let lock = false;
    let has66 = false;
    let has67 = false;
    let byte = code[pos++]!;
    let kind = PREFIX_KIND[byte]!;
    while (kind !== Prefix.NONE) {
      if (kind === Prefix.REX) {
        if (!is64) break;
        rex = byte;
      } else {
        rex = 0; // counts only just before the opcode
        if (kind === Prefix.OPSIZE) has66 = true;
        else if (kind === Prefix.REP) rep = byte;
        else if (kind === Prefix.SEG) {
          if (!is64 || byte >= 0x64) seg = SEGMENT_OF_PREFIX[byte]!;
        } else if (kind === Prefix.ADDRSIZE) has67 = true;
        else lock = true;
      }
      if (pos - start >= MAX_LENGTH) {
        this.#pos = pos + 1;
        return -1;
      }
      byte = code[pos++]!;
      kind = PREFIX_KIND[byte]!;
    }
    this.#is64 = is64;
    this.#isBad = false;
    this.#rex = rex;
    this.#hasRex = rex !== 0;
    this.#segOverride = seg;
    out.lock = lock;
    out.rep = rep as 0 | 0xf2 | 0xf3;
    out.segOverride = seg;
    out.rex = rex;
    out.stackSize64 = is64;
    const opsize = (rex & Rex.W) !== 0 ? 2 : (mode === 16) === has66 ? 1 : 0;
    const addrSize = is64 ? (has67 ? 1 : 2) : (mode === 16) === has67 ? 1 : 0;
    this.#addrSize = addrSize;
    out.addrSize = (2 << addrSize) as 2 | 4 | 8;

    let map = 0;
    if (byte === 0x0f) {
      byte = code[pos++]!;
      map = 1;
      if (byte === 0x38 || byte === 0x3a) {
        map = byte === 0x38 ? 2 : 3;
        byte = code[pos++]!;
      }
    }
    this.#opcode = byte;
    const prefix =
      rep === 0xf3 ? PrefixClass.F3 : rep === 0xf2 ? PrefixClass.F2 : has66 ? PrefixClass.P66 : 0;
    const row = this.#lookUp(
      (((is64 ? 2 : mode === 32 ? 1 : 0) << 10) | (map << 8) | byte) >>> 0,
      pos,
      prefix,
      opsize,
    );
    if (row >= 0) this.#applyRow(row, opsize, out);
    return row;
  }

  #lookUp(key: number, pos: number, prefix: number, opsize: number): number {
    const table = this.#table;
    const slot = table.slots[key]!;
    const s = slot * FACT_COUNT;
    const strides = table.strides;
    let cell =
      table.bases[slot]! +
      prefix * strides[s + Fact.PREFIX]! +
      opsize * strides[s + Fact.OPSIZE]! +
      this.#addrSize * strides[s + Fact.ADDRSIZE]! +
      (this.#rex & Rex.B) * strides[s + Fact.REXB]!;
    if (table.needsModrm[slot] !== 0) {
      const modrm = this.#code[pos++]!;
      this.#modrm = modrm;
      cell +=
        (modrm >= 0xc0 ? 1 : 0) * strides[s + Fact.MOD3]! +
        ((modrm >> 3) & 7) * strides[s + Fact.REG]! +
        (modrm & 7) * strides[s + Fact.RM]!;
    }
    this.#pos = pos;
    return table.cells[cell]!;
  }

  #applyRow(row: number, opsize: number, out: Instruction): void {
    const flags = rowTable.flags[row]!;
    if (this.#is64) {
      if ((flags & RowFlag.F64) !== 0 || ((flags & RowFlag.D64) !== 0 && opsize === 1)) opsize = 2;
      else if ((flags & RowFlag.NO64) !== 0 && opsize === 2) opsize = 1;
    }
    if ((flags & RowFlag.MOD_IGNORED) !== 0) this.#modrm |= 0xc0;
    if ((flags & RowFlag.REP_IS_OPCODE) !== 0) out.rep = 0;
    this.#opsize = opsize;
    out.opsize = (2 << opsize) as 2 | 4 | 8;
    out.opCount = rowTable.opCounts[row]!;
  }

  #operands(row: number, out: Instruction): void {
    const count = out.opCount;
    for (let i = 0; i < count; i++) {
      const packed = rowTable.operands[row * 4 + i]!;
      this.#operand(packed, out.ops[i]!);
    }
  }

  #operand(packed: number, op: Operand): void {
    const cls = (packed >> 4) & 15;
    const size = SIZE_BYTES[(((packed >> 8) & 31) << 2) | this.#opsize]!;
    switch (packed & 15) {
      case Place.RM:
        if (this.#modrm < 0xc0)
          this.#memory(op, SIZE_BYTES[(((packed >> 13) & 31) << 2) | this.#opsize]!);
        else this.#register(op, cls, (this.#modrm & 7) | ((this.#rex & Rex.B) << 3), size);
        break;
      case Place.REG:
        this.#register(op, cls, ((this.#modrm >> 3) & 7) | ((this.#rex & Rex.R) << 1), size);
        break;
      case Place.OPREG:
        this.#register(op, cls, (this.#opcode & 7) | ((this.#rex & Rex.B) << 3), size);
        break;
      case Place.IMM:
        this.#immediate(op, size, (packed & IS_SIGNED) !== 0);
        break;
      case Place.REL:
        op.kind = "rel";
        op.size = 2 << this.#opsize;
        op.imm = this.#signed(size);
        break;
      case Place.FAR:
        op.kind = "far";
        op.size = 2 << this.#opsize;
        op.imm = this.#opsize === 0 ? this.#u16() : this.#i32() >>> 0;
        op.sel = this.#u16();
        break;
      case Place.MOFFS:
        this.#absolute(op, size);
        break;
      case Place.STRING: {
        const seg = this.#segOverride >= 0 && (packed & IS_FIXED_ES) === 0 ? this.#segOverride : -1;
        setMemory(op, size, seg >= 0 ? seg : (packed & IS_FIXED_ES) !== 0 ? Seg.ES : Seg.DS);
        op.base = ((packed >> 18) & 63) - 1;
        break;
      }
      case Place.FIXED:
        op.kind = "reg";
        op.size = size;
        op.cls = OPERAND_CLASSES[cls]!;
        op.num = ((packed >> 18) & 63) - 1;
        break;
      default:
        setImmediate(op, 1, 1);
    }
  }

  #register(op: Operand, cls: number, num: number, size: number): void {
    op.kind = "reg";
    op.size = size;
    op.cls = OPERAND_CLASSES[cls]!;
    op.num = num;
    if (cls === CLS_GPR) {
      if (size === 1 && num >= 4 && !this.#hasRex) {
        op.cls = "gpr8h";
        op.num = num - 4;
      }
    } else if (cls === CLS_CR || cls === CLS_DR) {
      if (num > (cls === CLS_CR ? 8 : 7)) this.#isBad = true;
    } else if (cls !== CLS_XMM) {
      op.num = num & 7;
    }
  }

  #immediate(op: Operand, size: number, isSigned: boolean): void {
    if (!isSigned) {
      setImmediate(op, size, size === 1 ? this.#u8() : this.#u16());
    } else if (size === 8) {
      op.kind = "imm";
      op.size = 8;
      op.immLo = this.#i32();
      op.immHi = this.#i32();
      op.imm = op.immHi * 0x1_0000_0000 + (op.immLo >>> 0);
    } else {
      setImmediate(op, 2 << this.#opsize, this.#signed(size));
    }
  }

  /** Offset without ModRM; its width is the address size. */
  #absolute(op: Operand, size: number): void {
    setMemory(op, size, this.#segOverride >= 0 ? this.#segOverride : Seg.DS);
    if (this.#addrSize === 0) {
      op.disp = this.#u16();
      return;
    }
    op.disp = this.#i32();
    op.dispHi = this.#addrSize === 2 ? this.#i32() : 0;
  }

  #memory(op: Operand, size: number): void {
    setMemory(op, size, Seg.DS);
    if (this.#addrSize === 0) this.#memory16(op);
    else this.#memory32(op);
    const base = op.base;
    if (this.#segOverride >= 0) op.seg = this.#segOverride;
    else if (base === REG_SP || base === REG_BP) op.seg = Seg.SS;
    op.dispHi = op.disp >> 31;
  }

  #memory16(op: Operand): void {
    const mod = this.#modrm >> 6;
    const rm = this.#modrm & 7;
    if (mod === 0 && rm === 6) {
      op.disp = this.#signed(2);
      return;
    }
    op.base = BASE16[rm]!;
    op.index = INDEX16[rm]!;
    if (mod !== 0) op.disp = this.#signed(mod);
  }

  #memory32(op: Operand): void {
    const mod = this.#modrm >> 6;
    let rm = this.#modrm & 7;
    if (rm === 4) {
      const sib = this.#u8();
      const index = ((sib >> 3) & 7) | ((this.#rex & Rex.X) << 2);
      if (index !== REG_SP) {
        op.index = index;
        op.scale = sib >> 6;
      }
      rm = sib & 7;
      if (mod === 0 && rm === 5) {
        op.disp = this.#i32();
        return;
      }
    } else if (mod === 0 && rm === 5) {
      if (this.#is64) op.base = BASE_RIP;
      op.disp = this.#i32();
      return;
    }
    op.base = rm | ((this.#rex & Rex.B) << 3);
    if (mod === 1) op.disp = this.#signed(1);
    else if (mod === 2) op.disp = this.#i32();
  }

  #u8(): number {
    return this.#code[this.#pos++]!;
  }

  #u16(): number {
    const pos = this.#pos;
    this.#pos = pos + 2;
    return this.#code[pos]! | (this.#code[pos + 1]! << 8);
  }

  #i32(): number {
    const pos = this.#pos;
    const code = this.#code;
    this.#pos = pos + 4;
    return code[pos]! | (code[pos + 1]! << 8) | (code[pos + 2]! << 16) | (code[pos + 3]! << 24);
  }

  #signed(size: number): number {
    if (size === 1) return (this.#u8() << 24) >> 24;
    if (size === 2) return (this.#u16() << 16) >> 16;
    return this.#i32();
  }
}

function setMemory(op: Operand, size: number, seg: number): void {
  op.kind = "mem";
  op.size = size;
  op.seg = seg;
  op.base = -1;
  op.index = -1;
  op.scale = 0;
  op.disp = 0;
  op.dispHi = 0;
}

function setImmediate(op: Operand, size: number, value: number): void {
  op.kind = "imm";
  op.size = size;
  op.imm = value;
  op.immLo = value | 0;
  op.immHi = value < 0 ? -1 : 0;
}

const everything = new Decoder();

/** Decodes for a processor with every known feature; see `Decoder.decode`. */
export function decode(
  bytes: Uint8Array,
  offset: number,
  mode: Mode,
  out: Instruction,
  end = bytes.length,
): number {
  return everything.decode(bytes, offset, mode, out, end);
}

/** A work object for `decode`. */
export function createInstruction(): Instruction {
  return new Instruction(ROWS[0]!);
}
