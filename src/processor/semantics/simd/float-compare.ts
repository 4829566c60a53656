/**
 * MIN, MAX, CMP, COMI, UCOMI. SDM Vol. 2; Vol. 1, "Invalid Operation Exception (#I)" for which of them signal on quiet NaNs.
 *
 * These never round. With ordered operands that are not denormal nothing can be raised, whatever MXCSR says; otherwise a procedure looks
 * at all of it. Scalars go the way of vectors with equal elements: their flags are the same.
 * MIN and MAX answer the second operand for NaNs and equal zeros, which is what pmin and pmax do with their operands exchanged.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";
import { setArithmeticImage } from "../flags.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { defineProcedure, type Procedure } from "../procedure.ts";
import { F32, F64, type Format } from "./float-format.ts";
import {
  all,
  any,
  both,
  either,
  element,
  float,
  flushed,
  nan,
  notDenormal,
  notNan,
  signalling,
  splat,
} from "./float-vector.ts";
import { Mxcsr, raise } from "./mxcsr.ts";
import { readAligned, requireSse } from "./operands.ts";
import { result, setResult } from "./scratch.ts";

/** No element can raise anything in a comparison. */
function isQuiet(cpu: Cpu, f: Format, a: Val, b: Val): Val {
  const { fn } = cpu;
  const normal = both(fn, notDenormal(fn, f, a), notDenormal(fn, f, b));
  return all(fn, f, both(fn, normal, both(fn, notNan(fn, f, a), notNan(fn, f, b))));
}

/**
 * The operands of a comparison as it sees them (DAZ), and its flags: IE for signalling NaNs, for every NaN if `quietToo` (i32), DE for
 * denormals in elements without NaN.
 */
function inspect(p: Procedure, f: Format, quietToo: Val): { a: Val; b: Val; flags: Val } {
  const { fn } = p;
  const a = fn.variable("v128", fn.param(0));
  const b = fn.variable("v128", fn.param(1));
  const denormal = fn.variable("i32", Mxcsr.DE);
  fn.if(p.get(S.MXCSR).and(Mxcsr.DAZ), () => {
    a.set(flushed(fn, f, a.read()));
    b.set(flushed(fn, f, b.read()));
    denormal.set(0);
  });
  const [x, y] = [a.read(), b.read()];
  const unordered = either(fn, nan(fn, f, x), nan(fn, f, y));
  const normal = both(fn, notDenormal(fn, f, x), notDenormal(fn, f, y));
  const invalid = either(fn, signalling(fn, f, x), signalling(fn, f, y));
  const isInvalid = any(fn, invalid).or(any(fn, unordered).and(quietToo));
  const isDenormal = all(fn, f, either(fn, normal, unordered)).eqz();
  const flags = isInvalid.or(isDenormal.select(denormal.read(), fn.i32(0)));
  return { a: x, b: y, flags };
}

// ---- MIN, MAX ----

type Extreme = "Min" | "Max";
const extreme = (cpu: Cpu, f: Format, which: Extreme, a: Val, b: Val): Val =>
  float(cpu.fn, f, which === "Min" ? "pmin" : "pmax", b, a);

function defineExtreme(module: ModuleBuilder, f: Format, which: Extreme): void {
  defineProcedure(module, `sse${which}${f.bits}`, ["v128", "v128"], (p) => {
    const { a, b, flags } = inspect(p, f, p.i32(1));
    setResult(p, 16, extreme(p, f, which, a, b));
    raise(p, flags);
  });
}

function extremeOf(insn: Insn, f: Format, which: Extreme, a: Val, b: Val): Val {
  const { fn } = insn;
  return insn.usually(extreme(insn, f, which, a, b), isQuiet(insn, f, a, b).eqz(), () => {
    insn.propagate(fn.call(insn.module.get(`sse${which}${f.bits}`), a, b));
    return result(insn, 16);
  });
}

// ---- CMP ----

/** Predicates of imm[1:0]; imm[2] negates them. */
const PREDICATES = ["eq", "lt", "le", "unordered"] as const;

/** Masks of imm[2:0] (i32). Also right where an operand is NaN. */
function compareMask(cpu: Cpu, f: Format, a: Val, b: Val, imm: Val): Val {
  const { fn } = cpu;
  const one = (predicate: (typeof PREDICATES)[number]): Val =>
    predicate === "unordered"
      ? either(fn, nan(fn, f, a), nan(fn, f, b))
      : float(fn, f, predicate, a, b);
  const mask = fn.variable("v128", fn.v128x2(0n, 0n));
  const cases = PREDICATES.map((predicate) => () => mask.set(one(predicate)));
  fn.switch(imm.and(3), cases, () => {});
  const negate = fn.op("i32x4.splat", imm.shrU(2).and(1).neg());
  return fn.op("v128.xor", mask.read(), negate);
}

/** LT, LE and their negations signal on quiet NaNs. */
const signalsQuiet = (imm: Val): Val => imm.add(1).and(2).shrU(1);

function defineCompare(module: ModuleBuilder, f: Format): void {
  defineProcedure(module, `sseCmp${f.bits}`, ["v128", "v128", "i32"], (p) => {
    const imm = p.fn.param(2);
    const { a, b, flags } = inspect(p, f, signalsQuiet(imm));
    setResult(p, 16, compareMask(p, f, a, b, imm));
    raise(p, flags);
  });
}

function compareOf(insn: Insn, f: Format, a: Val, b: Val): Val {
  const { fn } = insn;
  const imm = insn.immediate(2);
  return insn.usually(compareMask(insn, f, a, b, imm), isQuiet(insn, f, a, b).eqz(), () => {
    insn.propagate(fn.call(insn.module.get(`sseCmp${f.bits}`), a, b, imm));
    return result(insn, 16);
  });
}

// ---- COMI, UCOMI ----

const CARRY = 1;
const UNORDERED = 0x45;

/** ZF PF CF as a flags image: unordered 111, greater 000, less 001, equal 100. */
function orderImage(cpu: Cpu, f: Format, a: Val, b: Val): Val {
  const { fn } = cpu;
  const test = (name: string): Val => element(fn, f, 0, float(fn, f, name, a, b)).ne(0);
  const equal = test("eq").shl(6);
  const ordered = equal.or(test("lt").select(fn.i32(CARRY), fn.i32(0)));
  const isOrdered = test("le").or(test("gt"));
  return isOrdered.select(ordered, fn.i32(UNORDERED));
}

function defineOrder(module: ModuleBuilder, f: Format): void {
  defineProcedure(module, `sseOrder${f.bits}`, ["v128", "v128", "i32"], (p) => {
    const { a, b, flags } = inspect(p, f, p.fn.param(2));
    setResult(p, 4, orderImage(p, f, a, b));
    raise(p, flags);
  });
}

const order =
  (f: Format, quietToo: 0 | 1): Semantics =>
  (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const b = splat(fn, f, insn.rd(1));
    const a = splat(fn, f, insn.regRead(0, f.bytes));
    const isRare = isQuiet(insn, f, a, b).eqz();
    const image = insn.usually(orderImage(insn, f, a, b), isRare, () => {
      insn.propagate(fn.call(insn.module.get(`sseOrder${f.bits}`), a, b, quietToo));
      return result(insn, 4);
    });
    setArithmeticImage(insn, image);
  };

// ---- shapes ----

type Compute = (insn: Insn, f: Format, a: Val, b: Val) => Val;

const packed =
  (f: Format, compute: Compute): Semantics =>
  (insn) => {
    requireSse(insn);
    const b = readAligned(insn, 1);
    insn.regWrite(0, 16, compute(insn, f, insn.regRead(0, 16), b));
  };

const scalar =
  (f: Format, compute: Compute): Semantics =>
  (insn) => {
    requireSse(insn);
    const b = splat(insn.fn, f, insn.rd(1));
    const a = splat(insn.fn, f, insn.regRead(0, f.bytes));
    insn.regWrite(0, f.bytes, element(insn.fn, f, 0, compute(insn, f, a, b)));
  };

export function defineFloatCompare(module: ModuleBuilder): void {
  for (const f of [F32, F64]) {
    defineExtreme(module, f, "Min");
    defineExtreme(module, f, "Max");
    defineCompare(module, f);
    defineOrder(module, f);
  }
}

const minimum: Compute = (insn, f, a, b) => extremeOf(insn, f, "Min", a, b);
const maximum: Compute = (insn, f, a, b) => extremeOf(insn, f, "Max", a, b);

export const FLOAT_COMPARE: SemanticsTable = {
  minps: packed(F32, minimum),
  minpd: packed(F64, minimum),
  minss: scalar(F32, minimum),
  minsd: scalar(F64, minimum),
  maxps: packed(F32, maximum),
  maxpd: packed(F64, maximum),
  maxss: scalar(F32, maximum),
  maxsd: scalar(F64, maximum),
  cmpps: packed(F32, compareOf),
  cmppd: packed(F64, compareOf),
  cmpss: scalar(F32, compareOf),
  cmpsd_xmm: scalar(F64, compareOf),
  comiss: order(F32, 1),
  comisd: order(F64, 1),
  ucomiss: order(F32, 0),
  ucomisd: order(F64, 0),
};
