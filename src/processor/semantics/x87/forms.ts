/**
 * What the entries of the semantics table share: operands of an x87 instruction, and the pointers to the last one.
 * Spec: SDM Vol. 1, "x87 FPU Instruction and Data (Operand) Pointers", "Last Instruction Opcode".
 *
 * FIP, FCS, FDP are kept for every non-control instruction. Two approximations, invisible where FOP and FDS are not saved as newer
 * processors may choose: the opcode of a memory form has zero for mod and r/m, and FDS knows DS and SS only.
 */

import type { Val } from "../../ir/value.ts";
import { SIZES } from "../../isa/operand.ts";
import type { Row } from "../../isa/row.ts";
import { x87Rows, x87UndocumentedRows } from "../../isa/rows/x87.ts";
import { S, Seg } from "../../state/layout.ts";
import { Access, type Bytes } from "../cpu.ts";
import type { Insn } from "../insn.ts";
import { checkWaiting, Scratch, stAddress } from "./state.ts";

/** FOP of a row with rm = 0: low bits of the first byte, and the ModRM byte. */
function opcodeOf(row: Row): number {
  const fixed = row.mod === "reg" ? 0xc0 : 0;
  return ((row.opcode & 7) << 8) | fixed | (row.ext << 3) | Math.max(row.rm, 0);
}

function rowsOf(insn: Insn): Row[] {
  const { sem, operands } = insn.shape;
  const fits = (row: Row): boolean =>
    row.sem === sem &&
    row.specs.length === operands.length &&
    row.specs.every((spec, i) => {
      const isMemory = operands[i]!.kind === "m";
      return (
        isMemory === (spec.mod === "mem") &&
        (!isMemory || SIZES[spec.memSize].some((n) => n === operands[i]!.bytes))
      );
    });
  return [...x87Rows, ...x87UndocumentedRows].filter(fits);
}

/** The opcode of this instruction as FOP has it. */
function opcode(insn: Insn): Val {
  const rows = rowsOf(insn);
  const first = rows[0];
  if (!first) return insn.i32(0);
  const i = first.operands.indexOf("STi");
  if (i < 0) return insn.i32(opcodeOf(first));
  const toRegister = rows.find((row) => row.operands[0] === "STi" && row.operands.length === 2);
  const forward = insn.regNumber(i).or(opcodeOf(first));
  if (!toRegister || toRegister === first) return forward;
  const destination = insn.regNumber(0);
  return destination.select(destination.or(opcodeOf(toRegister)), forward);
}

/** Records the instruction (and its memory operand) as the last one. After everything that can fault. */
export function setPointers(insn: Insn): void {
  insn.set(S.FIP, insn.rip());
  insn.set(S.FCS, insn.segSelector(Seg.CS));
  insn.set(S.FOP, insn.x87Opcode() ?? opcode(insn));
  if (!insn.shape.operands.some((o) => o.kind === "m")) return;
  insn.set(S.FDP, insn.offset());
  const isStack = insn.memFlags().and(Access.STACK);
  insn.set(S.FDS, isStack.select(insn.segSelector(Seg.SS), insn.segSelector(Seg.DS)));
}

/** Start of a waiting instruction without memory operand. */
export function begin(insn: Insn): void {
  checkWaiting(insn);
  setPointers(insn);
}

/** The slot of register operand i. */
export const slotOf = (insn: Insn, i: number): Val => stAddress(insn, insn.regNumber(i));

/** Host address of the memory operand for reading. */
export function readOperand(insn: Insn, bytes: number): Val {
  return insn.hostR(insn.ea(bytes, false), bytes, insn.memFlags());
}

export function writeOperand(insn: Insn, bytes: number): Val {
  return insn.hostW(insn.ea(bytes, true), bytes, insn.memFlags());
}

/** Checks, reads the memory operand as a number of its format into Scratch.MEMORY. Answers DE if it is denormal, else 0. */
export function beginWithNumber(insn: Insn, isInteger: boolean): Val {
  const { fn, module } = insn;
  checkWaiting(insn);
  const bytes = insn.shape.operands.find((o) => o.kind === "m")!.bytes;
  const host = readOperand(insn, bytes);
  const value = bytes === 10 ? null : insn.raw(bytes as Bytes, host);
  if (value && isInteger) {
    const wide = bytes === 8 ? value : (bytes === 2 ? value.sext16() : value).extS();
    fn.callVoid(module.get("x87FromInteger"), wide);
    setPointers(insn);
    return insn.i32(0);
  }
  setPointers(insn);
  if (value) return fn.call(module.get(bytes === 4 ? "x87FromSingle" : "x87FromDouble"), value);
  insn.setRaw(8, Scratch.MEMORY, insn.raw(8, host));
  insn.setRaw(2, Scratch.MEMORY, insn.raw(2, host, 8), 8);
  return insn.i32(0);
}
