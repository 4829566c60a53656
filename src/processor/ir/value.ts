/**
 * A value of the intermediate representation: an operation on earlier values, immutable once made.
 *
 * Pure values have no position: function.ts emits them where they are used (once) or where they were made (if used more often).
 * Impure ones (loads, calls, reads of a variable) are evaluated exactly where they were made. Constants fold here, so that the same
 * semantic text gives a field of a decoded record in one reading and an immediate in another.
 *
 * Methods are WebAssembly's instructions with the type taken from the receiver; a number stands for a constant of that type.
 */
import { invariant } from "../../base/invariant.ts";
import { foldBinary, foldUnary } from "./fold.ts";
import type { FunctionBuilder } from "./function.ts";
import { type AccessInfo, type OpInfo, opOf, type Type } from "./ops.ts";

export type ValueKind = "const" | "pure" | "load" | "call" | "read" | "peek";
export type Operand = Val | number | bigint;

export class Val {
  readonly fn: FunctionBuilder;
  readonly kind: ValueKind;
  readonly type: Type;
  readonly args: readonly Val[];
  /** const: number (i32, f32, f64), bigint (i64) or 16 bytes; pure: the operation; load: access; others: see function.ts. */
  op: OpInfo | null = null;
  access: AccessInfo | null = null;
  imm: number | bigint | Uint8Array = 0;
  /** Set by function.ts while it emits. */
  uses = 0;
  marked = false;
  local = -1;
  target: unknown = null;

  constructor(fn: FunctionBuilder, kind: ValueKind, type: Type, args: readonly Val[]) {
    this.fn = fn;
    this.kind = kind;
    this.type = type;
    this.args = args;
  }

  get isConst(): boolean {
    return this.kind === "const";
  }

  /** True for the integer constant n. */
  is(n: number): boolean {
    if (this.kind !== "const") return false;
    return this.type === "i64" ? this.imm === BigInt(n) : this.imm === n;
  }

  #coerce(x: Operand): Val {
    if (x instanceof Val) return x;
    return this.type === "i64" ? this.fn.i64(x) : this.fn.constant(this.type, Number(x));
  }

  #op(name: string): OpInfo {
    const op = opOf(this.type, name);
    if (!op) throw new Error(`no operation ${this.type}.${name}`);
    return op;
  }

  /** Any pure binary operation of this value's type by its short WebAssembly name. */
  bin(name: string, other: Operand): Val {
    const op = this.#op(name);
    const y = this.#coerce(other);
    invariant(y.type === op.args[1], "operands of one type");
    return foldBinary(op, this, y) ?? this.fn.pure(op, [this, y]);
  }

  un(name: string): Val {
    const op = this.#op(name);
    return foldUnary(op, this) ?? this.fn.pure(op, [this]);
  }

  add(x: Operand): Val {
    return this.bin("add", x);
  }
  sub(x: Operand): Val {
    return this.bin("sub", x);
  }
  mul(x: Operand): Val {
    return this.bin("mul", x);
  }
  divU(x: Operand): Val {
    return this.bin("div_u", x);
  }
  divS(x: Operand): Val {
    return this.bin("div_s", x);
  }
  remU(x: Operand): Val {
    return this.bin("rem_u", x);
  }
  remS(x: Operand): Val {
    return this.bin("rem_s", x);
  }
  and(x: Operand): Val {
    return this.bin("and", x);
  }
  or(x: Operand): Val {
    return this.bin("or", x);
  }
  xor(x: Operand): Val {
    return this.bin("xor", x);
  }
  shl(x: Operand): Val {
    return this.bin("shl", x);
  }
  shrU(x: Operand): Val {
    return this.bin("shr_u", x);
  }
  shrS(x: Operand): Val {
    return this.bin("shr_s", x);
  }
  rotl(x: Operand): Val {
    return this.bin("rotl", x);
  }
  rotr(x: Operand): Val {
    return this.bin("rotr", x);
  }
  eq(x: Operand): Val {
    return this.bin("eq", x);
  }
  ne(x: Operand): Val {
    return this.bin("ne", x);
  }
  ltU(x: Operand): Val {
    return this.bin("lt_u", x);
  }
  ltS(x: Operand): Val {
    return this.bin("lt_s", x);
  }
  gtU(x: Operand): Val {
    return this.bin("gt_u", x);
  }
  gtS(x: Operand): Val {
    return this.bin("gt_s", x);
  }
  leU(x: Operand): Val {
    return this.bin("le_u", x);
  }
  leS(x: Operand): Val {
    return this.bin("le_s", x);
  }
  geU(x: Operand): Val {
    return this.bin("ge_u", x);
  }
  geS(x: Operand): Val {
    return this.bin("ge_s", x);
  }
  eqz(): Val {
    return this.un("eqz");
  }
  /** 1 if not zero, else 0 (i32). */
  nez(): Val {
    return this.ne(0);
  }
  clz(): Val {
    return this.un("clz");
  }
  ctz(): Val {
    return this.un("ctz");
  }
  popcnt(): Val {
    return this.un("popcnt");
  }
  not(): Val {
    return this.xor(-1);
  }
  neg(): Val {
    return this.#coerce(0).sub(this);
  }
  sext8(): Val {
    return this.un("extend8_s");
  }
  sext16(): Val {
    return this.un("extend16_s");
  }
  sext32(): Val {
    return this.type === "i64" ? this.un("extend32_s") : this;
  }

  /** The low 32 bits as i32 (identity on i32). */
  wrap(): Val {
    return this.type === "i32" ? this : this.fn.op("i32.wrap_i64", this);
  }
  /** Zero-extended to i64 (identity on i64). */
  extU(): Val {
    return this.type === "i64" ? this : this.fn.op("i64.extend_i32_u", this);
  }
  /** Sign-extended to i64 (identity on i64). */
  extS(): Val {
    return this.type === "i64" ? this : this.fn.op("i64.extend_i32_s", this);
  }
  /** The high 32 bits of an i64 as i32. */
  high(): Val {
    return this.shrU(32).wrap();
  }

  /** this ? x : y, both evaluated. The receiver is i32 or i64 (tested against zero). */
  select(x: Val, y: Val): Val {
    return this.fn.select(this, x, y);
  }
}
