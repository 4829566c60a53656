/**
 * Multiplication and division. SDM Vol. 2, "MUL", "IMUL", "DIV", "IDIV".
 *
 * WebAssembly has neither 128-bit products nor 128-bit dividends: `highProduct` builds the upper half from 32-bit pieces, `divideWide`
 * is long division with two 32-bit digits (Knuth, TAOCP Vol. 2, 4.3.1, Algorithm D). Both are plain functions of their arguments.
 * Undefined flags: after a multiplication SF, ZF and PF describe the low half and AF is clear; a division leaves all flags alone.
 */
import type { FunctionBuilder } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { Vector } from "./cpu.ts";
import { signExtend } from "./flags.ts";
import type { Insn, Semantics, SemanticsTable } from "./insn.ts";

const RAX = 0;
const RDX = 2;
const MIN64 = -(1n << 63n);

export function defineMultiplyProcedures(module: ModuleBuilder): void {
  /** (high, low, divisor) -> quotient of the unsigned division; high < divisor. */
  module.function("divideWide", ["i64", "i64", "i64"], ["i64"], longDivision, true);
}

/** Upper 64 bits of the unsigned 128-bit product. */
function highProduct(a: Val, b: Val): Val {
  const low32 = (v: Val): Val => v.and(0xffff_ffffn);
  const [a0, a1, b0, b1] = [low32(a), a.shrU(32), low32(b), b.shrU(32)];
  const middle = a1.mul(b0).add(a0.mul(b0).shrU(32));
  const other = a0.mul(b1).add(low32(middle));
  return a1.mul(b1).add(middle.shrU(32)).add(other.shrU(32));
}

/** Upper 64 bits of the signed 128-bit product. */
function highProductSigned(a: Val, b: Val): Val {
  return highProduct(a, b).sub(a.shrS(63).and(b)).sub(b.shrS(63).and(a));
}

function longDivision(fn: FunctionBuilder): void {
  const [high, low, divisor] = [fn.param(0), fn.param(1), fn.param(2)];
  const shift = divisor.clz();
  const d = divisor.shl(shift);
  const [d1, d0] = [d.shrU(32), d.and(0xffff_ffffn)];
  const top = high.shl(shift).or(low.shrU(1).shrU(shift.xor(63)));
  const rest = low.shl(shift);
  /** One quotient digit: (u : next) / d, where u < d. The estimate by d1 alone is at most two too large. */
  const digit = (u: Val, next: Val): Val => {
    const q = fn.variable("i64", u.divU(d1));
    const r = fn.variable("i64", u.sub(q.peek().mul(d1)));
    const correct = (again: () => void): void => {
      const tooLarge = q
        .peek()
        .shrU(32)
        .ne(0)
        .or(q.peek().mul(d0).gtU(r.peek().shl(32).or(next)));
      fn.if(tooLarge, () => {
        q.set(q.peek().sub(1));
        r.set(r.peek().add(d1));
        again();
      });
    };
    correct(() => fn.if(r.peek().shrU(32).eqz(), () => correct(() => {})));
    return q.read();
  };
  const next1 = rest.shrU(32);
  const q1 = digit(top, next1);
  const middle = top.shl(32).or(next1).sub(q1.mul(d));
  const q0 = digit(middle, rest.and(0xffff_ffffn));
  fn.return(q1.shl(32).add(q0));
}

/** CF = OF = overflow (0/1). */
function productFlags(insn: Insn, bytes: number, low: Val, overflow: Val): void {
  insn.setFlagResult(signExtend(low, bytes));
  insn.setFlagCarry(overflow.shl(31));
}

/** Truncating product of operands a and b into operand 0. */
function multiplyTruncated(insn: Insn, a: Val, b: Val): void {
  const bytes = insn.size;
  if (bytes === 8) {
    const r = a.mul(b);
    insn.wr(0, r);
    productFlags(insn, 8, r, highProductSigned(a, b).ne(r.shrS(63)));
    return;
  }
  if (bytes === 4) {
    const product = a.extS().mul(b.extS());
    const r = product.wrap();
    insn.wr(0, r);
    productFlags(insn, 4, r, r.extS().ne(product));
    return;
  }
  const product = a.sext16().mul(b.sext16());
  insn.wr(0, product);
  productFlags(insn, 2, product, product.sext16().ne(product));
}

/** Full product of the accumulator and operand 0 into AX, DX:AX, EDX:EAX, RDX:RAX. */
function multiplyFull(signed: boolean): Semantics {
  return (insn) => {
    const bytes = insn.bytes(0) as 1 | 2 | 4 | 8;
    const b = insn.rd(0);
    const a = insn.gpr(RAX, bytes);
    if (bytes === 8) {
      const low = a.mul(b);
      const high = signed ? highProductSigned(a, b) : highProduct(a, b);
      insn.setGpr(RAX, 8, low);
      insn.setGpr(RDX, 8, high);
      productFlags(insn, 8, low, signed ? high.ne(low.shrS(63)) : high.nez());
      return;
    }
    if (bytes === 4) {
      const product = signed ? a.extS().mul(b.extS()) : a.extU().mul(b.extU());
      const low = product.wrap();
      insn.setGpr(RAX, 4, low);
      insn.setGpr(RDX, 4, product.high());
      productFlags(insn, 4, low, signed ? low.extS().ne(product) : product.high().nez());
      return;
    }
    const extend = (v: Val): Val => (!signed ? v : bytes === 1 ? v.sext8() : v.sext16());
    const product = extend(a).mul(extend(b));
    insn.setGpr(RAX, 2, product);
    if (bytes === 2) insn.setGpr(RDX, 2, product.shrU(16));
    const overflow = signed ? extend(product).ne(product) : product.shrU(8 * bytes).nez();
    productFlags(insn, bytes, product, overflow);
  };
}

/** Quotient and remainder (i64) into AL and AH, or the accumulator and RDX. */
function writeQuotient(insn: Insn, bytes: 1 | 2 | 4 | 8, quotient: Val, remainder: Val): void {
  if (bytes === 1) {
    insn.setGpr(RAX, 2, quotient.and(0xff).or(remainder.shl(8)).wrap());
    return;
  }
  insn.setGpr(RAX, bytes, bytes === 8 ? quotient : quotient.wrap());
  insn.setGpr(RDX, bytes, bytes === 8 ? remainder : remainder.wrap());
}

/** The dividend of an 8-, 16- or 32-bit division, zero-extended to i64. */
function narrowDividend(insn: Insn, bytes: 1 | 2 | 4): Val {
  if (bytes === 1) return insn.gpr(RAX, 2).extU();
  const high = insn.gpr(RDX, bytes).extU();
  return high.shl(8 * bytes).or(insn.gpr(RAX, bytes).extU());
}

const div: Semantics = (insn) => {
  const bytes = insn.bytes(0) as 1 | 2 | 4 | 8;
  const divisor = insn.rd(0);
  if (bytes === 8) {
    const low = insn.gpr(RAX, 8);
    const high = insn.gpr(RDX, 8);
    // Covers the divisor 0.
    insn.faultIf(high.geU(divisor), Vector.DE);
    const quotient = divideUnsigned(insn, high, low, divisor);
    writeQuotient(insn, 8, quotient, low.sub(quotient.mul(divisor)));
    return;
  }
  const dividend = narrowDividend(insn, bytes);
  const d = divisor.extU();
  insn.faultIf(dividend.shrU(8 * bytes).geU(d), Vector.DE);
  writeQuotient(insn, bytes, dividend.divU(d), dividend.remU(d));
};

/** 128 by 64 bits; high < divisor. */
function divideUnsigned(insn: Insn, high: Val, low: Val, divisor: Val): Val {
  const { fn } = insn;
  const quotient = fn.variable("i64", 0n);
  fn.if(
    high.eqz(),
    () => quotient.set(low.divU(divisor)),
    () => quotient.set(fn.call(insn.module.get("divideWide"), high, low, divisor)),
  );
  return quotient.read();
}

const idiv: Semantics = (insn) => {
  const bytes = insn.bytes(0) as 1 | 2 | 4 | 8;
  const operand = insn.rd(0);
  if (bytes === 8) {
    divideSignedWide(insn, operand);
    return;
  }
  const unextended = narrowDividend(insn, bytes);
  const dividend =
    bytes === 4 ? unextended : bytes === 2 ? unextended.sext32() : unextended.un("extend16_s");
  const divisor = signExtend(operand, bytes);
  insn.faultIf(divisor.eqz(), Vector.DE);
  if (bytes === 4) insn.faultIf(dividend.eq(MIN64).and(divisor.eq(-1)), Vector.DE);
  const quotient = dividend.divS(divisor);
  const fits = bytes === 4 ? quotient.sext32() : bytes === 2 ? quotient.sext16() : quotient.sext8();
  insn.faultIf(fits.ne(quotient), Vector.DE);
  writeQuotient(insn, bytes, quotient, dividend.remS(divisor));
};

/** IDIV of 128 bits: by magnitudes. */
function divideSignedWide(insn: Insn, divisor: Val): void {
  const low = insn.gpr(RAX, 8);
  const high = insn.gpr(RDX, 8);
  const sign = high.shrS(63);
  const negative = sign.xor(divisor.shrS(63));
  // Two's complement negation of high:low where sign is -1.
  const lowMagnitude = low.xor(sign).sub(sign);
  const carry = sign.ne(0).and(low.eqz()).extU();
  const highMagnitude = high.xor(sign).add(carry);
  const divisorSign = divisor.shrS(63);
  const divisorMagnitude = divisor.xor(divisorSign).sub(divisorSign);
  insn.faultIf(highMagnitude.geU(divisorMagnitude), Vector.DE);
  const magnitude = divideUnsigned(insn, highMagnitude, lowMagnitude, divisorMagnitude);
  const quotient = magnitude.xor(negative).sub(negative);
  insn.faultIf(quotient.xor(negative).ltS(0).and(magnitude.ne(0)), Vector.DE);
  writeQuotient(insn, 8, quotient, low.sub(quotient.mul(divisor)));
}

export const MULTIPLY: SemanticsTable = {
  mul: multiplyFull(false),
  imul1: multiplyFull(true),
  imul2: (insn) => multiplyTruncated(insn, insn.rd(0), insn.rd(1)),
  imul3: (insn) => multiplyTruncated(insn, insn.rd(1), insn.rd(2)),
  div,
  idiv,
};
