/**
 * Assembler: mnemonics, operands and labels to bytes, by the decoder's rows. For bare-metal guests and generated test programs.
 *
 *     const code = asm64(0x100000, (a) => {
 *       a.emit("mov", ecx, 10);
 *       a.label("loop");
 *       a.emit("lock add", qword("counter"), rcx);
 *       a.emit("loop", "loop");
 *       a.emit("hlt");
 *       a.label("counter").dq(0);
 *     });
 *
 * One pass: a jump back is as short as it can be, a jump forward is near unless `short("label")`. Each instruction gets its shortest form.
 * In 64-bit mode an operand that is a label alone is RIP-relative. Mistakes throw HypolithError "assemble".
 */
import { HypolithError } from "../../base/errors.ts";
import { matchBest, type Prefixes, type Use } from "./asm-match.ts";
import { type Argument, imm, LabelRef } from "./asm-operands.ts";
import type { Mode, Operand } from "./instruction.ts";

export {
  type AddressPart,
  type Argument,
  addr,
  byte,
  dword,
  far,
  imm,
  mem,
  qword,
  short,
  tbyte,
  times,
  word,
  xmmword,
} from "./asm-operands.ts";

interface Fixup {
  readonly use: Use;
  /** Offset of the instruction or datum, and of its end. */
  readonly start: number;
  readonly end: number;
}

const PREFIX_WORDS: Record<string, (p: Prefixes) => void> = {
  lock: (p) => {
    p.lock = true;
  },
  rep: (p) => {
    p.rep = 0xf3;
  },
  repe: (p) => {
    p.rep = 0xf3;
  },
  repz: (p) => {
    p.rep = 0xf3;
  },
  repne: (p) => {
    p.rep = 0xf2;
  },
  repnz: (p) => {
    p.rep = 0xf2;
  },
};

export class Assembler {
  readonly origin: number;
  #mode: Mode;
  readonly #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #fixups: Fixup[] = [];

  /** `origin` is the address of the first byte (may be negative for the upper half). */
  constructor(mode: Mode, origin = 0) {
    this.#mode = mode;
    this.origin = origin;
  }

  get mode(): Mode {
    return this.#mode;
  }

  /** Address of the next byte. */
  get here(): number {
    return this.origin + this.#bytes.length;
  }

  /** Switches the mode instructions are encoded for (`bits 32`). */
  bits(mode: Mode): this {
    this.#mode = mode;
    return this;
  }

  label(name: string): this {
    if (this.#labels.has(name)) throw new HypolithError("assemble", `label ${name} twice`);
    this.#labels.set(name, this.here);
    return this;
  }

  /** Address of a label defined so far. */
  addressOf(name: string): number {
    const address = this.#labels.get(name);
    if (address === undefined) throw new HypolithError("assemble", `label ${name} is not defined`);
    return address;
  }

  /** One instruction; prefixes stand before the mnemonic: "lock xadd", "rep movsb". */
  emit(text: string, ...args: readonly Argument[]): this {
    const words = text.toLowerCase().split(" ");
    const name = words.pop()!;
    const prefixes: Prefixes = { lock: false, rep: 0 };
    for (const word of words) {
      const apply = PREFIX_WORDS[word];
      if (!apply) throw new HypolithError("assemble", `unknown prefix ${word}`);
      apply(prefixes);
    }
    const distance = (label: LabelRef, length: number): number | undefined => {
      const target = this.#labels.get(label.name);
      return target === undefined ? undefined : target + label.addend - (this.here + length);
    };
    const match = matchBest({
      name,
      mode: this.#mode,
      args: args.map(toOperand),
      prefixes,
      distance,
    });
    this.#push(match.encoding.bytes, match.uses);
    return this;
  }

  #push(bytes: readonly number[], uses: readonly Use[]): void {
    const start = this.#bytes.length;
    for (const byte of bytes) this.#bytes.push(byte & 255);
    for (const use of uses) this.#fixups.push({ use, start, end: this.#bytes.length });
  }

  bytes(data: Iterable<number>): this {
    for (const byte of data) this.#bytes.push(byte & 255);
    return this;
  }

  db(...values: readonly number[]): this {
    return this.bytes(values);
  }

  dw(...values: readonly (number | string | LabelRef)[]): this {
    return this.#data(values, 2);
  }

  dd(...values: readonly (number | string | LabelRef)[]): this {
    return this.#data(values, 4);
  }

  dq(...values: readonly (number | bigint | string | LabelRef)[]): this {
    return this.#data(values, 8);
  }

  #data(values: readonly (number | bigint | string | LabelRef)[], size: number): this {
    for (const value of values) {
      if (typeof value === "string" || value instanceof LabelRef) {
        const label = typeof value === "string" ? new LabelRef(value) : value;
        this.#push(new Array<number>(size).fill(0), [{ label, at: 0, size, isRelative: false }]);
      } else {
        const big = BigInt(value);
        for (let i = 0; i < size; i++) this.#bytes.push(Number((big >> BigInt(8 * i)) & 255n));
      }
    }
    return this;
  }

  /** Characters as Latin-1 bytes. */
  ascii(text: string): this {
    return this.bytes(Array.from(text, (c) => c.charCodeAt(0)));
  }

  space(count: number, fill = 0): this {
    return this.bytes(new Array<number>(count).fill(fill));
  }

  /** Fills up to a multiple of `boundary` (an address, so counted from 0, not from the origin). */
  align(boundary: number, fill = 0x90): this {
    const over = ((this.here % boundary) + boundary) % boundary;
    return over === 0 ? this : this.space(boundary - over, fill);
  }

  /** Fills up to an address. */
  org(address: number, fill = 0): this {
    if (address < this.here)
      throw new HypolithError("assemble", `org 0x${address.toString(16)} is behind`);
    return this.space(address - this.here, fill);
  }

  /** The bytes, with every label filled in. */
  assemble(): Uint8Array {
    const out = Uint8Array.from(this.#bytes);
    const view = new DataView(out.buffer);
    for (const { use, start, end } of this.#fixups) {
      const target = this.addressOf(use.label.name) + use.label.addend;
      const value = use.isRelative ? target - (this.origin + end) : target;
      patch(view, start + use.at, use, value);
    }
    return out;
  }
}

function patch(view: DataView, at: number, use: Use, value: number): void {
  const limit = 2 ** (8 * use.size);
  const isSigned = use.isRelative && use.size === 1;
  if (use.size < 8 && (value < -limit / 2 || value >= (isSigned ? limit / 2 : limit))) {
    throw new HypolithError(
      "assemble",
      `${use.label.name}: 0x${value.toString(16)} does not fit ${use.size} bytes`,
    );
  }
  if (use.size === 1) view.setInt8(at, value);
  else if (use.size === 2) view.setInt16(at, value, true);
  else if (use.size === 4) view.setInt32(at, value, true);
  else view.setBigInt64(at, BigInt(value), true);
}

function toOperand(arg: Argument): Operand | LabelRef {
  if (typeof arg === "string") return new LabelRef(arg);
  return typeof arg === "number" || typeof arg === "bigint" ? imm(arg) : arg;
}

function assembleIn(mode: Mode, origin: number, build: (a: Assembler) => void): Uint8Array {
  const a = new Assembler(mode, origin);
  build(a);
  return a.assemble();
}

export const asm16 = (origin: number, build: (a: Assembler) => void): Uint8Array =>
  assembleIn(16, origin, build);
export const asm32 = (origin: number, build: (a: Assembler) => void): Uint8Array =>
  assembleIn(32, origin, build);
export const asm64 = (origin: number, build: (a: Assembler) => void): Uint8Array =>
  assembleIn(64, origin, build);
