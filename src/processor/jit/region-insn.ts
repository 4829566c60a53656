/**
 * The reading of semantic text for regions: everything the decoder knows is a constant; general registers, XMM registers and flags are locals.
 *
 * MMX and x87 registers stay in the state block, at constant addresses. An access whose TLB entry does not match leaves the region before the
 * instruction has changed anything, and the interpreter executes it; so do faults the semantics find themselves.
 */

import type { FunctionBuilder, Variable } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val, Operand as ValOperand } from "../ir/value.ts";
import { BASE_RIP, type Instruction, type Operand } from "../isa/instruction.ts";
import { addend, entryOffset, isHit } from "../memory/tlb.ts";
import { Access, type Bytes } from "../semantics/cpu.ts";
import { Insn, type Shape } from "../semantics/insn.ts";
import { FPR, S, SEG_BASE, Status, segmentAt, TLB_READ, TLB_WRITE } from "../state/layout.ts";
import type { FlagState } from "./flag-state.ts";
import { type FlagKind, lazyCondition } from "./lazy-flags.ts";
import type { RegisterFile } from "./register-file.ts";

/** What all instructions of a region share: its locals, and what they ask of those who enter it. */
export interface RegionLocals {
  readonly registers: RegisterFile;
  readonly vectors: RegisterFile;
  readonly flags: FlagState;
  readonly ripPage: Variable;
  /** TLB context of a linear address. */
  contextOf(linear: Val): Val;
  /** Code size. */
  readonly bits: 32 | 64;
  /** 32-bit code: the region may be entered only where this segment has no limit and can be read, or written. */
  needsSegment(seg: number, isWritten: boolean): void;
  /** The region may be entered only where SSE instructions can be executed. */
  needsSse(): void;
}

/** Where an instruction can go. */
export interface Ways {
  /** What is left of the budget before it. */
  budget(): Val;
  /** Leaves before it: the interpreter goes on with it. */
  bail(): void;
  /** Goes to a relative target inside or outside the region. */
  branch(condition: Val | null): void;
  /** Goes to a computed address. */
  jump(rip: Val): void;
}

/** Shape of a vector whose elements have a size in bytes. */
const LANES = { 1: "i8x16", 2: "i16x8", 4: "i32x4", 8: "i64x2" } as const;
const CS = 1;
const SS = 2;
const FS = 4;
const FOUR_GIB = 1n << 32n;

export class RegionInsn extends Insn {
  readonly shape: Shape;
  readonly #insn: Instruction;
  readonly #offset: number;
  readonly #region: RegionLocals;
  readonly #ways: Ways;

  constructor(
    module: ModuleBuilder,
    fn: FunctionBuilder,
    shape: Shape,
    at: { insn: Instruction; offset: number },
    region: RegionLocals,
    ways: Ways,
  ) {
    super(module, fn);
    this.shape = shape;
    this.#insn = at.insn;
    this.#offset = at.offset;
    this.#region = region;
    this.#ways = ways;
  }

  override get isFlat32(): boolean {
    return this.#region.bits === 32;
  }

  leave(status: number): void {
    if (status === Status.NEXT) return;
    this.#ways.bail();
  }

  #bailIf(condition: Val): void {
    this.fn.unlikely(condition, () => this.#ways.bail());
  }

  override usually(usual: Val, isRare: Val): Val {
    this.#bailIf(isRare);
    return usual;
  }

  override rarely(condition: Val): void {
    this.#bailIf(condition);
  }

  override hasSse(): boolean {
    this.#region.needsSse();
    return true;
  }

  /** A fault is found again, and raised, by the interpreter. */
  override fault(): void {
    this.#ways.bail();
  }

  flagResult(): Val {
    return this.#region.flags.readResult();
  }

  flagCarry(): Val {
    return this.#region.flags.readCarry();
  }

  setFlagResult(v: Val): void {
    this.#region.flags.setResult(v);
  }

  setFlagCarry(v: Val): void {
    this.#region.flags.setCarry(v);
  }

  override noteFlags(kind: FlagKind, bytes: number, a: Val, b: Val, r: Val): boolean {
    return this.#region.flags.note({ kind, bytes, a, b, r });
  }

  override knownCondition(cc: number): Val | null {
    const { flags } = this.#region;
    if (flags.operands) return lazyCondition(flags.operands, cc);
    flags.allowReading();
    return null;
  }

  // ---- registers ----

  override gpr(n: number, bytes: 1 | 2 | 4 | 8): Val {
    const v = this.#region.registers.read(n);
    if (bytes === 8) return v;
    return bytes === 4 ? v.wrap() : v.wrap().and(bytes === 2 ? 0xffff : 0xff);
  }

  override setGpr(n: number, bytes: 1 | 2 | 4 | 8, value: ValOperand): void {
    const v =
      value instanceof Object ? value : bytes === 8 ? this.i64(value) : this.i32(Number(value));
    this.#write(n, bytes, 0, v);
  }

  #write(n: number, bytes: number, shift: number, v: Val): void {
    const { registers } = this.#region;
    if (bytes === 8) registers.write(n, v);
    else if (bytes === 4) registers.write(n, v.extU());
    else {
      const mask = BigInt(bytes === 2 ? 0xffff : 0xff) << BigInt(shift);
      const part = v
        .and(bytes === 2 ? 0xffff : 0xff)
        .extU()
        .shl(shift);
      registers.write(n, registers.read(n).and(~mask).or(part));
    }
  }

  #operand(i: number): Operand {
    return this.#insn.ops[i]!;
  }

  regRead(i: number, bytes: Bytes): Val {
    const op = this.#operand(i);
    switch (op.cls) {
      case "gpr":
        return this.gpr(op.num, bytes as 1 | 2 | 4 | 8);
      case "gpr8h":
        return this.#region.registers.read(op.num).shrU(8).wrap().and(0xff);
      case "mm":
        return this.raw(bytes, 0, FPR + 16 * op.num);
      default:
        return this.#vectorPart(this.xmm(op.num), bytes);
    }
  }

  regWrite(i: number, bytes: Bytes, v: Val): void {
    const op = this.#operand(i);
    switch (op.cls) {
      case "gpr":
        this.#write(op.num, bytes, 0, v);
        break;
      case "gpr8h":
        this.#write(op.num, 1, 8, v);
        break;
      case "mm":
        this.setRaw(bytes, 0, v, FPR + 16 * op.num);
        break;
      default:
        this.#writeVector(op.num, bytes, v);
    }
  }

  override xmm(n: number): Val {
    return this.#region.vectors.read(n);
  }

  override setXmm(n: number, value: Val): void {
    this.#writeVector(n, 16, value);
  }

  #vectorPart(v: Val, bytes: Bytes): Val {
    if (bytes === 16) return v;
    return this.fn.lane(`${LANES[bytes]}.extract_lane${bytes < 4 ? "_u" : ""}`, 0, v);
  }

  #writeVector(n: number, bytes: Bytes, v: Val): void {
    const wide = bytes === 16 ? v : this.fn.lane(`${LANES[bytes]}.replace_lane`, 0, this.xmm(n), v);
    this.#region.vectors.write(n, wide);
  }

  override x87Opcode(): Val {
    return this.i32(((this.#insn.row.opcode & 7) << 8) | this.#insn.modrm);
  }

  regNumber(i: number): Val {
    return this.i32(this.#operand(i).num);
  }

  immediate(i: number): Val {
    const op = this.#operand(i);
    if (op.size === 8) return this.i64((BigInt(op.immHi) << 32n) | BigInt(op.immLo >>> 0));
    return this.i32(op.immLo);
  }

  // ---- memory ----

  #memory(): Operand {
    for (let i = 0; i < this.#insn.opCount; i++)
      if (this.#insn.ops[i]!.kind === "mem") return this.#insn.ops[i]!;
    return this.#insn.ops[0]!;
  }

  offset(): Val {
    const op = this.#memory();
    if (this.#insn.addrSize < 8 && op.base !== BASE_RIP) return this.#narrowOffset(op);
    const displacement =
      op.base === BASE_RIP ? op.disp + this.#offset + this.#insn.length : op.disp;
    let v: Val | null = null;
    if (op.base === BASE_RIP) v = this.#region.ripPage.read();
    else if (op.base >= 0) v = this.gpr(op.base, 8);
    if (op.index >= 0) {
      const index = this.gpr(op.index, 8).shl(op.scale);
      v = v ? v.add(index) : index;
    }
    const wide =
      op.base < 0 && op.index < 0
        ? (BigInt(op.dispHi) << 32n) | BigInt(op.disp >>> 0)
        : BigInt(displacement);
    v = v ? v.add(wide) : this.i64(wide);
    return this.#insn.addrSize === 4 ? v.and(0xffff_ffffn) : v;
  }

  /** Of 32 or 16 bits. */
  #narrowOffset({ base, index, scale, disp }: Operand): Val {
    let v = this.i32(disp);
    if (index >= 0) v = this.gpr(index, 4).shl(scale).add(v);
    if (base >= 0) v = this.gpr(base, 4).add(v);
    return (this.#insn.addrSize === 2 ? v.and(0xffff) : v).extU();
  }

  ea(bytes: number, write: boolean): Val {
    return this.linear(this.offset(), bytes, write);
  }

  linear(offset: Val, bytes: number, write: boolean): Val {
    const { seg } = this.#memory();
    const base = (): Val => this.fn.load("i64.load", 0, segmentAt(seg) + SEG_BASE);
    if (this.#region.bits === 64) return seg >= FS ? offset.add(base()) : offset;
    if (seg < FS && seg !== CS) return offset;
    this.#region.needsSegment(seg, write);
    if (bytes > 1) this.#bailIf(offset.gtU(FOUR_GIB - BigInt(bytes)));
    return offset.add(base()).and(FOUR_GIB - 1n);
  }

  memFlags(): Val {
    return this.i32(this.#memory().seg === SS ? Access.STACK : 0);
  }

  stringSource(): Val {
    return this.i64(0);
  }

  stringDestination(): Val {
    return this.i64(0);
  }

  #host(array: number, miss: string, linear: Val, bytes: number): Val {
    const { fn } = this;
    const at = entryOffset(linear);
    const host = fn.declare("i32");
    fn.likely(
      isHit(fn, array, at, linear, bytes, this.#region.contextOf(linear)),
      () => host.set(linear.wrap().add(addend(fn, array, at))),
      () => {
        const slow = fn.call(this.module.get(miss), linear, bytes);
        this.#bailIf(slow.eqz());
        host.set(slow);
      },
    );
    return host.read();
  }

  override hostR(linear: Val, bytes: number): Val {
    return this.#host(TLB_READ, "regionRead", linear, bytes);
  }

  override hostW(linear: Val, bytes: number): Val {
    return this.#host(TLB_WRITE, "regionWrite", linear, bytes);
  }

  /** Nothing to complete: a write that needs it has left the region. */
  override commit(): void {}

  // ---- control ----

  rip(): Val {
    return this.#ripAt(this.#offset);
  }

  nextRip(): Val {
    return this.#ripAt(this.#offset + this.#insn.length);
  }

  #ripAt(offset: number): Val {
    const rip = this.#region.ripPage.read().add(offset);
    return this.#region.bits === 32 ? rip.and(FOUR_GIB - 1n) : rip;
  }

  /** The region has looked at all targets when it was entered. */
  override unlessTaken(): void {}

  relativeTarget(): Val {
    return this.nextRip().add(this.#operand(0).imm);
  }

  retired(): Val {
    return this.get(S.BUDGET_START).sub(this.#ways.budget());
  }

  jumpRelative(_i: number, condition: Val | null): void {
    this.#ways.branch(condition);
  }

  jumpTo(rip: Val): void {
    this.#ways.jump(rip);
  }
}
