/**
 * Memory operands: an addressing form of the mode, with register values and a displacement that lead to a chosen linear address.
 * Spec: SDM Vol. 2, "ModR/M and SIB Bytes".
 */
import { type Draft, MASK64, RSP } from "./draft.ts";
import { CODE, codeBase } from "./world.ts";

/** What a memory operand adds to an instruction. `reg` of ModRM is the caller's. */
export interface MemoryForm {
  mod: number;
  rm: number;
  /** -1: none. */
  sib: number;
  disp: number;
  dispBytes: 0 | 1 | 2 | 4;
  rexB: number;
  rexX: number;
  /** Segment override 0..5 or -1. */
  segment: number;
  addrSize: 2 | 4 | 8;
  /** Linear address that a RIP-relative displacement must reach (it is known when the instruction's end is), or null. */
  relative: bigint | null;
}

const SS = 2;
const DS = 3;
const RBP = 5;
const BASE16 = [[3, 6], [3, 7], [5, 6], [5, 7], [6], [7], [5], [3]] as const;

export function pickAddrSize(d: Draft): 2 | 4 | 8 {
  if (d.mode === 64) return d.r.chance(90) ? 8 : 4;
  if (d.mode === 32) return d.r.chance(d.segmentBase(DS) === 0 ? 95 : 50) ? 4 : 2;
  return d.r.chance(75) ? 2 : 4;
}

function pickSegment(d: Draft): number {
  const { r } = d;
  if (d.mode === 64) return r.chance(84) ? -1 : r.chance(60) ? 4 + r.below(2) : r.below(4);
  return r.chance(78) ? -1 : r.below(6);
}

function effectiveSegment(d: Draft, override: number, base: number): number {
  if (override >= 0 && (d.mode !== 64 || override >= 4)) return override;
  return base === RSP || base === RBP ? SS : DS;
}

const fits8 = (v: bigint): boolean => v >= -128n && v <= 127n;
const fits32 = (v: bigint): boolean => v >= -0x8000_0000n && v <= 0x7fff_ffffn;

/** An operand at linear address `target`; if the form cannot reach it (a 16-bit offset, say), at some other place. */
export function planMemory(d: Draft, target: bigint, addrSize: 2 | 4 | 8): MemoryForm {
  const f: MemoryForm = {
    mod: 0,
    rm: 0,
    sib: -1,
    disp: 0,
    dispBytes: 0,
    rexB: 0,
    rexX: 0,
    segment: pickSegment(d),
    addrSize,
    relative: null,
  };
  if (addrSize === 2) planForm16(d, f, target);
  else planForm32(d, f, target);
  return f;
}

function planForm16(d: Draft, f: MemoryForm, target: bigint): void {
  const { r } = d;
  const absolute = r.chance(12);
  const rm = absolute ? 6 : r.below(8);
  const reaches = (s: number): boolean =>
    target >= BigInt(d.segmentBase(s)) && target <= BigInt(d.segmentBase(s) + 0xffff);
  const own = effectiveSegment(
    d,
    f.segment,
    !absolute && (rm === 2 || rm === 3 || rm === 6) ? RBP : 0,
  );
  if (!reaches(own) && r.chance(80)) {
    const better = [0, 2, 3, 4, 5].filter(reaches);
    if (better.length > 0) f.segment = r.pick(better);
  }
  const segment = effectiveSegment(
    d,
    f.segment,
    !absolute && (rm === 2 || rm === 3 || rm === 6) ? RBP : 0,
  );
  const offset = (target - BigInt(d.segmentBase(segment))) & 0xffffn;
  f.rm = rm;
  if (absolute) {
    f.dispBytes = 2;
    f.disp = Number(offset);
    return;
  }
  const registers = BASE16[rm]!;
  const free = registers.find((n) => !d.isPinned(n));
  const sum = (except: number): bigint =>
    registers.reduce((s, n) => (n === except ? s : s + d.gpr[n]!), 0n);
  if (free === undefined) {
    f.mod = 2;
    f.dispBytes = 2;
    f.disp = Number((offset - sum(-1)) & 0xffffn);
    return;
  }
  f.mod = rm === 6 ? r.between(1, 2) : r.below(3);
  f.dispBytes = f.mod as 0 | 1 | 2;
  f.disp = f.mod === 0 ? 0 : f.mod === 1 ? r.between(-128, 127) : r.below(0x1_0000);
  for (const n of registers) d.pin(n);
  d.setGpr(free, 2, offset - sum(free) - BigInt(f.disp));
}

function planForm32(d: Draft, f: MemoryForm, target: bigint): void {
  const { r } = d;
  const dice = r.below(100);
  if (dice < 10 && planAbsolute(d, f, target)) return;
  if (dice < 18 && d.mode === 64) {
    f.rm = 5;
    f.dispBytes = 4;
    f.relative = target - BigInt(d.segmentBase(effectiveSegment(d, f.segment, 0)));
    return;
  }
  const base = dice < 28 && dice >= 18 ? -1 : pickBase(d);
  const index = dice >= 28 && dice < 70 ? -1 : pickIndex(d, base);
  planBaseIndex(d, f, target, base, index);
}

function pickBase(d: Draft): number {
  const n = d.randomRegister();
  return d.isPinned(n) && d.r.chance(70) ? d.randomRegister() : n;
}

function pickIndex(d: Draft, base: number): number {
  for (let i = 0; i < 4; i++) {
    const n = d.randomRegister();
    if (n !== RSP && (n !== base || d.isPinned(n))) return n;
  }
  return -1;
}

function planAbsolute(d: Draft, f: MemoryForm, target: bigint): boolean {
  const offset = target - BigInt(d.segmentBase(effectiveSegment(d, f.segment, 0)));
  const disp = BigInt.asIntN(32, offset);
  if (f.addrSize === 8 && disp !== offset) return false;
  const needsSib = d.mode === 64 || d.r.chance(20);
  f.rm = needsSib ? 4 : 5;
  if (needsSib) f.sib = 0x25 | (d.r.below(4) << 6);
  f.dispBytes = 4;
  f.disp = Number(disp);
  return true;
}

function planBaseIndex(d: Draft, f: MemoryForm, target: bigint, base: number, index: number): void {
  const { r } = d;
  const scale = r.below(4);
  const bits = f.addrSize * 8;
  const mask = f.addrSize === 8 ? MASK64 : 0xffff_ffffn;
  const segment = effectiveSegment(d, f.segment, base);
  const offset = (target - BigInt(d.segmentBase(segment))) & mask;
  const freeIndex = base < 0 && index >= 0 && !d.isPinned(index);
  if (freeIndex) {
    // index * scale + disp: the displacement takes the remainder.
    const rest = BigInt(r.between(-2048, 2047)) * 8n + (offset & 7n);
    d.setGpr(index, f.addrSize, BigInt.asUintN(bits, offset - rest) >> BigInt(scale));
    encodeBaseIndex(
      d,
      f,
      -1,
      index,
      scale,
      BigInt.asIntN(bits, offset - (d.gpr[index]! << BigInt(scale))),
      4,
    );
    return;
  }
  if (index >= 0) d.pin(index);
  const scaled = index < 0 ? 0n : d.gpr[index]! << BigInt(scale);
  if (base >= 0 && !d.isPinned(base) && base !== index) {
    const bytes = r.pick([0, 1, 1, 4]);
    const disp =
      bytes === 0
        ? 0n
        : bytes === 1
          ? BigInt(r.between(-128, 127))
          : BigInt(r.u32() | 0) >> BigInt(r.below(32));
    d.setGpr(base, f.addrSize, offset - scaled - disp);
    encodeBaseIndex(d, f, base, index, scale, disp, bytes);
    return;
  }
  const disp = BigInt.asIntN(bits, offset - scaled - (base < 0 ? 0n : d.gpr[base]!));
  encodeBaseIndex(d, f, base, index, scale, disp, fits8(disp) ? 1 : 4);
}

function encodeBaseIndex(
  d: Draft,
  f: MemoryForm,
  base: number,
  index: number,
  scale: number,
  disp: bigint,
  bytes: number,
): void {
  f.disp = Number(fits32(disp) ? disp : BigInt.asIntN(32, disp));
  f.rexB = base < 0 ? 0 : base >> 3;
  f.rexX = index < 0 ? 0 : index >> 3;
  if (base < 0) {
    f.rm = 4;
    f.sib = (scale << 6) | (index < 0 ? 0x20 : (index & 7) << 3) | 5;
    f.dispBytes = 4;
    return;
  }
  let size = bytes;
  if (size === 0 && (base & 7) === RBP) size = 1;
  f.mod = size === 4 ? 2 : size;
  f.dispBytes = size as 0 | 1 | 4;
  if (index < 0 && (base & 7) !== RSP && d.r.chance(90)) {
    f.rm = base & 7;
    return;
  }
  f.rm = 4;
  f.sib = (scale << 6) | (index < 0 ? 0x20 : (index & 7) << 3) | (base & 7);
}

/** Displacement of a RIP-relative operand of an instruction that ends at `end` of the test's code. */
export function relativeDisplacement(d: Draft, f: MemoryForm, end: number): number {
  const rip = BigInt(CODE - codeBase(d.selectors[1]!) + d.offset + end);
  return Number(BigInt.asIntN(32, f.relative! - rip));
}
