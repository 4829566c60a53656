/**
 * Operands for the assembler: `qword(rbx, times(rcx, 8), 0x10)`, `imm(5)`, `addr("table")`, `far(0x08, "protected")`.
 * Registers are those of registers.ts; a plain number or bigint is an immediate, a plain string a label.
 */
import { HypolithError } from "../../base/errors.ts";
import { Operand } from "./instruction.ts";

/** The address of a label, in an operand or in data. */
export class LabelRef {
  readonly name: string;
  readonly addend: number;
  /** A jump that must be short. */
  readonly isShort: boolean;

  constructor(name: string, addend = 0, isShort = false) {
    this.name = name;
    this.addend = addend;
    this.isShort = isShort;
  }
}

/** A memory operand with what only the assembler needs. */
export class MemoryOperand extends Operand {
  /** Size of the registers in the address; 0: none, so the mode's. */
  addrSize: 0 | 2 | 4 | 8 = 0;
  label: LabelRef | undefined;
}

/** A far pointer whose offset may be a label. */
export class FarOperand extends Operand {
  label: LabelRef | undefined;
}

export type Argument = Operand | LabelRef | string | number | bigint;

/** An immediate: any value that 64 bits can hold, signed or unsigned. */
export function imm(value: number | bigint): Operand {
  const big = BigInt(value);
  const op = new Operand();
  op.kind = "imm";
  op.imm = Number(value);
  op.immLo = Number(BigInt.asIntN(32, big));
  op.immHi = Number(BigInt.asIntN(32, big >> 32n));
  return op;
}

/** The value of an immediate, as given. */
export function immediateValue(op: Operand): bigint {
  const bits = (BigInt(op.immHi) << 32n) | BigInt(op.immLo >>> 0);
  return op.imm > 0 ? BigInt.asUintN(64, bits) : bits;
}

export function addr(label: string, addend = 0): LabelRef {
  return new LabelRef(label, addend);
}

/** Target of a jump that has to be encoded with 8 bits. */
export function short(label: string): LabelRef {
  return new LabelRef(label, 0, true);
}

/** Far pointer for JMP and CALL; `size` is the operand size (default: the mode's). */
export function far(
  selector: number,
  offset: number | string | LabelRef,
  size: 0 | 2 | 4 = 0,
): FarOperand {
  const op = new FarOperand();
  op.kind = "far";
  op.sel = selector;
  op.size = size;
  if (typeof offset === "number") op.imm = offset;
  else op.label = typeof offset === "string" ? new LabelRef(offset) : offset;
  return op;
}

interface ScaledIndex {
  readonly index: Operand;
  readonly scale: 1 | 2 | 4 | 8;
}

export function times(index: Operand, scale: 1 | 2 | 4 | 8): ScaledIndex {
  return { index, scale };
}

/** Base register, second register, scaled index, displacement, label, segment register: in any order. */
export type AddressPart = Operand | ScaledIndex | LabelRef | string | number | bigint;

/** Memory operand of `size` bytes; size 0: none, or the one the other operand has. */
export function mem(size: number, ...parts: readonly AddressPart[]): MemoryOperand {
  const op = new MemoryOperand();
  op.kind = "mem";
  op.size = size;
  op.seg = -1;
  let disp = 0n;
  for (const part of parts) {
    if (typeof part === "number" || typeof part === "bigint") disp += BigInt(part);
    else if (typeof part === "string") op.label = new LabelRef(part);
    else if (part instanceof LabelRef) op.label = part;
    else if ("index" in part && "scale" in part && !(part instanceof Operand)) setIndex(op, part);
    else addRegister(op, part as Operand);
  }
  op.disp = Number(BigInt.asIntN(32, disp));
  op.dispHi = Number(BigInt.asIntN(32, disp >> 32n));
  return op;
}

function setIndex(op: MemoryOperand, part: ScaledIndex): void {
  if (op.index >= 0) throw new HypolithError("assemble", "two index registers");
  op.index = part.index.num;
  op.scale = Math.log2(part.scale);
  setAddrSize(op, part.index);
}

function addRegister(op: MemoryOperand, register: Operand): void {
  if (register.cls === "seg") {
    op.seg = register.num;
  } else if (op.base < 0) {
    op.base = register.num;
    setAddrSize(op, register);
  } else if (register.num === 4 && register.size !== 2) {
    setIndex(op, { index: { ...register, num: op.base }, scale: 1 }); // RSP can only be the base
    op.base = register.num;
  } else {
    setIndex(op, { index: register, scale: 1 });
  }
}

function setAddrSize(op: MemoryOperand, register: Operand): void {
  const isGeneral = register.cls === "gpr" && register.size >= 2;
  if (!isGeneral || (op.addrSize !== 0 && op.addrSize !== register.size)) {
    throw new HypolithError("assemble", "registers of an address: 16, 32 or 64 bits, all the same");
  }
  op.addrSize = register.size as 2 | 4 | 8;
}

export const byte = (...parts: readonly AddressPart[]): MemoryOperand => mem(1, ...parts);
export const word = (...parts: readonly AddressPart[]): MemoryOperand => mem(2, ...parts);
export const dword = (...parts: readonly AddressPart[]): MemoryOperand => mem(4, ...parts);
export const qword = (...parts: readonly AddressPart[]): MemoryOperand => mem(8, ...parts);
export const tbyte = (...parts: readonly AddressPart[]): MemoryOperand => mem(10, ...parts);
export const xmmword = (...parts: readonly AddressPart[]): MemoryOperand => mem(16, ...parts);
