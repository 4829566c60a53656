/**
 * The rows under test: every row that ring 3 can execute, or whose refusal in ring 3 is the same everywhere; and the others, each with the
 * reason why a comparison with a native process cannot say anything.
 */
import { opsizePrefixes } from "../../src/processor/isa/encode.ts";
import type { Mode } from "../../src/processor/isa/instruction.ts";
import type { Row } from "../../src/processor/isa/row.ts";
import { ROWS } from "../../src/processor/isa/table.ts";
import { ORACLE_FEATURES } from "./emulated.ts";

const FEATURE_REASONS: Readonly<Record<string, string>> = {
  vmx: "VMX: the native processor is not Intel's, and its hypervisor emulates VMCALL",
  monitor:
    "MONITOR and MWAIT: ring 0 only, and hidden or emulated by the native machine's hypervisor",
  smap: "CLAC and STAC: ring 0 only",
  rdpid: "RDPID: the result depends on the processor number",
  rdseed: "RDSEED: random result",
  rdrand: "RDRAND: random result",
  invpcid: "INVPCID: ring 0 only",
  xsaves: "XSAVES and XRSTORS: ring 0 only; absent from the native machine",
};

const ROW_REASONS: Readonly<Record<string, string>> = {
  cpuid: "the result depends on the processor model",
  rdtsc: "the result depends on time",
  rdtscp: "the result depends on time and processor number",
  syscall: "enters the native kernel",
  sysenter: "enters the native kernel; #UD in long mode on the native maker's processors",
  sysexit: "ring 0 only; #UD in long mode on the native maker's processors",
  sysret: "ring 0 only",
  sgdt: "the result depends on where the native kernel keeps its tables",
  sidt: "the result depends on where the native kernel keeps its tables",
};

/** Why a row is not tested, or null. */
export function exclusion(row: Row): string | null {
  if (!ORACLE_FEATURES.has(row.feature)) return FEATURE_REASONS[row.feature] ?? `no ${row.feature}`;
  return ROW_REASONS[row.sem] ?? null;
}

export const TESTED_ROWS: readonly Row[] = ROWS.filter((row) => exclusion(row) === null);
export const EXCLUDED_ROWS: readonly Row[] = ROWS.filter((row) => exclusion(row) !== null);

const ADDRESS_SIZES = { 16: 2 | 4, 32: 2 | 4, 64: 4 | 8 } as const;

/** Effective operand sizes that prefixes can give a row in a mode. */
export function operandSizes(row: Row, mode: Mode): readonly (2 | 4 | 8)[] {
  return ([2, 4, 8] as const).filter(
    (s) => (row.opsizes & s) !== 0 && opsizePrefixes(row, mode, s) !== undefined,
  );
}

export function existsIn(row: Row, mode: Mode): boolean {
  const isLegal = mode === 64 ? !row.i64 : !row.o64;
  return (
    isLegal && (row.addrSizes & ADDRESS_SIZES[mode]) !== 0 && operandSizes(row, mode).length > 0
  );
}

/** The row as the manual writes it. */
export function rowName(row: Row): string {
  const prefix = row.prefix === "" ? "" : `${row.prefix} `;
  const map = { "1": "", "0F": "0F ", "0F38": "0F 38 ", "0F3A": "0F 3A " }[row.map];
  const opcode = row.opcode.toString(16).toUpperCase().padStart(2, "0");
  const tail =
    row.rm >= 0
      ? ` /${row.ext} rm${row.rm}`
      : row.ext >= 0
        ? ` /${row.ext}`
        : row.plusReg
          ? "+r"
          : row.hasModrm
            ? " /r"
            : "";
  return `${prefix}${map}${opcode}${tail} ${row.mnemonic}${row.operands.length > 0 ? ` ${row.operands.join(",")}` : ""}`;
}

const set = (...keys: string[]): ReadonlySet<string> => new Set(keys);

const NEAR_BRANCHES = set(
  "jcc",
  "jcxz",
  "loop",
  "loope",
  "loopne",
  "jmp",
  "jmp_ind",
  "call",
  "call_ind",
  "ret",
);
const FAR = set("jmpf", "callf", "retf", "iret");

/** Control can leave the straight line: needs a bounded number of steps. */
export const branches = (sem: string): boolean => NEAR_BRANCHES.has(sem) || FAR.has(sem);
/** Leave something that differences.ts excuses, and that nothing may read: parts of images, C1, bits of LAR. */
const LEAVES_EXCUSED = set(
  "fxsave",
  "xsave",
  "xsavec",
  "xsaveopt",
  "fnstenv",
  "fnsave",
  "fcomi",
  "fcomip",
  "fucomi",
  "fucomip",
  "lar",
);
/** Comes last in a sequence: a jump could lead to the middle of an instruction, of which nothing is known. */
export const endsSequence = (sem: string): boolean =>
  branches(sem) || sem === "int1" || sem === "int" || LEAVES_EXCUSED.has(sem);
/** Reads or writes RFLAGS.TF: a STEP test must use traps on both sides. */
export const seesTrapFlag = (sem: string): boolean =>
  sem === "pushf" || sem === "popf" || sem === "iret";
/** Results differ between makers within stated bounds: only alone, so that the difference cannot spread. */
export const APPROXIMATE = set(
  "f2xm1",
  "fyl2x",
  "fyl2xp1",
  "fptan",
  "fpatan",
  "fsin",
  "fcos",
  "fsincos",
  "rcpps",
  "rcpss",
  "rsqrtps",
  "rsqrtss",
);
