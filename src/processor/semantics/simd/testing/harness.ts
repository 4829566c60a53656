/**
 * A bench for the SIMD semantics without decoder, paging or run loop: one WebAssembly function per shape, which takes what an interpreter
 * would load from a decoded record. Linear addresses are addresses of the module's memory; outside DATA an access is a page fault.
 */
import { invariant } from "../../../../base/invariant.ts";
import type { FunctionBuilder } from "../../../ir/function.ts";
import { ModuleBuilder } from "../../../ir/module.ts";
import type { Val } from "../../../ir/value.ts";
import { SIZES } from "../../../isa/operand.ts";
import type { Row } from "../../../isa/row.ts";
import { FPR, GPR, Mode, Pending, S, Status, XMM } from "../../../state/layout.ts";
import { type Bytes, Vector } from "../../cpu.ts";
import { arithmeticImage, setArithmeticImage } from "../../flags.ts";
import { Insn, type OperandKind, type OperandShape, type Shape } from "../../insn.ts";
import { Procedure } from "../../procedure.ts";
import { defineSimdProcedures, SIMD } from "../index.ts";

export const DATA = 0x1_0000;
export const DATA_BYTES = 0x1_0000;
const PAGES = 2 + (DATA + DATA_BYTES) / 65536;

const PARAMS = ["i32", "i32", "i32", "i64", "i32"] as const;

/** Parameters: register slots of operands 0..2, linear address of the memory operand, immediate. */
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
  regRead(i: number, bytes: Bytes): Val {
    return this.raw(bytes, this.fn.param(i));
  }
  regWrite(i: number, bytes: Bytes, v: Val): void {
    if (this.kind(i) === "r" && bytes === 4) this.setRaw(8, this.fn.param(i), v.extU());
    else this.setRaw(bytes, this.fn.param(i), v);
  }
  regNumber(): Val {
    throw new Error("no register numbers here");
  }
  immediate(): Val {
    return this.fn.param(4);
  }
  ea(): Val {
    return this.fn.param(3);
  }
  linear(offset: Val): Val {
    return offset;
  }
  offset(): Val {
    return this.fn.param(3);
  }
  memFlags(): Val {
    return this.i32(0);
  }
  rip(): Val {
    return this.i64(0);
  }
  nextRip(): Val {
    return this.i64(0);
  }
  relativeTarget(): Val {
    return this.i64(0);
  }
  retired(): Val {
    return this.i32(0);
  }
  stringSource(): Val {
    throw new Error("no string operands here");
  }
  stringDestination(): Val {
    throw new Error("no string operands here");
  }
  jumpRelative(): void {}
  jumpTo(): void {}
}

const KINDS: Record<string, OperandKind> = { gpr: "r", xmm: "x", mm: "q" };

/** The shape of a row, with its r/m operand in memory or in a register. */
export function shapeOf(row: Row, memory: boolean, opsize: 2 | 4 | 8): Shape {
  const column = opsize === 2 ? 0 : opsize === 4 ? 1 : 2;
  const operands = row.specs.map((s): OperandShape => {
    const isMemory = s.place === "string" || (s.place === "rm" && memory);
    if (isMemory) return { kind: "m", bytes: SIZES[s.memSize][column]! };
    if (s.place === "imm") return { kind: "i", bytes: 1 };
    return { kind: KINDS[s.cls]!, bytes: SIZES[s.size][column]! };
  });
  return { sem: row.sem, cc: -1, operands, opsize, addrSize: 8, mode: Mode.CODE64, rep: 0 };
}

function defineFlatMemory(module: ModuleBuilder): void {
  for (const name of ["memR", "memW"]) {
    module.function(name, ["i64", "i32", "i32"], ["i32"], (fn) => {
      const p = new Procedure(module, fn);
      const room = fn.i64(DATA_BYTES).sub(fn.param(1).extU());
      fn.if(fn.param(0).sub(DATA).gtU(room), () => {
        p.set(S.PENDING, Pending.EVENT);
        p.set(S.PENDING_VECTOR, Vector.PF);
        fn.return(0);
      });
      fn.return(fn.param(0).wrap());
    });
  }
  module.function("memCommit", [], [], () => {});
}

export type Handler = (
  op0: number,
  op1: number,
  op2: number,
  linear: bigint,
  imm: number,
) => number;

export interface Bench {
  readonly memory: WebAssembly.Memory;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly size: number;
  handler(name: string): Handler;
  /** The arithmetic flags as their RFLAGS image. */
  flags(): number;
  setFlags(image: number): void;
}

/** Compiles handlers for the given shapes under the given names. */
export function createBench(shapes: ReadonlyMap<string, Shape>): Bench {
  const module = new ModuleBuilder({ minimum: PAGES, maximum: PAGES, shared: false });
  defineFlatMemory(module);
  defineSimdProcedures(module);
  for (const [name, shape] of shapes) {
    const semantics = SIMD[shape.sem];
    invariant(semantics, `semantics of ${shape.sem}`);
    module.function(
      name,
      PARAMS,
      ["i32"],
      (fn) => {
        semantics(new BenchInsn(module, fn, shape));
        fn.return(Status.NEXT);
      },
      true,
    );
  }
  module.function(
    "flags",
    [],
    ["i32"],
    (fn) => fn.return(arithmeticImage(new Procedure(module, fn))),
    true,
  );
  module.function(
    "setFlags",
    ["i32"],
    [],
    (fn) => setArithmeticImage(new Procedure(module, fn), fn.param(0)),
    true,
  );
  const code = module.finish();
  const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES });
  const instance = new WebAssembly.Instance(
    new WebAssembly.Module(code as Uint8Array<ArrayBuffer>),
    { env: { memory } },
  );
  const bench: Bench = {
    memory,
    view: new DataView(memory.buffer),
    bytes: new Uint8Array(memory.buffer),
    size: code.length,
    handler: (name) => instance.exports[name] as unknown as Handler,
    flags: instance.exports.flags as () => number,
    setFlags: instance.exports.setFlags as (image: number) => void,
  };
  resetState(bench);
  return bench;
}

/** Long mode with SSE on, x87 and SSE in their initial state. */
export function resetState(b: Bench): void {
  b.bytes.fill(0, 0, 0x1000);
  const { view } = b;
  view.setUint32(S.CR0.at, 0x8000_0033, true);
  view.setUint32(S.CR4.at, 0x4_0620, true);
  view.setUint32(S.XCR0.at, 3, true);
  view.setUint32(S.MODE.at, Mode.CODE64, true);
  view.setUint32(S.MXCSR.at, 0x1f80, true);
  view.setUint32(S.MXCSR_MASK.at, 0xffff, true);
  view.setUint32(S.FCW.at, 0x37f, true);
  view.setUint32(S.FTAG_EMPTY.at, 0xff, true);
  view.setUint32(S.RFLAGS_REST.at, 2, true);
}

export const slot = {
  gpr: (n: number) => GPR + 8 * n,
  xmm: (n: number) => XMM + 16 * n,
  mmx: (n: number) => FPR + 16 * n,
};
