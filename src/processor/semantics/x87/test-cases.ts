/**
 * Test support: the instructions as x87.native.ts and x87.test.ts run them: machine code (memory operand at [rsi]), semantic key, operand shape.
 */
import type { OperandShape } from "../insn.ts";
import { type Extended, extended, type Random, significand } from "./test-operands.ts";

export type MemoryFormat = "f32" | "f64" | "f80" | "int" | "bcd" | "any";

export interface Case {
  readonly name: string;
  readonly code: readonly number[];
  readonly sem: string;
  readonly shape: readonly OperandShape[];
  readonly opsize?: 2 | 4;
  /** Register numbers of the operands. */
  readonly numbers?: readonly number[];
  /** The register that matters beside ST(0); ST(1) if not given. */
  readonly second?: number;
  readonly memory?: MemoryFormat;
  /** Registers in use by ST number, mostly; all if not given. */
  readonly used?: number;
  readonly operands?: (r: Random) => [Extended, Extended?];
  /** Bits of the status word that are compared. */
  readonly statusMask?: number;
  /** Units in the last place that a result may be off. */
  readonly tolerance?: number;
  /** Also try the reserved precision control. */
  readonly reservedPrecision?: boolean;
  /** Bytes of the memory operand that are not compared. */
  readonly ignoreMemory?: readonly [from: number, to: number];
  /** Count of results that were off within the tolerance. */
  inexact?: number;
}

const st: OperandShape = { kind: "t", bytes: 10 };
const m = (bytes: number): OperandShape => ({ kind: "m", bytes });

function memory(
  sem: string,
  bytes: number,
  format: MemoryFormat,
  code: number[],
  more: Partial<Case> = {},
): Case {
  return {
    name: `${sem} ${format} ${bytes * 8}`,
    code,
    sem,
    shape: [m(bytes)],
    memory: format,
    ...more,
  };
}

function registers(
  sem: string,
  code: number[],
  i: number,
  j: number,
  more: Partial<Case> = {},
): Case {
  return {
    name: `${sem} st${i}, st${j}`,
    code,
    sem,
    shape: [st, st],
    numbers: [i, j],
    second: i || j,
    ...more,
  };
}

function plain(sem: string, code: number[], more: Partial<Case> = {}): Case {
  return { name: sem, code, sem, shape: [], ...more };
}

const RM = 0x06; // [rsi]
const mem = (op: number, ext: number): number[] => [op, (ext << 3) | RM];

const ARITHMETIC = ["fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"] as const;
// Extension of the register form with ST(i) as destination.
const TO_REGISTER = { fadd: 0, fmul: 1, fsubr: 4, fsub: 5, fdivr: 6, fdiv: 7 } as const;

function arithmeticCases(): Case[] {
  const out: Case[] = [];
  ARITHMETIC.forEach((sem, ext) => {
    out.push(memory(sem, 4, "f32", mem(0xd8, ext)), memory(sem, 8, "f64", mem(0xdc, ext)));
    out.push(
      memory(sem.replace("f", "fi"), 4, "int", mem(0xda, ext)),
      memory(sem.replace("f", "fi"), 2, "int", mem(0xde, ext)),
    );
    out.push(registers(sem, [0xd8, 0xc0 | (ext << 3) | 1], 0, 1, { reservedPrecision: true }));
    out.push(
      registers(sem, [0xd8, 0xc0 | (ext << 3)], 0, 0),
      registers(sem, [0xd8, 0xc5 | (ext << 3)], 0, 5),
    );
  });
  for (const [sem, ext] of Object.entries(TO_REGISTER)) {
    out.push(registers(sem, [0xdc, 0xc3 | (ext << 3)], 3, 0));
    out.push(
      registers(`${sem}p`, [0xde, 0xc1 | (ext << 3)], 1, 0),
      registers(`${sem}p`, [0xde, 0xc2 | (ext << 3)], 2, 0),
    );
    out.push(registers(`${sem}p`, [0xde, 0xc0 | (ext << 3)], 0, 0));
  }
  return out;
}

const MOVES = [
  "fcmovb",
  "fcmove",
  "fcmovbe",
  "fcmovu",
  "fcmovnb",
  "fcmovne",
  "fcmovnbe",
  "fcmovnu",
] as const;

/** SDM: FCOMI sets C1 to 0. AMD processors leave it. */
const KEEPS_C1 = { statusMask: 0xfdff };

function registerCases(): Case[] {
  const out: Case[] = MOVES.map((sem, i) =>
    registers(sem, [i < 4 ? 0xda : 0xdb, 0xc2 | ((i & 3) << 3)], 0, 2),
  );
  out.push(
    registers("fucomi", [0xdb, 0xe9], 0, 1, KEEPS_C1),
    registers("fcomi", [0xdb, 0xf1], 0, 1, KEEPS_C1),
    registers("fucomip", [0xdf, 0xe9], 0, 1, KEEPS_C1),
    registers("fcomip", [0xdf, 0xf2], 0, 2, KEEPS_C1),
    registers("fucom", [0xdd, 0xe1], 0, 1),
    registers("fucomp", [0xdd, 0xe9], 0, 1),
    registers("fxch", [0xd9, 0xc9], 0, 1),
    registers("fxch", [0xd9, 0xc8], 0, 0),
    registers("fxch", [0xdd, 0xcc], 0, 4),
    plain("fucompp", [0xda, 0xe9]),
    plain("fcompp", [0xde, 0xd9]),
  );
  const one = (sem: string, code: number[], i: number, more: Partial<Case> = {}): Case => ({
    name: `${sem} st${i}`,
    code,
    sem,
    shape: [st],
    numbers: [i],
    second: i,
    ...more,
  });
  out.push(
    one("fld", [0xd9, 0xc0], 0, { used: 0x7f }),
    one("fld", [0xd9, 0xc3], 3, { used: 0x7f }),
    one("fld", [0xd9, 0xc7], 7, { used: 0x7f }),
    one("ffree", [0xdd, 0xc2], 2),
    one("ffreep", [0xdf, 0xc2], 2),
    one("fst", [0xdd, 0xd1], 1),
    one("fst", [0xdd, 0xd4], 4),
    one("fstp", [0xdd, 0xd8], 0),
    one("fstp", [0xdd, 0xd9], 1),
    one("fstp", [0xdd, 0xdb], 3),
    one("fstpnce", [0xd9, 0xd9], 1),
  );
  return out;
}

function dataCases(): Case[] {
  const push = { used: 0x7f };
  return [
    memory("fld", 4, "f32", mem(0xd9, 0), push),
    memory("fld", 8, "f64", mem(0xdd, 0), push),
    memory("fld", 10, "f80", mem(0xdb, 5), push),
    memory("fild", 4, "int", mem(0xdb, 0), push),
    memory("fild", 2, "int", mem(0xdf, 0), push),
    memory("fild", 8, "int", mem(0xdf, 5), push),
    memory("fbld", 10, "bcd", mem(0xdf, 4), push),
    memory("fst", 4, "f32", mem(0xd9, 2)),
    memory("fstp", 4, "f32", mem(0xd9, 3)),
    memory("fst", 8, "f64", mem(0xdd, 2)),
    memory("fstp", 8, "f64", mem(0xdd, 3)),
    memory("fstp", 10, "f80", mem(0xdb, 7)),
    memory("fist", 4, "int", mem(0xdb, 2)),
    memory("fistp", 4, "int", mem(0xdb, 3)),
    memory("fist", 2, "int", mem(0xdf, 2)),
    memory("fistp", 2, "int", mem(0xdf, 3)),
    memory("fistp", 8, "int", mem(0xdf, 7)),
    memory("fisttp", 4, "int", mem(0xdb, 1)),
    memory("fisttp", 8, "int", mem(0xdd, 1)),
    memory("fisttp", 2, "int", mem(0xdf, 1)),
    memory("fbstp", 10, "bcd", mem(0xdf, 6)),
    ...["fld1", "fldl2t", "fldl2e", "fldpi", "fldlg2", "fldln2", "fldz"].map((sem, i) =>
      plain(sem, [0xd9, 0xe8 + i], push),
    ),
    plain("fincstp", [0xd9, 0xf7]),
    plain("fdecstp", [0xd9, 0xf6]),
    plain("fnop", [0xd9, 0xd0]),
    plain("fchs", [0xd9, 0xe0]),
    plain("fabs", [0xd9, 0xe1]),
    plain("ftst", [0xd9, 0xe4]),
    plain("fxam", [0xd9, 0xe5]),
  ];
}

function controlCases(): Case[] {
  const env = (sem: string, code: number[], bytes: 14 | 28 | 94 | 108): Case => ({
    name: `${sem} ${bytes}`,
    code,
    sem,
    shape: [m(bytes)],
    opsize: bytes === 14 || bytes === 94 ? 2 : 4,
    // Pointers: AMD processors do not restore them with FXRSTOR when no exception is pending.
    ignoreMemory: bytes === 14 || bytes === 94 ? [6, 14] : [12, 28],
  });
  return [
    plain("fninit", [0xdb, 0xe3]),
    plain("fnclex", [0xdb, 0xe2]),
    plain("fwait", [0x9b]),
    memory("fnstcw", 2, "any", mem(0xd9, 7)),
    memory("fldcw", 2, "any", mem(0xd9, 5)),
    memory("fnstsw", 2, "any", mem(0xdd, 7)),
    { name: "fnstsw ax", code: [0xdf, 0xe0], sem: "fnstsw", shape: [{ kind: "r", bytes: 2 }] },
    env("fnstenv", mem(0xd9, 6), 28),
    env("fnstenv", [0x66, ...mem(0xd9, 6)], 14),
    env("fldenv", mem(0xd9, 4), 28),
    env("fldenv", [0x66, ...mem(0xd9, 4)], 14),
    env("fnsave", mem(0xdd, 6), 108),
    env("fnsave", [0x66, ...mem(0xdd, 6)], 94),
    env("frstor", mem(0xdd, 4), 108),
    env("frstor", [0x66, ...mem(0xdd, 4)], 94),
  ];
}

/** A scale that leads to the limits of the exponent range and beyond. */
function scaleOperands(r: Random): [Extended, Extended] {
  return [
    extended(r),
    { se: (r.below(2) << 15) | (0x3ffd + r.below(22)), sig: r.bits() | (1n << 63n) },
  ];
}

/** Exponents that differ by -3..136. */
function nearOperands(r: Random): [Extended, Extended] {
  const b = extended(r);
  const exponent = (b.se & 0x7fff) + r.below(140) - 3;
  const a = {
    se: (r.below(2) << 15) | (exponent & 0x7fff),
    sig: r.chance(10) ? b.sig : significand(r) | (1n << 63n),
  };
  return [a, b];
}

function integralCases(): Case[] {
  return [
    plain("fsqrt", [0xd9, 0xfa], { reservedPrecision: true }),
    plain("frndint", [0xd9, 0xfc]),
    plain("fscale", [0xd9, 0xfd]),
    plain("fscale", [0xd9, 0xfd], { name: "fscale in range", operands: scaleOperands }),
    plain("fprem", [0xd9, 0xf8]),
    plain("fprem", [0xd9, 0xf8], { name: "fprem of near exponents", operands: nearOperands }),
    plain("fprem1", [0xd9, 0xf5]),
    plain("fprem1", [0xd9, 0xf5], { name: "fprem1 of near exponents", operands: nearOperands }),
    plain("fxtract", [0xd9, 0xf4], { used: 0x7f }),
  ];
}

function transcendentalCases(): Case[] {
  const ulp = { tolerance: 1 };
  return [
    plain("f2xm1", [0xd9, 0xf0], ulp),
    plain("fyl2x", [0xd9, 0xf1], ulp),
    plain("fyl2xp1", [0xd9, 0xf9], ulp),
    plain("fpatan", [0xd9, 0xf3], ulp),
    plain("fsin", [0xd9, 0xfe], ulp),
    plain("fcos", [0xd9, 0xff], ulp),
    plain("fsincos", [0xd9, 0xfb], { ...ulp, used: 0x7f }),
    plain("fptan", [0xd9, 0xf2], { ...ulp, used: 0x7f }),
  ];
}

export const CASES: readonly Case[] = [
  ...arithmeticCases(),
  ...registerCases(),
  ...dataCases(),
  ...integralCases(),
  ...transcendentalCases(),
  ...controlCases(),
];
