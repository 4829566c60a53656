/** Every row, in every mode and operand size: row -> encode -> decode -> the same row and operands -> print. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryOperand } from "./asm-operands.ts";
import { Assembler } from "./assemble.ts";
import { createInstruction, decode } from "./decode.ts";
import { formatInstruction } from "./disassemble.ts";
import { encode, naturalAddrSize, naturalOpsize, opsizePrefixes } from "./encode.ts";
import { type Instruction, type Mode, Operand, type OperandKind } from "./instruction.ts";
import { type OperandSpec, SIZES } from "./operand.ts";
import type { Row } from "./row.ts";
import { ROWS } from "./table.ts";

type Size = 2 | 4 | 8;

/** Deterministic numbers 0..n-1. */
let state = 1;
function below(n: number): number {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return (state >>> 8) % n;
}

function randomOperand(
  row: Row,
  spec: OperandSpec,
  mode: Mode,
  opsize: Size,
  addrSize: Size,
): Operand {
  const op = new Operand();
  op.size = SIZES[spec.size][opsize >> 2]!;
  if (spec.place === "moffs" || spec.place === "string") return fixedMemory(op, spec, addrSize);
  if (
    spec.place === "rm" &&
    (spec.mod === "mem" || (spec.mod === "any" && row.mod !== "reg" && below(2) === 0))
  ) {
    op.size = SIZES[spec.memSize][opsize >> 2]!;
    return randomMemory(op, mode, addrSize);
  }
  if (spec.place === "imm" || spec.place === "rel") return randomImmediate(op, spec, opsize);
  if (spec.place === "far") {
    op.kind = "far";
    op.size = opsize;
    op.sel = below(0x10000);
    op.imm = opsize === 2 ? below(0x10000) : below(0x10000) * 0x8001;
    return op;
  }
  if (spec.place === "one") {
    op.kind = "imm";
    op.imm = op.immLo = 1;
    return op;
  }
  op.cls = spec.cls;
  op.num = spec.place === "fixed" ? spec.num : randomNumber(row, spec, mode, op.size);
  return op;
}

function randomNumber(row: Row, spec: OperandSpec, mode: Mode, size: number): number {
  const isWide = mode === 64 && (spec.cls === "gpr" || spec.cls === "xmm");
  if (spec.cls === "cr") return [0, 2, 3, 4][below(4)]!;
  if (spec.cls === "seg") return row.specs[0] === spec ? [0, 2, 3, 4, 5][below(5)]! : below(6);
  if (row.rexB === 1) return mode === 64 ? 8 + below(8) : 0;
  if (row.plusReg && row.opcode === 0x90) return 1 + below(isWide ? 15 : 7); // 90 itself is NOP
  const isByte = spec.cls === "gpr" && size === 1;
  return below(isWide ? 16 : isByte ? 4 : 8);
}

function fixedMemory(op: Operand, spec: OperandSpec, addrSize: Size): Operand {
  op.kind = "mem";
  op.seg = spec.fixedEs ? 0 : 3;
  op.base = spec.num;
  if (spec.place === "moffs") {
    op.disp = addrSize === 2 ? below(0x10000) : below(0x10000) * 0x7fff;
    op.dispHi = addrSize === 8 ? below(0x10000) : 0;
  }
  return op;
}

function randomMemory(op: Operand, mode: Mode, addrSize: Size): Operand {
  op.kind = "mem";
  op.disp = [0, 1, -128, 127, 128, -129, 0x1234][below(7)]!;
  if (addrSize === 2) {
    [op.base, op.index] = [
      [3, 6],
      [5, 7],
      [6, -1],
      [5, -1],
      [-1, -1],
    ][below(5)] as [number, number];
  } else {
    const count = mode === 64 ? 16 : 8;
    op.base = below(4) === 0 ? -1 : below(count);
    if (mode === 64 && below(6) === 0) op.base = 16;
    op.index = op.base === 16 || below(2) === 0 ? -1 : below(count);
    if (op.index === 4) op.index = -1;
    if (op.index >= 0) op.scale = below(4);
  }
  op.seg = below(3) === 0 ? 4 + below(2) : op.base === 4 || op.base === 5 ? 2 : 3;
  op.dispHi = op.disp >> 31;
  return op;
}

function randomImmediate(op: Operand, spec: OperandSpec, opsize: Size): Operand {
  op.kind = spec.place === "rel" ? "rel" : "imm";
  const bits = Math.min(8 * op.size, 32);
  const raw = (below(0x10000) | (below(0x10000) << 16)) >>> 0;
  op.imm = spec.signed ? (raw << (32 - bits)) >> (32 - bits) : raw & (2 ** bits - 1);
  op.immLo = op.imm | 0;
  op.immHi = op.imm < 0 ? -1 : 0;
  if (spec.signed) op.size = opsize;
  return op;
}

function assertSameOperand(ours: Operand, decoded: Operand, text: string): void {
  const fields: Record<OperandKind, readonly (keyof Operand)[]> = {
    reg: ["cls", "num"],
    mem: ["seg", "base", "index", "scale", "disp", "dispHi"],
    imm: ["imm", "immLo", "immHi"],
    rel: ["imm"],
    far: ["imm", "sel"],
  };
  for (const field of ["kind", "size", ...fields[decoded.kind]] as const) {
    assert.equal(decoded[field], ours[field], `${text}: ${field}`);
  }
}

function isSameRow(row: Row, decoded: Row): boolean {
  if (row === decoded) return true;
  // NOP of the hint space: its ModRM.reg is not an operand, so the encoder's 0 may be a more special row.
  return row.alias && row.map === "0F" && row.opcode === decoded.opcode;
}

function roundTrip(row: Row, mode: Mode, opsize: Size, addrSize: Size, ins: Instruction): void {
  const operands = row.specs.map((spec) => randomOperand(row, spec, mode, opsize, addrSize));
  const lock = row.lockable && operands[0]!.kind === "mem" && below(2) === 0;
  const rep = row.repeats && below(2) === 0 ? 0xf3 : 0;
  const bytes = encode(row, mode, operands, { opsize, addrSize, lock, rep });
  const text = `${mode}-bit ${row.mnemonic} ${row.operands} ${Buffer.from(bytes).toString("hex")}`;
  assert.equal(decode(bytes, 0, mode, ins), bytes.length, text);
  assert.ok(isSameRow(row, ins.row), `${text}: decoded as ${ins.row.mnemonic} ${ins.row.operands}`);
  if (row !== ins.row) return;
  assert.equal(ins.opsize, opsize, text);
  assert.equal(ins.addrSize, addrSize, text);
  assert.equal(ins.lock, lock, text);
  assert.equal(ins.rep, rep, text);
  assert.equal(ins.opCount, operands.length, text);
  for (const [i, op] of operands.entries()) assertSameOperand(op, ins.ops[i]!, text);
  assert.match(formatInstruction(ins, 0x1000n), /^[a-z0-9]+( .*)?$/);
}

/** The assembler, given mnemonic and operands only, must write something that means the same (perhaps by a shorter row). */
function assembleAgain(row: Row, mode: Mode, opsize: Size, ins: Instruction): void {
  const operands = row.specs.map((spec) =>
    randomOperand(row, spec, mode, opsize, naturalAddrSize(mode)),
  );
  const args = operands.map((op) => {
    const hasRegister = op.kind === "mem" && op.base !== 16 && (op.base >= 0 || op.index >= 0);
    return op.kind === "mem"
      ? Object.assign(new MemoryOperand(), op, {
          addrSize: hasRegister ? naturalAddrSize(mode) : 0,
        })
      : op;
  });
  const name = row.sem === "jmpf" || row.sem === "callf" ? row.sem : row.mnemonic.toLowerCase();
  const bytes = new Assembler(mode).emit(name, ...args).assemble();
  const text = `${mode}-bit ${name} ${row.operands} -> ${Buffer.from(bytes).toString("hex")}`;
  assert.equal(decode(bytes, 0, mode, ins), bytes.length, text);
  assert.equal(ins.row.mnemonic, row.mnemonic, text);
  assert.equal(ins.opCount, operands.length, text);
  if (ins.row !== row || ins.opsize !== opsize) return;
  for (const [i, op] of operands.entries()) assertSameOperand(op, ins.ops[i]!, text);
}

for (const mode of [16, 32, 64] as const) {
  test(`${mode}-bit mode: the assembler finds every row by its mnemonic`, () => {
    const ins = createInstruction();
    for (const row of ROWS) {
      if (row.alias || (mode === 64 ? row.i64 : row.o64)) continue;
      if ((row.addrSizes & (mode === 64 ? 4 | 8 : 2 | 4)) === 0) continue;
      for (const opsize of [2, 4, 8] as const) {
        if ((row.opsizes & opsize) === 0 || !opsizePrefixes(row, mode, opsize)) continue;
        for (let i = 0; i < 4; i++) assembleAgain(row, mode, opsize, ins);
      }
    }
  });

  test(`${mode}-bit mode: every row survives encode and decode`, () => {
    const ins = createInstruction();
    for (const row of ROWS) {
      if (mode === 64 ? row.i64 : row.o64) continue;
      const addrSizes = mode === 64 ? ([8, 4] as const) : ([2, 4] as const);
      for (const opsize of [2, 4, 8] as const) {
        if ((row.opsizes & opsize) === 0 || !opsizePrefixes(row, mode, opsize)) continue;
        for (const addrSize of addrSizes) {
          if ((row.addrSizes & addrSize) === 0) continue;
          for (let i = 0; i < 12; i++) roundTrip(row, mode, opsize, addrSize, ins);
        }
      }
      assert.ok(opsizePrefixes(row, mode, naturalOpsize(row, mode)), row.mnemonic);
    }
  });
}
