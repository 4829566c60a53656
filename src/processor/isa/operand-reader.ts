/**
 * Second half of the decoder: the bytes from ModRM on, as operands of the row that was found.
 * Spec: SDM Vol. 2, "ModR/M and SIB Bytes", "Displacement and Immediate Bytes".
 *
 * Hot path. The fields are set by decode.ts before `operands` is called; `pos` is where the next byte is.
 */
import { buildRowTable, Rex } from "./decode-table.ts";
import { BASE_RIP, type Instruction, type Operand, Seg } from "./instruction.ts";
import { OPERAND_CLASSES, SIZE_CODES, SIZES } from "./operand.ts";
import { ROWS } from "./table.ts";

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

export const rowTable = buildRowTable(ROWS);

export class OperandReader {
  code: Uint8Array = new Uint8Array(0);
  pos = 0;
  rex = 0;
  modrm = 0;
  opcode = 0;
  segOverride = -1;
  /** 0, 1, 2 for 2, 4, 8 bytes. */
  opsize = 0;
  addrSize = 0;
  is64 = false;
  /** The row named a register that does not exist. */
  isBad = false;

  /** Reads all operands of the row. */
  operands(row: number, out: Instruction): void {
    const count = out.opCount;
    for (let i = 0; i < count; i++) {
      const packed = rowTable.operands[row * 4 + i]!;
      this.#operand(packed, out.ops[i]!);
    }
  }

  #operand(packed: number, op: Operand): void {
    const cls = (packed >> 4) & 15;
    const size = SIZE_BYTES[(((packed >> 8) & 31) << 2) | this.opsize]!;
    switch (packed & 15) {
      case Place.RM:
        if (this.modrm < 0xc0)
          this.#memory(op, SIZE_BYTES[(((packed >> 13) & 31) << 2) | this.opsize]!);
        else this.#register(op, cls, (this.modrm & 7) | ((this.rex & Rex.B) << 3), size);
        break;
      case Place.REG:
        this.#register(op, cls, ((this.modrm >> 3) & 7) | ((this.rex & Rex.R) << 1), size);
        break;
      case Place.OPREG:
        this.#register(op, cls, (this.opcode & 7) | ((this.rex & Rex.B) << 3), size);
        break;
      case Place.IMM:
        this.#immediate(op, size, (packed & IS_SIGNED) !== 0);
        break;
      case Place.REL:
        op.kind = "rel";
        op.size = 2 << this.opsize;
        op.imm = this.#signed(size);
        break;
      case Place.FAR:
        op.kind = "far";
        op.size = 2 << this.opsize;
        op.imm = this.opsize === 0 ? this.#u16() : this.#i32() >>> 0;
        op.sel = this.#u16();
        break;
      case Place.MOFFS:
        this.#absolute(op, size);
        break;
      case Place.STRING: {
        const seg = this.segOverride >= 0 && (packed & IS_FIXED_ES) === 0 ? this.segOverride : -1;
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
      if (size === 1 && num >= 4 && this.rex === 0) {
        op.cls = "gpr8h";
        op.num = num - 4;
      }
    } else if (cls === CLS_CR || cls === CLS_DR) {
      if (num > (cls === CLS_CR ? 8 : 7)) this.isBad = true;
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
      setImmediate(op, 2 << this.opsize, this.#signed(size));
    }
  }

  /** Offset without ModRM; its width is the address size. */
  #absolute(op: Operand, size: number): void {
    setMemory(op, size, this.segOverride >= 0 ? this.segOverride : Seg.DS);
    if (this.addrSize === 0) {
      op.disp = this.#u16();
      return;
    }
    op.disp = this.#i32();
    op.dispHi = this.addrSize === 2 ? this.#i32() : 0;
  }

  #memory(op: Operand, size: number): void {
    setMemory(op, size, Seg.DS);
    if (this.addrSize === 0) this.#memory16(op);
    else this.#memory32(op);
    const base = op.base;
    if (this.segOverride >= 0) op.seg = this.segOverride;
    else if (base === REG_SP || base === REG_BP) op.seg = Seg.SS;
    op.dispHi = op.disp >> 31;
  }

  #memory16(op: Operand): void {
    const mod = this.modrm >> 6;
    const rm = this.modrm & 7;
    if (mod === 0 && rm === 6) {
      op.disp = this.#signed(2);
      return;
    }
    op.base = BASE16[rm]!;
    op.index = INDEX16[rm]!;
    if (mod !== 0) op.disp = this.#signed(mod);
  }

  #memory32(op: Operand): void {
    const mod = this.modrm >> 6;
    let rm = this.modrm & 7;
    if (rm === 4) {
      const sib = this.#u8();
      const index = ((sib >> 3) & 7) | ((this.rex & Rex.X) << 2);
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
      if (this.is64) op.base = BASE_RIP;
      op.disp = this.#i32();
      return;
    }
    op.base = rm | ((this.rex & Rex.B) << 3);
    if (mod === 1) op.disp = this.#signed(1);
    else if (mod === 2) op.disp = this.#i32();
  }

  #u8(): number {
    return this.code[this.pos++]!;
  }

  #u16(): number {
    const pos = this.pos;
    this.pos = pos + 2;
    return this.code[pos]! | (this.code[pos + 1]! << 8);
  }

  #i32(): number {
    const pos = this.pos;
    const code = this.code;
    this.pos = pos + 4;
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
