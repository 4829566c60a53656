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
import { BASE_RIP, type Mode, Operand, Seg } from "./instruction.ts";
import { type OperandPlace, type OperandSpec, SIZES } from "./operand.ts";
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

/** One instruction to assemble. */
export interface Request {
  readonly name: string;
  readonly mode: Mode;
  readonly args: readonly (Operand | LabelRef)[];
  readonly prefixes: Prefixes;
  readonly distance: KnownDistance;
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
export function matchBest(request: Request): Match {
  const { name, mode, args } = request;
  const matches = rowsNamed(name).flatMap((row) => matchRow(row, request) ?? []);
  const clear = matches.filter((m) => m.isMemSizeClear);
  const usable = clear.length > 0 ? clear : matches;
  if (new Set(usable.map((m) => m.memSize)).size > 1) {
    throw new HypolithError("assemble", `${name}: size of the memory operand?`);
  }
  let best: Match | undefined;
  for (const match of usable) if (!best || cost(match) < cost(best)) best = match;
  if (best) return best;
  throw new HypolithError(
    "assemble",
    `${name}: no such form in ${mode}-bit mode (${describe(args)})`,
  );
}

function cost(match: Match): number {
  return match.rank * 100 + match.encoding.bytes.length;
}

function describe(args: readonly (Operand | LabelRef)[]): string {
  return args.map((a) => (a instanceof LabelRef ? a.name : `${a.kind}:${a.size}`)).join(", ");
}

function matchRow(row: Row, request: Request): Match | undefined {
  const { mode, args, prefixes } = request;
  if (mode === 64 ? row.i64 : row.o64) return undefined;
  if (prefixes.lock && !(row.lockable && args[0] instanceof MemoryOperand)) return undefined;
  if (prefixes.rep !== 0 && !row.repeats) return undefined;
  const isImplied =
    args.length === 0 && row.specs.every((s) => s.place === "string" || s.place === "fixed");
  if (!isImplied && args.length !== row.specs.length) return undefined;
  for (const opsize of new Set([naturalOpsize(row, mode), 2, 4, 8] as const)) {
    if ((row.opsizes & opsize) === 0 || !opsizePrefixes(row, mode, opsize)) continue;
    const operands = isImplied ? impliedOperands(row, opsize) : args;
    const match = matchAt(row, { ...request, args: operands }, opsize);
    if (match) return match;
  }
  return undefined;
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

function matchAt(row: Row, request: Request, opsize: 2 | 4 | 8): Match | undefined {
  const { mode, args } = request;
  if (!row.specs.every((spec, i) => fits(spec, args[i]!, opsize, mode))) return undefined;
  const addrSize = addressSize(row, mode, args);
  if ((row.addrSizes & addrSize) === 0 || !isLoadable(row, args)) return undefined;
  const operands = args.map((arg, i) => resolve(row.specs[i]!, arg, mode));
  const memory = args.find((arg) => arg instanceof MemoryOperand);
  const dispSize = memory?.label && memory.base >= 0 ? (addrSize === 2 ? 2 : 4) : 0;
  const options: EncodeOptions = { opsize, addrSize, dispSize, ...request.prefixes };
  const encoding = tryEncode(row, mode, operands, options);
  if (!encoding) return undefined;
  const memIndex = args.findIndex((arg) => arg instanceof Operand && arg.kind === "mem");
  const memSize = memIndex < 0 ? -1 : SIZES[row.specs[memIndex]!.memSize][opsize >> 2]!;
  const isMemSizeClear =
    memSize < 0 || (args[memIndex] as Operand).size !== 0 || isSizeOfRegister(row, args, memSize);
  const uses = labelUses(row, args, operands, encoding);
  return { row, encoding, uses, rank: rankOf(row, request, encoding), memSize, isMemSizeClear };
}

function tryEncode(
  row: Row,
  mode: Mode,
  operands: readonly Operand[],
  options: EncodeOptions,
): Encoding | undefined {
  try {
    return encodeDetailed(row, mode, operands, options);
  } catch (error) {
    if (error instanceof HypolithError) return undefined;
    throw error;
  }
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

function fits(spec: OperandSpec, arg: Operand | LabelRef, opsize: number, mode: Mode): boolean {
  const size = SIZES[spec.size][opsize >> 2]!;
  if (arg instanceof LabelRef) {
    return spec.place === "rel" || (spec.place === "imm" && size >= 2 && !arg.isShort);
  }
  if (arg.kind === "reg") {
    if (spec.place === "fixed" && arg.num !== spec.num) return false;
    return REGISTER_PLACES.has(spec.place) && spec.mod !== "mem" && registerFits(spec, size, arg);
  }
  switch (spec.place) {
    case "one":
      return arg.kind === "imm" && arg.imm === 1;
    case "imm":
      return arg.kind === "imm" && immediateFits(spec, size, opsize, arg);
    case "rel":
      return (
        arg.kind === "rel" &&
        (size === 4 || BigInt.asIntN(8 * size, BigInt(arg.imm)) === BigInt(arg.imm))
      );
    case "far":
      return arg.kind === "far" && (arg.size === 0 || arg.size === opsize);
    default:
      return arg.kind === "mem" && memoryFits(spec, opsize, arg, mode);
  }
}

function registerFits(spec: OperandSpec, size: number, op: Operand): boolean {
  if (spec.cls !== "gpr") return op.cls === spec.cls;
  return (op.cls === "gpr" || (op.cls === "gpr8h" && spec.place !== "fixed")) && op.size === size;
}

/** CS cannot be loaded by MOV. */
function isLoadable(row: Row, args: readonly (Operand | LabelRef)[]): boolean {
  const [target] = args;
  return row.sem !== "mov_to_sreg" || !(target instanceof Operand && target.num === Seg.CS);
}

const REGISTER_PLACES: ReadonlySet<OperandPlace> = new Set([
  "rm",
  "reg",
  "opreg",
  "fixed",
] as const);

function memoryFits(spec: OperandSpec, opsize: number, op: Operand, mode: Mode): boolean {
  const isAbsolute = op.base < 0 && op.index < 0;
  const isLabel = op instanceof MemoryOperand && op.label !== undefined;
  const isWide = op.dispHi !== op.disp >> 31 && !isLabel; // beyond what sign extension gives
  const size = SIZES[spec.place === "rm" ? spec.memSize : spec.size][opsize >> 2]!;
  if (size !== 0 && op.size !== 0 && op.size !== size) return false;
  switch (spec.place) {
    case "rm":
      return spec.mod !== "reg" && !(isWide && mode === 64);
    case "moffs":
      return isAbsolute && (mode !== 64 || isWide);
    case "string":
      return op.base === spec.num && op.index < 0 && op.disp === 0 && !isLabel;
    default:
      return false;
  }
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
  const isLabel = arg instanceof MemoryOperand && arg.label !== undefined;
  if (!isLabel || mode !== 64 || arg.base >= 0 || arg.index >= 0) return arg;
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

function rankOf(row: Row, request: Request, encoding: Encoding): 0 | 1 {
  for (const [i, arg] of request.args.entries()) {
    if (!(arg instanceof LabelRef)) continue;
    const spec = row.specs[i]!;
    if (spec.place === "imm" && spec.size !== "v") return 1;
    if (spec.place !== "rel") continue;
    if (arg.isShort) return spec.size === "b" ? 0 : 1;
    if (spec.size !== "b") continue;
    const known = request.distance(arg, encoding.bytes.length);
    if (known === undefined || known < -128 || known > 127) return 1;
  }
  return 0;
}
