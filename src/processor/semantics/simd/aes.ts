/**
 * AESENC, AESENCLAST, AESDEC, AESDECLAST, AESIMC, AESKEYGENASSIST. SDM Vol. 1, "AESNI"; FIPS 197.
 *
 * The S-box is sixteen constants of sixteen bytes: the index minus 16 k selects from constant k what lies in it and zero elsewhere, so
 * all sixteen swizzles together are one table look-up. No secret addresses memory.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import { readAligned, requireSse } from "./operands.ts";
import { repeated } from "./vector.ts";

const POLYNOMIAL = 0x1b;

const double = (x: number): number => ((x << 1) ^ (x & 0x80 ? POLYNOMIAL : 0)) & 0xff;

/** S-box by walking the powers of the generator 3 and of its inverse together. */
function createSbox(): Uint8Array {
  const sbox = new Uint8Array(256);
  let power = 1;
  let inverse = 1;
  do {
    power ^= double(power);
    // Division by 3.
    inverse ^= inverse << 1;
    inverse ^= inverse << 2;
    inverse ^= inverse << 4;
    inverse &= 0xff;
    if (inverse & 0x80) inverse ^= 0x09;
    const spread = inverse ^ (inverse << 1) ^ (inverse << 2) ^ (inverse << 3) ^ (inverse << 4);
    sbox[power] = (spread ^ (spread >> 8) ^ 0x63) & 0xff;
  } while (power !== 1);
  sbox[0] = 0x63;
  return sbox;
}

const SBOX = createSbox();
const INVERSE_SBOX = SBOX.reduce((table, y, x) => {
  table[y] = x;
  return table;
}, new Uint8Array(256));

function defineSubstitution(module: ModuleBuilder, name: string, table: Uint8Array): void {
  module.function(name, ["v128"], ["v128"], (fn) => {
    let index = fn.param(0);
    let r: Val | null = null;
    for (let k = 0; k < 16; k++) {
      const part = fn.op("i8x16.swizzle", fn.v128(table.slice(16 * k, 16 * k + 16)), index);
      r = r ? fn.op("v128.or", r, part) : part;
      index = fn.op("i8x16.sub", index, repeated(fn, 1, 16n));
    }
    fn.return(r!);
  });
}

/** Byte i of the result is byte order[i]: state columns are the 32-bit elements. */
const permute = (fn: FunctionBuilder, v: Val, order: readonly number[]): Val =>
  fn.lane("i8x16.shuffle", order, v, v);

const BYTES = Array.from({ length: 16 }, (_, i) => i);
const SHIFT_ROWS = BYTES.map((i) => (i + 4 * (i & 3)) & 15);
const INVERSE_SHIFT_ROWS = BYTES.map((i) => (i - 4 * (i & 3)) & 15);
const rotated = (n: number): number[] => BYTES.map((i) => (i & ~3) | ((i + n) & 3));

const xor = (fn: FunctionBuilder, ...v: Val[]): Val => v.reduce((x, y) => fn.op("v128.xor", x, y));

function doubled(fn: FunctionBuilder, v: Val): Val {
  const reduction = fn.op(
    "v128.and",
    fn.op("i8x16.shr_s", v, fn.i32(7)),
    repeated(fn, 1, BigInt(POLYNOMIAL)),
  );
  return xor(fn, fn.op("i8x16.add", v, v), reduction);
}

/** 2 a0 + 3 a1 + a2 + a3 in every column, from every byte on. */
function mixColumns(fn: FunctionBuilder, v: Val): Val {
  const next = permute(fn, v, rotated(1));
  const twice = doubled(fn, xor(fn, v, next));
  return xor(fn, twice, next, permute(fn, v, rotated(2)), permute(fn, v, rotated(3)));
}

/** MixColumns of a + 4 (a + a two further). */
function inverseMixColumns(fn: FunctionBuilder, v: Val): Val {
  const sum = xor(fn, v, permute(fn, v, rotated(2)));
  return mixColumns(fn, xor(fn, v, doubled(fn, doubled(fn, sum))));
}

type Round = (fn: FunctionBuilder, substitute: (v: Val) => Val, state: Val) => Val;

const ROUNDS: Readonly<Record<string, Round>> = {
  aesenc: (fn, sub, v) => mixColumns(fn, sub(permute(fn, v, SHIFT_ROWS))),
  aesenclast: (fn, sub, v) => sub(permute(fn, v, SHIFT_ROWS)),
  aesdec: (fn, sub, v) => inverseMixColumns(fn, sub(permute(fn, v, INVERSE_SHIFT_ROWS))),
  aesdeclast: (fn, sub, v) => sub(permute(fn, v, INVERSE_SHIFT_ROWS)),
};

export function defineAes(module: ModuleBuilder): void {
  defineSubstitution(module, "aesSubBytes", SBOX);
  defineSubstitution(module, "aesInvSubBytes", INVERSE_SBOX);
  for (const [name, round] of Object.entries(ROUNDS)) {
    const substitution = module.get(name.startsWith("aesenc") ? "aesSubBytes" : "aesInvSubBytes");
    module.function(name, ["v128", "v128"], ["v128"], (fn) => {
      const state = round(fn, (v) => fn.call(substitution, v), fn.param(0));
      fn.return(xor(fn, state, fn.param(1)));
    });
  }
}

const round =
  (name: string): Semantics =>
  (insn) => {
    requireSse(insn);
    const key = readAligned(insn, 1);
    insn.regWrite(0, 16, insn.fn.call(insn.module.get(name), insn.regRead(0, 16), key));
  };

export const AES: SemanticsTable = {
  ...Object.fromEntries(Object.keys(ROUNDS).map((name) => [name, round(name)])),
  aesimc: (insn) => {
    requireSse(insn);
    insn.regWrite(0, 16, inverseMixColumns(insn.fn, readAligned(insn, 1)));
  },
  aeskeygenassist: (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const source = readAligned(insn, 1);
    const words = fn.call(insn.module.get("aesSubBytes"), source);
    // SubWord(X1), RotWord(SubWord(X1)) ^ RCON, and the same of X3.
    const order = [4, 5, 6, 7, 5, 6, 7, 4, 12, 13, 14, 15, 13, 14, 15, 12];
    const rcon = fn.op("i64x2.splat", insn.immediate(2).and(0xff).extU().shl(32));
    insn.regWrite(0, 16, xor(fn, permute(fn, words, order), rcon));
  },
};
