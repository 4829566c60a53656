/**
 * One instruction as semantic code sees it: its shape (what the decoder fixed) and its operands.
 *
 * A shape is what distinguishes handlers: semantic key, operand kinds and sizes, operation size, code size. Register numbers, displacements
 * and immediates are not in it; an interpreter loads them from the decoded record, a region compiler knows them.
 *
 * Values: i32 for operands up to 4 bytes (zero-extended on read, truncated on write), i64 for 8, v128 for 16.
 */

import type { Val } from "../ir/value.ts";
import { Mode } from "../state/layout.ts";
import { Access, type Bytes, Cpu } from "./cpu.ts";

/**
 * r general register · x XMM · q MMX · t x87 stack index · s segment register · c control register · d debug register (the last four are
 * numbers, see regNumber) · m memory · i immediate · j relative branch target · f far pointer immediate
 */
export type OperandKind = "r" | "x" | "q" | "t" | "s" | "c" | "d" | "m" | "i" | "j" | "f";

export interface OperandShape {
  readonly kind: OperandKind;
  /** Bytes, 0 where the operand has no size (LEA, INVLPG) or a size of its own (FXSAVE, LGDT). */
  readonly bytes: number;
}

export interface Shape {
  readonly sem: string;
  /** Condition code for jcc, setcc, cmovcc. */
  readonly cc: number;
  readonly operands: readonly OperandShape[];
  /** Effective operand size in bytes: 2, 4, 8. */
  readonly opsize: 2 | 4 | 8;
  /** Effective address size in bytes: 2, 4, 8 (kept only where the semantics depend on it: strings, loops). */
  readonly addrSize: 2 | 4 | 8;
  /** Code size: Mode.CODE16, CODE32 or CODE64 (for shapes that do not depend on it CODE64). */
  readonly mode: number;
  /** 0, 0xf2, 0xf3: REP prefix of string instructions. */
  readonly rep: number;
}

/** A destination that is read, modified and written: made before anything can change, so that its faults come first. */
export interface Place {
  get(): Val;
  set(v: Val): void;
}

export abstract class Insn extends Cpu {
  abstract readonly shape: Shape;

  /** The register slot of operand i (kinds r, x, q), `bytes` of it. */
  abstract regRead(i: number, bytes: Bytes): Val;
  abstract regWrite(i: number, bytes: Bytes, v: Val): void;
  /** The number of a register operand (kinds s, c, d, t) as i32. */
  abstract regNumber(i: number): Val;
  /** Immediate operand i, sign-extended as the row says, as i32 (up to 4 bytes) or i64. */
  abstract immediate(i: number): Val;
  /** Linear address (i64) of the memory operand, checked against its segment for an access of `bytes`. */
  abstract ea(bytes: number, write: boolean): Val;
  /** The same of another effective address in the memory operand's segment: offset() and what the semantics add, truncated. */
  abstract linear(offset: Val, bytes: number, write: boolean): Val;
  /** Effective address without the segment, truncated to the address size (i64). */
  abstract offset(): Val;
  /** Access flags for the memory operand (Access.STACK where it goes through SS), as i32. */
  abstract memFlags(): Val;
  /** Linear address of a string operand, RSI through its segment or RDI through ES, checked for an access of `bytes`. */
  abstract stringSource(bytes: number): Val;
  abstract stringDestination(bytes: number, write: boolean): Val;
  /** FOP of this x87 instruction (i32): low bits of its first opcode byte, and ModRM. Null where a reading does not know its bytes. */
  x87Opcode(): Val | null {
    return null;
  }
  /**
   * What a VM exit tells of the memory operand: bits of the instruction information (i32), and the exit qualification (i64). Null where a
   * reading does not know its bytes.
   */
  operandInformation(): { information: Val; displacement: Val } | null {
    return null;
  }
  /** RIP of this instruction and of the next one (i64). */
  abstract rip(): Val;
  abstract nextRip(): Val;
  /** Instruction pointer (i64) that relative operand 0 leads to, truncated to the operand size. Not checked. */
  abstract relativeTarget(): Val;
  /** Emits `body` for a relative jump that may be the first one to its target: a reading may know that it has been taken before. */
  unlessTaken(body: () => void): void {
    body();
  }
  /** Instructions retired since the run began, including all before this one (i32). */
  abstract retired(): Val;
  /** Jumps to the relative target if the condition holds (always if null), which is checked here. Ends the instruction. */
  abstract jumpRelative(i: number, condition: Val | null): void;
  /** Jumps to an instruction pointer (i64) already truncated and checked. Ends the instruction. */
  abstract jumpTo(rip: Val): void;

  get size(): number {
    return this.shape.operands[0]?.bytes ?? this.shape.opsize;
  }

  get is64(): boolean {
    return this.shape.mode === Mode.CODE64;
  }

  /**
   * True where a reading knows, in 32-bit code, that CS, DS, ES and SS are flat, the stack pointer is ESP and the upper half of RSP is clear:
   * targets need no check against CS, offsets in the stack are linear addresses.
   */
  get isFlat32(): boolean {
    return false;
  }

  kind(i: number): OperandKind | undefined {
    return this.shape.operands[i]?.kind;
  }

  bytes(i: number): Bytes {
    return this.shape.operands[i]!.bytes as Bytes;
  }

  /** Operand i, read. Memory operands are read here, once. */
  rd(i: number): Val {
    switch (this.kind(i)) {
      case "m":
        return this.load(this.ea(this.bytes(i), false), this.bytes(i), this.memFlags());
      case "i":
        return this.immediate(i);
      default:
        return this.regRead(i, this.bytes(i));
    }
  }

  /** Writes operand i. A memory destination is checked here, so nothing may have changed before. */
  wr(i: number, v: Val): void {
    if (this.kind(i) === "m")
      this.store(this.ea(this.bytes(i), true), this.bytes(i), v, this.memFlags());
    else this.regWrite(i, this.bytes(i), v);
  }

  /** Operand i as a destination to read, modify and write. */
  place(i: number): Place {
    const bytes = this.bytes(i);
    if (this.kind(i) !== "m") {
      return { get: () => this.regRead(i, bytes), set: (v) => this.regWrite(i, bytes, v) };
    }
    const host = this.hostW(this.ea(bytes, true), bytes, this.memFlags().or(Access.MODIFY));
    return {
      get: () => this.raw(bytes, host),
      set: (v) => {
        this.setRaw(bytes, host, v);
        this.commit(host);
      },
    };
  }

  /** A constant of operand size: i32 up to 4 bytes, else i64. */
  constant(n: number | bigint, bytes = this.size): Val {
    return bytes === 8 ? this.i64(n) : this.i32(Number(n));
  }
}

/** The semantics of one key: called once per shape and reading. */
export type Semantics = (insn: Insn) => void;
/** Semantic keys of one family. */
export type SemanticsTable = Readonly<Record<string, Semantics>>;

export const keysOf = (...tables: readonly SemanticsTable[]): string[] =>
  tables.flatMap((table) => Object.keys(table));
