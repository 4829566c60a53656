/**
 * Builder of one WebAssembly function, in structured statements over values.
 *
 * Statements run in the order they are made. Values are in value.ts; a value made inside a nested body may be used only there.
 * finish() marks what is needed from the statements down, then emits once: single-use pure values at their use, multi-use ones into a
 * local where they were made, impure ones into a local at their place. Locals are recycled at the end of each body, which keeps a
 * function with a thousand handlers small. A `set` directly followed by its only `get` is removed.
 */
import { InvariantError, invariant } from "../../base/invariant.ts";
import { ByteWriter } from "./bytes.ts";
import { foldUnary } from "./fold.ts";
import type { FunctionRef } from "./module.ts";
import { LOADS, OPS, type OpInfo, STORES, TYPE_CODE, type Type } from "./ops.ts";
import { type Operand, Val } from "./value.ts";

export type Body = () => void;

/** How a condition mostly is: a word to the engine, which keeps what is rare out of the way. */
export const Hint = { UNLIKELY: 0, LIKELY: 1 } as const;
export type Hint = (typeof Hint)[keyof typeof Hint];

/** A hint and the place of its branch in the function's body. */
export interface PlacedHint {
  readonly at: number;
  readonly hint: Hint;
}

export class Label {
  frame = -1;
}

/** A mutable local. `read` is a snapshot at this place; `peek` is the live local, for when no `set` comes before the use. */
export class Variable {
  readonly fn: FunctionBuilder;
  readonly type: Type;
  local = -1;
  /** A variable that nobody reads or sets gets no local: unoptimised code clears every one of them at each call. */
  isUsed = false;

  constructor(fn: FunctionBuilder, type: Type) {
    this.fn = fn;
    this.type = type;
  }

  read(): Val {
    this.isUsed = true;
    const v = new Val(this.fn, "read", this.type, []);
    v.target = this;
    return this.fn.place(v);
  }

  peek(): Val {
    this.isUsed = true;
    const v = new Val(this.fn, "peek", this.type, []);
    v.target = this;
    return v;
  }

  set(x: Operand): void {
    this.fn.statement({ kind: "set", variable: this, value: this.#typed(x), isCold: false });
  }

  /** A `set` where time does not matter: pure values that nothing else needs are computed there, however often they are used so. */
  setCold(x: Operand): void {
    this.fn.statement({ kind: "set", variable: this, value: this.#typed(x), isCold: true });
  }

  #typed(x: Operand): Val {
    this.isUsed = true;
    const value = x instanceof Val ? x : this.fn.constant(this.type, x);
    if (value.type !== this.type) typeMismatch(`set of ${this.type} variable`, value);
    return value;
  }
}

function typeMismatch(what: string, value: Val | undefined): never {
  throw new InvariantError(`${what}: got ${value?.type ?? "nothing"}`);
}

type Statement =
  | { kind: "store"; info: (typeof STORES)[string]; address: Val; value: Val; offset: number }
  | { kind: "set"; variable: Variable; value: Val; isCold: boolean }
  | { kind: "var"; variable: Variable }
  | { kind: "if"; condition: Val; body: Item[]; otherwise: Item[] | null; hint: Hint | null }
  | { kind: "block"; label: Label; body: Item[]; loop: boolean }
  | { kind: "br"; label: Label; condition: Val | null }
  | { kind: "switch"; index: Val; cases: Item[][]; otherwise: Item[] }
  | { kind: "call"; target: FunctionRef; args: Val[]; indirect: Val | null }
  | { kind: "return"; values: Val[]; tail: FunctionRef | null }
  | { kind: "memory"; op: number; args: Val[] }
  | { kind: "unreachable" };
type Item = Val | Statement;

const GET = 0x20;
const SET = 0x21;
const TEE = 0x22;
const OUT_OF_SCOPE = -2;

export class FunctionBuilder {
  readonly params: readonly Type[];
  readonly results: readonly Type[];
  readonly #root: Item[] = [];
  #items: Item[] = this.#root;
  readonly #paramVariables: Variable[] = [];
  readonly #localTypes: Type[] = [];
  readonly #free: Record<Type, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  #out = new ByteWriter(256);
  #depth = 0;
  #nesting = 0;
  readonly #cold: Val[] = [];
  readonly #hints: PlacedHint[] = [];
  #headLength = 0;
  #lastSetLocal = -1;
  #lastSetAt = -1;
  #lastSetEnd = -1;

  constructor(params: readonly Type[], results: readonly Type[]) {
    this.params = params;
    this.results = results;
    params.forEach((type, i) => {
      const v = new Variable(this, type);
      v.local = i;
      this.#paramVariables.push(v);
    });
  }

  // ---- values ----

  param(i: number): Val {
    const v = this.#paramVariables[i];
    invariant(v, `parameter ${i}`);
    return v.peek();
  }

  paramVariable(i: number): Variable {
    const v = this.#paramVariables[i];
    invariant(v, `parameter ${i}`);
    return v;
  }

  constant(type: Type, n: number | bigint | Uint8Array): Val {
    const v = new Val(this, "const", type, []);
    if (type === "i32") v.imm = Number(n) | 0;
    else if (type === "i64") v.imm = BigInt.asIntN(64, BigInt(n as number));
    else v.imm = n;
    return v;
  }

  i32(n: number): Val {
    return this.constant("i32", n);
  }

  i64(n: number | bigint): Val {
    return this.constant("i64", n);
  }

  f32(n: number): Val {
    return this.constant("f32", n);
  }

  f64(n: number): Val {
    return this.constant("f64", n);
  }

  v128(bytes: Uint8Array): Val {
    invariant(bytes.length === 16, "v128 constant of 16 bytes");
    return this.constant("v128", bytes);
  }

  /** A v128 constant of two 64-bit halves. */
  v128x2(low: bigint, high: bigint): Val {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt.asUintN(64, low), true);
    view.setBigUint64(8, BigInt.asUintN(64, high), true);
    return this.v128(bytes);
  }

  pure(op: OpInfo, args: readonly Val[], imm: number | Uint8Array = 0): Val {
    const v = new Val(this, "pure", op.result, args);
    v.op = op;
    v.imm = imm;
    return this.place(v);
  }

  /** Any pure operation by its WebAssembly text name, e.g. op("i8x16.add_sat_s", a, b). */
  op(name: string, ...args: Val[]): Val {
    const op = OPS.get(name);
    if (!op) throw new InvariantError(`no operation ${name}`);
    for (let i = 0; i < Math.max(args.length, op.args.length); i++)
      if (args[i]?.type !== op.args[i]) typeMismatch(`operand ${i} of ${name}`, args[i]);
    if (args.length === 1) {
      const folded = this.#reinterpretLane(name, args[0]!) ?? foldUnary(op, args[0]!);
      if (folded) return folded;
    }
    return this.pure(op, args);
  }

  /** A float that lies in a vector need not go through an integer. */
  #reinterpretLane(name: string, x: Val): Val | null {
    const from = x.op?.name;
    if (name === "f64.reinterpret_i64" && from === "i64x2.extract_lane")
      return this.lane("f64x2.extract_lane", x.imm as number, ...x.args);
    if (name === "f32.reinterpret_i32" && from === "i32x4.extract_lane")
      return this.lane("f32x4.extract_lane", x.imm as number, ...x.args);
    return null;
  }

  /** A pure operation with a lane immediate, or 16 of them for i8x16.shuffle. */
  lane(name: string, lane: number | readonly number[], ...args: Val[]): Val {
    const op = OPS.get(name);
    invariant(op && op.immediate !== "none", `lane operation ${name}`);
    for (let i = 0; i < args.length; i++)
      if (args[i]!.type !== op.args[i]) typeMismatch(`operand ${i} of ${name}`, args[i]);
    const value = args[1];
    if (name === "i64x2.replace_lane" && value?.op?.name === "i64.reinterpret_f64")
      return this.pure(OPS.get("f64x2.replace_lane")!, [args[0]!, value.args[0]!], lane as number);
    if (name === "i32x4.replace_lane" && value?.op?.name === "i32.reinterpret_f32")
      return this.pure(OPS.get("f32x4.replace_lane")!, [args[0]!, value.args[0]!], lane as number);
    return this.pure(op, args, typeof lane === "number" ? lane : Uint8Array.from(lane));
  }

  select(condition: Val, x: Val, y: Val): Val {
    const c = condition.type === "i64" ? condition.ne(0) : condition;
    if (c.isConst) return c.is(0) ? y : x;
    if (x.type !== y.type) typeMismatch(`select of ${x.type}`, y);
    const v = new Val(this, "pure", x.type, [x, y, c]);
    return this.place(v);
  }

  /** Loads from linear memory at this place in the program. The address is i32. */
  load(name: string, address: Operand, offset = 0): Val {
    const info = LOADS[name];
    if (!info) throw new InvariantError(`no load ${name}`);
    const at = address instanceof Val ? address : this.i32(Number(address));
    invariant(at.type === "i32", "load address is i32");
    const v = new Val(this, "load", info.type, [at]);
    v.access = info;
    v.imm = offset;
    return this.place(v);
  }

  place(v: Val): Val {
    this.#items.push(v);
    return v;
  }

  // ---- statements ----

  statement(s: Statement): void {
    this.#items.push(s);
  }

  variable(type: Type, initial: Operand): Variable {
    const v = new Variable(this, type);
    this.statement({ kind: "var", variable: v });
    v.set(initial);
    return v;
  }

  /** A variable that the caller sets on every path before it is used. */
  declare(type: Type): Variable {
    const v = new Variable(this, type);
    this.statement({ kind: "var", variable: v });
    return v;
  }

  store(name: string, address: Operand, value: Operand, offset = 0): void {
    const info = STORES[name];
    if (!info) throw new InvariantError(`no store ${name}`);
    const at = address instanceof Val ? address : this.i32(Number(address));
    const x = value instanceof Val ? value : this.constant(info.type, value);
    if (at.type !== "i32") typeMismatch(`address of ${name}`, at);
    if (x.type !== info.type) typeMismatch(name, x);
    this.statement({ kind: "store", info, address: at, value: x, offset });
  }

  #body(build: Body): Item[] {
    const outer = this.#items;
    const items: Item[] = [];
    this.#items = items;
    this.#nesting++;
    build();
    this.#nesting--;
    this.#items = outer;
    return items;
  }

  if(condition: Val, then: Body, otherwise?: Body, hint: Hint | null = null): void {
    const c = condition.type === "i64" ? condition.ne(0) : condition;
    if (c.isConst) {
      if (!c.is(0)) then();
      else otherwise?.();
      return;
    }
    this.statement({
      kind: "if",
      condition: c,
      body: this.#body(then),
      otherwise: otherwise ? this.#body(otherwise) : null,
      hint,
    });
  }

  /** `if` whose condition mostly does not hold. */
  unlikely(condition: Val, then: Body): void {
    this.if(condition, then, undefined, Hint.UNLIKELY);
  }

  /** `if` whose condition mostly holds. */
  likely(condition: Val, then: Body, otherwise: Body): void {
    this.if(condition, then, otherwise, Hint.LIKELY);
  }

  /** A block; `br` to its label leaves it. */
  block(build: (label: Label) => void): void {
    const label = new Label();
    this.statement({ kind: "block", label, body: this.#body(() => build(label)), loop: false });
  }

  /** A place that is filled by the function answered, once what belongs there is known. */
  later(): (build: Body) => void {
    const body: Item[] = [];
    this.statement({ kind: "block", label: new Label(), body, loop: false });
    return (build) => {
      body.push(...this.#body(build));
    };
  }

  /** A loop; `br` to its label repeats it, falling off its end leaves it. */
  loop(build: (label: Label) => void): void {
    const label = new Label();
    this.statement({ kind: "block", label, body: this.#body(() => build(label)), loop: true });
  }

  while(condition: () => Val, body: Body): void {
    this.block((out) => {
      this.loop((again) => {
        this.brIf(condition().eqz(), out);
        body();
        this.br(again);
      });
    });
  }

  br(label: Label): void {
    this.statement({ kind: "br", label, condition: null });
  }

  brIf(condition: Val, label: Label): void {
    const c = condition.type === "i64" ? condition.ne(0) : condition;
    if (c.is(0)) return;
    this.statement({ kind: "br", label, condition: c });
  }

  /** br_table over `cases` by an i32 index; anything beyond runs `otherwise`. Each case continues after the switch. */
  switch(index: Val, cases: readonly Body[], otherwise: Body): void {
    this.statement({
      kind: "switch",
      index,
      cases: cases.map((c) => this.#body(c)),
      otherwise: this.#body(otherwise),
    });
  }

  #args(target: FunctionRef, args: readonly Operand[]): Val[] {
    invariant(args.length === target.params.length, "as many arguments as parameters");
    return args.map((x, i) => {
      const type = target.params[i]!;
      const v = x instanceof Val ? x : this.constant(type, x);
      if (v.type !== type) typeMismatch(`argument ${i} of ${target.name}`, v);
      return v;
    });
  }

  /** Calls a function with one result. */
  call(target: FunctionRef, ...args: Operand[]): Val {
    invariant(target.results.length === 1, "call of a function with one result");
    const v = new Val(this, "call", target.results[0]!, this.#args(target, args));
    v.target = target;
    return this.place(v);
  }

  /** Calls a function without result. */
  callVoid(target: FunctionRef, ...args: Operand[]): void {
    invariant(target.results.length === 0, "call of a function without result");
    this.statement({ kind: "call", target, args: this.#args(target, args), indirect: null });
  }

  /** Calls entry `index` of the module's table; `shape` gives the signature, which has one result. */
  callIndirect(shape: FunctionRef, index: Val, ...args: Operand[]): Val {
    const v = new Val(this, "call", shape.results[0]!, [...this.#args(shape, args), index]);
    v.target = shape;
    v.imm = 1;
    return this.place(v);
  }

  return(...values: Operand[]): void {
    const vals = values.map((x, i) => (x instanceof Val ? x : this.constant(this.results[i]!, x)));
    invariant(vals.length === this.results.length, "return arity");
    this.statement({ kind: "return", values: vals, tail: null });
  }

  memoryCopy(to: Val, from: Val, length: Val): void {
    this.statement({ kind: "memory", op: 10, args: [to, from, length] });
  }

  memoryFill(at: Val, byte: Operand, length: Val): void {
    const b = byte instanceof Val ? byte : this.i32(Number(byte));
    this.statement({ kind: "memory", op: 11, args: [at, b, length] });
  }

  unreachable(): void {
    this.statement({ kind: "unreachable" });
  }

  /** How many bodies this place is nested in. */
  get nesting(): number {
    return this.#nesting;
  }

  // ---- marking ----

  /** A use that may compute the value again, if that needs no more than what has been computed anyway. */
  #markCold(v: Val): void {
    if (v.marked || v.kind !== "pure") this.#mark(v);
    else for (const x of v.args) this.#markCold(x);
  }

  #markArgs(v: Val): void {
    if (v.marked) return;
    v.marked = true;
    for (const x of v.args) this.#mark(x);
  }

  #mark(v: Val): void {
    v.uses++;
    this.#markArgs(v);
  }

  #markItems(items: readonly Item[]): void {
    for (const item of items) {
      if (item instanceof Val) {
        if (item.kind === "call") this.#markArgs(item);
        continue;
      }
      switch (item.kind) {
        case "store":
          this.#mark(item.address);
          this.#mark(item.value);
          break;
        case "set":
          if (item.isCold) this.#cold.push(item.value);
          else this.#mark(item.value);
          break;
        case "if":
          this.#mark(item.condition);
          this.#markItems(item.body);
          if (item.otherwise) this.#markItems(item.otherwise);
          break;
        case "block":
          this.#markItems(item.body);
          break;
        case "br":
          if (item.condition) this.#mark(item.condition);
          break;
        case "switch":
          this.#mark(item.index);
          for (const c of item.cases) this.#markItems(c);
          this.#markItems(item.otherwise);
          break;
        case "call":
        case "memory":
          for (const x of item.args) this.#mark(x);
          break;
        case "return":
          for (const x of item.values) this.#mark(x);
          break;
      }
    }
  }

  // ---- emission ----

  #allocate(type: Type): number {
    const reused = this.#free[type].pop();
    if (reused !== undefined) return reused;
    this.#localTypes.push(type);
    return this.params.length + this.#localTypes.length - 1;
  }

  #emitGet(local: number, single: boolean): void {
    const out = this.#out;
    if (this.#lastSetLocal === local && this.#lastSetEnd === out.length) {
      if (single) out.length = this.#lastSetAt;
      else out.bytes[this.#lastSetAt] = TEE;
      this.#lastSetLocal = -1;
      return;
    }
    out.u8(GET);
    out.uleb(local);
  }

  #emitSet(local: number): void {
    this.#lastSetAt = this.#out.length;
    this.#out.u8(SET);
    this.#out.uleb(local);
    this.#lastSetEnd = this.#out.length;
    this.#lastSetLocal = local;
  }

  #emitValue(v: Val): void {
    invariant(v.local !== OUT_OF_SCOPE, "a value used outside its body");
    if (v.local >= 0) {
      this.#emitGet(v.local, v.uses === 1);
      return;
    }
    if (v.kind === "peek") {
      const local = (v.target as Variable).local;
      invariant(local >= 0, "variable used outside its body");
      this.#out.u8(GET);
      this.#out.uleb(local);
      return;
    }
    if (v.kind === "const") this.#emitConst(v);
    else {
      invariant(v.kind === "pure", "an impure value used outside its body");
      this.#emitOperation(v);
    }
  }

  #emitConst(v: Val): void {
    const out = this.#out;
    switch (v.type) {
      case "i32":
        out.u8(0x41);
        out.sleb32(v.imm as number);
        break;
      case "i64":
        out.u8(0x42);
        out.sleb64(v.imm as bigint);
        break;
      case "f32":
        out.u8(0x43);
        out.raw(new Uint8Array(Float32Array.of(v.imm as number).buffer));
        break;
      case "f64":
        out.u8(0x44);
        out.raw(new Uint8Array(Float64Array.of(v.imm as number).buffer));
        break;
      case "v128":
        out.raw([0xfd, 0x0c]);
        out.raw(v.imm as Uint8Array);
        break;
    }
  }

  /** Emits the operation itself, leaving its result on the operand stack. */
  #emitOperation(v: Val): void {
    const out = this.#out;
    for (const x of v.args) this.#emitValue(x);
    switch (v.kind) {
      case "pure":
        if (v.op === null) {
          if (v.type === "v128") out.raw([0x1c, 1, TYPE_CODE.v128]);
          else out.u8(0x1b);
          break;
        }
        out.raw(v.op.code);
        if (v.op.immediate === "lane") out.u8(v.imm as number);
        else if (v.op.immediate === "lanes16") out.raw(v.imm as Uint8Array);
        break;
      case "load":
        out.raw(v.access!.code);
        out.u8(0);
        out.uleb(v.imm as number);
        break;
      case "read":
        out.u8(GET);
        out.uleb((v.target as Variable).local);
        break;
      case "call": {
        const target = v.target as FunctionRef;
        if (v.imm === 1) {
          out.u8(0x11);
          out.uleb(target.typeIndex);
          out.u8(0);
        } else {
          out.u8(0x10);
          out.uleb(target.index);
        }
        break;
      }
      default:
        invariant(false, `emission of ${v.kind}`);
    }
  }

  #emitItems(items: readonly Item[]): void {
    const owned: (Val | Variable)[] = [];
    const materialize = (v: Val): void => {
      this.#emitOperation(v);
      v.local = this.#allocate(v.type);
      owned.push(v);
      this.#emitSet(v.local);
    };
    for (const item of items) {
      if (!(item instanceof Val)) {
        if (item.kind === "var") {
          if (!item.variable.isUsed) continue;
          item.variable.local = this.#allocate(item.variable.type);
          owned.push(item.variable);
        } else this.#emitStatement(item);
        continue;
      }
      if (item.kind === "call") {
        if (item.uses > 0) materialize(item);
        else {
          this.#emitOperation(item);
          this.#out.u8(0x1a);
        }
      } else if (item.uses === 0) continue;
      else if (item.kind === "pure") {
        if (item.uses > 1) materialize(item);
      } else if (item.kind === "load" || item.kind === "read") materialize(item);
    }
    for (const v of owned) {
      this.#free[v.type].push(v.local);
      v.local = OUT_OF_SCOPE;
    }
  }

  #open(opcode: number): number {
    this.#out.u8(opcode);
    this.#out.u8(0x40);
    this.#lastSetLocal = -1;
    return this.#depth++;
  }

  #close(): void {
    this.#out.u8(0x0b);
    this.#depth--;
    this.#lastSetLocal = -1;
  }

  #emitStatement(s: Statement): void {
    const out = this.#out;
    switch (s.kind) {
      case "store":
        this.#emitValue(s.address);
        this.#emitValue(s.value);
        out.raw(s.info.code);
        out.u8(0);
        out.uleb(s.offset);
        break;
      case "set":
        this.#emitValue(s.value);
        invariant(s.variable.local >= 0, "variable set outside its body");
        out.u8(SET);
        out.uleb(s.variable.local);
        break;
      case "if":
        this.#emitValue(s.condition);
        if (s.hint !== null) this.#hints.push({ at: out.length, hint: s.hint });
        this.#open(0x04);
        this.#emitItems(s.body);
        if (s.otherwise) {
          out.u8(0x05);
          this.#lastSetLocal = -1;
          this.#emitItems(s.otherwise);
        }
        this.#close();
        break;
      case "block":
        s.label.frame = this.#open(s.loop ? 0x03 : 0x02);
        this.#emitItems(s.body);
        this.#close();
        break;
      case "br":
        if (s.condition) this.#emitValue(s.condition);
        out.u8(s.condition ? 0x0d : 0x0c);
        invariant(s.label.frame >= 0, "branch to a label outside its body");
        out.uleb(this.#depth - 1 - s.label.frame);
        break;
      case "switch":
        this.#emitSwitch(s.index, s.cases, s.otherwise);
        break;
      case "call":
        for (const x of s.args) this.#emitValue(x);
        out.u8(0x10);
        out.uleb(s.target.index);
        break;
      case "return":
        for (const x of s.values) this.#emitValue(x);
        out.u8(0x0f);
        break;
      case "memory":
        for (const x of s.args) this.#emitValue(x);
        out.raw(s.op === 10 ? [0xfc, 10, 0, 0] : [0xfc, 11, 0]);
        break;
      case "unreachable":
        out.u8(0x00);
        break;
    }
  }

  #emitSwitch(index: Val, cases: readonly Item[][], otherwise: Item[]): void {
    const out = this.#out;
    const exit = this.#open(0x02);
    for (let i = 0; i <= cases.length; i++) this.#open(0x02);
    this.#emitValue(index);
    out.u8(0x0e);
    out.uleb(cases.length);
    for (let i = 0; i <= cases.length; i++) out.uleb(i);
    for (const body of [...cases, otherwise]) {
      this.#close();
      this.#emitItems(body);
      if (body !== otherwise) {
        out.u8(0x0c);
        out.uleb(this.#depth - 1 - exit);
      }
    }
    this.#close();
  }

  /** The function body as in the code section: local declarations, instructions, end. Call once. */
  finish(): Uint8Array {
    this.#markItems(this.#root);
    for (const v of this.#cold) this.#markCold(v);
    this.#emitItems(this.#root);
    if (this.results.length > 0) this.#out.u8(0x00);
    this.#out.u8(0x0b);
    const code = this.#out.view();
    const head = new ByteWriter(64);
    const runs: { type: Type; count: number }[] = [];
    for (const type of this.#localTypes) {
      const last = runs[runs.length - 1];
      if (last && last.type === type) last.count++;
      else runs.push({ type, count: 1 });
    }
    head.uleb(runs.length);
    for (const { type, count } of runs) {
      head.uleb(count);
      head.u8(TYPE_CODE[type]);
    }
    this.#headLength = head.length;
    head.raw(code);
    return head.view();
  }

  /** Of the finished body. */
  get hints(): readonly PlacedHint[] {
    return this.#hints.map(({ at, hint }) => ({ at: this.#headLength + at, hint }));
  }
}
