/** One test with both results, as the rules of differences.ts look at it. */
import type { Difference } from "./compare.ts";
import type { DraftInstruction } from "./draft.ts";
import { Fx, Kind, Result, Test } from "./records.ts";
import { CODE, codeBase } from "./world.ts";

const CS = 1;
const PREFIX_FS = 0x64;
const PREFIX_GS = 0x65;
const PREFIX_66 = 0x66;
const PREFIX_LOCK = 0xf0;

export class Case {
  readonly instructions: readonly DraftInstruction[];
  readonly test: DataView;
  readonly native: DataView;
  readonly ours: DataView;

  constructor(
    instructions: readonly DraftInstruction[],
    records: { test: Uint8Array; native: Uint8Array; ours: Uint8Array },
  ) {
    const view = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, b.byteLength);
    this.instructions = instructions;
    this.test = view(records.test);
    this.native = view(records.native);
    this.ours = view(records.ours);
  }

  get nativeStatus(): number {
    return this.native.getUint32(Result.STATUS, true);
  }

  get oursStatus(): number {
    return this.ours.getUint32(Result.STATUS, true);
  }

  get oursError(): number {
    return this.ours.getUint32(Result.ERROR, true);
  }

  get nativeError(): number {
    return this.native.getUint32(Result.ERROR, true);
  }

  get nativeCr2(): bigint {
    return this.native.getBigUint64(Result.CR2, true);
  }

  get oursCr2(): bigint {
    return this.ours.getBigUint64(Result.CR2, true);
  }

  /** FSW that the test starts with, and that it ends with natively. */
  get fswBefore(): number {
    return this.test.getUint16(Test.FX + Fx.FSW, true);
  }

  get nativeFsw(): number {
    return this.native.getUint16(Result.FX + Fx.FSW, true);
  }

  get nativeRflags(): number {
    return this.native.getUint32(Result.RFLAGS, true);
  }

  get oursRflags(): number {
    return this.ours.getUint32(Result.RFLAGS, true);
  }

  get isStep(): boolean {
    return this.test.getUint8(Test.KIND) === Kind.STEP;
  }

  /** Whether the test contains an instruction with one of these keys. */
  has(keys: ReadonlySet<string>): boolean {
    return this.instructions.some((i) => i.row !== null && keys.has(i.row.sem));
  }

  /** The instruction native RIP is at, if it is one of the test's. */
  get stoppedAt(): DraftInstruction | undefined {
    return this.#at(this.native);
  }

  #at(result: DataView): DraftInstruction | undefined {
    const base = CODE - codeBase(this.test.getUint16(Test.SELECTORS + 2 * CS, true));
    const start = this.test.getUint16(Test.OFFSET, true) + base;
    const rip = Number(result.getBigUint64(Result.RIP, true)) - start;
    return this.instructions.find((i) => i.start === rip);
  }

  /** The key of that instruction, or "". */
  get stoppedAtKey(): string {
    return this.stoppedAt?.row?.sem ?? "";
  }

  /** The instruction our RIP is at. */
  get oursStoppedAt(): DraftInstruction | undefined {
    return this.#at(this.ours);
  }

  bytesOf(i: DraftInstruction): Uint8Array {
    return new Uint8Array(this.test.buffer, this.test.byteOffset + Test.CODE + i.start, i.length);
  }

  /** The instruction at which it stopped natively has an FS or GS prefix. */
  get overridesFsGs(): boolean {
    const i = this.stoppedAt;
    return i !== undefined && this.bytesOf(i).some((b) => b === PREFIX_FS || b === PREFIX_GS);
  }

  /** Whether it stopped natively at MOVSXD with a 16-bit operand size. */
  get isShortMovsxd(): boolean {
    const i = this.stoppedAt;
    return i?.row?.opcode === 0x63 && this.bytesOf(i).includes(PREFIX_66);
  }

  /** An undefined instruction of the test is LOCK VERR or LOCK VERW: F0 ... 0F 00 /4 or /5. */
  get hasLockedVerify(): boolean {
    return this.#hasLocked((opcode, modrm) => opcode === 0 && ((modrm >> 4) & 3) === 2);
  }

  /** ... LOCK MOV to or from a control register: F0 ... 0F 20 or 0F 22. */
  get hasLockedControlMove(): boolean {
    return this.#hasLocked((opcode) => opcode === 0x20 || opcode === 0x22);
  }

  /** An undefined instruction of the two-byte map with LOCK. */
  #hasLocked(isIt: (opcode: number, modrm: number) => boolean): boolean {
    return this.instructions.some((i) => {
      if (i.row !== null) return false;
      const bytes = this.bytesOf(i);
      const at = bytes.indexOf(0x0f);
      const isLocked = at > 0 && bytes.subarray(0, at).includes(PREFIX_LOCK);
      return isLocked && isIt(bytes[at + 1]!, bytes[at + 2]!);
    });
  }

  /** Whether the last non-control x87 instruction that ran, as far as can be told, had a memory operand. */
  get lastX87HasMemory(): boolean {
    const stopped = this.stoppedAt;
    const before = stopped
      ? this.instructions.slice(0, this.instructions.indexOf(stopped))
      : this.instructions;
    const isX87 = (i: DraftInstruction): boolean =>
      i.row?.map === "1" && (i.row.opcode & 0xf8) === 0xd8;
    const last = before.findLast((i) => isX87(i) && !i.row!.sem.startsWith("fn"));
    return last?.row?.specs.some((s) => s.mod === "mem") ?? false;
  }
}

/** Linear address of a memory field, or -1. */
export const addressOf = (d: Difference): number =>
  d.field.startsWith("[") ? Number.parseInt(d.field.slice(1), 16) : -1;

export const isCanonical = (address: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;

/** Distance of two addresses, over the end of the address space too, is below `limit`. */
export const isNear = (a: bigint, b: bigint, limit: bigint): boolean =>
  BigInt.asUintN(64, a - b) < limit || BigInt.asUintN(64, b - a) < limit;
