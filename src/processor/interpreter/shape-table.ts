/**
 * Shapes that have been met, so that there is one object for each and nothing is allocated to find it: blocks are decoded by the ten thousand.
 */

import type { Instruction } from "../isa/instruction.ts";
import type { Row } from "../isa/row.ts";
import type { Shape } from "../semantics/insn.ts";
import { shapeOf } from "./shapes.ts";

/** Numbers below 16. */
const KINDS: Readonly<Record<string, number>> = { reg: 0, mem: 1, imm: 2, rel: 3, far: 4 };
const CLASSES: Readonly<Record<string, number>> = {
  ...{ gpr: 0, gpr8h: 5, xmm: 6, mm: 7, seg: 8, cr: 9, dr: 10, st: 11 },
};
const MOST_OPERANDS = 3;
const MOST_BYTES = 1024;

/** All of an instruction that its shape depends on besides its row, as an exact number; -1 if it has no room there. */
function signatureOf(insn: Instruction, codeSize: number): number {
  const { opCount, opsize, addrSize, rep } = insn;
  if (opCount > MOST_OPERANDS) return -1;
  let n = ((codeSize * 8 + (opsize >> 1)) * 8 + (addrSize >> 1)) * 4 + (rep & 3);
  for (let i = 0; i < opCount; i++) {
    const { kind, cls, size } = insn.ops[i]!;
    const what = kind === "reg" ? CLASSES[cls] : KINDS[kind];
    if (what === undefined || size >= MOST_BYTES) return -1;
    n = (n * 16 + what) * MOST_BYTES + size;
  }
  return n;
}

export class ShapeTable {
  readonly #rows = new Map<Row, Map<number, Shape>>();

  of(insn: Instruction, codeSize: number): Shape {
    const signature = signatureOf(insn, codeSize);
    if (signature < 0) return shapeOf(insn, codeSize);
    let shapes = this.#rows.get(insn.row);
    if (!shapes) {
      shapes = new Map();
      this.#rows.set(insn.row, shapes);
    }
    let shape = shapes.get(signature);
    if (!shape) {
      shape = shapeOf(insn, codeSize);
      shapes.set(signature, shape);
    }
    return shape;
  }
}
