/**
 * What may differ between the native processor and ours, and why. Anything else is a defect of ours until the manual says otherwise.
 *
 * A rule looks at the differences left of one test and takes away those it explains. Undefined flags are not here (undefined-flags.ts).
 */
import type { Difference } from "./compare.ts";
import type { DraftInstruction } from "./draft.ts";
import { Fx, Kind, Result, Test } from "./records.ts";
import { CODE } from "./world.ts";

export interface Context {
  readonly test: Uint8Array;
  readonly native: Uint8Array;
  readonly ours: Uint8Array;
  readonly instructions: readonly DraftInstruction[];
}

interface Rule {
  readonly name: string;
  /** The manual's or the kernel's words. */
  readonly why: string;
  /** Whether this difference is explained. */
  explains(d: Difference, context: Context): boolean;
}

const POINTERS = new Set(["fop", "fip", "fdp"]);
/** Linux: TASK_SIZE_MAX. */
const USER_END = 0x7fff_ffff_f000n;
const FSW_SUMMARY = 0x80;
const STATUS_GP = 13n;
const FSW_C1 = 0x200n;
const COMPARES_TO_FLAGS = new Set(["fcomi", "fcomip", "fucomi", "fucomip"]);
const word = (record: Uint8Array, at: number): number => record[at]! | (record[at + 1]! << 8);
const quad = (record: Uint8Array, at: number): bigint =>
  new DataView(record.buffer, record.byteOffset + at).getBigUint64(0, true);
const has = (c: Context, keys: ReadonlySet<string>): boolean =>
  c.instructions.some((i) => i.row !== null && keys.has(i.row.sem));
const isCanonical = (address: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
/** Linear address of a memory field, or -1. */
const addressOf = (d: Difference): number =>
  d.field.startsWith("[") ? Number.parseInt(d.field.slice(1), 16) : -1;

/** Bytes of a state image that say nothing comparable: [from, to) of the image. */
const IMAGE_GAPS: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  // FOP, FIP, FDP; MXCSR_MASK.
  fxsave: [
    [6, 24],
    [28, 32],
  ],
  xsave: [
    [6, 24],
    [28, 32],
  ],
  xsavec: [
    [6, 24],
    [28, 32],
  ],
  xsaveopt: [
    [6, 24],
    [28, 32],
  ],
  fnstenv: [[6, 28]],
  fnsave: [
    [6, 14],
    [6, 28],
  ],
};

/** Whether the bytes that differ all lie in a gap of a state image that the test stores. */
function inImageGap(d: Difference, c: Context): boolean {
  const at = addressOf(d);
  if (at < 0) return false;
  for (let k = 0; k < 8; k++) {
    if (
      ((d.native ^ d.ours) >> BigInt(8 * k)) & 255n &&
      !c.instructions.some((i) => isGap(i, at + k))
    )
      return false;
  }
  return true;
}

function isGap(i: DraftInstruction, address: number): boolean {
  const gaps = i.row === null ? undefined : IMAGE_GAPS[i.row.sem];
  return gaps?.some(([from, to]) => address >= i.target + from && address < i.target + to) ?? false;
}

const FLOAT_BITS = [0n, 32n, 64n, 96n];

/** RCPPS and RSQRTPS: |relative error| <= 1.5 * 2^-12 on either side, so twice that between them. */
function isNearReciprocal(d: Difference): boolean {
  return FLOAT_BITS.every((shift) => {
    const a = Number((d.native >> shift) & 0xffff_ffffn);
    const b = Number((d.ours >> shift) & 0xffff_ffffn);
    if (a === b) return true;
    const exponent = (a >>> 23) & 0xff;
    // Results near the smallest normal may be flushed to zero or not.
    if ((a & 0x7fff_ffff) === 0 && (a ^ b) >>> 0 < 0x0100_0000) return true;
    // Units in the last place: 2^-12 is 2^11 to 2^12 of them.
    return exponent > 0 && exponent < 255 && Math.abs(a - b) <= 3 * 4096;
  });
}

/** Destination of LAR: bits 19:16 are what the descriptor has in its limit. */
const LAR_UNDEFINED = 0xf_0000n;
const GPR_FIELD = /^r([a-d]x|[sd]i|[sb]p|\d+)$/;
const LAR = new Set(["lar"]);
const FAULTS_OF_ADDRESSES = new Set([12, 13, 14]);
const MASKED_STORES = new Set(["maskmovq", "maskmovdqu"]);
const FAR_RETURNS = new Set(["iret", "retf"]);
const STATE_AREAS = new Set([
  "fxsave",
  "fxrstor",
  "xsave",
  "xrstor",
  "xsavec",
  "xsaveopt",
  "fnsave",
  "frstor",
  "fnstenv",
  "fldenv",
]);

const APPROXIMATE_SSE = new Set(["rcpps", "rcpss", "rsqrtps", "rsqrtss"]);
const TRANSCENDENTAL = new Set([
  "f2xm1",
  "fyl2x",
  "fyl2xp1",
  "fptan",
  "fpatan",
  "fsin",
  "fcos",
  "fsincos",
]);

/** Of results with equal sign: their distance in units of the last place is at most one. */
function isNextFloat(d: Difference): boolean {
  const value = (v: bigint): bigint => ((v >> 64n) << 63n) + (v & 0x7fff_ffff_ffff_ffffn);
  const distance = value(d.native) - value(d.ours);
  return distance >= -1n && distance <= 1n;
}

const PREFETCH_HINTS = new Set(["nop", "prefetch"]);

export const RULES: readonly Rule[] = [
  {
    name: "x87 pointers without exception",
    why: "AMD64 APM Vol. 2, FXSAVE and XSAVE: the pointers are saved and loaded only if FSW.ES is set; without it the frame says nothing of them",
    explains: (d, c) =>
      POINTERS.has(d.field) &&
      ((word(c.native, Result.FX + Fx.FSW) & FSW_SUMMARY) === 0 ||
        quad(c.native, Result.FX + Fx.FIP) === 0n),
  },
  {
    name: "x87 pointers and MXCSR_MASK in images",
    why: "as above, for images that a test stores; MXCSR_MASK bit 17 is AMD's misaligned SSE mode",
    explains: inImageGap,
  },
  {
    name: "page fault on a kernel address",
    why: "Linux reports every fault above user space as a protection fault, so as not to show its layout (set_signal_archinfo)",
    explains: (d, c) =>
      d.field === "error" && (d.native ^ d.ours) === 1n && quad(c.native, Result.CR2) >= USER_END,
  },
  {
    name: "resumed with a stack pointer that is not canonical",
    why: "PVM: the hypervisor refuses to return to it, so a STEP test cannot go on after an instruction that left such a RSP",
    explains: (_, c) =>
      word(c.native, Result.STATUS) === Number(STATUS_GP) &&
      c.test[Test.KIND] === Kind.STEP &&
      quad(c.native, Result.STEPS) > 0n &&
      !isCanonical(quad(c.native, Result.GPR + 32)),
  },
  {
    name: "C1 after FCOMI",
    why: 'SDM Vol. 2, "FCOMI/FCOMIP/FUCOMI/FUCOMIP": C1 is set to 0; AMD leaves it as it was',
    explains: (d, c) =>
      d.field === "fsw" && (d.native ^ d.ours) === FSW_C1 && has(c, COMPARES_TO_FLAGS),
  },
  {
    name: "approximate reciprocals",
    why: 'SDM Vol. 2, "RCPPS", "RSQRTPS": the relative error is at most 1.5 * 2^-12; the table behind it is the maker\'s own',
    explains: (d, c) => d.field.startsWith("xmm") && has(c, APPROXIMATE_SSE) && isNearReciprocal(d),
  },
  {
    name: "data pointer without operand",
    why: 'SDM Vol. 1, "x87 FPU Instruction and Data (Operand) Pointers": undefined if the last non-control instruction had no memory operand',
    explains: (d, c) => d.field === "fdp" && d.native === 0n && !lastX87HasMemory(c),
  },
  {
    name: "LAR, bits 19:16",
    why: 'SDM Vol. 2, "LAR": masked by 00FxFF00H, where x is undefined',
    explains: (d, c) =>
      has(c, LAR) && GPR_FIELD.test(d.field) && ((d.native ^ d.ours) & ~LAR_UNDEFINED) === 0n,
  },
  {
    name: "address of a page fault in a wide operand",
    why: "which of the bytes that fault is reported for masked stores and state areas is not architectural",
    explains: (d, c) => d.field === "cr2" && (has(c, MASKED_STORES) || has(c, STATE_AREAS)),
  },
  {
    name: "transcendental functions, last bit",
    why: 'SDM Vol. 1, "Transcendental Instruction Accuracy": the error is below one unit in the last place; C1 tells which way it was rounded',
    explains: (d, c) =>
      has(c, TRANSCENDENTAL) &&
      ((d.field.startsWith("st") && d.field !== "status" && isNextFloat(d)) ||
        (d.field === "fsw" && (d.native ^ d.ours) === FSW_C1)),
  },
  {
    name: "x87 pointers cut to 32 bits",
    why: "PVM: the hypervisor now and then saves the state of a preempted process in the 32-bit format",
    explains: (d, c) =>
      POINTERS.has(d.field) &&
      d.native < 0x1_0000_0000n &&
      (d.ours & 0xffff_ffffn) === d.native &&
      word(c.test, Test.FX + Fx.FSW) >= 0x8000,
  },
  {
    name: "far return that releases parameters",
    why: "AMD touches the stack beyond the parameters before it looks at the code segment",
    explains: (_, c) =>
      word(c.native, Result.STATUS) === 14 &&
      [10, 11, 12, 13].includes(word(c.ours, Result.STATUS)) &&
      atFault(c)?.row?.sem === "retf",
  },
  {
    name: "CALL, target and stack",
    why: 'SDM Vol. 2, "CALL": the target is checked before the return address is pushed; here it is the other way round',
    explains: (d, c) =>
      d.field === "status" &&
      d.native === 17n &&
      d.ours === STATUS_GP &&
      atFault(c)?.row?.sem === "call_ind",
  },
  {
    name: "prefetch of a register",
    why: "AMD64 APM Vol. 3, PREFETCH: #UD with a register operand; the SDM has a NOP there",
    explains: (_, c) =>
      word(c.native, Result.STATUS) === 6 &&
      atFault(c)?.row?.opcode === 0x0d &&
      PREFETCH_HINTS.has(atFault(c)!.row!.sem),
  },
  {
    name: "null selector with RPL",
    why: "IRET and the native kernel's entry code make a null selector zero (SDM Vol. 2, IRET: segment registers that may not be used become null)",
    explains: (d) => /^[defg]s$/.test(d.field) && d.native === 0n && d.ours < 4n,
  },
  {
    name: "effective address not canonical before the segment base",
    why: "AMD checks the address before FS or GS base is added as well; the SDM checks the linear address alone, which is canonical here",
    explains: (_, c) =>
      word(c.native, Result.STATUS) === Number(STATUS_GP) &&
      word(c.ours, Result.STATUS) === 14 &&
      quad(c.ours, Result.CR2) >= USER_END &&
      overridesFsGs(c),
  },
  {
    name: "FXSAVE and the like, alignment",
    why: 'SDM Vol. 2, "FXRSTOR": if #AC is enabled, signalling it instead of #GP for a misaligned area varies with implementation',
    explains: (d, c) =>
      d.field === "status" &&
      [d.native, d.ours].every((s) => s === STATUS_GP || s === 17n) &&
      STATE_AREAS.has(atFault(c)?.row?.sem ?? ""),
  },
  {
    name: "x87 pointers that are not canonical",
    why: "FXRSTOR and XRSTOR of a pointer that no instruction can have had: how many of its bits are kept is the implementation's affair",
    explains: (d, c) =>
      POINTERS.has(d.field) &&
      has(c, STATE_AREAS) &&
      ((d.native ^ d.ours) & 0xffff_ffff_ffffn) === 0n,
  },
  {
    name: "far returns, address of a page fault in the frame",
    why: "the order in which the frame's fields are read is not architectural",
    explains: (d, c) =>
      d.field === "cr2" &&
      FAR_RETURNS.has(atFault(c)?.row?.sem ?? "") &&
      d.native - d.ours < 40n &&
      d.ours - d.native < 40n,
  },
  {
    name: "masked store without a set mask",
    why: 'SDM Vol. 2, "MASKMOVDQU": with a mask of all 0s, exceptions associated with addressing memory may still be signalled (implementation dependent)',
    explains: (_, c) =>
      FAULTS_OF_ADDRESSES.has(word(c.native, Result.STATUS)) &&
      MASKED_STORES.has(atFault(c)?.row?.sem ?? ""),
  },
];

/** Whether the last x87 instruction that ran, as far as can be told, had a memory operand. */
function lastX87HasMemory(c: Context): boolean {
  const fault = atFault(c);
  const before = fault ? c.instructions.slice(0, c.instructions.indexOf(fault)) : c.instructions;
  const last = before.findLast((i) => i.row?.feature === "fpu" && !i.row.sem.startsWith("fn"));
  return last?.row?.specs.some((s) => s.mod === "mem") ?? false;
}

/** The instruction at which it stopped natively has an FS or GS prefix. */
function overridesFsGs(c: Context): boolean {
  const i = atFault(c);
  return (
    i !== undefined &&
    c.test.subarray(i.start, i.start + i.length).some((b) => b === 0x64 || b === 0x65)
  );
}

/** The instruction native RIP is at. */
function atFault(c: Context): DraftInstruction | undefined {
  const start = word(c.test, Test.OFFSET) + CODE;
  const rip = Number(quad(c.native, Result.RIP)) - start;
  return c.instructions.find((i) => i.start === rip);
}

/** Differences that no rule explains, and the rules that explained others. */
export function excuse(
  found: readonly Difference[],
  context: Context,
): { left: Difference[]; rules: string[] } {
  const rules = new Set<string>();
  const left = found.filter((d) => {
    const rule = RULES.find((r) => r.explains(d, context));
    if (rule) rules.add(rule.name);
    return rule === undefined;
  });
  return { left, rules: [...rules] };
}
