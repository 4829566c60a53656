/**
 * One row of the instruction set reference: encoding, mnemonic, operands, properties. Rows are written in the notation of SDM Vol. 2
 * ("Instruction Format", opcode column) with the operand codes of Vol. 2, Appendix A, "Opcode Map":
 *
 *     ["F3 0F B8 /r", "POPCNT", "Gv,Ev", "feature:popcnt"]
 *
 * Encoding: [NP | NFx | 66 | F3 | F2] [0F [38 | 3A]] opcode[+r | +cc] [/r | /0../7 | modrm byte [+i]].
 *   NP: none of 66 F3 F2. NFx: no F3 F2 (66 is free to choose the operand size). Without any of these, a prefix is an operand size or is
 *   ignored, unless another row of the opcode claims it.
 * Options: see OPTION_WORDS. `+cc` and its `{cc}` in the mnemonic make sixteen rows.
 *
 * A row is validated when it is built: wrong notation is a broken invariant at load. Decoder, assembler and disassembler read the rows.
 */
import { invariant } from "../../base/invariant.ts";
import { FEATURES, type Feature } from "./features.ts";
import { type OperandSpec, parseOperand } from "./operand.ts";

export type OpcodeMap = "1" | "0F" | "0F38" | "0F3A";
export type RowPrefix = "" | "NP" | "NFx" | "66" | "F3" | "F2";
export type ModConstraint = "any" | "mem" | "reg";

export interface Row {
  /** Index in the whole table; stable within one build only. */
  id: number;
  /** Intel mnemonic, upper case. */
  readonly mnemonic: string;
  /** Key of the meaning: rows that differ only in encoding, sizes or operand locations share it. */
  readonly sem: string;
  /** Condition code 0..15, or -1. */
  readonly cc: number;
  readonly prefix: RowPrefix;
  readonly map: OpcodeMap;
  /** Opcode byte; with `plusReg` the first of eight. */
  readonly opcode: number;
  readonly plusReg: boolean;
  readonly hasModrm: boolean;
  /** ModRM.reg as opcode extension, or -1. */
  readonly ext: number;
  /** ModRM.rm as opcode extension (mod is then 3), or -1. */
  readonly rm: number;
  readonly mod: ModConstraint;
  /** Operand codes as written, and parsed. */
  readonly operands: readonly string[];
  readonly specs: readonly OperandSpec[];

  /** LOCK is allowed if the first operand is memory. */
  readonly lockable: boolean;
  /** Operand size is 64 in 64-bit mode unless a 66 prefix makes it 16. */
  readonly d64: boolean;
  /** Operand size is 64 in 64-bit mode whatever the prefixes. */
  readonly f64: boolean;
  /** Operand size is never 64: REX.W counts for nothing but to hide a 66 prefix. */
  readonly no64: boolean;
  /** Only outside, only in 64-bit mode. */
  readonly i64: boolean;
  readonly o64: boolean;
  /** #UD in real-address and virtual-8086 mode; the decoder does not know these, the executor checks. */
  readonly noReal: boolean;
  /** #GP(0) outside ring 0; checked by the executor. */
  readonly cpl0: boolean;
  /** ModRM.mod is ignored and read as 3 (MOV CR, MOV DR). */
  readonly modIgnored: boolean;
  /** Effective operand sizes / address sizes the row is for: sum of 2, 4, 8. */
  readonly opsizes: number;
  readonly addrSizes: number;
  /** Only without (0) or only with (1) REX.B; -1: either. */
  readonly rexB: -1 | 0 | 1;
  /** F3 and F2 that are not part of the encoding repeat the instruction. */
  readonly repeats: boolean;
  /** Another encoding of something; the assembler never picks it. */
  readonly alias: boolean;
  readonly feature: Feature;
}

/** Encoding, mnemonic, operand codes, options: one line of the manual. */
export type RowText = readonly [
  encoding: string,
  mnemonic: string,
  operands?: string,
  options?: string,
];

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const OPTION_WORDS: Record<string, (r: Mutable<Row>) => void> = {
  lock: (r) => (r.lockable = true),
  d64: (r) => (r.d64 = true),
  f64: (r) => (r.f64 = true),
  no64: (r) => (r.no64 = true),
  i64: (r) => (r.i64 = true),
  o64: (r) => (r.o64 = true),
  noreal: (r) => (r.noReal = true),
  cpl0: (r) => (r.cpl0 = true),
  modignored: (r) => (r.modIgnored = true),
  o16: (r) => (r.opsizes = 2),
  o32: (r) => (r.opsizes = 4),
  w0: (r) => (r.opsizes = 2 | 4),
  o32up: (r) => (r.opsizes = 4 | 8),
  w1: (r) => (r.opsizes = 8),
  a16: (r) => (r.addrSizes = 2),
  a32: (r) => (r.addrSizes = 4),
  a64: (r) => (r.addrSizes = 8),
  rexb0: (r) => (r.rexB = 0),
  rexb1: (r) => (r.rexB = 1),
  rep: (r) => (r.repeats = true),
  alias: (r) => (r.alias = true),
};

export const CONDITIONS = [
  "O",
  "NO",
  "B",
  "AE",
  "E",
  "NE",
  "BE",
  "A",
  "S",
  "NS",
  "P",
  "NP",
  "L",
  "GE",
  "LE",
  "G",
] as const;

const ENCODING =
  /^(?:(NP|NFx|66|F3|F2) )?(?:(0F)(?: (38|3A))? )?([0-9A-F]{2})(\+r|\+cc)?(?: (?:\/([0-7r])|([C-F][0-9A-F])(\+i)?))?$/;

/** Builds the rows of one family. `feature` holds for every row that does not name another. */
export function defineRows(feature: Feature, lines: readonly RowText[]): readonly Row[] {
  return lines.flatMap((line) => buildRows(feature, line));
}

function buildRows(feature: Feature, line: RowText): Row[] {
  const match = ENCODING.exec(line[0]);
  invariant(match, `row encoding "${line[0]}"`);
  if (match[5] !== "+cc") return [buildRow(feature, line, match, -1)];
  return CONDITIONS.map((_, cc) => buildRow(feature, line, match, cc));
}

function buildRow(feature: Feature, line: RowText, match: RegExpExecArray, cc: number): Row {
  const [encoding, name, operandText = "", options = ""] = line;
  const operands = operandText === "" ? [] : operandText.split(",");
  const specs = operands.map(parseOperand);
  const fixedModrm = match[7] === undefined ? -1 : Number.parseInt(match[7], 16);
  const ext =
    fixedModrm >= 0 ? (fixedModrm >> 3) & 7 : /[0-7]/.test(match[6] ?? "") ? Number(match[6]) : -1;
  const r: Mutable<Row> = {
    id: -1,
    mnemonic: cc < 0 ? name : name.replace("{cc}", CONDITIONS[cc]!),
    sem: name.replace("{cc}", "cc").toLowerCase(),
    cc,
    prefix: (match[1] ?? "") as RowPrefix,
    map: match[3] ? (`0F${match[3]}` as OpcodeMap) : match[2] ? "0F" : "1",
    opcode: Number.parseInt(match[4]!, 16) + Math.max(cc, 0),
    plusReg: match[5] === "+r",
    hasModrm: match[6] !== undefined || fixedModrm >= 0,
    ext,
    rm: fixedModrm >= 0 && match[8] === undefined ? fixedModrm & 7 : -1,
    mod: fixedModrm >= 0 ? "reg" : modOf(specs),
    operands,
    specs,
    lockable: false,
    d64: false,
    f64: false,
    no64: false,
    i64: false,
    o64: false,
    noReal: false,
    cpl0: false,
    modIgnored: false,
    opsizes: 2 | 4 | 8,
    addrSizes: 2 | 4 | 8,
    rexB: -1,
    repeats: false,
    alias: false,
    feature,
  };
  for (const word of options.split(" ").filter((w) => w !== "")) applyOption(r, word);
  validate(r, `${encoding} ${name} ${operandText}`);
  return r;
}

function modOf(specs: readonly OperandSpec[]): ModConstraint {
  const rm = specs.find((s) => s.place === "rm");
  return rm ? rm.mod : "any";
}

function applyOption(r: Mutable<Row>, word: string): void {
  const [key, value] = word.split(":") as [string, string?];
  if (key === "sem" && value) {
    r.sem = value;
  } else if (key === "mod" && (value === "mem" || value === "reg")) {
    r.mod = value;
  } else if (key === "feature") {
    const feature = FEATURES.find((f) => f === value);
    invariant(feature, `unknown feature ${value}`);
    r.feature = feature;
  } else {
    const apply = OPTION_WORDS[word];
    invariant(apply, `unknown row option ${word}`);
    apply(r);
  }
}

function validate(r: Row, text: string): void {
  const check = (ok: boolean, what: string): void => invariant(ok, `row ${text}: ${what}`);
  const uses = (place: string): number => r.specs.filter((s) => s.place === place).length;
  check(r.specs.length <= 4, "at most four operands");
  check(
    uses("rm") <= 1 && uses("reg") <= 1 && uses("opreg") <= 1,
    "one operand per encoding field",
  );
  check(r.hasModrm || (uses("rm") === 0 && uses("reg") === 0), "needs ModRM");
  check(r.plusReg === (uses("opreg") === 1), "+r goes with a Z operand");
  check(!r.plusReg || (r.opcode & 7) === 0, "+r starts at a multiple of eight");
  check(r.ext < 0 || uses("reg") === 0, "/digit and a register operand share ModRM.reg");
  check(r.rm < 0 || uses("rm") === 0, "the ModRM byte is fixed");
  check(r.rm < 0 || r.mod === "reg", "a fixed ModRM byte is a register form");
  check(!(r.i64 && r.o64) && !(r.d64 && r.f64), "contradicting mode options");
  check(
    !r.lockable || ((r.specs[0]?.place === "rm" && r.mod !== "reg") as boolean),
    "LOCK needs memory",
  );
  check(/^[A-Z0-9]+$/.test(r.mnemonic) && /^[a-z0-9_]+$/.test(r.sem), "mnemonic or sem spelling");
  const imms = r.specs.filter((s) => s.place === "imm").length;
  check(imms <= 2, "at most two immediates");
  const places = r.specs.map((s) => s.place);
  check(
    imms === 0 || places.lastIndexOf("rm") < places.indexOf("imm"),
    "r/m comes before immediates",
  );
  check(!r.hasModrm || r.mod === "reg" || uses("rm") === 1, "a memory form has its operand");
}
