/**
 * The processor as semantic code sees it: state fields, registers, lazy flags, guest memory, faults and VM exits, over the builder.
 *
 * One body of semantic text has several readings. What differs between them is here as abstract members: where registers and flags live,
 * and how an instruction leaves. `Procedure` (procedure.ts) is the reading as a function of its own; `Insn` (insn.ts) adds operands.
 *
 * Restartability rule for everything written over this class: all reads and checks that can fault come before the first change of
 * architectural state. `hostW` checks a destination for writing before anything is written.
 */

import type { FunctionBuilder } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Operand, Val } from "../ir/value.ts";
import {
  type Field,
  GPR,
  Pending,
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  SEG_SELECTOR,
  Status,
  segmentAt,
  XMM,
} from "../state/layout.ts";

export type Bytes = 1 | 2 | 4 | 8 | 16;

/** Exception vectors. SDM Vol. 3A, "Exception and Interrupt Reference". */
export const Vector = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
} as const;

/** Flags of a memory access, for its slow path. */
export const Access = {
  /** Through the stack segment: a non-canonical address is #SS(0) instead of #GP(0). */
  STACK: 1,
  /** Implicit supervisor access (descriptor tables, TSS), whatever the CPL. */
  SYSTEM: 2,
  /** The destination is read before it is written (matters for devices). */
  MODIFY: 4,
  /** The access is several elements of this size, which is what alignment checking goes by. */
  BYTES: 8,
  WORDS: 16,
  DOUBLEWORDS: 32,
} as const;

/** Flags of an access to several elements of `size` bytes. */
export function elementFlags(size: number): number {
  return size === 1
    ? Access.BYTES
    : size === 2
      ? Access.WORDS
      : size === 4
        ? Access.DOUBLEWORDS
        : 0;
}

const FIELD_LOAD = {
  u8: "i32.load8_u",
  u16: "i32.load16_u",
  i32: "i32.load",
  i64: "i64.load",
} as const;
const FIELD_STORE = {
  u8: "i32.store8",
  u16: "i32.store16",
  i32: "i32.store",
  i64: "i64.store",
} as const;
const RAW_LOAD = {
  1: "i32.load8_u",
  2: "i32.load16_u",
  4: "i32.load",
  8: "i64.load",
  16: "v128.load",
} as const;
const RAW_STORE = {
  1: "i32.store8",
  2: "i32.store16",
  4: "i32.store",
  8: "i64.store",
  16: "v128.store",
} as const;

export abstract class Cpu {
  readonly fn: FunctionBuilder;
  readonly module: ModuleBuilder;

  constructor(module: ModuleBuilder, fn: FunctionBuilder) {
    this.module = module;
    this.fn = fn;
  }

  /** Ends the instruction or procedure here with a Status. Code after it in the same body does not run. */
  abstract leave(status: number): void;
  abstract flagResult(): Val;
  abstract flagCarry(): Val;
  abstract setFlagResult(v: Val): void;
  abstract setFlagCarry(v: Val): void;

  /** A reading that keeps flags as operands takes those of a whole addition, subtraction or logical operation here, and answers true. */
  noteFlags(_kind: "add" | "sub" | "logic", _bytes: number, _a: Val, _b: Val, _r: Val): boolean {
    return false;
  }

  /** Condition code `cc` (i32, nonzero if it holds) where a reading knows it from the operands. */
  knownCondition(_cc: number): Val | null {
    return null;
  }

  // ---- constants and state ----

  i32(n: number): Val {
    return this.fn.i32(n);
  }

  i64(n: number | bigint): Val {
    return this.fn.i64(n);
  }

  get(field: Field): Val {
    return this.fn.load(FIELD_LOAD[field.type], 0, field.at);
  }

  set(field: Field, value: Operand): void {
    this.fn.store(FIELD_STORE[field.type], 0, value, field.at);
  }

  /** Reads raw memory (state, or guest memory at a host address): i32 up to 4 bytes, zero-extended; i64; v128. */
  raw(bytes: Bytes, address: Operand, offset = 0): Val {
    return this.fn.load(RAW_LOAD[bytes], address, offset);
  }

  setRaw(bytes: Bytes, address: Operand, value: Operand, offset = 0): void {
    this.fn.store(RAW_STORE[bytes], address, value, offset);
  }

  /** General register n, its low `bytes` zero-extended (i32 up to 4 bytes, else i64). High byte registers: see Insn operands. */
  gpr(n: number, bytes: 1 | 2 | 4 | 8): Val {
    return this.raw(bytes, 0, GPR + 8 * n);
  }

  /** Writes the low bytes of register n; a 4-byte write clears the upper half, narrower ones keep the rest. */
  setGpr(n: number, bytes: 1 | 2 | 4 | 8, value: Operand): void {
    if (bytes === 4)
      this.setRaw(
        8,
        0,
        (value instanceof Object ? value : this.i32(Number(value))).extU(),
        GPR + 8 * n,
      );
    else this.setRaw(bytes, 0, value, GPR + 8 * n);
  }

  xmm(n: number): Val {
    return this.fn.load("v128.load", 0, XMM + 16 * n);
  }

  setXmm(n: number, value: Val): void {
    this.fn.store("v128.store", 0, value, XMM + 16 * n);
  }

  segBase(seg: number): Val {
    return this.raw(8, 0, segmentAt(seg) + SEG_BASE);
  }

  segLimit(seg: number): Val {
    return this.raw(4, 0, segmentAt(seg) + SEG_LIMIT);
  }

  segRights(seg: number): Val {
    return this.raw(4, 0, segmentAt(seg) + SEG_RIGHTS);
  }

  segSelector(seg: number): Val {
    return this.raw(2, 0, segmentAt(seg) + SEG_SELECTOR);
  }

  // ---- events ----

  /** Raises a fault: nothing of the instruction remains, `vector` is delivered with RIP at it. */
  fault(vector: number, error: Operand = 0): void {
    this.set(S.PENDING, Pending.EVENT);
    this.set(S.PENDING_VECTOR, vector);
    this.set(S.PENDING_ERROR, error);
    this.set(S.PENDING_TYPE, 3);
    this.leave(Status.FAULT);
  }

  faultIf(condition: Val, vector: number, error: Operand = 0): void {
    this.fn.if(condition, () => this.fault(vector, error));
  }

  /** Leaves with FAULT if a called procedure's status is not zero (it has left PENDING for us). */
  propagate(status: Val): void {
    this.fn.if(status, () => this.leave(Status.FAULT));
  }

  /**
   * `usual`; or what `instead` answers where a condition holds that hardly ever does. Nothing has changed yet: a reading may leave to another
   * one there.
   */
  usually(usual: Val, isRare: Val, instead: () => Val): Val {
    const out = this.fn.variable(usual.type, usual);
    this.fn.if(isRare, () => out.set(instead()));
    return out.read();
  }

  /** `body`, which ends the instruction, where a condition holds that hardly ever does. As with `usually`, a reading may leave there. */
  rarely(condition: Val, body: () => void): void {
    this.fn.if(condition, body);
  }

  /** True where a reading has made sure that no SSE instruction is #UD or #NM. */
  hasSse(): boolean {
    return false;
  }

  /** A fault-like VM exit: the instruction is not executed. */
  vmExit(reason: number, qualification: Operand = 0n): void {
    this.set(S.EXIT_REASON, reason);
    this.set(S.EXIT_QUALIFICATION, qualification);
    this.leave(Status.EXIT);
  }

  // ---- guest memory ----

  /** Host address of `bytes` readable bytes at a linear address (i64); leaves with FAULT if it faults. The bytes may be a copy. */
  hostR(linear: Val, bytes: number, flags: Operand = 0): Val {
    const host = this.fn.call(this.module.get("memR"), linear, bytes, flags);
    this.fn.if(host.eqz(), () => this.leave(Status.FAULT));
    return host;
  }

  /** Host address for a write (also readable) of `bytes`; leaves with FAULT if it faults. After the stores call commit(host). One at a time. */
  hostW(linear: Val, bytes: number, flags: Operand = 0): Val {
    const host = this.fn.call(this.module.get("memW"), linear, bytes, flags);
    this.fn.if(host.eqz(), () => this.leave(Status.FAULT));
    return host;
  }

  /** Completes a write: nothing to do in the plain case, scatters a bounce buffer or queues a device write otherwise. */
  commit(host: Val): void {
    this.fn.if(host.eq(BOUNCE_WRITE_ADDRESS), () => this.fn.callVoid(this.module.get("memCommit")));
  }

  /** Loads at a linear address: i32 up to 4 bytes zero-extended, i64, v128. */
  load(linear: Val, bytes: Bytes, flags: Operand = 0): Val {
    return this.raw(bytes, this.hostR(linear, bytes, flags));
  }

  store(linear: Val, bytes: Bytes, value: Val, flags: Operand = 0): void {
    const host = this.hostW(linear, bytes, flags);
    this.setRaw(bytes, host, value);
    this.commit(host);
  }
}

const BOUNCE_WRITE_ADDRESS = 0x4000;
