/**
 * Test support: the x87 entries as exported functions of a module of their own, with state laid out in its memory.
 * Operand numbers and the memory operand's address are read from fixed slots. Used by the tests and by the comparison with silicon only.
 */

import type { FunctionBuilder } from "../../ir/function.ts";
import { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { Mode, S } from "../../state/layout.ts";
import type { Bytes } from "../cpu.ts";
import { arithmeticImage, setArithmeticImage } from "../flags.ts";
import { Insn, type OperandShape, type Shape } from "../insn.ts";
import { Procedure } from "../procedure.ts";
import { defineX87Procedures, X87 } from "./index.ts";

/** Register numbers of the operands (u32 each), and the memory operand. */
export const NUMBERS = 0x1f00;
export const MEMORY_OPERAND = 0x8000;

class BenchInsn extends Insn {
  readonly shape: Shape;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, shape: Shape) {
    super(module, fn);
    this.shape = shape;
  }

  leave(status: number): void {
    this.fn.return(status);
  }
  flagResult(): Val {
    return this.get(S.FLAG_RESULT);
  }
  flagCarry(): Val {
    return this.get(S.FLAG_CARRY);
  }
  setFlagResult(v: Val): void {
    this.set(S.FLAG_RESULT, v);
  }
  setFlagCarry(v: Val): void {
    this.set(S.FLAG_CARRY, v);
  }
  regRead(_i: number, bytes: Bytes): Val {
    return this.gpr(0, bytes as 2);
  }
  regWrite(_i: number, bytes: Bytes, v: Val): void {
    this.setGpr(0, bytes as 2, v);
  }
  regNumber(i: number): Val {
    return this.raw(4, 0, NUMBERS + 4 * i);
  }
  immediate(): Val {
    return this.i32(0);
  }
  ea(): Val {
    return this.i64(MEMORY_OPERAND);
  }
  linear(offset: Val): Val {
    return offset;
  }
  offset(): Val {
    return this.i64(MEMORY_OPERAND);
  }
  memFlags(): Val {
    return this.i32(0);
  }
  stringSource(): Val {
    return this.i64(0);
  }
  stringDestination(): Val {
    return this.i64(0);
  }
  rip(): Val {
    return this.get(S.RIP);
  }
  nextRip(): Val {
    return this.get(S.RIP).add(2);
  }
  relativeTarget(): Val {
    return this.i64(0);
  }
  retired(): Val {
    return this.i32(0);
  }
  jumpRelative(): void {}
  jumpTo(): void {}
}

export interface BenchShape {
  readonly sem: string;
  readonly operands: readonly OperandShape[];
  readonly opsize?: 2 | 4;
}

export interface Bench {
  readonly memory: DataView;
  /** Runs shape i: a Status. */
  run(i: number): number;
  /** The arithmetic flags as their RFLAGS image. */
  flags(): number;
  setFlags(image: number): void;
  readonly exports: Record<string, CallableFunction>;
}

/** Compiles entries; memory accesses go to the same addresses of the bench's memory. */
export function createBench(shapes: readonly BenchShape[]): Bench {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const m = new ModuleBuilder({ minimum: 1, maximum: 1, shared: false });
  for (const name of ["memR", "memW"]) {
    m.function(name, ["i64", "i32", "i32"], ["i32"], (fn) => fn.return(fn.param(0).wrap()));
  }
  m.function("memCommit", [], [], () => {});
  defineX87Procedures(m);
  m.function("flags", [], ["i32"], (fn) => fn.return(arithmeticImage(new Procedure(m, fn))), true);
  m.function(
    "setFlags",
    ["i32"],
    [],
    (fn) => setArithmeticImage(new Procedure(m, fn), fn.param(0)),
    true,
  );
  shapes.forEach((s, i) => {
    const shape: Shape = {
      sem: s.sem,
      cc: -1,
      operands: s.operands,
      opsize: s.opsize ?? 4,
      addrSize: 8,
      mode: Mode.CODE64,
      rep: 0,
    };
    m.function(
      `shape${i}`,
      [],
      ["i32"],
      (fn) => {
        const insn = new BenchInsn(m, fn, shape);
        X87[s.sem]!(insn);
        fn.return(0);
      },
      true,
    );
  });
  const module = new WebAssembly.Module(m.finish());
  const exports = new WebAssembly.Instance(module, { env: { memory } }).exports as Record<
    string,
    CallableFunction
  >;
  const run = shapes.map((_, i) => exports[`shape${i}`] as () => number);
  return {
    memory: new DataView(memory.buffer),
    run: (i) => run[i]!(),
    flags: exports.flags as () => number,
    setFlags: exports.setFlags as (image: number) => void,
    exports,
  };
}
