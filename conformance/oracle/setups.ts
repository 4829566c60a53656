/**
 * Operands that make an instruction do something: what lies on the stack, the count of a shift, a quotient that fits, a valid image.
 * Random operands alone would leave many rows faulting nearly always. Each setup works in most cases and leaves chance the rest.
 */
import { type Draft, RSP } from "./draft.ts";
import type { Chosen } from "./emit.ts";
import { FX_BYTES, Fx } from "./records.ts";
import { BYTES, F80S, LANES, TEXT } from "./values.ts";
import { BOUNDARY, CODE, codeBase } from "./world.ts";

type Setup = (d: Draft, c: Chosen) => void;

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBP = 5;
const SS = 2;
/** TF stays out of flag images: it would be the oracle's own. */
const FLAG_IMAGE = 0x24_7ed7;

/** Linear address of the stack top. */
function stackTop(d: Draft): number {
  const rsp = d.gpr[RSP]!;
  const offset =
    d.mode === 64
      ? rsp
      : rsp & (d.selectors[SS] === 0x2b || d.selectors[SS] === 0x17 ? 0xffff_ffffn : 0xffffn);
  return offset > 0x7fff_ffffn ? -1 : Number(offset) + d.segmentBase(SS);
}

/** Puts values of `bytes` each on the stack, as a pop finds them. */
function onStack(d: Draft, bytes: number, ...values: readonly (bigint | number)[]): void {
  const top = stackTop(d);
  values.forEach((v, i) => {
    d.poke(top + i * bytes, bytes, BigInt(v));
  });
}

const flagImage = (d: Draft): bigint =>
  BigInt((d.r.u32() & FLAG_IMAGE) | (d.r.chance(4) ? 0x100 : 0));

/** Puts a value where the first r/m operand is. */
function intoOperand(d: Draft, c: Chosen, value: bigint, bytes = c.targetBytes): void {
  if (c.memory) d.poke(c.target, bytes, value);
  else d.setGpr(c.rm, bytes || c.opsize, value);
}

const operandBytes = (c: Chosen): number => (c.row.specs[0]!.size === "b" ? 1 : c.opsize);

function operandValue(d: Draft, c: Chosen, bytes: number): bigint {
  if (c.memory) return d.peek(c.target, bytes);
  return d.gpr[c.rm]! & ((1n << BigInt(8 * bytes)) - 1n);
}

const countInCl: Setup = (d, c) => {
  if (c.row.operands.at(-1) !== "CL") return;
  if (d.r.chance(60)) d.suggestGpr(RCX, 1, BigInt(d.r.below(d.r.pick([3, 9, 34, 66]))));
};

const countImmediate: Setup = (d, c) => {
  const count = c.immediates[0];
  if (count && d.r.chance(70)) count.value = BigInt(d.r.below(d.r.pick([3, 9, 34, 66])));
  countInCl(d, c);
};

/** SDM: the result is undefined if the count exceeds the operand size, which only 16-bit operands allow. */
const doubleShift: Setup = (d, c) => {
  countImmediate(d, c);
  if (c.opsize !== 2) return;
  const count = c.immediates[0];
  if (count) count.value %= 17n;
  else d.setGpr(RCX, 1, BigInt(d.r.below(17)));
};

const divide: Setup = (d, c) => {
  const bytes = operandBytes(c);
  if (d.r.chance(35)) return;
  if (d.r.chance(8)) intoOperand(d, c, d.r.pick([0n, -1n, 1n]), bytes);
  const isSigned = c.row.sem === "idiv";
  const high = isSigned && d.r.chance(50) ? -1n : 0n;
  if (bytes === 1)
    d.suggestGpr(RAX, 2, isSigned ? BigInt(d.r.between(-600, 600)) : BigInt(d.r.below(3000)));
  else if (d.r.chance(60)) d.suggestGpr(RDX, bytes, high);
  else d.suggestGpr(RDX, bytes, operandValue(d, c, bytes) - BigInt(d.r.below(3)));
};

/** Bit offsets in a register reach beyond the operand. */
const bitOffset: Setup = (d, c) => {
  if (c.row.operands[1] !== "Gv" || !c.memory || d.r.chance(15)) return;
  d.suggestGpr(c.reg, c.opsize, BigInt(d.r.between(-2000, 2000)));
};

const compareExchange: Setup = (d, c) => {
  const bytes = operandBytes(c);
  if (d.r.chance(50)) d.suggestGpr(RAX, bytes, operandValue(d, c, bytes));
};

const compareExchangeWide: Setup = (d, c) => {
  const half = c.targetBytes / 2;
  if (d.r.chance(40)) return;
  d.suggestGpr(RAX, half, d.peek(c.target, half));
  if (d.r.chance(85)) d.suggestGpr(RDX, half, d.peek(c.target + half, half));
};

const stringOperation: Setup = (d, c) => {
  const bytes = c.addrSize;
  if (c.rep)
    d.suggestGpr(
      RCX,
      bytes,
      BigInt(d.r.chance(88) ? d.r.below(d.r.pick([2, 6, 40])) : d.r.below(700)),
    );
  if (c.row.sem !== "scas" && c.row.sem !== "cmps") return;
  // Runs of equal elements.
  if (d.r.chance(70)) {
    const value = BigInt(d.r.pick([0, 0x61, 0xff]));
    for (let i = 0; i < 256; i++) if (d.r.chance(97)) d.poke(BOUNDARY - 128 + i, 1, value);
    if (d.r.chance(60)) d.suggestGpr(RAX, 8, value * 0x0101_0101_0101_0101n);
  }
};

const countRegister: Setup = (d, c) => {
  if (d.r.chance(70)) d.suggestGpr(RCX, c.addrSize, BigInt(d.r.below(3)));
};

const nearReturn: Setup = (d, c) => {
  const bytes = d.mode === 64 ? 8 : c.opsize;
  onStack(d, bytes, d.codePointer());
  const release = c.immediates[0];
  if (release && d.r.chance(70)) release.value = BigInt(d.r.below(64));
};

const pointerOperand: Setup = (d, c) => {
  if (d.r.chance(85)) intoOperand(d, c, d.codePointer(), c.opsize);
};

/** Code selectors that lead to code in this world, others sometimes. */
function farTarget(d: Draft): { selector: number; offset: bigint } {
  const selector = d.r.chance(65) ? d.r.pick([0x23, 0x33, 0x07, 0x0f, 0x5f]) : d.selector();
  const offset = BigInt(CODE - codeBase(selector) + d.r.below(0x2000));
  return { selector, offset: d.r.chance(85) ? offset : d.codePointer() };
}

const farMemory: Setup = (d, c) => {
  const bytes = c.opsize === 2 ? 2 : 4;
  const isLoad = c.row.sem.startsWith("l");
  const { selector, offset } = farTarget(d);
  d.poke(c.target, bytes, offset);
  d.poke(c.target + bytes, 2, BigInt(isLoad ? d.selector() : selector));
};

const farImmediate: Setup = (d, c) => {
  if (c.memory) return farMemory(d, c);
  const { selector, offset } = farTarget(d);
  c.immediates[0]!.value = offset;
  c.immediates[1]!.value = BigInt(selector);
};

const farReturn: Setup = (d, c) => {
  const { selector, offset } = farTarget(d);
  onStack(d, c.opsize, offset, selector | (d.r.chance(90) ? 3 : 0));
  const release = c.immediates[0];
  if (release && d.r.chance(70)) release.value = BigInt(d.r.below(64));
};

const interruptReturn: Setup = (d, c) => {
  const { selector, offset } = farTarget(d);
  const ss = d.r.chance(80) ? d.r.pick([0x2b, 0x17, 0x2f]) : d.selector();
  onStack(
    d,
    c.opsize,
    offset,
    selector | (d.r.chance(95) ? 3 : 0),
    flagImage(d),
    BigInt(d.gpr[RSP]!) + 64n,
    ss,
  );
};

const loadSegment: Setup = (d, c) => intoOperand(d, c, BigInt(d.selector()), 2);

const inspectSegment: Setup = (d, c) => {
  if (c.memory) d.poke(c.target, 2, BigInt(d.selector()));
  else d.setGpr(c.rm, 2, BigInt(d.selector()));
};

const frame: Setup = (d, c) => {
  if (d.r.chance(85)) {
    const top = stackTop(d);
    d.suggestGpr(
      RBP,
      d.mode === 64 ? 8 : 4,
      BigInt(top - d.segmentBase(SS) + 8 * d.r.between(-8, 16)),
    );
  }
  const [size, level] = c.immediates;
  if (size && d.r.chance(80)) size.value = BigInt(d.r.below(200));
  if (level && d.r.chance(80)) level.value = BigInt(d.r.below(6));
};

const bounds: Setup = (d, c) => {
  const value = BigInt.asIntN(8 * c.opsize, d.gpr[c.reg]!);
  if (d.r.chance(20)) return;
  d.poke(c.target, c.opsize, value - BigInt(d.r.between(-1, 100)));
  d.poke(c.target + c.opsize, c.opsize, value + BigInt(d.r.between(-1, 100)));
};

const packedDecimal: Setup = (d, c) => {
  for (let i = 0; i < 9; i++) d.poke(c.target + i, 1, BigInt((d.r.below(10) << 4) | d.r.below(10)));
  d.poke(c.target + 9, 1, BigInt(d.r.pick([0, 0x80, 0x80, 0x7f, 0xff])));
};

const textLengths: Setup = (d, c) => {
  for (const n of [c.reg, c.rm]) d.setXmm(n, d.r.chance(80) ? TEXT : LANES);
  if (c.memory) d.pokeFrom(TEXT, c.target, 16);
  if (!c.row.sem.startsWith("pcmpestr")) return;
  for (const n of [RAX, RDX]) {
    if (d.r.chance(80)) d.suggestGpr(n, 8, BigInt.asUintN(64, BigInt(d.r.between(-20, 20))));
  }
};

/** A valid MXCSR in most cases: reserved bits raise #GP. Bit 17 is another maker's. */
export function mxcsrValue(d: Draft): number {
  const { r } = d;
  const dice = r.below(100);
  if (dice < 55) return 0x1f80 | (r.below(4) << 13);
  if (dice < 80) return 0x1f80 | (r.u32() & 0xe07f);
  return r.u32() & 0xffff;
}

const loadMxcsr: Setup = (d, c) => {
  const value = d.r.chance(85) ? mxcsrValue(d) : d.r.u32() & 0xfffd_ffff;
  d.poke(c.target, 4, BigInt(value >>> 0));
};

/** x87 control word: everything masked in most cases. */
export function controlWord(d: Draft): number {
  const { r } = d;
  const dice = r.below(100);
  if (dice < 50) return 0x37f;
  if (dice < 85) return 0x7f | (r.below(4) << 8) | (r.below(4) << 10) | (r.below(2) << 12);
  return (r.u32() & 0x1f3f) | 0x40;
}

/** Status word whose summary bits agree with its exceptions and a control word. */
export function statusWord(d: Draft, control: number): number {
  const { r } = d;
  const exceptions = r.chance(12)
    ? r.u32() & 0x7f
    : r.chance(50)
      ? r.pick([0x20, 0x01, 0x41, 0]) & control
      : 0;
  const top = r.chance(60) ? 0 : r.below(8);
  const summary = exceptions & ~control & 0x3f ? 0x8080 : 0;
  return exceptions | summary | (top << 11) | (r.u32() & 0x4700);
}

const loadEnvironment: Setup = (d, c) => {
  const wide = c.opsize === 2 ? 2 : 4;
  const control = controlWord(d);
  const at = c.target;
  d.poke(at, wide, BigInt(control | (d.r.chance(10) ? 0xe080 : 0)));
  d.poke(at + wide, wide, BigInt(statusWord(d, control)));
  d.poke(at + 2 * wide, wide, BigInt(d.r.chance(60) ? 0 : d.r.below(0x1_0000)));
  const registers = at + (wide === 4 ? 28 : 14);
  if (c.row.sem === "frstor") for (let i = 0; i < 8; i++) d.pokeFrom(F80S, registers + 10 * i, 10);
};

/** An FXSAVE image at `at`. */
function fxImage(d: Draft, at: number): void {
  const control = controlWord(d);
  d.poke(at + Fx.FCW, 2, BigInt(control));
  d.poke(at + Fx.FSW, 2, BigInt(statusWord(d, control)));
  d.poke(at + Fx.FTW, 2, BigInt(d.r.below(256)));
  d.poke(
    at + Fx.MXCSR,
    4,
    BigInt(d.r.chance(92) ? mxcsrValue(d) : (d.r.u32() & 0xfffd_ffff) >>> 0),
  );
  for (let i = 0; i < 8; i++) d.pokeFrom(F80S, at + Fx.ST + 16 * i, 16);
  for (let i = Fx.XMM; i < FX_BYTES; i += 16) d.pokeFrom(BYTES, at + i, 16);
}

const stateImage: Setup = (d, c) => fxImage(d, c.target);

/** State components of ours only: the native processor has more. */
const stateMask = (d: Draft): void => {
  d.setGpr(RAX, 8, BigInt(d.r.below(4)));
  d.setGpr(RDX, 8, 0n);
};

const OTHER_COMPONENTS = 0xffff_fffcn;

const restoreState: Setup = (d, c) => {
  fxImage(d, c.target);
  if (d.r.chance(10)) {
    // Components that the native processor may have beyond ours.
    d.poke(c.target + 512, 8, d.peek(c.target + 512, 8) & ~OTHER_COMPONENTS);
    return;
  }
  const components = d.r.below(4);
  d.poke(c.target + 512, 8, BigInt(components));
  d.poke(c.target + 520, 8, d.r.chance(25) ? (1n << 63n) | 3n : 0n);
  for (let i = 528; i < 576; i += 8) d.poke(c.target + i, 8, d.r.chance(2) ? 1n : 0n);
};

/** Registers XGETBV can read hold what the machine offers; the others raise #GP. */
const extendedControl = (d: Draft): void => d.setGpr(RCX, 4, BigInt(d.r.between(2, 0x7fff_fffe)));

const overflow: Setup = (d) => {
  if (d.instructions.length === 0 && d.r.chance(60)) d.rflags |= 0x800;
};

/** INT n of a vector that ring 3 may not use; 3, 4 and 80h would enter the kernel. */
const softwareInterrupt: Setup = (d, c) => {
  const vector = d.r.pick([0, 1, 2, 5, 6, 8, 13, 14, 0x20, 0x7f, 0xff]);
  c.immediates[0]!.value = BigInt(vector);
};

const asciiAdjust: Setup = (d, c) => {
  const base = c.immediates[0];
  if (base && d.r.chance(70)) base.value = BigInt(d.r.pick([10, 10, 16, 0, 1, 255]));
};

const popFlags: Setup = (d, c) =>
  onStack(d, d.mode === 64 && c.opsize === 8 ? 8 : c.opsize, flagImage(d));
const popSegment: Setup = (d, c) => onStack(d, c.opsize, d.selector());

const shifts = ["rol", "ror", "rcl", "rcr", "shl", "shr", "sar"];
const bitTests = ["bt", "bts", "btr", "btc"];
const strings = ["movs", "cmps", "stos", "lods", "scas", "ins", "outs"];
const stringCompares = ["pcmpestri", "pcmpestrm", "pcmpistri", "pcmpistrm"];
const all = (keys: readonly string[], setup: Setup): Record<string, Setup> =>
  Object.fromEntries(keys.map((k) => [k, setup]));

/** Registers that must be what they are before addresses are made of others. */
export const IMPLICIT: Readonly<Record<string, (d: Draft) => void>> = {
  xsave: stateMask,
  xsavec: stateMask,
  xsaveopt: stateMask,
  xrstor: stateMask,
  xgetbv: extendedControl,
};

export const SETUPS: Readonly<Record<string, Setup>> = {
  ...all(shifts, countImmediate),
  ...all(["shld", "shrd"], doubleShift),
  ...all(["div", "idiv"], divide),
  ...all(bitTests, bitOffset),
  cmpxchg: compareExchange,
  ...all(["cmpxchg8b", "cmpxchg16b"], compareExchangeWide),
  ...all(strings, stringOperation),
  ...all(["loop", "loope", "loopne", "jcxz"], countRegister),
  ret: nearReturn,
  ...all(["jmp_ind", "call_ind"], pointerOperand),
  ...all(["les", "lds", "lss", "lfs", "lgs"], farMemory),
  ...all(["jmpf", "callf"], farImmediate),
  retf: farReturn,
  iret: interruptReturn,
  mov_to_sreg: loadSegment,
  ...all(["lar", "lsl", "verr", "verw", "arpl"], inspectSegment),
  pop_sreg: popSegment,
  popf: popFlags,
  ...all(["enter", "leave"], frame),
  bound: bounds,
  fbld: packedDecimal,
  ...all(stringCompares, textLengths),
  ldmxcsr: loadMxcsr,
  fldcw: (d, c) => d.poke(c.target, 2, BigInt(controlWord(d))),
  ...all(["fldenv", "frstor"], loadEnvironment),
  fxrstor: stateImage,
  xrstor: restoreState,
  into: overflow,
  int: softwareInterrupt,
  ...all(["aam", "aad"], asciiAdjust),
};
