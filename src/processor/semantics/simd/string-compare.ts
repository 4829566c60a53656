/**
 * PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. SDM Vol. 1, "SSE4.2 String and Text Instructions", "Comparison and Aggregation".
 *
 * sseStringCompare(a, b, lengthA, lengthB, imm) answers IntRes2 in bits 15:0 and the flags image from bit 16 up. Every element of a is
 * compared with all of b at once; one such row of the comparison matrix is a mask of up to 16 bits, and the aggregations are
 * operations on rows. The diagonal sums of "equal ordered" are rows shifted by their number.
 */
import type { FunctionBuilder, Variable } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { setArithmeticImage } from "../flags.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { requireSse } from "./operands.ts";
import { bitsToMask } from "./vector.ts";

const WORDS = 1;
const SIGNED = 2;
const MOST_SIGNIFICANT = 0x40;
const ELEMENT_MASK = 0x40;

/** Element n of v in all elements. */
function broadcast(fn: FunctionBuilder, v: Val, n: Val, words: boolean): Val {
  const index = words ? fn.op("i16x8.splat", n.mul(0x0202).add(0x0100)) : fn.op("i8x16.splat", n);
  return fn.op("i8x16.swizzle", v, index);
}

const ones = (fn: FunctionBuilder, n: Val): Val => fn.i32(1).shl(n).sub(1);

interface Strings {
  readonly fn: FunctionBuilder;
  readonly words: boolean;
  readonly a: Val;
  readonly b: Val;
  readonly lengthA: Val;
  /** Bits of the valid elements of b, of all elements. */
  readonly validB: Val;
  readonly full: number;
  readonly signed: Val;
}

/** Bits of the elements of b for which b `name` element n of a. */
function row(s: Strings, name: string, n: Val): Val {
  const shape = s.words ? "i16x8" : "i8x16";
  return s.fn.op(
    `${shape}.bitmask`,
    s.fn.op(`${shape}.${name}`, s.b, broadcast(s.fn, s.a, n, s.words)),
  );
}

function orderedRow(s: Strings, name: "ge" | "le", n: Val): Val {
  const r = s.fn.variable("i32", 0);
  s.fn.if(
    s.signed,
    () => r.set(row(s, `${name}_s`, n)),
    () => r.set(row(s, `${name}_u`, n)),
  );
  return r.read();
}

function forElements(s: Strings, step: number, body: (n: Val) => void): void {
  const n = s.fn.variable("i32", 0);
  s.fn.while(
    // A range needs both its ends.
    () => n.read().add(step).leU(s.lengthA),
    () => {
      body(n.read());
      n.set(n.read().add(step));
    },
  );
}

/** IntRes1 of the four aggregations. */
function aggregate(s: Strings, imm: Val, out: Variable): void {
  const { fn } = s;
  const equalAny = (): void =>
    forElements(s, 1, (n) => out.set(out.read().or(row(s, "eq", n).and(s.validB))));
  const ranges = (): void =>
    forElements(s, 2, (n) => {
      const inside = orderedRow(s, "ge", n).and(orderedRow(s, "le", n.add(1)));
      out.set(out.read().or(inside.and(s.validB)));
    });
  const equalEach = (): void => {
    const shape = s.words ? "i16x8" : "i8x16";
    const equal = fn.op(`${shape}.bitmask`, fn.op(`${shape}.eq`, s.a, s.b));
    const validA = ones(fn, s.lengthA);
    const neither = validA.or(s.validB).not();
    out.set(equal.and(validA).and(s.validB).or(neither).and(s.full));
  };
  const equalOrdered = (): void => {
    out.set(s.full);
    // Positions beyond the register are not compared; positions beyond b's end do not match.
    forElements(s, 1, (n) =>
      out.set(out.read().and(row(s, "eq", n).and(s.validB).or(~s.full).shrS(n))),
    );
  };
  fn.switch(imm.shrU(2).and(3), [equalAny, ranges, equalEach], equalOrdered);
}

const bit = (condition: Val, at: number): Val => condition.shl(at);

function compareElements(fn: FunctionBuilder, words: boolean): void {
  const [a, b, lengthA, lengthB, imm] = [0, 1, 2, 3, 4].map((i) => fn.param(i)) as [
    Val,
    Val,
    Val,
    Val,
    Val,
  ];
  const count = words ? 8 : 16;
  const full = (1 << count) - 1;
  const validB = ones(fn, lengthB);
  const signed = imm.and(SIGNED);
  const out = fn.variable("i32", 0);
  aggregate({ fn, words, a, b, lengthA, validB, full, signed }, imm, out);
  const flip = imm
    .shrU(4)
    .and(1)
    .select(imm.and(0x20).select(validB, fn.i32(full)), fn.i32(0));
  const result = out.read().xor(flip);
  const flags = bit(result.ne(0), 0)
    .or(bit(lengthB.ltU(count), 6))
    .or(bit(lengthA.ltU(count), 7))
    .or(bit(result.and(1), 11));
  fn.return(result.or(flags.shl(16)));
}

export function defineStringCompare(module: ModuleBuilder): void {
  module.function("sseStringCompare", ["v128", "v128", "i32", "i32", "i32"], ["i32"], (fn) => {
    fn.if(
      fn.param(4).and(WORDS),
      () => compareElements(fn, true),
      () => compareElements(fn, false),
    );
    fn.unreachable();
  });
}

/** Implicit length: elements before the first zero. */
function implicitLength(insn: Insn, v: Val, words: Val): Val {
  const { fn } = insn;
  const zero = fn.v128x2(0n, 0n);
  const zeros = (shape: string): Val => fn.op(`${shape}.bitmask`, fn.op(`${shape}.eq`, v, zero));
  return words.select(zeros("i16x8").or(0x100), zeros("i8x16").or(0x1_0000)).ctz();
}

/** Explicit length: the magnitude of a general register, at most the number of elements. */
function explicitLength(insn: Insn, register: number, words: Val): Val {
  const { fn } = insn;
  const n = insn.shape.opsize === 8 ? insn.gpr(register, 8) : insn.gpr(register, 4).extS();
  const sign = n.shrS(63);
  const magnitude = n.xor(sign).sub(sign);
  const most = words.select(fn.i64(8), fn.i64(16));
  return magnitude.ltU(most).select(magnitude, most).wrap();
}

function stringCompare(explicit: boolean, answersIndex: boolean): Semantics {
  return (insn) => {
    requireSse(insn);
    const { fn } = insn;
    const b = insn.rd(1);
    const a = insn.regRead(0, 16);
    const imm = insn.immediate(2);
    const words = imm.and(WORDS);
    const lengthA = explicit ? explicitLength(insn, 0, words) : implicitLength(insn, a, words);
    const lengthB = explicit ? explicitLength(insn, 2, words) : implicitLength(insn, b, words);
    const compare = insn.module.get("sseStringCompare");
    const answer = fn.call(compare, a, b, lengthA, lengthB, imm);
    const matches = answer.and(0xffff);
    setArithmeticImage(insn, answer.shrU(16));
    if (answersIndex) {
      const none = words.select(fn.i32(8), fn.i32(16));
      const last = fn.i32(31).sub(matches.clz());
      const index = imm.and(MOST_SIGNIFICANT).select(last, matches.ctz());
      insn.setGpr(1, 4, matches.select(index, none));
    } else {
      const mask = words.select(bitsToMask(fn, 2, matches), bitsToMask(fn, 1, matches));
      const bits = fn.lane("i32x4.replace_lane", 0, fn.v128x2(0n, 0n), matches);
      insn.setXmm(0, imm.and(ELEMENT_MASK).select(mask, bits));
    }
  };
}

export const STRING_COMPARE: SemanticsTable = {
  pcmpestri: stringCompare(true, true),
  pcmpestrm: stringCompare(true, false),
  pcmpistri: stringCompare(false, true),
  pcmpistrm: stringCompare(false, false),
};
