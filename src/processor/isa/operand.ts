/**
 * Operand codes of SDM Vol. 2, Appendix A, "Codes for Addressing Method" and "Codes for Operand Type", parsed once per row.
 *
 * Addressing:  E r/m general register or memory   G reg general    M memory only     R r/m register only
 *              W r/m XMM or memory   U r/m XMM    V reg XMM        Q r/m MMX or memory   N r/m MMX   P reg MMX
 *              S segment   C control   D debug register (all in reg)     Z register in the opcode byte (manual: rAX/r8 ...)
 *              I immediate   sI sign-extended to the operand size   J relative   A far pointer   O offset without ModRM
 *              X DS:rSI   Y ES:rDI   BA DS:rAX   BB DS:rBX (XLAT adds AL)   BD DS:rDI (not in the appendix; MONITOR, XLAT, MASKMOV)
 * Type:        b 1  w 2  d 4  q 8  dq,ps,pd 16  ss 4  sd 8  t 10 bytes; v operand size; z operand size, at most 4; y 4 or 8;
 *              p selector and offset; s limit and base; a two of v; x87 memory as in the instruction pages: m32fp m16int m80bcd ...
 * "Rv/Mw" joins a register code and a memory code of different types. Fixed registers: AL CL DX eAX rAX ES ... XMM0 ST0; STi is r/m.
 */
import { invariant } from "../../base/invariant.ts";
import type { RegClass } from "./instruction.ts";

/** Where an operand is: ModRM.rm, ModRM.reg, opcode, ..., memory at a fixed register, a fixed register, the constant 1 of shifts. */
export const OPERAND_PLACES = [
  "rm",
  "reg",
  "opreg",
  "imm",
  "rel",
  "far",
  "moffs",
  "string",
  "fixed",
  "one",
] as const;

export type OperandPlace = (typeof OPERAND_PLACES)[number];

export const OPERAND_CLASSES: readonly RegClass[] = [
  "gpr",
  "gpr8h",
  "seg",
  "cr",
  "dr",
  "mm",
  "xmm",
  "st",
];

/** Operand type: bytes as a function of the effective operand size. */
export type SizeCode = keyof typeof SIZES;

/** Bytes for effective operand sizes 2, 4, 8. */
export const SIZES = {
  "": [0, 0, 0],
  b: [1, 1, 1],
  w: [2, 2, 2],
  d: [4, 4, 4],
  q: [8, 8, 8],
  dq: [16, 16, 16],
  ps: [16, 16, 16],
  pd: [16, 16, 16],
  ss: [4, 4, 4],
  sd: [8, 8, 8],
  t: [10, 10, 10],
  v: [2, 4, 8],
  z: [2, 4, 4],
  y: [4, 4, 8],
  p: [4, 6, 10],
  s: [6, 6, 10],
  a: [4, 8, 16],
  env: [14, 28, 28],
  sav: [94, 108, 108],
  fx: [512, 512, 512],
} as const satisfies Record<string, readonly [number, number, number]>;

export const SIZE_CODES = Object.keys(SIZES) as readonly SizeCode[];

export interface OperandSpec {
  readonly code: string;
  readonly place: OperandPlace;
  /** Class of the register form. */
  readonly cls: RegClass;
  /** Type of the register form (or of the immediate, offset, ...), and of the memory form. */
  readonly size: SizeCode;
  readonly memSize: SizeCode;
  /** What ModRM.mod may be; matters for `rm`. */
  readonly mod: "any" | "mem" | "reg";
  /** Number of the fixed register, or base register of a `string` operand; else -1. */
  readonly num: number;
  /** imm: sign-extended. string: the segment is ES and cannot be overridden. */
  readonly signed: boolean;
  readonly fixedEs: boolean;
}

const FIXED: Record<string, readonly [RegClass, number, SizeCode]> = {
  AL: ["gpr", 0, "b"],
  CL: ["gpr", 1, "b"],
  AX: ["gpr", 0, "w"],
  DX: ["gpr", 2, "w"],
  eAX: ["gpr", 0, "z"],
  rAX: ["gpr", 0, "v"],
  ES: ["seg", 0, "v"],
  CS: ["seg", 1, "v"],
  SS: ["seg", 2, "v"],
  DS: ["seg", 3, "v"],
  FS: ["seg", 4, "v"],
  GS: ["seg", 5, "v"],
  XMM0: ["xmm", 0, "dq"],
  ST0: ["st", 0, "t"],
};

const METHODS: Record<string, readonly [OperandPlace, RegClass, "any" | "mem" | "reg"]> = {
  E: ["rm", "gpr", "any"],
  M: ["rm", "gpr", "mem"],
  R: ["rm", "gpr", "reg"],
  W: ["rm", "xmm", "any"],
  U: ["rm", "xmm", "reg"],
  Q: ["rm", "mm", "any"],
  N: ["rm", "mm", "reg"],
  G: ["reg", "gpr", "any"],
  V: ["reg", "xmm", "any"],
  P: ["reg", "mm", "any"],
  S: ["reg", "seg", "any"],
  C: ["reg", "cr", "any"],
  D: ["reg", "dr", "any"],
  Z: ["opreg", "gpr", "any"],
  I: ["imm", "gpr", "any"],
  sI: ["imm", "gpr", "any"],
  J: ["rel", "gpr", "any"],
  A: ["far", "gpr", "any"],
  O: ["moffs", "gpr", "any"],
  X: ["string", "gpr", "any"],
  Y: ["string", "gpr", "any"],
  BA: ["string", "gpr", "any"],
  BB: ["string", "gpr", "any"],
  BD: ["string", "gpr", "any"],
};

const STRING_BASE: Record<string, number> = { X: 6, Y: 7, BA: 0, BB: 3, BD: 7 };

/** Memory operands of the x87 and state instructions, by the names of their instruction pages. */
const NAMED_MEMORY: Record<string, SizeCode> = {
  m16int: "w",
  m32int: "d",
  m64int: "q",
  m32fp: "d",
  m64fp: "q",
  m80fp: "t",
  m80bcd: "t",
  m2byte: "w",
  "m14/28byte": "env",
  "m94/108byte": "sav",
  m512byte: "fx",
};

/** Parses one operand code; an unknown one is a broken invariant. */
export function parseOperand(code: string): OperandSpec {
  const spec = {
    code,
    place: "fixed" as OperandPlace,
    cls: "gpr" as RegClass,
    size: "" as SizeCode,
    memSize: "" as SizeCode,
    mod: "any" as "any" | "mem" | "reg",
    num: -1,
    signed: false,
    fixedEs: false,
  };
  const fixed = FIXED[code];
  if (fixed) return { ...spec, cls: fixed[0], num: fixed[1], size: fixed[2] };
  if (code === "1") return { ...spec, place: "one", size: "b" };
  if (code === "STi") return { ...spec, place: "rm", cls: "st", size: "t", mod: "reg" };
  const named = NAMED_MEMORY[code];
  if (named !== undefined) return { ...spec, place: "rm", mod: "mem", size: named, memSize: named };

  const [first, second] = code.split("/") as [string, string?];
  const main = parseMethod(first);
  if (second === undefined) return { ...spec, ...main };
  const memory = parseMethod(second);
  invariant(main.mod === "reg" && memory.mod === "mem", `operand code ${code}: register/memory`);
  return { ...spec, ...main, memSize: memory.memSize, mod: "any" };
}

function parseMethod(code: string) {
  const match = /^(sI|B[ABD]|[A-Z])([a-z]*)$/.exec(code);
  const method = match && METHODS[match[1]!];
  invariant(match && method && Object.hasOwn(SIZES, match[2]!), `operand code ${code}`);
  const [letter, size] = [match[1]!, match[2] as SizeCode];
  return {
    place: method[0],
    cls: method[1],
    mod: method[2],
    size,
    memSize: size,
    num: STRING_BASE[letter] ?? -1,
    signed: letter === "sI" || (letter === "I" && (size === "z" || size === "v")) || letter === "J",
    fixedEs: letter === "Y",
  };
}
