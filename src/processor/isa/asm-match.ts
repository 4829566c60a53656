/**
 * Finds the rows a mnemonic with operands can mean, and the shortest encoding. Reads the same rows as the decoder; knows no instruction.
 */
import { HypolithError } from "../../base/errors.ts";
import { FarOperand, imm, immediateValue, LabelRef, MemoryOperand } from "./asm-operands.ts";
import {
  type EncodeOptions,
  type Encoding,
  encodeDetailed,
  naturalAddrSize,
  naturalOpsize,
  opsizePrefixes,
} from "./encode.ts";
import { BASE_RIP, type Mode, Operand } from "./instruction.ts";
import { type OperandSpec, SIZES } from "./operand.ts";
import type { Row } from "./row.ts";
import { ROWS } from "./table.ts";

/** Where the address of a label goes. */
export interface Use {
  readonly label: LabelRef;
  readonly at: number;
  readonly size: number;
  /** Relative to the end of the instruction. */
  readonly isRelative: boolean;
}

export interface Match {
  readonly row: Row;
  readonly encoding: Encoding;
  readonly uses: Use[];
  /** 0: good; 1: only if nothing better, because a label may not fit. */
  readonly rank: 0 | 1;
  /** Bytes of the memory operand, or -1. */
  readonly memSize: number;
  /** The memory operand has a size, or a register operand gives it one. */
  readonly isMemSizeClear: boolean;
}

export interface Prefixes {
  lock: boolean;
  rep: 0 | 0xf2 | 0xf3;
}

/** Distance of a label that is known already, from the end of an instruction of `length` bytes here. */
export type KnownDistance = (label: LabelRef, length: number) => number | undefined;

const ALIASES: Record<string, string> = {
  retn: "ret",
  movabs: "mov",
  sal: "shl",
  fwait: "wait",
  xlat: "xlatb",
};
const CC_ALIASES: Record<string, string> = {
  c: "b",
  nae: "b",
  nb: "ae",
  nc: "ae",
  z: "e",
  nz: "ne",
  na: "be",
  nbe: "a",
  pe: "p",
  po: "np",
  nge: "l",
  nl: "ge",
  ng: "le",
  nle: "g",
};
for (const [alias, cc] of Object.entries(CC_ALIASES)) {
  for (const stem of ["j", "set", "cmov"]) ALIASES[stem + alias] = stem + cc;
}
for (const [alias, name] of [
  ["loopz", "loope"],
  ["loopnz", "loopne"],
] as const) {
  ALIASES[alias] = name;
}

const byName = new Map<string, Row[]>();
for (const key of ["mnemonic", "sem"] as const) {
  const mnemonics = new Set(byName.keys());
  for (const row of ROWS) {
    const name = row[key].toLowerCase();
    if (row.alias || (key === "sem" && mnemonics.has(name))) continue;
    const rows = byName.get(name);
    if (rows) rows.push(row);
    else byName.set(name, [row]);
  }
}

/** Rows of a mnemonic, or of a `sem` key that is no mnemonic (callf, movsd_xmm). */
export function rowsNamed(name: string): readonly Row[] {
  return byName.get(ALIASES[name] ?? name) ?? [];
}

/** The best encoding; throws HypolithError "assemble" if there is none or the size of a memory operand is open. */
export function matchBest(
  name: string,
  mode: Mode,
  args: readonly (Operand | LabelRef)[],
  prefixes: Prefixes,
  distance: KnownDistance,
): Match {
  const matches = rowsNamed(name).flatMap((row) => matchRow(row, mode, args, prefixes, distance));
  const clear = matches.filter((m) => m.isMemSizeClear);
  const usable = clear.length > 0 ? clear : matches;
  if (new Set(usable.map((m) => m.memSize)).size > 1) {
    throw new HypolithError("assemble", `${name}: size of the memory operand?`);
  }
  let best: Match | undefined;
  for (const match of usable) if (!best || cost(match) < cost(best)) best = match;
  if (!best)
    throw new HypolithError(
      "assemble",
      `${name}: no such form in ${mode}-bit mode (${describe(args)})`,
    );
  return best;
}

function cost(match: Match): number {
  return match.rank * 100 + match.encoding.bytes.length;
}

function describe(args: readonly (Operand | LabelRef)[]): string {
  return args.map((a) => (a instanceof LabelRef ? a.name : `${a.kind}:${a.size}`)).join(", ");
}

function matchRow(
  row: Row,
  mode: Mode,
  args: readonly (Operand | LabelRef)[],
  prefixes: Prefixes,
  distance: KnownDistance,
): Match[] {
  if (mode === 64 ? row.i64 : row.o64) return [];
  if (prefixes.lock && !(row.lockable && args[0] instanceof MemoryOperand)) return [];
  if (prefixes.rep !== 0 && !row.repeats) return [];
  const isImplied =
    args.length === 0 && row.specs.every((s) => s.place === "string" || s.place === "fixed");
  if (!isImplied && args.length !== row.specs.length) return [];
  const natural = naturalOpsize(row, mode);
  const sizes = ([natural, 2, 4, 8] as const).filter(
    (e, i, all) => all.indexOf(e) === i && (row.opsizes & e) !== 0 && opsizePrefixes(row, mode, e),
  );
  for (const opsize of sizes) {
    const operands = isImplied ? impliedOperands(row, opsize) : args;
    const match = matchAt(row, mode, operands, { opsize, ...prefixes }, distance);
    if (match) return [match];
  }
  return [];
}

function impliedOperands(row: Row, opsize: number): Operand[] {
  return row.specs.map((spec) => {
    const op = new MemoryOperand();
    op.kind = spec.place === "string" ? "mem" : "reg";
    op.cls = spec.cls;
    op.size = SIZES[spec.size][opsize >> 2]!;
    op.num = spec.num;
    op.base = spec.num;
    op.seg = -1;
    return op;
  });
}

function matchAt(
  row: Row,
  mode: Mode,
  args: readonly (Operand | LabelRef)[],
  options: EncodeOptions & { opsize: 2 | 4 | 8 },
  distance: KnownDistance,
): Match | undefined {
  const { opsize } = options;
  if (!row.specs.every((spec, i) => fits(row, spec, args[i]!, opsize, mode))) return undefined;
  const addrSize = addressSize(row, mode, args);
  if ((row.addrSizes & addrSize) === 0 || (mode === 64 ? addrSize === 2 : addrSize === 8))
    return undefined;
  const operands = args.map((arg, i) => resolve(row.specs[i]!, arg, mode));
  const memory = args.find((arg) => arg instanceof MemoryOperand);
  const dispSize = memory?.label && memory.base >= 0 ? (addrSize === 2 ? 2 : 4) : undefined;
  let encoding: Encoding;
  try {
    encoding = encodeDetailed(row, mode, operands, {
      ...options,
      addrSize,
      ...(dispSize === undefined ? {} : { dispSize }),
    });
  } catch (error) {
    if (error instanceof HypolithError) return undefined;
    throw error;
  }
  const uses = labelUses(row, args, operands, encoding);
  const memIndex = args.findIndex((arg) => arg instanceof Operand && arg.kind === "mem");
  const memSize = memIndex < 0 ? -1 : SIZES[row.specs[memIndex]!.memSize][opsize >> 2]!;
  const isMemSizeClear =
    memSize < 0 || (args[memIndex] as Operand).size !== 0 || isSizeOfRegister(row, args, memSize);
  return {
    row,
    encoding,
    uses,
    rank: rankOf(row, args, encoding, distance),
    memSize,
    isMemSizeClear,
  };
}

/** Whether a register operand has this size; the count of a shift says nothing. */
function isSizeOfRegister(row: Row, args: readonly (Operand | LabelRef)[], size: number): boolean {
  return args.some(
    (a, i) =>
      a instanceof Operand && a.kind === "reg" && a.size === size && row.specs[i]!.code !== "CL",
  );
}

/** The size an address needs: of its registers, else the one the row is for, else the mode's. */
function addressSize(row: Row, mode: Mode, args: readonly (Operand | LabelRef)[]): 2 | 4 | 8 {
  for (const arg of args)
    if (arg instanceof MemoryOperand && arg.addrSize !== 0) return arg.addrSize;
  if (row.addrSizes !== (2 | 4 | 8)) return row.addrSizes as 2 | 4 | 8;
  return naturalAddrSize(mode);
}

function fits(
  row: Row,
  spec: OperandSpec,
  arg: Operand | LabelRef,
  opsize: number,
  mode: Mode,
): boolean {
  const size = SIZES[spec.size][opsize >> 2]!;
  if (arg instanceof LabelRef) {
    return spec.place === "rel" || (spec.place === "imm" && size >= 2 && !arg.isShort);
  }
  switch (spec.place) {
    case "one":
      return arg.kind === "imm" && arg.imm === 1;
    case "imm":
      return arg.kind === "imm" && immediateFits(spec, size, opsize, arg);
    case "rel":
      return (
        arg.kind === "rel" &&
        (size === 4 || arg.imm === (arg.imm << (32 - 8 * size)) >> (32 - 8 * size))
      );
    case "far":
      return arg.kind === "far" && (arg.size === 0 || arg.size === opsize);
    case "moffs":
      return (
        arg.kind === "mem" &&
        arg.base < 0 &&
        arg.index < 0 &&
        sameSize(arg, size) &&
        isMoffs(arg, mode)
      );
    case "string":
      return (
        arg.kind === "mem" &&
        arg.base === spec.num &&
        arg.index < 0 &&
        arg.disp === 0 &&
        sameSize(arg, size)
      );
    case "fixed":
      return arg.kind === "reg" && arg.num === spec.num && registerFits(spec, size, arg);
    default:
      if (arg.kind === "mem")
        return spec.mod !== "reg" && spec.place === "rm" && memoryFits(spec, opsize, arg);
      return (
        arg.kind === "reg" &&
        spec.mod !== "mem" &&
        registerFits(spec, size, arg) &&
        isLoadable(row, spec, arg)
      );
  }
}

function registerFits(spec: OperandSpec, size: number, op: Operand): boolean {
  if (spec.cls !== "gpr") return op.cls === spec.cls;
  return (op.cls === "gpr" || (op.cls === "gpr8h" && spec.place !== "fixed")) && op.size === size;
}

/** CS cannot be loaded by MOV. */
function isLoadable(row: Row, spec: OperandSpec, op: Operand): boolean {
  return spec.cls !== "seg" || op.num !== 1 || row.specs[0] !== spec;
}

function sameSize(op: Operand, size: number): boolean {
  return op.size === 0 || op.size === size;
}

function memoryFits(spec: OperandSpec, opsize: number, op: Operand): boolean {
  const size = SIZES[spec.memSize][opsize >> 2]!;
  return (size === 0 || sameSize(op, size)) && (op.dispHi === op.disp >> 31 || op.dispHi === 0);
}

/** In 64-bit mode the form without ModRM is only for addresses that need it. */
function isMoffs(op: Operand, mode: Mode): boolean {
  if (op instanceof MemoryOperand && op.label) return mode !== 64;
  return mode !== 64 || op.dispHi !== op.disp >> 31;
}

function immediateFits(spec: OperandSpec, size: number, opsize: number, op: Operand): boolean {
  const value = immediateValue(op);
  const target = BigInt(8 * (spec.signed ? opsize : size));
  if (value < -(1n << (target - 1n)) || value >= 1n << target) return false;
  if (!spec.signed) return true;
  const bits = Number(target);
  return BigInt.asUintN(bits, BigInt.asIntN(8 * size, value)) === BigInt.asUintN(bits, value);
}

/** The operand as the encoder wants it, with 0 for what a label will fill in. */
function resolve(spec: OperandSpec, arg: Operand | LabelRef, mode: Mode): Operand {
  if (arg instanceof LabelRef) {
    const op = imm(0);
    if (spec.place === "rel") op.kind = "rel";
    return op;
  }
  if (
    !(arg instanceof MemoryOperand && arg.label) ||
    mode !== 64 ||
    arg.base >= 0 ||
    arg.index >= 0
  )
    return arg;
  const op = new MemoryOperand();
  Object.assign(op, arg, { base: BASE_RIP });
  return op;
}

function labelUses(
  row: Row,
  args: readonly (Operand | LabelRef)[],
  operands: readonly Operand[],
  encoding: Encoding,
): Use[] {
  const uses: Use[] = [];
  for (const [i, arg] of args.entries()) {
    if (arg instanceof LabelRef) {
      const isRelative = row.specs[i]!.place === "rel";
      uses.push({ label: arg, at: encoding.immAt, size: encoding.immSize, isRelative });
    } else if (arg instanceof FarOperand && arg.label) {
      uses.push({
        label: arg.label,
        at: encoding.immAt,
        size: encoding.immSize,
        isRelative: false,
      });
    } else if (arg instanceof MemoryOperand && arg.label) {
      const isRelative = operands[i]!.base === BASE_RIP;
      const label = new LabelRef(arg.label.name, arg.label.addend + arg.disp);
      uses.push({ label, at: encoding.dispAt, size: encoding.dispSize, isRelative });
    }
  }
  return uses;
}

function rankOf(
  row: Row,
  args: readonly (Operand | LabelRef)[],
  encoding: Encoding,
  distance: KnownDistance,
): 0 | 1 {
  for (const [i, arg] of args.entries()) {
    if (!(arg instanceof LabelRef)) continue;
    const spec = row.specs[i]!;
    if (spec.place === "imm" && spec.size !== "v") return 1;
    if (spec.place !== "rel") continue;
    if (arg.isShort) return spec.size === "b" ? 0 : 1;
    if (spec.size !== "b") continue;
    const known = distance(arg, encoding.bytes.length);
    if (known === undefined || known < -128 || known > 127) return 1;
  }
  return 0;
}
