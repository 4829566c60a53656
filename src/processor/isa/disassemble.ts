/** Disassembler: an `Instruction` as text in Intel syntax, for people and traces. Not made to be read by an assembler. */
import { createInstruction, decode } from "./decode.ts";
import { BASE_RIP, type Instruction, type Mode, type Operand, Seg } from "./instruction.ts";
import { registerName } from "./registers.ts";

const POINTER: Record<number, string> = {
  1: "byte",
  2: "word",
  4: "dword",
  6: "fword",
  8: "qword",
  10: "tbyte",
  16: "xmmword",
};

/** Text of a decoded instruction; `address` (of its first byte) makes branch targets and RIP-relative addresses absolute. */
export function formatInstruction(ins: Instruction, address?: bigint): string {
  const operands = ins.ops.slice(0, ins.opCount).map((op) => formatOperand(ins, op, address));
  const name = prefixText(ins) + ins.row.mnemonic.toLowerCase();
  return operands.length === 0 ? name : `${name} ${operands.join(", ")}`;
}

function prefixText(ins: Instruction): string {
  const lock = ins.lock ? "lock " : "";
  if (ins.rep === 0 || !ins.row.repeats) return lock;
  const isConditional = ins.row.sem === "cmps" || ins.row.sem === "scas";
  if (ins.rep === 0xf2) return `${lock}repne `;
  return `${lock}${isConditional ? "repe" : "rep"} `;
}

function formatOperand(ins: Instruction, op: Operand, address: bigint | undefined): string {
  switch (op.kind) {
    case "reg":
      return registerName(op.cls, op.num, op.size);
    case "imm":
      return formatImmediate(op);
    case "rel":
      return formatTarget(ins, op, address);
    case "far":
      return `0x${op.sel.toString(16)}:0x${op.imm.toString(16)}`;
    case "mem":
      return formatMemory(ins, op, address);
  }
}

function formatImmediate(op: Operand): string {
  if (op.size === 8 && !Number.isSafeInteger(op.imm)) {
    return `0x${BigInt.asUintN(64, (BigInt(op.immHi) << 32n) | BigInt(op.immLo >>> 0)).toString(16)}`;
  }
  return signedHex(op.imm);
}

function signedHex(n: number): string {
  return n < 0 ? `-0x${(-n).toString(16)}` : `0x${n.toString(16)}`;
}

function formatTarget(ins: Instruction, op: Operand, address: bigint | undefined): string {
  const distance = ins.length + op.imm;
  if (address === undefined)
    return distance < 0 ? `$-0x${(-distance).toString(16)}` : `$+0x${distance.toString(16)}`;
  return `0x${BigInt.asUintN(op.size * 8, address + BigInt(distance)).toString(16)}`;
}

function formatMemory(ins: Instruction, op: Operand, address: bigint | undefined): string {
  const pointer = op.size === 0 ? "" : `${POINTER[op.size] ?? `${op.size} byte`} ptr `;
  const isStack = op.base === 4 || op.base === 5;
  const isDefault = op.seg === (isStack ? Seg.SS : Seg.DS);
  const segment = isDefault ? "" : `${registerName("seg", op.seg, 2)}:`;
  return `${pointer}${segment}[${formatAddress(ins, op, address)}]`;
}

function formatAddress(ins: Instruction, op: Operand, address: bigint | undefined): string {
  const bits = ins.addrSize * 8;
  if (op.base === BASE_RIP && address !== undefined) {
    const target = address + BigInt(ins.length + op.disp);
    return `0x${BigInt.asUintN(bits, target).toString(16)}`;
  }
  const parts: string[] = [];
  if (op.base === BASE_RIP) parts.push(ins.addrSize === 8 ? "rip" : "eip");
  else if (op.base >= 0) parts.push(registerName("gpr", op.base, ins.addrSize));
  if (op.index >= 0) {
    const scale = op.scale === 0 ? "" : `*${1 << op.scale}`;
    parts.push(registerName("gpr", op.index, ins.addrSize) + scale);
  }
  if (parts.length === 0) {
    const absolute = (BigInt(op.dispHi) << 32n) | BigInt(op.disp >>> 0);
    return `0x${BigInt.asUintN(bits, absolute).toString(16)}`;
  }
  if (op.disp === 0 && parts.length > 0) return parts.join("+");
  return `${parts.join("+")}${op.disp < 0 ? "" : "+"}${signedHex(op.disp)}`;
}

export interface DisassembledLine {
  readonly offset: number;
  readonly length: number;
  readonly text: string;
}

/** Linear disassembly of `bytes`; what does not decode comes out as one `db` each. */
export function disassemble(bytes: Uint8Array, mode: Mode, address = 0n): DisassembledLine[] {
  const ins = createInstruction();
  const lines: DisassembledLine[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const length = decode(bytes, offset, mode, ins);
    const text =
      length > 0
        ? formatInstruction(ins, address + BigInt(offset))
        : `db ${signedHex(bytes[offset]!)}`;
    lines.push({ offset, length: Math.max(length, 1), text });
    offset += Math.max(length, 1);
  }
  return lines;
}
