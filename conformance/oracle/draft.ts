/**
 * A test while it is made: the record being filled, the registers decided so far, the code emitted so far.
 *
 * A register is pinned when something of the test depends on its value (an address, a count); an unpinned one may still be set to anything.
 */
import type { Mode } from "../../src/processor/isa/instruction.ts";
import type { Row } from "../../src/processor/isa/row.ts";
import { Random } from "./random.ts";
import { CODE_MAX, Fx, Kind, RECORD_BYTES, type Records, Test } from "./records.ts";
import { type Pool, randomInteger } from "./values.ts";
import {
  BOUNDARY,
  CODE,
  codeBase,
  DATA,
  DATA_BYTES,
  DATA_END,
  FS_BASE,
  GS_BASE,
  Local,
  READ_ONLY,
  Selector,
  segmentOf,
  WINDOW,
  WINDOW_BYTES,
} from "./world.ts";

export const RSP = 4;
export const MASK64 = 0xffff_ffff_ffff_ffffn;

/** One instruction of a test, for reports and comparison. */
export interface DraftInstruction {
  /** What the decoder makes of the bytes; null if it is #UD or too long. */
  readonly row: Row | null;
  readonly start: number;
  readonly length: number;
  /** With a repeat prefix: in a test under TF its repetitions take steps. */
  readonly repeats: boolean;
  /** RFLAGS bits without meaning once it has run. */
  readonly undefinedFlags: number;
  /** Linear address of the memory operand if nothing before changes its registers; -1 if none. */
  readonly target: number;
}

export class Draft {
  readonly r = new Random();
  readonly gpr = new BigUint64Array(16);
  readonly code: number[] = [];
  readonly instructions: DraftInstruction[] = [];
  readonly selectors = [0, 0, 0, 0, 0, 0];
  mode: Mode = 64;
  kind: number = Kind.STEP;
  options = 0;
  rflags = 0;
  /** Of the code in its area. */
  offset = 0;
  /** RFLAGS bits without meaning at the end. */
  undefinedFlags = 0;
  #pinned = 0;
  #records!: Records;
  #at = 0;

  begin(records: Records, index: number): void {
    this.#records = records;
    this.#at = index * RECORD_BYTES;
    this.#pinned = 1 << RSP;
    this.code.length = 0;
    this.instructions.length = 0;
    this.options = 0;
    this.undefinedFlags = 0;
  }

  finish(): void {
    // Not every hypervisor lets a process go on with another stack pointer.
    if (this.mode === 64) this.gpr[RSP] = BigInt.asIntN(48, this.gpr[RSP]!);
    const { view, bytes } = this.#records;
    const at = this.#at;
    for (let i = 0; i < CODE_MAX; i++) bytes[at + i] = this.code[i] ?? 0xcc;
    view.setUint8(at + Test.LENGTH, this.code.length);
    view.setUint8(at + Test.MODE, this.mode);
    view.setUint8(at + Test.KIND, this.kind);
    view.setUint8(at + Test.STEPS, this.instructions.length);
    view.setUint16(at + Test.OFFSET, this.offset, true);
    view.setUint16(at + Test.OPTIONS, this.options, true);
    view.setBigUint64(at + Test.RFLAGS, BigInt(this.rflags), true);
    for (let i = 0; i < 16; i++) view.setBigUint64(at + Test.GPR + 8 * i, this.gpr[i]!, true);
    for (let i = 0; i < 6; i++)
      view.setUint16(at + Test.SELECTORS + 2 * i, this.selectors[i]!, true);
    view.setUint32(at + Test.SELECTORS + 12, 0, true);
  }

  // ---- registers ----

  get registers(): number {
    return this.mode === 64 ? 16 : 8;
  }

  isPinned(n: number): boolean {
    return (this.#pinned & (1 << n)) !== 0;
  }

  pin(n: number): void {
    this.#pinned |= 1 << n;
  }

  /** Sets the low `bytes` of a register and pins it. */
  setGpr(n: number, bytes: number, value: bigint): void {
    const mask = (1n << BigInt(8 * bytes)) - 1n;
    this.gpr[n] = (this.gpr[n]! & ~mask) | (value & mask);
    this.pin(n);
  }

  /** As setGpr, but only if nothing depends on the register yet. */
  suggestGpr(n: number, bytes: number, value: bigint): void {
    if (!this.isPinned(n)) this.setGpr(n, bytes, value);
  }

  randomRegister(): number {
    return this.r.below(this.registers);
  }

  // ---- FXSAVE image ----

  fx16(at: number, value: number): void {
    this.#records.view.setUint16(this.#at + Test.FX + at, value, true);
  }

  fx32(at: number, value: number): void {
    this.#records.view.setUint32(this.#at + Test.FX + at, value, true);
  }

  fxFrom(pool: Pool, at: number, bytes: number): void {
    pool.copy(this.r, this.#records.bytes, this.#at + Test.FX + at, bytes);
  }

  setXmm(n: number, pool: Pool): void {
    this.fxFrom(pool, Fx.XMM + 16 * n, 16);
  }

  copyXmm(to: number, from: number): void {
    const base = this.#at + Test.FX + Fx.XMM;
    this.#records.bytes.copyWithin(base + 16 * to, base + 16 * from, base + 16 * from + 16);
  }

  // ---- memory ----

  /** Whether these bytes lie in the window, whose contents the test decides. */
  inWindow(address: number, bytes: number): boolean {
    return address >= WINDOW && address + bytes <= WINDOW + WINDOW_BYTES;
  }

  poke(address: number, bytes: number, value: bigint): void {
    if (!this.inWindow(address, bytes)) return;
    const to = this.#at + Test.WINDOW + (address - WINDOW);
    for (let i = 0; i < bytes; i++)
      this.#records.bytes[to + i] = Number((value >> BigInt(8 * i)) & 255n);
  }

  pokeFrom(pool: Pool, address: number, bytes: number): void {
    if (this.inWindow(address, bytes))
      pool.copy(this.r, this.#records.bytes, this.#at + Test.WINDOW + (address - WINDOW), bytes);
  }

  /** Contents of the window, 0 elsewhere. */
  peek(address: number, bytes: number): bigint {
    if (!this.inWindow(address, bytes)) return 0n;
    let value = 0n;
    const from = this.#at + Test.WINDOW + (address - WINDOW);
    for (let i = bytes - 1; i >= 0; i--)
      value = (value << 8n) | BigInt(this.#records.bytes[from + i]!);
    return value;
  }

  fillWindow(pool: Pool): void {
    pool.copy(this.r, this.#records.bytes, this.#at + Test.WINDOW, WINDOW_BYTES);
  }

  // ---- addresses ----

  /** Base of a segment in the test's mode. */
  segmentBase(number: number): number {
    if (this.mode === 64) return number === 4 ? FS_BASE : number === 5 ? GS_BASE : 0;
    return segmentOf(this.selectors[number]!)?.base ?? 0;
  }

  /** Linear address for an operand of so many bytes: mostly in the window, sometimes where it faults. `align` divides most of them. */
  target(bytes: number, align = bytes): bigint {
    const { r } = this;
    const size = Math.max(bytes, 1);
    const inside = WINDOW + r.below(Math.max(1, WINDOW_BYTES - size));
    const dice = r.below(100);
    if (dice < 58) return BigInt(Math.max(WINDOW, inside - (inside % Math.max(align, 1))));
    if (dice < 78) return BigInt(inside);
    if (dice < 88) return BigInt(BOUNDARY - r.below(Math.min(size, 256)));
    if (dice < 90) return BigInt(READ_ONLY + r.below(64) * 16);
    if (dice < 92) return BigInt(READ_ONLY - r.below(size));
    if (dice < 94) return BigInt(DATA_END - r.below(size));
    if (dice < 95) return BigInt(DATA - r.below(size + 1));
    if (dice < 96) return BigInt(DATA_END + r.below(0x4000));
    if (dice < 97) return BigInt(DATA + r.below(DATA_BYTES - size));
    if (dice < 98) return BigInt(CODE + r.below(0x2000));
    if (this.mode === 64 && dice < 99)
      return r.pick([
        0x8000_0000_0000n,
        0x7fff_ffff_fff8n,
        0xffff_8000_0000_0000n,
        0xffff_7fff_ffff_fffcn,
        MASK64,
      ]);
    return randomInteger(r) & (this.mode === 64 ? MASK64 : 0xffff_ffffn);
  }

  /** An instruction pointer relative to the code segment: mostly inside the code area. */
  codePointer(): bigint {
    const { r } = this;
    const base = CODE - codeBase(this.selectors[1]!);
    const dice = r.below(10);
    if (dice < 3) return BigInt(base + this.offset + this.code.length + r.below(24));
    if (dice < 4) return BigInt(base + this.offset);
    if (dice < 8) return BigInt(base + r.below(0x2010));
    if (dice < 9)
      return r.pick([0x8000_0000_0000n, MASK64, BigInt(DATA), BigInt(base + 0x2000), 0n]);
    return randomInteger(r);
  }

  /** A selector for loads and far transfers. */
  selector(): number {
    const { r } = this;
    switch (r.below(8)) {
      case 0:
        return r.below(4);
      case 1:
        return (
          r.pick([
            Selector.KERNEL_CODE,
            Selector.KERNEL_DATA,
            0x08,
            Selector.TSS,
            Selector.LDT,
            0x60,
            0x68,
            0x80,
            0x1000,
            0xffff,
          ]) | r.below(4)
        );
      case 2:
        return (
          r.pick([Selector.USER_CODE32, Selector.USER_DATA, Selector.USER_CODE64]) & ~r.below(4)
        );
      case 3:
      case 4:
        return r.pick([Selector.USER_CODE32, Selector.USER_DATA, Selector.USER_CODE64]);
      default:
        return r.pick(Object.values(Local)) & ~(r.chance(15) ? r.below(4) : 0);
    }
  }
}
