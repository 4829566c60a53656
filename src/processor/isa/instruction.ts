/**
 * A decoded instruction: the work object the decoder fills and every consumer reads.
 *
 * One object is reused for many decodes; a consumer that keeps something copies it. All fields of `ops[0..opCount-1]` that belong to
 * the operand's kind are valid, the others are left over from earlier decodes.
 *
 * Hot path: the shape of these classes never changes, so property access stays monomorphic.
 */
import type { Row } from "./row.ts";

export type Mode = 16 | 32 | 64;

/** Results of `decode` that are not a length. */
export const DecodeError = {
  /** Invalid opcode: the processor raises #UD. */
  UD: -1,
  /** More than 15 bytes: the processor raises #GP(0). */
  TOO_LONG: -2,
  /** The bytes end inside the instruction: fetch more (which may fault) and decode again. */
  MORE: -3,
} as const;

/** Segment register numbers, as in ModRM.reg of MOV Sreg. */
export const Seg = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5 } as const;

/** Number of `base` for RIP- (EIP-) relative operands: relative to the end of the instruction. */
export const BASE_RIP = 16;

export type RegClass = "gpr" | "gpr8h" | "seg" | "cr" | "dr" | "mm" | "xmm" | "st";

export type OperandKind = "reg" | "mem" | "imm" | "rel" | "far";

export class Operand {
  kind: OperandKind = "reg";
  /**
   * Bytes the instruction uses of the operand, by its code in the row (so 4 for an XMM register that is `Vss`); 0 where the code has no
   * size (LEA, INVLPG, XSAVE area). rel and far: size of the instruction pointer written.
   */
  size = 0;

  /** reg: class, and number in the class. `gpr8h` 0..3 are AH, CH, DH, BH. */
  cls: RegClass = "gpr";
  num = 0;

  /** mem: effective segment; the default and an override that counts in this mode are already worked in. */
  seg = 0;
  /** mem: -1 none, 0..15, BASE_RIP. The sum of base, index and displacement is cut to `Instruction.addrSize` bytes. */
  base = -1;
  index = -1;
  /** mem: log2 of the factor of the index. */
  scale = 0;
  /** mem: signed 32 bits; sign-extend to 64. Absolute addresses of 64 bits (moffs) have their upper half in `dispHi`. */
  disp = 0;
  dispHi = 0;

  /**
   * imm: value, sign- or zero-extended to `size` bytes as the row says; as a signed number if sign-extended. rel: signed distance from
   * the end of the instruction. far: offset, unsigned. An imm64 beyond 2^53 is rounded here and exact in immHi:immLo.
   */
  imm = 0;
  /** imm: the same value as two signed 32-bit halves. */
  immLo = 0;
  immHi = 0;
  /** far: selector. */
  sel = 0;
}

export class Instruction {
  row: Row;
  length = 0;
  mode: Mode = 64;
  /** Effective operand size, after defaults and forced sizes of the row. Byte instructions report the size their word form would have. */
  opsize: 2 | 4 | 8 = 4;
  addrSize: 2 | 4 | 8 = 8;
  /** The stack pointer is 64 bits wide. Outside 64-bit mode SS.B decides, which the decoder does not know. */
  stackSize64 = true;
  lock = false;
  /** Last repeat prefix, or 0; 0 too if the prefix is part of the opcode. */
  rep: 0 | 0xf2 | 0xf3 = 0;
  /** Segment override that counts (in 64-bit mode only FS and GS do), or -1. */
  segOverride = -1;
  /** ModRM byte of rows that have one. */
  modrm = 0;
  /** REX byte that counts, or 0. */
  rex = 0;
  opCount = 0;
  readonly ops: [Operand, Operand, Operand, Operand] = [
    new Operand(),
    new Operand(),
    new Operand(),
    new Operand(),
  ];

  constructor(row: Row) {
    this.row = row;
  }
}
