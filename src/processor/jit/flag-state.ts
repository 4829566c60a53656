/**
 * The flags while a region's code is made. What the last instructions left is kept as values, and written to the two variables of words
 * (semantics/flags.ts) where that cannot be put off: before an instruction that sets flags under a condition, and where ways meet.
 * An exit writes them too, off the hot path.
 */
import { invariant } from "../../base/invariant.ts";
import type { FunctionBuilder, Variable } from "../ir/function.ts";
import type { Type } from "../ir/ops.ts";
import type { Val } from "../ir/value.ts";
import {
  carryWordOf,
  type FlagShape,
  flagUse,
  fromOperands,
  type LazyFlags,
  resultWord,
} from "./lazy-flags.ts";

/** Where the flags are: as operands, else each word as a value, or (null) in its variable. */
export interface Flags {
  readonly operands: LazyFlags | null;
  readonly result: Val | null;
  readonly carry: Val | null;
}

const IN_VARIABLES: Flags = { operands: null, result: null, carry: null };
/** Words that are made from earlier words this often are written, lest every exit repeats all of it. */
const MAX_CHAIN = 6;

export class FlagState {
  readonly result: Variable;
  readonly carry: Variable;
  readonly #fn: FunctionBuilder;
  /** Operands on their way to a block with several predecessors. */
  readonly #operands: Readonly<Record<"i32" | "i64", readonly [Variable, Variable]>>;
  #flags: Flags = IN_VARIABLES;
  /** As they are when the current instruction is left before it is done. */
  #before: Flags = IN_VARIABLES;
  #use: ReturnType<typeof flagUse> = "keeps";
  #nesting = 0;
  #chain = 0;

  constructor(fn: FunctionBuilder) {
    const pair = (type: Type): readonly [Variable, Variable] => [
      fn.declare(type),
      fn.declare(type),
    ];
    this.#fn = fn;
    this.result = fn.declare("i64");
    this.carry = fn.declare("i32");
    this.#operands = { i32: pair("i32"), i64: pair("i64") };
  }

  get operands(): LazyFlags | null {
    return this.#flags.operands;
  }

  save(): Flags {
    return this.#flags;
  }

  restore(flags: Flags): void {
    this.#flags = flags;
    this.#before = flags;
  }

  /** Before the semantics of an instruction. */
  begin(sem: string, hasFixedCount: boolean): void {
    this.#use = flagUse(sem, hasFixedCount);
    this.#nesting = this.#fn.nesting;
    if (this.#use === "conditional" || this.#chain > MAX_CHAIN) this.writeWords();
    this.#before = this.#flags;
  }

  end(): void {
    this.#before = this.#flags;
  }

  /** A condition is about to be read from the words. */
  allowReading(): void {
    if (this.#use === "keeps") this.#use = "words";
  }

  note(operands: LazyFlags): boolean {
    if (this.#use !== "sets") return false;
    this.#flags = { operands, result: null, carry: null };
    this.#chain = 0;
    return true;
  }

  readResult(): Val {
    this.#check();
    const { operands, result } = this.#flags;
    if (operands) return resultWord(operands);
    return result ?? this.result.read();
  }

  readCarry(): Val {
    this.#check();
    const { operands, carry } = this.#flags;
    if (operands) return carryWordOf(operands);
    return carry ?? this.carry.read();
  }

  setResult(v: Val): void {
    if (this.#isPutOff()) this.#flags = { operands: null, result: v, carry: this.#carryValue() };
    else this.result.set(v);
  }

  setCarry(v: Val): void {
    if (this.#isPutOff()) {
      this.#chain++;
      this.#flags = { operands: null, result: this.#resultValue(), carry: v };
    } else this.carry.set(v);
  }

  #carryValue(): Val | null {
    const { operands, carry } = this.#flags;
    return operands ? carryWordOf(operands) : carry;
  }

  #resultValue(): Val | null {
    const { operands, result } = this.#flags;
    return operands ? resultWord(operands) : result;
  }

  #isPutOff(): boolean {
    this.#check();
    if (this.#use === "conditional") return false;
    invariant(this.#fn.nesting === this.#nesting, "flags set under a condition, unannounced");
    return true;
  }

  #check(): void {
    invariant(this.#use !== "keeps", "flags used by an instruction said to keep them");
  }

  /** Writes the words, and leaves the flags there. */
  writeWords(): void {
    const result = this.#resultValue();
    const carry = this.#carryValue();
    if (result) this.result.set(result);
    if (carry) this.carry.set(carry);
    this.#flags = IN_VARIABLES;
    this.#chain = 0;
  }

  /** Emits the words as they were before the current instruction, for an exit. */
  writeForExit(): void {
    const after = this.#flags;
    this.#flags = this.#before;
    const result = this.#resultValue();
    const carry = this.#carryValue();
    if (result) this.result.setCold(result);
    if (carry) this.carry.setCold(carry);
    this.#flags = after;
  }

  /** Emits what a block expects that takes the flags in `shape`. The flags stay as they are for other ways. */
  passOn(shape: FlagShape): void {
    const flags = this.#flags;
    if (shape === "words") {
      this.writeWords();
      this.#flags = flags;
      return;
    }
    const { operands } = flags;
    invariant(operands, "flags as operands");
    const [a, b] = this.#variables(shape.bytes);
    if (shape.kind === "logic") a.set(operands.r);
    else {
      a.set(operands.a);
      b.set(operands.b);
    }
  }

  /** Takes them at the beginning of a block with several predecessors. */
  receive(shape: FlagShape): void {
    this.#chain = 0;
    if (shape === "words") this.#flags = IN_VARIABLES;
    else {
      const [a, b] = this.#variables(shape.bytes);
      const first: Val = a.read();
      const second = shape.kind === "logic" ? first : b.read();
      const operands = fromOperands(shape.kind, shape.bytes, first, second);
      this.#flags = { operands, result: null, carry: null };
    }
    this.#before = this.#flags;
  }

  #variables(bytes: number): readonly [Variable, Variable] {
    return this.#operands[bytes === 8 ? "i64" : "i32"];
  }
}
