/**
 * PCLMULQDQ and CRC32. SDM Vol. 2.
 *
 * Carry-less multiplication from integer multiplication with holes: with every fourth bit kept, a column's sum is at most 15 and cannot
 * carry into the next kept bit, which then holds the parity. The upper half is the lower half of the reversed operands, reversed.
 * CRC32 is linear: the new checksum is the sum of one constant per set bit of the old one and the data, four bits to a vector step.
 */
import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { SemanticsTable } from "../insn.ts";
import { highHalf, lowHalf, readAligned, requireSse } from "./operands.ts";
import { elements, vectorOf } from "./vector.ts";

const HOLES = 0x1111_1111_1111_1111n;

/** Low 64 bits of the carry-less product. */
function defineLowProduct(module: ModuleBuilder): void {
  module.function("clmulLow", ["i64", "i64"], ["i64"], (fn) => {
    const mask = (k: number): bigint => HOLES << BigInt(k);
    const part = (v: Val): Val[] => [0, 1, 2, 3].map((k) => v.and(mask(k)));
    const x = part(fn.param(0));
    const y = part(fn.param(1));
    const sums = [0, 1, 2, 3].map((k) => {
      const products = x.map((xi, i) => xi.mul(y[(k - i) & 3]!));
      return products.reduce((p, q) => p.xor(q)).and(mask(k));
    });
    fn.return(sums.reduce((p, q) => p.or(q)));
  });
}

/** Bits of an i64 in reverse order. */
function defineReverse(module: ModuleBuilder): void {
  module.function("reverseBits", ["i64"], ["i64"], (fn) => {
    const masks = [
      0x5555555555555555n,
      0x3333333333333333n,
      0x0f0f0f0f0f0f0f0fn,
      0x00ff00ff00ff00ffn,
      0x0000ffff0000ffffn,
    ];
    const swapped = masks.reduce((v, mask, i) => {
      const by = 1 << i;
      return v.shrU(by).and(mask).or(v.and(mask).shl(by));
    }, fn.param(0));
    fn.return(swapped.rotl(32));
  });
}

const CASTAGNOLI = 0x82f63b78;

/** The checksum after `bits` zero bits, starting from one set bit. */
function step(start: number, bits: number): number {
  let crc = start;
  for (let i = 0; i < bits; i++) crc = crc & 1 ? (crc >>> 1) ^ CASTAGNOLI : crc >>> 1;
  return crc;
}

/** The sum of the constants of the set bits of the low `bits` of v (i32). `base`: how many more bits follow them. */
function sumOfBits(fn: FunctionBuilder, v: Val, bits: number, base: number): Val {
  const spread = fn.op("i32x4.splat", v);
  let sum: Val | null = null;
  for (let i = 0; i < bits; i += 4) {
    const four = [i, i + 1, i + 2, i + 3];
    const select = vectorOf(
      fn,
      4,
      four.map((n) => 1 << n),
    );
    const constants = vectorOf(
      fn,
      4,
      four.map((n) => step(2 ** n, base)),
    );
    const present = fn.op("i32x4.eq", fn.op("v128.and", spread, select), select);
    const part = fn.op("v128.and", present, constants);
    sum = sum ? fn.op("v128.xor", sum, part) : part;
  }
  const two = fn.op("v128.xor", sum!, elements(fn, 4, [2, 3, 0, 1], sum!, sum!));
  const one = fn.op("v128.xor", two, elements(fn, 4, [1, 0, 3, 2], two, two));
  return fn.lane("i32x4.extract_lane", 0, one);
}

/** crc32c{8,16,32,64}(crc i32, data i32 or i64) -> i32. */
function defineCrc(module: ModuleBuilder, bits: 8 | 16 | 32 | 64): void {
  module.function(`crc32c${bits}`, ["i32", bits === 64 ? "i64" : "i32"], ["i32"], (fn) => {
    const low = fn.param(0).xor(fn.param(1).wrap());
    if (bits === 64)
      fn.return(sumOfBits(fn, low, 32, 64).xor(sumOfBits(fn, fn.param(1).high(), 32, 32)));
    else if (bits === 32) fn.return(sumOfBits(fn, low, 32, 32));
    else
      fn.return(
        fn
          .param(0)
          .shrU(bits)
          .xor(sumOfBits(fn, low, bits, bits)),
      );
  });
}

export function defineCarryless(module: ModuleBuilder): void {
  defineLowProduct(module);
  defineReverse(module);
  for (const bits of [8, 16, 32, 64] as const) defineCrc(module, bits);
}

export const CARRYLESS: SemanticsTable = {
  pclmulqdq: (insn) => {
    requireSse(insn);
    const { fn, module } = insn;
    const b = readAligned(insn, 1);
    const a = insn.regRead(0, 16);
    const imm = insn.immediate(2);
    const x = imm.and(1).select(highHalf(a), lowHalf(a));
    const y = imm.and(0x10).select(highHalf(b), lowHalf(b));
    const reverse = (v: Val): Val => fn.call(module.get("reverseBits"), v);
    const low = fn.call(module.get("clmulLow"), x, y);
    const high = reverse(fn.call(module.get("clmulLow"), reverse(x), reverse(y))).shrU(1);
    insn.regWrite(0, 16, fn.lane("i64x2.replace_lane", 1, fn.op("i64x2.splat", low), high));
  },
  crc32: (insn) => {
    const bits = 8 * insn.bytes(1);
    const data = insn.rd(1);
    const crc = insn.fn.call(insn.module.get(`crc32c${bits}`), insn.regRead(0, 4), data);
    insn.wr(0, insn.bytes(0) === 8 ? crc.extU() : crc);
  },
};
