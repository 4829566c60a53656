/**
 * Test support: semantics entries as exported functions over the real memory procedures, without decoder and interpreter.
 *
 * Register operands are fixed per entry; immediates, the memory operand's offset and the source segment's base are slots that a test
 * sets before each run. Paging is off. Physical pages 0..15 are RAM, page 32 is a device, everything else is an EPT violation.
 */

import { defineMode } from "../core/mode.ts";
import type { FunctionBuilder } from "../ir/function.ts";
import { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { defineAccess } from "../memory/access.ts";
import { definePhysical } from "../memory/physical.ts";
import { defineSegment } from "../memory/segment.ts";
import { defineTlb } from "../memory/tlb.ts";
import { defineWalk } from "../memory/walk.ts";
import {
  GPR,
  Mode,
  Page,
  PHYSICAL_MAP,
  RAM_BASE,
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  Seg,
  Status,
  segmentAt,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_READ,
} from "../state/layout.ts";
import type { Bytes } from "./cpu.ts";
import { arithmeticImage, setArithmeticImage } from "./flags.ts";
import { Insn, type OperandShape, type Semantics, type Shape } from "./insn.ts";
import { defineMultiplyProcedures } from "./multiply.ts";
import { Procedure } from "./procedure.ts";
import { defineStringProcedures } from "./strings.ts";

/** Slots of the bench, in memory that nothing else uses: immediates (i64 each), offset of the memory operand, source base. */
const IMMEDIATES = 0x1f00;
const OFFSET = 0x1f40;
const SOURCE_BASE = 0x1f48;
/** Length of every instruction of the bench. */
export const LENGTH = 3;
export const DEVICE_PAGE = 0x2_0000;
const RAM_PAGES = 16;
const EFER_LMA = 0x400n;
const FLAT_DATA = 0xc093;
const FLAT_CODE = 0xc09b;
const BIG = 0x4000;

export interface BenchEntry {
  readonly semantics: Semantics;
  readonly operands?: readonly OperandShape[];
  /** General register of each register operand; base register of the memory operand, if any. */
  readonly registers?: readonly number[];
  readonly base?: number;
  readonly opsize?: 2 | 4 | 8;
  readonly addrSize?: 2 | 4 | 8;
  readonly mode?: number;
  readonly rep?: number;
  readonly cc?: number;
}

class BenchInsn extends Insn {
  readonly shape: Shape;
  readonly #entry: BenchEntry;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, entry: BenchEntry) {
    super(module, fn);
    this.#entry = entry;
    this.shape = {
      sem: "bench",
      cc: entry.cc ?? -1,
      operands: entry.operands ?? [],
      opsize: entry.opsize ?? 4,
      addrSize: entry.addrSize ?? 8,
      mode: entry.mode ?? Mode.CODE64,
      rep: entry.rep ?? 0,
    };
  }

  leave(status: number): void {
    this.fn.return(status);
  }
  flagResult(): Val {
    return this.get(S.FLAG_RESULT);
  }
  flagCarry(): Val {
    return this.get(S.FLAG_CARRY);
  }
  setFlagResult(v: Val): void {
    this.set(S.FLAG_RESULT, v);
  }
  setFlagCarry(v: Val): void {
    this.set(S.FLAG_CARRY, v);
  }
  #register(i: number): number {
    return this.#entry.registers?.[i] ?? 0;
  }
  regRead(i: number, bytes: Bytes): Val {
    return this.gpr(this.#register(i), bytes as 8);
  }
  regWrite(i: number, bytes: Bytes, v: Val): void {
    this.setGpr(this.#register(i), bytes as 8, v);
  }
  regNumber(i: number): Val {
    return this.i32(this.#register(i));
  }
  immediate(i: number): Val {
    return this.raw(this.bytes(i) === 8 ? 8 : 4, 0, IMMEDIATES + 8 * i);
  }
  ea(bytes: number, write: boolean): Val {
    return this.linear(this.offset(), bytes, write);
  }
  linear(offset: Val, bytes: number, write: boolean): Val {
    return this.fn.call(this.module.get("segLinear"), Seg.DS, offset, bytes, write ? 1 : 0);
  }
  offset(): Val {
    const base = this.#entry.base;
    const offset = this.raw(8, 0, OFFSET);
    return this.#truncated(base === undefined ? offset : offset.add(this.gpr(base, 8)));
  }
  #truncated(v: Val): Val {
    const { addrSize } = this.shape;
    return addrSize === 8 ? v : v.and(addrSize === 4 ? 0xffff_ffffn : 0xffffn);
  }
  memFlags(): Val {
    return this.i32(0);
  }
  stringSource(bytes: number): Val {
    const offset = this.#truncated(this.gpr(6, 8));
    if (this.is64) return offset.add(this.raw(8, 0, SOURCE_BASE));
    return this.fn.call(this.module.get("segLinear"), Seg.DS, offset, bytes, 0);
  }
  stringDestination(bytes: number, write: boolean): Val {
    const offset = this.#truncated(this.gpr(7, 8));
    if (this.is64) return offset;
    return this.fn.call(this.module.get("segLinear"), Seg.ES, offset, bytes, write ? 1 : 0);
  }
  rip(): Val {
    return this.get(S.RIP);
  }
  nextRip(): Val {
    return this.get(S.RIP).add(LENGTH);
  }
  retired(): Val {
    return this.i32(0);
  }
  relativeTarget(): Val {
    const { opsize } = this.shape;
    const mask = this.is64 ? -1n : opsize === 2 ? 0xffffn : 0xffff_ffffn;
    return this.nextRip()
      .add(this.raw(4, 0, IMMEDIATES).extS())
      .and(mask);
  }
  jumpRelative(_i: number, condition: Val | null): void {
    const target = this.relativeTarget();
    const body = (): void => this.jumpTo(target);
    if (condition) this.fn.if(condition, body);
    else body();
  }
  jumpTo(rip: Val): void {
    this.set(S.RIP, rip);
    this.leave(Status.JUMP);
  }
}

export class Bench {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly exports: Record<string, CallableFunction>;
  readonly #names: ReadonlySet<string>;

  constructor(entries: Readonly<Record<string, BenchEntry>>) {
    const pages = RAM_BASE / 0x1_0000 + (RAM_PAGES * 4096) / 0x1_0000;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const m = new ModuleBuilder({ minimum: pages, maximum: pages, shared: false });
    m.import("physicalFill", ["i32", "i32"], ["i32"]);
    m.import("codeWritten", ["i32", "i32"], []);
    m.declare("enterAddressSpace", ["i32"], [], true);
    m.declare("updateMode", [], [], true);
    m.declare("updateSlow", [], [], true);
    m.declare("recordOffset", ["i32"], ["i64"], true);
    definePhysical(m);
    defineWalk(m);
    defineTlb(m);
    defineAccess(m);
    defineSegment(m);
    defineMode(m);
    defineMultiplyProcedures(m);
    defineStringProcedures(m);
    const procedure = (fn: FunctionBuilder): Procedure => new Procedure(m, fn);
    m.function("flags", [], ["i32"], (fn) => fn.return(arithmeticImage(procedure(fn))), true);
    m.function(
      "setFlags",
      ["i32"],
      [],
      (fn) => setArithmeticImage(procedure(fn), fn.param(0)),
      true,
    );
    for (const [name, entry] of Object.entries(entries)) {
      const build = (fn: FunctionBuilder): void => {
        entry.semantics(new BenchInsn(m, fn, entry));
        fn.return(Status.NEXT);
      };
      m.function(`run ${name}`, [], ["i32"], build, true);
    }
    this.view = new DataView(memory.buffer);
    this.bytes = new Uint8Array(memory.buffer);
    const env = { memory, physicalFill: (page: number) => this.#fill(page), codeWritten: () => {} };
    const module = new WebAssembly.Module(m.finish());
    this.exports = new WebAssembly.Instance(module, { env }).exports as typeof this.exports;
    this.#names = new Set(Object.keys(entries));
    this.reset();
  }

  /** Zeroes state and RAM; 64-bit mode, flat segments, RSP in RAM, flags clear. */
  reset(): void {
    this.bytes.fill(0, 0x100, 0x1000);
    this.bytes.fill(0, RAM_BASE, RAM_BASE + RAM_PAGES * 4096);
    this.bytes.fill(0xff, TLB_READ, TLB_READ + 3 * TLB_ENTRIES * TLB_ENTRY_BYTES);
    this.set(S.EFER, EFER_LMA);
    this.set(S.CONTEXT, 4n);
    this.set(S.ADDRESS_SPACE, 1);
    this.set(S.MODE, Mode.CODE64);
    this.set(S.RFLAGS_REST, 2);
    this.set(S.RIP, 0x1000n);
    for (const seg of [Seg.ES, Seg.CS, Seg.SS, Seg.DS]) {
      this.setSegment(seg, 0n, 0xffff_ffff, seg === Seg.CS ? FLAT_CODE : FLAT_DATA);
    }
    this.setGpr(4, 0x8000n);
    this.setFlags(0);
  }

  /** Protected mode: 16- or 32-bit code and stack, flat unless segments are changed afterwards. */
  enterLegacy(code: number, stack32: boolean): void {
    this.set(S.EFER, 0n);
    this.set(S.CR0, 1n);
    this.set(S.MODE, code | (stack32 ? Mode.STACK32 : 0) | Mode.FLAT);
    const rights = stack32 ? FLAT_DATA | BIG : FLAT_DATA & ~BIG;
    this.setSegment(Seg.SS, 0n, stack32 ? 0xffff_ffff : 0xffff, rights);
  }

  setSegment(seg: number, base: bigint, limit: number, rights: number): void {
    const at = segmentAt(seg);
    this.view.setBigUint64(at + SEG_BASE, base, true);
    this.view.setUint32(at + SEG_LIMIT, limit, true);
    this.view.setUint32(at + SEG_RIGHTS, rights, true);
  }

  #fill(page: number): number {
    let entry = 0;
    const rights = Page.READ | Page.WRITE | Page.EXECUTE | Page.KNOWN;
    if (page < RAM_PAGES) entry = (RAM_BASE + page * 4096) | rights;
    else if (page === DEVICE_PAGE >> 12) entry = Page.DEVICE | Page.KNOWN;
    else return 0;
    this.view.setUint32(PHYSICAL_MAP + 4 * page, entry, true);
    return entry;
  }

  run(name: string): number {
    if (!this.#names.has(name)) throw new RangeError(`no entry ${name}`);
    return (this.exports[`run ${name}`] as () => number)();
  }

  /** Runs until the handler no longer asks to be run again. */
  runThrough(name: string): number {
    for (let i = 0; i < 1000; i++) {
      const status = this.run(name);
      if (status !== Status.REPEAT) return status;
    }
    throw new RangeError("does not end");
  }

  gpr(n: number): bigint {
    return this.view.getBigUint64(GPR + 8 * n, true);
  }
  setGpr(n: number, v: bigint): void {
    this.view.setBigUint64(GPR + 8 * n, v, true);
  }
  get(field: { at: number; type: string }): number | bigint {
    return field.type === "i64"
      ? this.view.getBigUint64(field.at, true)
      : this.view.getInt32(field.at, true);
  }
  set(field: { at: number; type: string }, v: number | bigint): void {
    if (field.type === "i64") this.view.setBigUint64(field.at, BigInt(v), true);
    else this.view.setInt32(field.at, Number(v), true);
  }
  setImmediate(i: number, v: number | bigint): void {
    this.view.setBigInt64(IMMEDIATES + 8 * i, BigInt.asIntN(64, BigInt(v)), true);
  }
  setOffset(v: bigint): void {
    this.view.setBigUint64(OFFSET, v, true);
  }
  setSourceBase(v: bigint): void {
    this.view.setBigUint64(SOURCE_BASE, v, true);
  }
  /** The arithmetic flags as their RFLAGS image. */
  flags(): number {
    return (this.exports.flags as () => number)();
  }
  setFlags(image: number): void {
    (this.exports.setFlags as (image: number) => void)(image);
  }
  /** Guest RAM at a physical (= linear) address. */
  ram(at: number, length: number): Uint8Array {
    return this.bytes.subarray(RAM_BASE + at, RAM_BASE + at + length);
  }
}
