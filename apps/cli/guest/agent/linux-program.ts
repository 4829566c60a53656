/**
 * Small programs for Linux without a library: words, buffers, conditions and system calls, written down in TypeScript and assembled for
 * amd64 or i386, the same text for both.
 *
 * A Value is a number or code that leaves its value in the accumulator; the rest is on the stack while it is worked out. Variables are words
 * at fixed addresses: functions have no arguments of their own, and none may call itself. The result is a static ELF file with one segment
 * of code and one of zeros.
 */
import {
  type Argument,
  Assembler,
  byte,
  dword,
  qword,
} from "../../../../src/processor/isa/assemble.ts";
import type { Operand } from "../../../../src/processor/isa/instruction.ts";
import {
  eax,
  ebp,
  ebx,
  ecx,
  edi,
  edx,
  esi,
  esp,
  r8,
  r9,
  r10,
  rax,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
} from "../../../../src/processor/isa/registers.ts";
import { elfExecutable } from "./elf-executable.ts";
import { type SystemCall, systemCallNumber } from "./system-calls.ts";

export type Bits = 32 | 64;
export type Value = number | (() => void);

/** A variable of a machine word. */
export interface Word {
  readonly get: Value;
  readonly address: number;
}

/** Comparisons, by the condition of the jump that is taken when they do not hold. */
const UNLESS = { "=": "jne", "!=": "je", "<": "jge", ">=": "jl", ">": "jle", "<=": "jg" } as const;
type Comparison = keyof typeof UNLESS;
export type Condition = readonly [left: Value, comparison: Comparison, right: Value];

const CODE = 0x40_0000;
const DATA = 0x80_0000;

export class LinuxProgram {
  readonly bits: Bits;
  readonly wordBytes: 4 | 8;
  readonly #a: Assembler;
  readonly #accumulator: Operand;
  readonly #counter: Operand;
  #data = DATA;
  #labels = 0;
  readonly #strings = new Map<string, string>();
  readonly #loops: string[] = [];

  constructor(bits: Bits) {
    this.bits = bits;
    this.wordBytes = bits === 64 ? 8 : 4;
    this.#a = new Assembler(bits, CODE + elfExecutable.headerBytes(bits));
    this.#accumulator = bits === 64 ? rax : eax;
    this.#counter = bits === 64 ? rcx : ecx;
  }

  // ---- data ----

  word(): Word {
    const address = this.buffer(8);
    return { address, get: () => this.#emit("mov", this.#accumulator, this.#at(address)) };
  }

  /** Zeros; answers their address. */
  buffer(bytes: number): number {
    const address = this.#data;
    this.#data += (bytes + 15) & ~15;
    return address;
  }

  /** The address of text, with a NUL behind it. */
  text(text: string): Value {
    let label = this.#strings.get(text);
    if (!label) {
      label = `text${this.#strings.size}`;
      this.#strings.set(text, label);
    }
    const name = label;
    return () => {
      if (this.bits === 64) this.#emit("lea", rax, qword(name));
      else this.#emit("mov", eax, name);
    };
  }

  // ---- values ----

  readonly add = (left: Value, right: Value): Value => this.#binary("add", left, right);
  readonly sub = (left: Value, right: Value): Value => this.#binary("sub", left, right);
  readonly and = (left: Value, right: Value): Value => this.#binary("and", left, right);
  readonly or = (left: Value, right: Value): Value => this.#binary("or", left, right);

  /** Times the size of a word. */
  words(count: Value): Value {
    return () => {
      this.#load(count);
      this.#emit("shl", this.#accumulator, this.bits === 64 ? 3 : 2);
    };
  }

  negated(value: Value): Value {
    return () => {
      this.#load(value);
      this.#emit("neg", this.#accumulator);
    };
  }

  byteAt(address: Value): Value {
    return () => {
      this.#load(address);
      this.#emit("movzx", eax, byte(this.#accumulator));
    };
  }

  halfAt(address: Value): Value {
    return this.and(this.intAt(address), 0xffff);
  }

  /** 32 bits, unsigned on amd64. */
  intAt(address: Value): Value {
    return () => {
      this.#load(address);
      this.#emit("mov", eax, dword(this.#accumulator));
    };
  }

  wordAt(address: Value): Value {
    return () => {
      this.#load(address);
      this.#emit("mov", this.#accumulator, this.bits === 64 ? qword(rax) : dword(eax));
    };
  }

  /** A system call; an error is negative. */
  call(name: SystemCall, ...args: Value[]): Value {
    const into = this.bits === 64 ? [rdi, rsi, rdx, r10, r8, r9] : [ebx, ecx, edx, esi, edi, ebp];
    return () => {
      for (const arg of args) {
        this.#load(arg);
        this.#emit("push", this.#accumulator);
      }
      for (const register of into.slice(0, args.length).reverse()) this.#emit("pop", register);
      this.#emit("mov", eax, systemCallNumber(name, this.bits));
      if (this.bits === 64) this.#emit("syscall");
      else this.#emit("int", 0x80);
    };
  }

  // ---- statements ----

  do(value: Value): void {
    this.#load(value);
  }

  set(word: Word, value: Value): void {
    this.#load(value);
    this.#emit("mov", this.#at(word.address), this.#accumulator);
  }

  /** Stores 32 bits. */
  setInt(address: Value, value: Value): void {
    this.#pair(address, value, () => this.#emit("mov", dword(this.#accumulator), ecx));
  }

  setWordAt(address: Value, value: Value): void {
    const at = this.bits === 64 ? qword(rax) : dword(eax);
    this.#pair(address, value, () => this.#emit("mov", at, this.#counter));
  }

  /** Moves `count` bytes to a lower address. */
  move(target: Value, source: Value, count: Value): void {
    for (const value of [target, source, count]) {
      this.#load(value);
      this.#emit("push", this.#accumulator);
    }
    const [si, di] = this.bits === 64 ? [rsi, rdi] : [esi, edi];
    for (const register of [this.#counter, si, di]) this.#emit("pop", register);
    this.#emit("rep movsb");
  }

  when([left, comparison, right]: Condition, then: () => void, otherwise?: () => void): void {
    const [no, end] = [this.#label(), this.#label()];
    this.#pair(left, right, () => this.#emit("cmp", this.#accumulator, this.#counter));
    this.#emit(UNLESS[comparison], no);
    then();
    if (otherwise) this.#emit("jmp", end);
    this.#a.label(no);
    otherwise?.();
    this.#a.label(end);
  }

  loop(body: () => void): void {
    const [start, end] = [this.#label(), this.#label()];
    this.#loops.push(end);
    this.#a.label(start);
    body();
    this.#emit("jmp", start);
    this.#a.label(end);
    this.#loops.pop();
  }

  /** Out of the innermost loop. */
  leave(): void {
    this.#emit("jmp", this.#loops.at(-1)!);
  }

  while(condition: Condition, body: () => void): void {
    this.loop(() => {
      this.when(condition, body, () => this.leave());
    });
  }

  procedure(name: string, body: () => void): void {
    this.#a.label(name);
    body();
    this.#emit("ret");
  }

  run(name: string): void {
    this.#emit("call", name);
  }

  return(): void {
    this.#emit("ret");
  }

  /** At the start of the program: the address of the count of arguments, behind which they are, and the environment. */
  start(stack: Word): void {
    this.#emit("mov", this.#at(stack.address), this.bits === 64 ? rsp : esp);
  }

  toElf(): Uint8Array {
    for (const [text, label] of this.#strings) {
      this.#a.label(label);
      this.#a.bytes(Buffer.from(`${text}\0`));
    }
    return elfExecutable.build({
      bits: this.bits,
      code: this.#a.assemble(),
      codeAddress: CODE,
      dataAddress: DATA,
      dataBytes: this.#data - DATA,
    });
  }

  // ---- code ----

  #emit(text: string, ...args: Argument[]): void {
    this.#a.emit(text, ...args);
  }

  #at(address: number): Operand {
    return (this.bits === 64 ? qword(address) : dword(address)) as Operand;
  }

  #label(): string {
    this.#labels += 1;
    return `l${this.#labels}`;
  }

  #load(value: Value): void {
    if (typeof value === "number") this.#emit("mov", this.#accumulator, value);
    else value();
  }

  /** The left value in the accumulator, the right one in the counter. */
  #pair(left: Value, right: Value, use: () => void): void {
    if (typeof right === "number") {
      this.#load(left);
      this.#emit("mov", this.#counter, right);
    } else {
      this.#load(right);
      this.#emit("push", this.#accumulator);
      this.#load(left);
      this.#emit("pop", this.#counter);
    }
    use();
  }

  #binary(name: string, left: Value, right: Value): Value {
    return () => this.#pair(left, right, () => this.#emit(name, this.#accumulator, this.#counter));
  }
}
