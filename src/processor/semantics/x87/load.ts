/**
 * Memory formats to 80-bit values: single, double, integers, packed BCD; and the constants.
 * Spec: SDM Vol. 1, "Data Types"; Vol. 2, FLD, FILD, FBLD, FLD1/FLDL2T/...
 *
 *   x87FromSingle(bits i32), x87FromDouble(bits i64)   value into Scratch.MEMORY, exact; answers DE if it was denormal
 *   x87FromInteger(value i64), x87FromBcd(host)        likewise, without an answer
 *   x87LoadValue(flags)                                pushes Scratch.MEMORY: a signaling NaN becomes quiet with IE
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";
import { Class, classOf } from "./nan.ts";
import {
  BIAS,
  defineHelper,
  EXPONENT_MAX,
  Fsw,
  INTEGER_BIT,
  isEmpty,
  parameters,
  QUIET_BIT,
  Scratch,
  setSlot,
  signExponent,
  significand,
  stAddress,
} from "./state.ts";

/** Writes sign, exponent and significand (shifted up to bit 63 or zero) to Scratch.MEMORY. */
function setMemory(cpu: Cpu, sign: Val, exponent: Val | number, sig: Val): void {
  setSlot(
    cpu,
    Scratch.MEMORY,
    sign.shl(15).or(exponent instanceof Object ? exponent : cpu.i32(exponent)),
    sig,
  );
}

/** Conversion from a binary interchange format with `fractionBits` and `exponentBits`, left-aligned in 64 bits. */
function convertBinary(cpu: Cpu, bits: Val, exponentBits: number): void {
  const fn = cpu.fn;
  const max = (1 << exponentBits) - 1;
  const bias = max >> 1;
  const sign = bits.shrU(63).wrap();
  const exponent = bits
    .shrU(63 - exponentBits)
    .wrap()
    .and(max);
  const fraction = bits.shl(exponentBits);
  fn.if(exponent.sub(1).ltU(max - 1), () => {
    setMemory(cpu, sign, exponent.add(BIAS - bias), fraction.or(cpu.i64(INTEGER_BIT)));
    fn.return(0);
  });
  fn.if(exponent, () => {
    setMemory(cpu, sign, EXPONENT_MAX, fraction.or(cpu.i64(INTEGER_BIT)));
    fn.return(0);
  });
  const value = fraction.shl(1);
  fn.if(value.eqz(), () => {
    setMemory(cpu, sign, 0, value);
    fn.return(0);
  });
  const shift = value.clz();
  setMemory(cpu, sign, cpu.i32(BIAS - bias).sub(shift.wrap()), value.shl(shift));
  fn.return(Fsw.DE);
}

export function defineLoad(module: ModuleBuilder): void {
  defineHelper(module, "x87FromSingle", ["i32"], "i32", (p, fn) =>
    convertBinary(p, fn.param(0).extU().shl(32), 8),
  );
  defineHelper(module, "x87FromDouble", ["i64"], "i32", (p, fn) =>
    convertBinary(p, fn.param(0), 11),
  );
  defineHelper(module, "x87FromInteger", ["i64"], null, (p, fn) => {
    const value = fn.param(0);
    const sign = value.shrU(63);
    const magnitude = value.xor(sign.neg()).add(sign);
    fn.if(
      magnitude.eqz(),
      () => setSlot(p, Scratch.MEMORY, 0, 0n),
      () => {
        const shift = magnitude.clz();
        setMemory(p, sign.wrap(), p.i32(BIAS + 63).sub(shift.wrap()), magnitude.shl(shift));
      },
    );
  });
  defineBcd(module);
  defineHelper(module, "x87LoadValue", ["i32"], null, (p, fn) => {
    const slot = p.i32(Scratch.MEMORY);
    const sig = significand(p, slot);
    const signaling = classOf(p, slot).eq(Class.SNAN);
    const quiet = signaling.select(sig.or(p.i64(QUIET_BIT)), sig);
    const isFree = isEmpty(p, stAddress(p, -1));
    fn.callVoid(module.get("x87Push"), signExponent(p, slot), quiet, signaling);
    // A denormal is loaded even if its exception is not masked.
    fn.if(fn.param(0).and(isFree.neg()), () => {
      p.set(S.FSW, p.get(S.FSW).or(Fsw.DE));
      fn.callVoid(module.get("x87Summary"));
    });
  });
}

/** Eighteen digits, two in a byte, low first; the sign in bit 7 of the tenth byte. Digits above nine count as what they are. */
function defineBcd(module: ModuleBuilder): void {
  defineHelper(module, "x87FromBcd", ["i32"], null, (p, fn) => {
    const [host] = parameters(fn);
    const value = fn.variable("i64", 0n);
    const i = fn.variable("i32", 8);
    fn.while(
      () => i.read().geS(0),
      () => {
        const byte = fn.load("i64.load8_u", host.add(i.read()));
        const pair = byte.shrU(4).mul(10).add(byte.and(15));
        value.set(value.read().mul(100).add(pair));
        i.set(i.read().sub(1));
      },
    );
    fn.callVoid(module.get("x87FromInteger"), value.read());
    const sign = p.raw(1, host, 9).shrU(7).shl(15);
    p.setRaw(2, Scratch.MEMORY, signExponent(p, Scratch.MEMORY).or(sign), 8);
  });
}

/** Constants truncated to 64 bits, and the bit that follows: 1 if the rest is above half an ulp. Sign is positive. */
const CONSTANTS = {
  fldl2t: { exponent: 0x4000, truncated: 0xd49a_784b_cd1b_8afen, above: 0 },
  fldl2e: { exponent: 0x3fff, truncated: 0xb8aa_3b29_5c17_f0bbn, above: 1 },
  fldpi: { exponent: 0x4000, truncated: 0xc90f_daa2_2168_c234n, above: 1 },
  fldlg2: { exponent: 0x3ffd, truncated: 0x9a20_9a84_fbcf_f798n, above: 1 },
  fldln2: { exponent: 0x3ffe, truncated: 0xb172_17f7_d1cf_79abn, above: 1 },
} as const;
export type ConstantName = keyof typeof CONSTANTS;
export const CONSTANT_NAMES = Object.keys(CONSTANTS) as ConstantName[];

/** Exponent and significand of a constant by the rounding control (i32): nearest, down, up, chop. No exception is reported. */
export function constantValue(
  cpu: Cpu,
  name: ConstantName,
  control: Val,
): { exponent: Val; significand: Val } {
  const c = CONSTANTS[name];
  // Up always rounds up (control 2), nearest (control 0) if the rest is above half.
  const up = cpu
    .i32(c.above === 1 ? 5 : 4)
    .shrU(control)
    .and(1);
  return { exponent: cpu.i32(c.exponent), significand: cpu.i64(c.truncated).add(up.extU()) };
}
