/**
 * From a decoded instruction to the shape of its handler. Two instructions with the same key share a handler.
 */

import type { Instruction, Operand } from "../isa/instruction.ts";
import { BITS } from "../semantics/bits.ts";
import { BRANCH } from "../semantics/branch.ts";
import type { OperandKind, OperandShape, Shape } from "../semantics/insn.ts";
import { INTEGER } from "../semantics/integer.ts";
import { MULTIPLY } from "../semantics/multiply.ts";
import { SHIFT } from "../semantics/shift.ts";
import { FLOAT_ARITHMETIC } from "../semantics/simd/float-arithmetic.ts";
import { FLOAT_COMPARE } from "../semantics/simd/float-compare.ts";
import { FLOAT_CONVERT } from "../semantics/simd/float-convert.ts";
import { MOVES } from "../semantics/simd/moves.ts";
import { PACKED_INTEGER } from "../semantics/simd/packed-integer.ts";
import { PACKED_MULTIPLY } from "../semantics/simd/packed-multiply.ts";
import { PACKED_SHIFT } from "../semantics/simd/packed-shift.ts";
import { SHUFFLE } from "../semantics/simd/shuffle.ts";
import { STACK } from "../semantics/stack.ts";
import { STRINGS } from "../semantics/strings.ts";
import { SYSTEM } from "../semantics/system/index.ts";
import { Mode } from "../state/layout.ts";

/** Keys whose meaning depends on the code size, and those that depend on the address size. */
const MODE_DEPENDENT = new Set(
  [STACK, BRANCH, STRINGS, SYSTEM].flatMap((table) => Object.keys(table)),
);
const ADDRESS_DEPENDENT = new Set([
  ...Object.keys(STRINGS),
  "ins",
  "outs",
  "jcxz",
  "loop",
  "loope",
  "loopne",
  "xlat",
  "maskmovq",
  "maskmovdqu",
  "monitor",
  "bt",
  "bts",
  "btr",
  "btc",
]);
const STRING_KEYS = new Set([...Object.keys(STRINGS), "ins", "outs"]);

/** Keys that look at operand sizes only, so that the operation size need not tell handlers apart. */
const SIZED_BY_OPERANDS = new Set(
  [
    INTEGER,
    SHIFT,
    MULTIPLY,
    BITS,
    MOVES,
    PACKED_INTEGER,
    PACKED_MULTIPLY,
    PACKED_SHIFT,
    SHUFFLE,
    FLOAT_ARITHMETIC,
    FLOAT_COMPARE,
    FLOAT_CONVERT,
  ].flatMap((table) => Object.keys(table)),
);

export function isStringKey(sem: string): boolean {
  return STRING_KEYS.has(sem);
}

function kindOf(op: Operand): OperandKind {
  switch (op.kind) {
    case "mem":
      return "m";
    case "imm":
      return "i";
    case "rel":
      return "j";
    case "far":
      return "f";
    default:
      switch (op.cls) {
        case "xmm":
          return "x";
        case "mm":
          return "q";
        case "seg":
          return "s";
        case "cr":
          return "c";
        case "dr":
          return "d";
        case "st":
          return "t";
        default:
          return "r";
      }
  }
}

export function shapeOf(insn: Instruction, codeSize: number): Shape {
  const { sem, cc } = insn.row;
  const operands: OperandShape[] = [];
  for (let i = 0; i < insn.opCount; i++) {
    const op = insn.ops[i]!;
    operands.push({ kind: kindOf(op), bytes: op.size });
  }
  const dependsOnMode = MODE_DEPENDENT.has(sem);
  const sized = operands.length > 0 && !dependsOnMode && SIZED_BY_OPERANDS.has(sem);
  return {
    sem,
    cc,
    operands,
    opsize: sized ? 4 : insn.opsize,
    addrSize: ADDRESS_DEPENDENT.has(sem) ? insn.addrSize : 8,
    mode: dependsOnMode ? codeSize : Mode.CODE64,
    rep: isStringKey(sem) ? insn.rep : 0,
  };
}

export function shapeKey(s: Shape): string {
  let key = `${s.sem}.${s.cc}.${s.opsize}${s.addrSize}${s.mode}.${s.rep}`;
  for (const o of s.operands) key += `.${o.kind}${o.bytes}`;
  return key;
}
