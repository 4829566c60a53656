/** Registers of one kind as locals of a region: loaded where it is entered and stored where it is left, those of them that its code needs. */
import type { FunctionBuilder, Variable } from "../ir/function.ts";
import type { Val } from "../ir/value.ts";

const REGISTERS = 16;

export class RegisterFile {
  readonly #fn: FunctionBuilder;
  readonly #type: "i64" | "v128";
  readonly #variables: readonly Variable[];
  /** Read or written anywhere, and written; filled while the code is made. */
  readonly #used = new Set<number>();
  readonly #written = new Set<number>();

  constructor(fn: FunctionBuilder, type: "i64" | "v128") {
    this.#fn = fn;
    this.#type = type;
    this.#variables = Array.from({ length: REGISTERS }, () => fn.declare(type));
  }

  read(n: number): Val {
    this.#used.add(n);
    return this.#variables[n]!.read();
  }

  write(n: number, v: Val): void {
    this.#used.add(n);
    this.#written.add(n);
    this.#variables[n]!.set(v);
  }

  /** Emits the loads, once all code has been made. `at`: address of a register's slot. */
  load(at: (n: number) => number): void {
    for (const n of this.#used)
      this.#variables[n]!.set(this.#fn.load(`${this.#type}.load`, 0, at(n)));
  }

  store(at: (n: number) => number): void {
    for (const n of this.#written)
      this.#fn.store(`${this.#type}.store`, 0, this.#variables[n]!.peek(), at(n));
  }
}
