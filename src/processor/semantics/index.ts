/** All instruction semantics by key, and the procedures they call. */
import type { ModuleBuilder } from "../ir/module.ts";
import { BCD } from "./bcd.ts";
import { BITS } from "./bits.ts";
import { BRANCH } from "./branch.ts";
import { Vector } from "./cpu.ts";
import { FLAG_OPS } from "./flag-ops.ts";
import type { Semantics, SemanticsTable } from "./insn.ts";
import { INTEGER } from "./integer.ts";
import { defineMultiplyProcedures, MULTIPLY } from "./multiply.ts";
import { SHIFT } from "./shift.ts";
import { defineSimdProcedures, SIMD } from "./simd/index.ts";
import { STACK } from "./stack.ts";
import { defineStringProcedures, STRINGS } from "./strings.ts";
import { SYSTEM } from "./system/index.ts";
import { defineX87Procedures, X87 } from "./x87/index.ts";

/** What the decoder could not make an instruction of. */
const UNDECODABLE: SemanticsTable = {
  undefined_opcode: (insn) => insn.fault(Vector.UD),
  instruction_too_long: (insn) => insn.fault(Vector.GP, 0),
};

const TABLES: readonly SemanticsTable[] = [
  INTEGER,
  SHIFT,
  MULTIPLY,
  BITS,
  STRINGS,
  STACK,
  BRANCH,
  BCD,
  FLAG_OPS,
  SIMD,
  X87,
  SYSTEM,
  UNDECODABLE,
];

const all = new Map<string, Semantics>(TABLES.flatMap((table) => Object.entries(table)));

export function semanticsOf(sem: string): Semantics | undefined {
  return all.get(sem);
}

export function defineSemanticProcedures(module: ModuleBuilder): void {
  defineMultiplyProcedures(module);
  defineStringProcedures(module);
  defineSimdProcedures(module);
  defineX87Procedures(module);
}
