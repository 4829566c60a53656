/** The flags while a region's code is made: as operands where the last instruction left them so, else in two variables of words. */
import { invariant } from "../../base/invariant.ts";
import type { FunctionBuilder, Variable } from "../ir/function.ts";
import type { Type } from "../ir/ops.ts";
import type { Val } from "../ir/value.ts";
import {
  carryWordOf,
  type FlagShape,
  flagEffect,
  fromOperands,
  type LazyFlags,
  resultWord,
} from "./lazy-flags.ts";

export class FlagState {
  readonly result: Variable;
  readonly carry: Variable;
  /** Operands on their way to a block with several predecessors. */
  readonly #operands: Readonly<Record<"i32" | "i64", readonly [Variable, Variable]>>;
  #known: LazyFlags | null = null;
  /** Flags of the instruction being made, which count once it is complete. */
  #noted: LazyFlags | null = null;
  #isNoting = false;
  #mayUseWords = true;

  constructor(fn: FunctionBuilder) {
    const pair = (type: Type): readonly [Variable, Variable] => [
      fn.declare(type),
      fn.declare(type),
    ];
    this.result = fn.declare("i64");
    this.carry = fn.declare("i32");
    this.#operands = { i32: pair("i32"), i64: pair("i64") };
  }

  get known(): LazyFlags | null {
    return this.#known;
  }

  restore(known: LazyFlags | null): void {
    this.#known = known;
  }

  /** Before the semantics of an instruction. */
  begin(sem: string): void {
    const effect = flagEffect(sem);
    this.#isNoting = effect !== "keeps" && effect !== "words";
    this.#mayUseWords = effect === "words";
    this.#noted = null;
    if (this.#mayUseWords) {
      this.writeWords();
      this.#known = null;
    }
  }

  /** After it. */
  end(): void {
    if (this.#noted) this.#known = this.#noted;
    this.#noted = null;
  }

  note(flags: LazyFlags): boolean {
    if (this.#isNoting) this.#noted = flags;
    return this.#isNoting;
  }

  /** A condition is about to be read from the words, where the flags are. */
  allowWords(): void {
    this.#mayUseWords = true;
  }

  /** The words are about to be read or written. */
  checkWords(): void {
    invariant(this.#mayUseWords, "an instruction said to keep the flags as they are uses them");
  }

  /** Emits the two words of the flags as they were before the current instruction. */
  writeWords(): void {
    if (!this.#known) return;
    this.result.set(resultWord(this.#known));
    this.carry.set(carryWordOf(this.#known));
  }

  /** Emits what a block expects that takes the flags in `shape`. */
  passOn(shape: FlagShape): void {
    if (shape === "words") {
      this.writeWords();
      return;
    }
    invariant(this.#known, "flags as operands");
    const [a, b] = this.#variables(shape.bytes);
    if (shape.kind === "logic") a.set(this.#known.r);
    else {
      a.set(this.#known.a);
      b.set(this.#known.b);
    }
  }

  /** Takes them at the beginning of a block with several predecessors. */
  receive(shape: FlagShape): void {
    if (shape === "words") {
      this.#known = null;
      return;
    }
    const [a, b] = this.#variables(shape.bytes);
    const first: Val = a.read();
    this.#known = fromOperands(
      shape.kind,
      shape.bytes,
      first,
      shape.kind === "logic" ? first : b.read(),
    );
  }

  #variables(bytes: number): readonly [Variable, Variable] {
    return this.#operands[bytes === 8 ? "i64" : "i32"];
  }
}
