/**
 * Operands of VMX instructions, from the VM-exit instruction information and qualification with which the engine leaves them.
 * SDM Vol. 3C, "VM-Exit Instruction-Information Field"; Vol. 3A, "Limit Checking", "Type Checking".
 */
import {
  BOUNCE_WRITE,
  gprAt,
  Pending,
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  Seg,
  segmentAt,
} from "../../state/layout.ts";
import { isCode64 } from "../advance.ts";
import type { Engine } from "../engine-port.ts";

const GP = 13;
const SS = 12;
const RIGHTS = {
  UNUSABLE: 0x1_0000,
  BIG: 0x4000,
  CODE: 8,
  EXPAND_DOWN: 4,
  WRITABLE: 2,
} as const;

/** A fault to be delivered instead of the instruction. */
export interface Fault {
  readonly vector: number;
  readonly error?: number;
}

export const isFault = (x: unknown): x is Fault =>
  typeof x === "object" && x !== null && "vector" in x;

export class Operands {
  readonly #engine: Engine;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get #view(): DataView {
    return this.#engine.view;
  }

  get information(): number {
    return this.#view.getUint32(S.EXIT_INSTRUCTION_INFO.at, true);
  }

  get is64(): boolean {
    return isCode64(this.#view);
  }

  /** Bytes of a register operand. */
  get width(): 4 | 8 {
    return this.is64 ? 8 : 4;
  }

  /** General register `n` as an operand. */
  register(n: number): bigint {
    const value = this.#view.getBigUint64(gprAt(n), true);
    return this.is64 ? value : value & 0xffff_ffffn;
  }

  setRegister(n: number, value: bigint): void {
    this.#view.setBigUint64(gprAt(n), this.is64 ? value : value & 0xffff_ffffn, true);
  }

  /** The register in bits 31:28. */
  get second(): number {
    return this.information >>> 28;
  }

  get isRegister(): boolean {
    return (this.information & (1 << 10)) !== 0;
  }

  /** The register in bits 6:3, if isRegister. */
  get first(): number {
    return (this.information >> 3) & 15;
  }

  /** Linear address of the memory operand of `bytes`, or the fault of its segment. */
  #linear(bytes: number, isWrite: boolean): bigint | Fault {
    const view = this.#view;
    const info = this.information;
    let offset = BigInt.asIntN(64, view.getBigUint64(S.EXIT_QUALIFICATION.at, true));
    if ((info & (1 << 27)) === 0) offset += view.getBigUint64(gprAt((info >> 23) & 15), true);
    if ((info & (1 << 22)) === 0)
      offset += view.getBigUint64(gprAt((info >> 18) & 15), true) << BigInt(info & 3);
    const size = (info >> 7) & 7;
    offset = BigInt.asUintN(size === 2 ? 64 : size === 1 ? 32 : 16, offset);
    const seg = (info >> 15) & 7;
    const base = view.getBigUint64(segmentAt(seg) + SEG_BASE, true);
    if (this.is64)
      return BigInt.asIntN(64, seg === Seg.FS || seg === Seg.GS ? base + offset : offset);
    const fault = { vector: seg === Seg.SS ? SS : GP, error: 0 };
    const rights = view.getUint32(segmentAt(seg) + SEG_RIGHTS, true);
    const limit = BigInt(view.getUint32(segmentAt(seg) + SEG_LIMIT, true));
    const isCode = (rights & RIGHTS.CODE) !== 0;
    if ((rights & RIGHTS.UNUSABLE) !== 0) return fault;
    if (isWrite ? isCode || (rights & RIGHTS.WRITABLE) === 0 : isCode && (rights & 2) === 0)
      return fault;
    const last = offset + BigInt(bytes - 1);
    if (!isCode && (rights & RIGHTS.EXPAND_DOWN) !== 0) {
      const top = (rights & RIGHTS.BIG) !== 0 ? 0xffff_ffffn : 0xffffn;
      if (offset <= limit || last > top) return fault;
    } else if (last > limit) return fault;
    return (base + offset) & 0xffff_ffffn;
  }

  /** The fault that a failed access has left. */
  #pending(): Fault {
    const view = this.#view;
    const pending = view.getUint32(S.PENDING.at, true);
    const vector = view.getUint32(S.PENDING_VECTOR.at, true);
    view.setUint32(S.PENDING.at, 0, true);
    // An operand in device space, or a page table there: no processor of this platform can be asked for it.
    if (pending !== Pending.EVENT) return { vector: GP, error: 0 };
    return { vector, error: view.getUint32(S.PENDING_ERROR.at, true) };
  }

  /** Reads the memory operand: 4, 8 or 16 bytes, as words of 8. */
  read(bytes: 4 | 8 | 16): [bigint, bigint] | Fault {
    const linear = this.#linear(bytes, false);
    if (isFault(linear)) return linear;
    const host = this.#engine.hostRead(linear, bytes);
    if (host === 0) return this.#pending();
    const view = this.#view;
    if (bytes === 4) return [BigInt(view.getUint32(host, true)), 0n];
    return [view.getBigUint64(host, true), bytes === 16 ? view.getBigUint64(host + 8, true) : 0n];
  }

  write(bytes: 4 | 8, value: bigint): Fault | null {
    const linear = this.#linear(bytes, true);
    if (isFault(linear)) return linear;
    const host = this.#engine.hostWrite(linear, bytes);
    if (host === 0) return this.#pending();
    if (bytes === 4) this.#view.setUint32(host, Number(value & 0xffff_ffffn), true);
    else this.#view.setBigUint64(host, value, true);
    if (host === BOUNCE_WRITE) this.#engine.commitWrite(host);
    return null;
  }
}
