/**
 * From a decoded instruction to its record in memory (state/layout.ts, Rec).
 * Hot path of cold code: called once per instruction when its block is first met.
 */
import { invariant } from "../../base/invariant.ts";
import { BASE_RIP, type Instruction, type Operand } from "../isa/instruction.ts";
import {
  Ea,
  FPR,
  GPR,
  Mode,
  Rec,
  S,
  SEG_BASE,
  segmentAt,
  XMM,
  ZERO_SLOT,
} from "../state/layout.ts";
import { isStringKey } from "./shapes.ts";

const SS = 2;
const FS = 4;

function registerSlot(op: Operand): number {
  switch (op.cls) {
    case "gpr":
      return GPR + 8 * op.num;
    case "gpr8h":
      return GPR + 8 * op.num + 1;
    case "xmm":
      return XMM + 16 * op.num;
    case "mm":
      return FPR + 16 * op.num;
    default:
      return op.num;
  }
}

/** EA flags of a memory operand: address size, and what segmentation asks for. */
function eaFlags(op: Operand, insn: Instruction, mode: number, is64BitOffset: boolean): number {
  const stack = op.seg === SS ? Ea.STACK : 0;
  if (is64BitOffset) return stack | Ea.SLOW | Ea.ABSOLUTE;
  if ((mode & Mode.CODE_MASK) === Mode.CODE64) {
    return insn.addrSize === 8 ? stack : stack | Ea.SLOW | Ea.ADDRESS32;
  }
  const size = insn.addrSize === 2 ? Ea.ADDRESS16 : Ea.ADDRESS32;
  const isFlat = (mode & Mode.FLAT) !== 0 && op.seg < FS && op.seg !== 1;
  return stack | Ea.SLOW | size | (isFlat ? 0 : Ea.CHECKED | (op.seg << Ea.SEGMENT_SHIFT));
}

/** Writes the record of `insn` at byte address `at`; `offset` is the instruction's place relative to its first linear page. */
export function writeRecord(
  view: DataView,
  at: number,
  insn: Instruction,
  mode: number,
  handler: number,
  offset: number,
): void {
  view.setBigUint64(at, 0n, true);
  view.setBigUint64(at + 8, 0n, true);
  view.setBigUint64(at + 16, 0n, true);
  view.setBigUint64(at + 24, 0n, true);
  view.setUint16(at + Rec.HANDLER, handler, true);
  view.setUint8(at + Rec.LENGTH, insn.length);
  view.setUint16(at + Rec.OFFSET, offset, true);
  // No x87 instruction has a third operand.
  if (insn.row.map === "1" && (insn.row.opcode & 0xf8) === 0xd8)
    view.setUint16(at + Rec.OP2, ((insn.row.opcode & 7) << 8) | insn.modrm, true);
  const isString = isStringKey(insn.row.sem);
  let immediates = 0;
  for (let i = 0; i < insn.opCount; i++) {
    const op = insn.ops[i]!;
    switch (op.kind) {
      case "reg":
        invariant(i < 3, "at most three register operands");
        view.setUint16(
          at + (i === 0 ? Rec.OP0 : i === 1 ? Rec.OP1 : Rec.OP2),
          registerSlot(op),
          true,
        );
        break;
      case "mem":
        if (!isString || insn.row.operands[i]!.startsWith("X"))
          writeMemory(view, at, op, insn, mode, offset, isString);
        break;
      case "imm":
        if (immediates++ === 0) {
          view.setInt32(at + Rec.IMMEDIATE, op.immLo, true);
          view.setInt32(at + Rec.IMMEDIATE + 4, op.immHi, true);
        } else view.setInt32(at + Rec.CHAIN, op.immLo, true);
        break;
      case "rel":
        view.setInt32(at + Rec.IMMEDIATE, op.imm, true);
        view.setUint8(at + Rec.EA, Ea.BRANCH);
        break;
      case "far":
        view.setInt32(at + Rec.IMMEDIATE, op.imm | 0, true);
        view.setInt32(at + Rec.CHAIN, op.sel, true);
        break;
    }
  }
}

function writeMemory(
  view: DataView,
  at: number,
  op: Operand,
  insn: Instruction,
  mode: number,
  offset: number,
  isString: boolean,
): void {
  const is64 = (mode & Mode.CODE_MASK) === Mode.CODE64;
  const isWide = op.base < 0 && op.index < 0 && op.dispHi !== op.disp >> 31 && insn.addrSize === 8;
  let flags = eaFlags(op, insn, mode, isWide);
  if (isString && !is64) flags |= op.seg << Ea.SEGMENT_SHIFT;
  view.setUint8(at + Rec.EA, flags);
  let displacement = op.disp;
  let base = ZERO_SLOT;
  if (op.base === BASE_RIP) {
    base = S.RIP_PAGE.at;
    displacement += offset + insn.length;
    if (displacement > 0x7fff_ffff) view.setUint8(at + Rec.EA, flags | Ea.SLOW | Ea.UNSIGNED);
  } else if (op.base >= 0) base = GPR + 8 * op.base;
  view.setUint16(at + Rec.BASE, base, true);
  view.setUint16(at + Rec.INDEX, op.index >= 0 ? GPR + 8 * op.index : ZERO_SLOT, true);
  view.setUint8(at + Rec.SCALE, op.scale);
  view.setInt32(at + Rec.DISPLACEMENT, displacement, true);
  const hasBase = !is64 || op.seg >= FS;
  view.setUint16(at + Rec.SEGMENT, hasBase ? segmentAt(op.seg) + SEG_BASE : ZERO_SLOT, true);
  if (isWide) {
    // No immediate goes with a 64-bit offset.
    view.setInt32(at + Rec.IMMEDIATE, op.disp, true);
    view.setInt32(at + Rec.IMMEDIATE + 4, op.dispHi, true);
  }
}
