/**
 * RCPPS, RCPSS, RSQRTPS, RSQRTSS. SDM Vol. 2: relative error at most 1.5 * 2^-12, no MXCSR, no exceptions; denormal operands count as
 * zeros, tiny results become zeros.
 *
 * The approximation of this processor: the exact result in binary32, rounded to 12 bits of fraction. Other processors have other
 * tables; software may rely on the error bound only.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import { F32 } from "./float-format.ts";
import { element, float, flushed, nan, quieted, splat } from "./float-vector.ts";
import { readAligned, requireSse } from "./operands.ts";
import { repeated } from "./vector.ts";

const DROPPED_BITS = 11;

function rounded(fn: FunctionBuilder, v: Val): Val {
  const half = repeated(fn, 4, 1n << BigInt(DROPPED_BITS - 1));
  const kept = repeated(fn, 4, -1n << BigInt(DROPPED_BITS));
  return fn.op("v128.and", fn.op("i32x4.add", v, half), kept);
}

function define(
  module: ModuleBuilder,
  name: string,
  compute: (fn: FunctionBuilder, x: Val) => Val,
): void {
  module.function(name, ["v128"], ["v128"], (fn) => {
    const v = fn.param(0);
    const r = rounded(fn, flushed(fn, F32, compute(fn, flushed(fn, F32, v))));
    fn.return(fn.op("v128.bitselect", quieted(fn, F32, v), r, nan(fn, F32, v)));
  });
}

const one = (fn: FunctionBuilder): Val => fn.op("f32x4.splat", fn.f32(1));

export function defineApproximations(module: ModuleBuilder): void {
  define(module, "sseRcp", (fn, x) => float(fn, F32, "div", one(fn), x));
  define(module, "sseRsqrt", (fn, x) => {
    const r = float(fn, F32, "div", one(fn), float(fn, F32, "sqrt", x));
    const negative = float(fn, F32, "lt", x, fn.v128x2(0n, 0n));
    return fn.op("v128.bitselect", repeated(fn, 4, F32.defaultNan), r, negative);
  });
}

const packed =
  (name: string): Semantics =>
  (insn) => {
    requireSse(insn);
    insn.regWrite(0, 16, insn.fn.call(insn.module.get(name), readAligned(insn, 1)));
  };

const scalar =
  (name: string): Semantics =>
  (insn) => {
    requireSse(insn);
    const v = splat(insn.fn, F32, insn.rd(1));
    insn.regWrite(0, 4, element(insn.fn, F32, 0, insn.fn.call(insn.module.get(name), v)));
  };

export const APPROXIMATE: SemanticsTable = {
  rcpps: packed("sseRcp"),
  rcpss: scalar("sseRcp"),
  rsqrtps: packed("sseRsqrt"),
  rsqrtss: scalar("sseRsqrt"),
};
