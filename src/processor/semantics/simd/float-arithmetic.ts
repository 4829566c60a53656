/**
 * ADD SUB MUL DIV SQRT and what is made of them: ADDSUB, HADD, HSUB, DPPS, DPPD. SDM Vol. 2.
 *
 * Fast path, inline: rounding to nearest with PE quiet, operands not denormal, result safe from UE, OE and IE; the native operation is the
 * result and no flag changes. Anything else goes through a procedure sse{Add...}{lanes}x{bits} that runs the exact soft functions
 * element by element, raises all flags at once and leaves the result in scratch.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import { defineProcedure } from "../procedure.ts";
import { F32, F64, type Format, floatBits, loadFloat } from "./float-format.ts";
import {
  native,
  type Operation,
  type PackedOperation,
  packedSafe,
  scalarSafe,
} from "./float-safe.ts";
import { aboveLeast, all, both, element, float, lanesOf, replaceElement } from "./float-vector.ts";
import { isPlain, raise } from "./mxcsr.ts";
import { readAligned, requireSse } from "./operands.ts";
import { result, setResult } from "./scratch.ts";
import { softBits, softFlags } from "./soft-round.ts";
import { bitsToMask, elements, vectorOf } from "./vector.ts";

const OPERATIONS: readonly Operation[] = ["Add", "Sub", "Mul", "Div"];
const FORMATS: readonly Format[] = [F32, F64];
const softName = (op: string, f: Format): string => `soft${op}${f.bits}`;
const procedureName = (op: string, lanes: number, f: Format): string =>
  `sse${op}${lanes}x${f.bits}`;

// ---- procedures ----

function defineScalar(module: ModuleBuilder, op: string, f: Format, operands: number): void {
  const params = Array.from({ length: operands }, () => "i64" as const);
  defineProcedure(module, procedureName(op, 1, f), params, (p) => {
    const values = params.map((_, i) => p.fn.param(i));
    const r = p.fn.call(module.get(softName(op, f)), ...values, p.get(S.MXCSR));
    setResult(p, 8, softBits(r));
    raise(p, softFlags(r));
  });
}

function definePacked(module: ModuleBuilder, op: string, f: Format, operands: number): void {
  const params = Array.from({ length: operands }, () => "v128" as const);
  const lanes = lanesOf(f);
  defineProcedure(module, procedureName(op, lanes, f), params, (p) => {
    const { fn } = p;
    const mxcsr = p.get(S.MXCSR);
    let vector: Val = fn.v128x2(0n, 0n);
    let flags: Val = fn.i32(0);
    for (let i = 0; i < lanes; i++) {
      const name = op === "AddSub" ? (i & 1 ? "Add" : "Sub") : op;
      const values = params.map((_, k) => element(fn, f, i, fn.param(k)).extU());
      const r = fn.call(module.get(softName(name, f)), ...values, mxcsr);
      const bits = softBits(r);
      vector = replaceElement(fn, f, i, vector, f.bits === 64 ? bits : bits.wrap());
      flags = flags.or(softFlags(r));
    }
    setResult(p, 16, vector);
    raise(p, flags);
  });
}

// ---- inline ----

function packedNative(cpu: Cpu, f: Format, op: PackedOperation, a: Val, b: Val): Val {
  const { fn } = cpu;
  if (op !== "AddSub") return float(fn, f, native(op), a, b);
  const odd = f.bits === 32 ? vectorOf(fn, 4, [0, -1, 0, -1]) : fn.v128x2(0n, -1n);
  return fn.op("v128.bitselect", float(fn, f, "add", a, b), float(fn, f, "sub", a, b), odd);
}

/** a op b in every element; leaves with a fault if an unmasked exception is found. */
function packed(cpu: Cpu, f: Format, op: PackedOperation, a: Val, b: Val): Val {
  const { fn } = cpu;
  const r = packedNative(cpu, f, op, a, b);
  const fast = all(fn, f, packedSafe(fn, f, op, [a, b, r])).and(isPlain(cpu.get(S.MXCSR)));
  return cpu.usually(r, fast.eqz(), () => {
    cpu.propagate(fn.call(cpu.module.get(procedureName(op, lanesOf(f), f)), a, b));
    return result(cpu, 16);
  });
}

/** Scalar bits in the format's own width (i32 or i64). */
const narrow = (f: Format, v: Val): Val => (f.bits === 64 ? v : v.wrap());

function scalar(cpu: Cpu, f: Format, op: Operation, a: Val, b: Val): Val {
  const { fn } = cpu;
  const value = loadFloat(f, fn, a).bin(native(op), loadFloat(f, fn, b));
  const r = narrow(f, floatBits(f, fn, value));
  const fast = scalarSafe(f, op, [a, b, r]).and(isPlain(cpu.get(S.MXCSR)));
  return cpu.usually(r, fast.eqz(), () => {
    cpu.propagate(fn.call(cpu.module.get(procedureName(op, 1, f)), a.extU(), b.extU()));
    return result(cpu, f.bytes);
  });
}

const packedSemantics =
  (op: PackedOperation, f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const b = readAligned(insn, 1);
    insn.regWrite(0, 16, packed(insn, f, op, insn.regRead(0, 16), b));
  };

const scalarSemantics =
  (op: Operation, f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const b = insn.rd(1);
    insn.regWrite(0, f.bytes, scalar(insn, f, op, insn.regRead(0, f.bytes), b));
  };

/** Neighbours of the destination, then of the source. */
const horizontal =
  (op: "Add" | "Sub", f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const b = readAligned(insn, 1);
    const a = insn.regRead(0, 16);
    const even = f.bits === 32 ? [0, 2, 4, 6] : [0, 2];
    const odd = even.map((n) => n + 1);
    const r = packed(
      insn,
      f,
      op,
      elements(fn, f.bytes, even, a, b),
      elements(fn, f.bytes, odd, a, b),
    );
    insn.regWrite(0, 16, r);
  };

/** The root of a positive normal number is safe; zeros, negatives and the rest go the exact way. */
const scalarRoot =
  (f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const b = insn.rd(1);
    const root = narrow(f, floatBits(f, fn, loadFloat(f, fn, b).un("sqrt")));
    const fast = b
      .sub(f.normal)
      .ltU(f.infinity - f.normal)
      .and(isPlain(insn.get(S.MXCSR)));
    const r = insn.usually(root, fast.eqz(), () => {
      insn.propagate(fn.call(insn.module.get(procedureName("Sqrt", 1, f)), b.extU()));
      return result(insn, f.bytes);
    });
    insn.regWrite(0, f.bytes, r);
  };

const packedRoot =
  (f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const b = readAligned(insn, 1);
    const out = fn.variable("v128", float(fn, f, "sqrt", b));
    const positive = float(fn, f, "gt", b, fn.v128x2(0n, 0n));
    const safe = both(fn, positive, aboveLeast(fn, f, b));
    fn.if(
      all(fn, f, safe)
        .and(isPlain(insn.get(S.MXCSR)))
        .eqz(),
      () => {
        insn.propagate(fn.call(insn.module.get(procedureName("Sqrt", lanesOf(f), f)), b));
        out.set(result(insn, 16));
      },
    );
    insn.regWrite(0, 16, out.read());
  };

/**
 * DPPS, DPPD: products selected by imm[7:4], added pairwise, stored where imm[3:0] says. Each step rounds and raises by itself, so an
 * unmasked exception of the products keeps the sums from being formed.
 */
function defineDotProduct(module: ModuleBuilder, f: Format): void {
  defineProcedure(module, `sseDot${f.bits}`, ["v128", "v128", "i32"], (p) => {
    const { fn } = p;
    const imm = fn.param(2);
    const selected = bitsToMask(fn, f.bytes, imm.shrU(4));
    const products = packed(
      p,
      f,
      "Mul",
      both(fn, fn.param(0), selected),
      both(fn, fn.param(1), selected),
    );
    const swapped = elements(
      fn,
      f.bytes,
      f.bits === 32 ? [1, 0, 3, 2] : [1, 0],
      products,
      products,
    );
    let sum = packed(p, f, "Add", products, swapped);
    if (f.bits === 32) sum = packed(p, f, "Add", sum, elements(fn, 4, [2, 3, 0, 1], sum, sum));
    const first = elements(fn, f.bytes, f.bits === 32 ? [0, 0, 0, 0] : [0, 0], sum, sum);
    setResult(p, 16, both(fn, first, bitsToMask(fn, f.bytes, imm)));
  });
}

const dotProduct =
  (f: Format): Semantics =>
  (insn) => {
    requireSse(insn);
    const b = readAligned(insn, 1);
    const dot = insn.module.get(`sseDot${f.bits}`);
    insn.propagate(insn.fn.call(dot, insn.regRead(0, 16), b, insn.immediate(2)));
    insn.regWrite(0, 16, result(insn, 16));
  };

export function defineFloatArithmetic(module: ModuleBuilder): void {
  for (const f of FORMATS) {
    for (const op of OPERATIONS) {
      defineScalar(module, op, f, 2);
      definePacked(module, op, f, 2);
    }
    definePacked(module, "AddSub", f, 2);
    defineScalar(module, "Sqrt", f, 1);
    definePacked(module, "Sqrt", f, 1);
    defineDotProduct(module, f);
  }
}

export const FLOAT_ARITHMETIC: SemanticsTable = {
  ...Object.fromEntries(
    OPERATIONS.flatMap((op) => [
      [`${native(op)}ps`, packedSemantics(op, F32)],
      [`${native(op)}pd`, packedSemantics(op, F64)],
      [`${native(op)}ss`, scalarSemantics(op, F32)],
      [`${native(op)}sd`, scalarSemantics(op, F64)],
    ]),
  ),
  addsubps: packedSemantics("AddSub", F32),
  addsubpd: packedSemantics("AddSub", F64),
  haddps: horizontal("Add", F32),
  haddpd: horizontal("Add", F64),
  hsubps: horizontal("Sub", F32),
  hsubpd: horizontal("Sub", F64),
  sqrtps: packedRoot(F32),
  sqrtpd: packedRoot(F64),
  sqrtss: scalarRoot(F32),
  sqrtsd: scalarRoot(F64),
  dpps: dotProduct(F32),
  dppd: dotProduct(F64),
};
