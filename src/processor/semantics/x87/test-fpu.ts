/**
 * Test support: one FPU to run single instructions on, and readers of its state. Values are written "sign and exponent:significand".
 */
import { Cr0 } from "../../state/control-bits.ts";
import { FPR, S } from "../../state/layout.ts";
import { type BenchShape, createBench, MEMORY_OPERAND, NUMBERS } from "./test-bench.ts";

const st = { kind: "t", bytes: 10 } as const;
const m = (bytes: number) => ({ kind: "m", bytes }) as const;
const SHAPES: Record<string, BenchShape> = {
  fldM80: { sem: "fld", operands: [m(10)] },
  fldM64: { sem: "fld", operands: [m(8)] },
  fldM32: { sem: "fld", operands: [m(4)] },
  fld: { sem: "fld", operands: [st] },
  fstpM64: { sem: "fstp", operands: [m(8)] },
  fstpM32: { sem: "fstp", operands: [m(4)] },
  fstpM80: { sem: "fstp", operands: [m(10)] },
  fstp: { sem: "fstp", operands: [st] },
  fistpM16: { sem: "fistp", operands: [m(2)] },
  fisttpM32: { sem: "fisttp", operands: [m(4)] },
  fbstp: { sem: "fbstp", operands: [m(10)] },
  fbld: { sem: "fbld", operands: [m(10)] },
  fildM64: { sem: "fild", operands: [m(8)] },
  fnstenv: { sem: "fnstenv", operands: [m(28)] },
  fldenv: { sem: "fldenv", operands: [m(28)] },
  fnsave: { sem: "fnsave", operands: [m(108)] },
  frstor: { sem: "frstor", operands: [m(108)] },
  fldcw: { sem: "fldcw", operands: [m(2)] },
  fnstenv16: { sem: "fnstenv", operands: [m(14)], opsize: 2 },
  fnstcw: { sem: "fnstcw", operands: [m(2)] },
  fnstsw: { sem: "fnstsw", operands: [m(2)] },
  ...Object.fromEntries(
    [
      "fadd",
      "fsub",
      "fsubr",
      "fmul",
      "fdiv",
      "fdivr",
      "faddp",
      "fcomi",
      "fucomi",
      "fcom",
      "fxch",
      "fcmove",
    ].map((sem) => [sem, { sem, operands: [st, st] }]),
  ),
  ...Object.fromEntries(
    [
      "fsqrt",
      "fprem",
      "fprem1",
      "fscale",
      "fxtract",
      "frndint",
      "fxam",
      "fsin",
      "fptan",
      "f2xm1",
      "fyl2x",
      "fpatan",
      "fldpi",
      "fldl2t",
      "fld1",
      "fchs",
      "fninit",
      "fnclex",
      "fwait",
      "fincstp",
      "fnop",
    ].map((sem) => [sem, { sem, operands: [] }]),
  ),
};
const NAMES = Object.keys(SHAPES);
export const bench = createBench(Object.values(SHAPES));
export const mem = bench.memory;

export const get = (field: { at: number }): number => mem.getUint32(field.at, true);
export const set = (field: { at: number }, v: number): void => mem.setUint32(field.at, v, true);
/** "sign and exponent:significand" in hex. */
export type Text = string;

function setMemory(value: Text): void {
  const [se, sig] = value.split(":") as [string, string];
  mem.setUint16(MEMORY_OPERAND + 8, Number.parseInt(se, 16), true);
  mem.setBigUint64(MEMORY_OPERAND, BigInt(`0x${sig}`), true);
}

export function reset(...stack: Text[]): void {
  set(S.CR0, Cr0.PE | Cr0.MP | Cr0.NE);
  run("fninit");
  for (const value of stack.reverse()) {
    setMemory(value);
    run("fldM80");
  }
}

/** Runs an instruction; the answer is the vector of its fault, or 0. */
export function run(name: string, ...numbers: number[]): number {
  numbers.forEach((n, i) => {
    mem.setUint32(NUMBERS + 4 * i, n, true);
  });
  return bench.run(NAMES.indexOf(name)) === 0 ? 0 : get(S.PENDING_VECTOR);
}

export const hex = (se: number, sig: bigint): Text =>
  `${se.toString(16).padStart(4, "0")}:${sig.toString(16).padStart(16, "0")}`;

export function stack(i: number): Text {
  const slot = FPR + 16 * (((get(S.FSW) >> 11) + i) & 7);
  return hex(mem.getUint16(slot + 8, true), mem.getBigUint64(slot, true));
}
export const isEmpty = (i: number): boolean =>
  ((get(S.FTAG_EMPTY) >> (((get(S.FSW) >> 11) + i) & 7)) & 1) === 1;
export const flags = (): number => get(S.FSW) & 0xff;
export const c1 = (): number => (get(S.FSW) >> 9) & 1;
export const conditions = (): number => (get(S.FSW) >> 8) & 0x47;

export const ONE = "3fff:8000000000000000";
export const TWO = "4000:8000000000000000";
export const THREE = "4000:c000000000000000";
export const INFINITY = "7fff:8000000000000000";
export const INDEFINITE = "ffff:c000000000000000";
export const LARGEST = "7ffe:ffffffffffffffff";
export const SMALLEST = "0001:8000000000000000";
export const [IE, DE, ZE, OE, UE, PE, SF, ES] = [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80] as const;
