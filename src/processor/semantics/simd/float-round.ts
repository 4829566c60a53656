/**
 * Rounding to integral values: ROUNDPS and its kin, and the rounding under the conversions to integers. SDM Vol. 2.
 *
 * WebAssembly has all four directions as exact operations; they keep the sign of zero. Denormals raise no DE here, DAZ makes them zeros.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import { defineProcedure } from "../procedure.ts";
import { F32, F64, type Format } from "./float-format.ts";
import {
  any,
  both,
  element,
  float,
  flushed,
  nan,
  notNan,
  quieted,
  signalling,
  splat,
} from "./float-vector.ts";
import { Mxcsr, raise, roundingOf } from "./mxcsr.ts";
import { readAligned, requireSse } from "./operands.ts";
import { result, setResult } from "./scratch.ts";

/** By rounding control. */
const DIRECTIONS = ["nearest", "floor", "ceil", "trunc"] as const;

/** integral32, integral64(v, rounding): every element rounded to an integral value. NaNs give NaNs. */
function defineIntegral(module: ModuleBuilder, f: Format): void {
  module.function(`integral${f.bits}`, ["v128", "i32"], ["v128"], (fn) => {
    const cases = DIRECTIONS.map((name) => () => fn.return(float(fn, f, name, fn.param(0))));
    fn.switch(fn.param(1), cases, () => {});
    fn.return(fn.param(0));
  });
}

/** v with denormals flushed if DAZ says so. */
export function dazOperand(cpu: Cpu, f: Format, v: Val): Val {
  const out = cpu.fn.variable("v128", v);
  cpu.fn.if(cpu.get(S.MXCSR).and(Mxcsr.DAZ), () => out.set(flushed(cpu.fn, f, v)));
  return out.read();
}

/** imm[1:0], or MXCSR if imm[2]; imm[3] suppresses PE. */
function defineRoundProcedure(module: ModuleBuilder, f: Format): void {
  defineProcedure(module, `sseRound${f.bits}`, ["v128", "i32"], (p) => {
    const { fn } = p;
    const imm = fn.param(1);
    const rounding = imm.and(4).select(roundingOf(p.get(S.MXCSR)), imm.and(3));
    const v = dazOperand(p, f, fn.param(0));
    const r = fn.call(module.get(`integral${f.bits}`), v, rounding);
    const changed = both(fn, float(fn, f, "ne", r, v), notNan(fn, f, v));
    const inexact = any(fn, changed).and(imm.and(8).eqz());
    const invalid = any(fn, signalling(fn, f, v));
    setResult(p, 16, fn.op("v128.bitselect", quieted(fn, f, v), r, nan(fn, f, v)));
    raise(p, invalid.or(inexact.select(fn.i32(Mxcsr.PE), fn.i32(0))));
  });
}

const packed =
  (f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const b = readAligned(insn, 1);
    insn.propagate(insn.fn.call(insn.module.get(`sseRound${f.bits}`), b, insn.immediate(2)));
    insn.regWrite(0, 16, result(insn, 16));
  };

const scalar =
  (f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const b = splat(insn.fn, f, insn.rd(1));
    insn.propagate(insn.fn.call(insn.module.get(`sseRound${f.bits}`), b, insn.immediate(2)));
    insn.regWrite(0, f.bytes, element(insn.fn, f, 0, result(insn, 16)));
  };

export function defineFloatRound(module: ModuleBuilder): void {
  for (const f of [F32, F64]) {
    defineIntegral(module, f);
    defineRoundProcedure(module, f);
  }
}

export const FLOAT_ROUND: SemanticsTable = {
  roundps: packed(F32),
  roundpd: packed(F64),
  roundss: scalar(F32),
  roundsd: scalar(F64),
};
