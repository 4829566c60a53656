/** Registers by name: as operands for the assembler, and as text for the disassembler. Numbers are those of ModRM and REX. */
import { Operand, type RegClass } from "./instruction.ts";

const LEGACY = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];

/** Names by size in bytes, then number. */
const GPR_NAMES: Record<number, readonly string[]> = {
  1: names(["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"], "b"),
  2: names(LEGACY, "w"),
  4: names(
    LEGACY.map((n) => `e${n}`),
    "d",
  ),
  8: names(
    LEGACY.map((n) => `r${n}`),
    "",
  ),
};

function names(first: readonly string[], suffix: string): string[] {
  return [...first, ...Array.from({ length: 8 }, (_, i) => `r${i + 8}${suffix}`)];
}

const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs"];
const HIGH_NAMES = ["ah", "ch", "dh", "bh"];

/** Name of a register; `size` matters for general registers only. */
export function registerName(cls: RegClass, num: number, size: number): string {
  switch (cls) {
    case "gpr":
      return GPR_NAMES[size]?.[num] ?? `gpr${size}:${num}`;
    case "gpr8h":
      return HIGH_NAMES[num] ?? `gpr8h:${num}`;
    case "seg":
      return SEGMENT_NAMES[num] ?? `seg:${num}`;
    case "st":
      return `st(${num})`;
    default:
      return `${cls}${num}`;
  }
}

/** A register operand. */
export function register(cls: RegClass, num: number, size: number): Operand {
  const op = new Operand();
  op.kind = "reg";
  op.cls = cls;
  op.num = num;
  op.size = size;
  return op;
}

function bank(cls: RegClass, size: number, count: number): Operand[] {
  return Array.from({ length: count }, (_, num) => Object.freeze(register(cls, num, size)));
}

const [b, w, d, q] = [
  bank("gpr", 1, 16),
  bank("gpr", 2, 16),
  bank("gpr", 4, 16),
  bank("gpr", 8, 16),
];
export const [al, cl, dl, bl, spl, bpl, sil, dil, r8b, r9b, r10b, r11b, r12b, r13b, r14b, r15b] = b;
export const [ax, cx, dx, bx, sp, bp, si, di, r8w, r9w, r10w, r11w, r12w, r13w, r14w, r15w] = w;
export const [
  eax,
  ecx,
  edx,
  ebx,
  esp,
  ebp,
  esi,
  edi,
  r8d,
  r9d,
  r10d,
  r11d,
  r12d,
  r13d,
  r14d,
  r15d,
] = d;
export const [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = q;
export const [ah, ch, dh, bh] = bank("gpr8h", 1, 4);
export const [es, cs, ss, ds, fs, gs] = bank("seg", 2, 6);
export const [cr0, , cr2, cr3, cr4, , , , cr8] = bank("cr", 8, 9);
export const [dr0, dr1, dr2, dr3, dr4, dr5, dr6, dr7] = bank("dr", 8, 8);
export const [st0, st1, st2, st3, st4, st5, st6, st7] = bank("st", 10, 8);
export const [mm0, mm1, mm2, mm3, mm4, mm5, mm6, mm7] = bank("mm", 8, 8);
const x = bank("xmm", 16, 16);
export const [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7] = x;
export const [xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15] = x.slice(8);

/** All general registers of one size, by number: for generated programs. */
export const generalRegisters: Readonly<Record<1 | 2 | 4 | 8, readonly Operand[]>> = {
  1: b,
  2: w,
  4: d,
  8: q,
};
/** Likewise the others. */
export const xmmRegisters: readonly Operand[] = x;
export const mmRegisters: readonly Operand[] = [
  mm0,
  mm1,
  mm2,
  mm3,
  mm4,
  mm5,
  mm6,
  mm7,
] as Operand[];
