/**
 * What may differ between the native processor and ours, and why. Anything else is a defect of ours until the manual says otherwise.
 * The native processor may be AMD's, and run under a hypervisor; where makers differ, the SDM decides.
 *
 * A rule looks at one difference of one test and says whether it explains it. Undefined flags are not here (undefined-flags.ts), nor is
 * what the generator avoids because no comparison can be made (rows.ts; "another maker" in generator.ts and emit.ts).
 */
import { addressOf, type Case, isCanonical, isNear } from "./case.ts";
import type { Difference } from "./compare.ts";
import type { DraftInstruction } from "./draft.ts";
import { Fx, Result } from "./records.ts";

interface Rule {
  readonly name: string;
  /** The manual's or the kernel's words. */
  readonly why: string;
  explains(d: Difference, c: Case): boolean;
}

const Vector = { UD: 6, SS: 12, GP: 13, PF: 14, AC: 17 } as const;
/** Faults that an address alone can cause. */
const ADDRESS_FAULTS: ReadonlySet<number> = new Set([Vector.SS, Vector.GP, Vector.PF, Vector.AC]);
/** Linux: TASK_SIZE_MAX. */
const USER_END = 0x7fff_ffff_f000n;
const FSW_SUMMARY = 0x80;
const FSW_C1 = 0x200n;
const MXCSR_MM = 0x2_0000;
const FLAG_NT = 0x4000;
const GPR_FIELD = /^r([a-d]x|[sd]i|[sb]p|\d+)$/;
const DATA_SEGMENT_FIELD = /^[defg]s$/;
const X87_FIELD = /^st\d$/;
/** LAR: bits 19:16 of the descriptor's second doubleword. */
const LAR_UNDEFINED = 0xf_0000n;
/** Page-fault error code, instruction fetch. */
const FETCH = 0x10;
const FRAME_BYTES = 40n;

const keys = (...list: string[]): ReadonlySet<string> => new Set(list);
const POINTERS = keys("fop", "fip", "fdp");
const LAR = keys("lar");
const LSL = keys("lsl");
const PUSHF = keys("pushf");
const SETS_NESTED_TASK = keys("popf", "iret");
const TWO_SOURCES = keys("cmps", "movs");
const COMPARES_TO_FLAGS = keys("fcomi", "fcomip", "fucomi", "fucomip");
const MASKED_STORES = keys("maskmovq", "maskmovdqu");
const FAR_RETURNS = keys("iret", "retf");
const PREFETCH_HINTS = keys("nop", "prefetch");
const UNALIGNED_MOVES = keys(
  "movups",
  "movupd",
  "movdqu",
  "lddqu",
  "pcmpestri",
  "pcmpestrm",
  "pcmpistri",
  "pcmpistrm",
);
const STATE_AREAS = keys(
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
);
const APPROXIMATE_SSE = keys("rcpps", "rcpss", "rsqrtps", "rsqrtss");
const TRANSCENDENTAL = keys(
  "f2xm1",
  "fyl2x",
  "fyl2xp1",
  "fptan",
  "fpatan",
  "fsin",
  "fcos",
  "fsincos",
);

/** FOP, FIP, FDP, and MXCSR_MASK in an image of FXSAVE or XSAVE: [from, to). */
const FX_GAPS = [
  [6, 24],
  [28, 32],
] as const;

/** Bytes of a state image that say nothing comparable. */
const IMAGE_GAPS: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  fxsave: FX_GAPS,
  xsave: FX_GAPS,
  xsavec: FX_GAPS,
  xsaveopt: FX_GAPS,
  fnstenv: [[6, 28]],
  fnsave: [[6, 28]],
};

const gapsOf = (i: DraftInstruction): readonly (readonly [number, number])[] =>
  (i.row && IMAGE_GAPS[i.row.sem]) ?? [];

/** Whether the bytes that differ all lie in a gap of a state image that the test stores. */
function inImageGap(d: Difference, c: Case): boolean {
  const at = addressOf(d);
  if (at < 0) return false;
  const inGap = (address: number): boolean =>
    c.instructions.some((i) =>
      gapsOf(i).some(([from, to]) => address >= i.target + from && address < i.target + to),
    );
  for (let k = 0; k < 8; k++) {
    const differs = ((d.native ^ d.ours) >> BigInt(8 * k)) & 255n;
    if (differs && !inGap(at + k)) return false;
  }
  return true;
}

/** An operand that processors access piece by piece: masked stores, state areas, ten-byte numbers. */
function isWide(c: Case): boolean {
  const row = (c.stoppedAt ?? c.instructions.at(-1))?.row;
  if (!row) return false;
  return MASKED_STORES.has(row.sem) || STATE_AREAS.has(row.sem) || row.specs[0]?.memSize === "t";
}

/** |relative error| <= 1.5 * 2^-12 on either side, so twice that between them; 2^-12 is 2^11 to 2^12 units in the last place. */
function isNearReciprocal(d: Difference): boolean {
  return [0n, 32n, 64n, 96n].every((shift) => {
    const a = Number((d.native >> shift) & 0xffff_ffffn);
    const b = Number((d.ours >> shift) & 0xffff_ffffn);
    if (a === b) return true;
    const exponent = (a >>> 23) & 0xff;
    // Results near the smallest normal may be flushed to zero or not.
    if ((a & 0x7fff_ffff) === 0) return (a ^ b) >>> 0 < 0x0100_0000;
    return exponent > 0 && exponent < 255 && Math.abs(a - b) <= 3 * 4096;
  });
}

/** Of results with equal sign: their distance in units of the last place is at most one. */
function isNextFloat(d: Difference): boolean {
  const value = (v: bigint): bigint => ((v >> 64n) << 63n) + (v & 0x7fff_ffff_ffff_ffffn);
  const distance = value(d.native) - value(d.ours);
  return distance >= -1n && distance <= 1n;
}

/** Bit 14 of some image in a field of eight bytes. */
const isNestedTaskBit = (bits: bigint): boolean =>
  (bits & (bits - 1n)) === 0n && (bits & 0x4040_4040_4040_4040n) !== 0n;

const differsIn = (d: Difference, bits: bigint): boolean => ((d.native ^ d.ours) & ~bits) === 0n;

const ENVIRONMENT: readonly Rule[] = [
  {
    name: "page fault on a kernel address",
    why: "Linux reports every fault above user space as a protection fault, so as not to show its layout (set_signal_archinfo)",
    explains: (d, c) => d.field === "error" && differsIn(d, 1n) && c.nativeCr2 >= USER_END,
  },
  {
    name: "resumed with a stack pointer that is not canonical",
    why: "PVM: the hypervisor refuses to return to it, so a STEP test cannot go on after an instruction that left such a RSP",
    explains: (_, c) =>
      c.nativeStatus === Vector.GP &&
      c.isStep &&
      c.native.getUint32(Result.STEPS, true) > 0 &&
      !isCanonical(c.native.getBigUint64(Result.GPR + 32, true)),
  },
  {
    name: "x87 pointers cut to 32 bits",
    why: "PVM: the hypervisor now and then saves the state of a preempted process in the 32-bit format",
    explains: (d, c) =>
      POINTERS.has(d.field) &&
      d.native === (d.ours & 0xffff_ffffn) &&
      ((c.fswBefore | c.nativeFsw) & FSW_SUMMARY) !== 0,
  },
  {
    name: "number of the processor",
    why: "Linux keeps the processor's number in the limit of the segment 78h; LSL reads it",
    explains: (d, c) =>
      c.has(LSL) && GPR_FIELD.test(d.field) && d.native < 0x1000n && d.ours === 0n,
  },
  {
    name: "NT lost between two steps",
    why: "PVM: the hypervisor clears NT when it returns to a process; a PUSHF of the next step shows it",
    explains: (d, c) =>
      c.isStep &&
      c.has(PUSHF) &&
      (d.field === "outside" || (addressOf(d) >= 0 && isNestedTaskBit(d.native ^ d.ours))),
  },
  {
    name: "NT lost before IRET",
    why: "PVM: as above; after a step that set NT, IRET is #GP in 64-bit mode, and natively goes on to its frame",
    explains: (_, c) =>
      c.isStep &&
      c.has(SETS_NESTED_TASK) &&
      c.oursStatus === Vector.GP &&
      c.oursStoppedAt?.row?.sem === "iret" &&
      (c.oursRflags & ~c.nativeRflags & FLAG_NT) !== 0,
  },
  {
    name: "null selector with RPL",
    why: "the native kernel's entry and exit code makes a null selector zero",
    explains: (d) => DATA_SEGMENT_FIELD.test(d.field) && d.native === 0n && d.ours < 4n,
  },
];

const OTHER_MAKER: readonly Rule[] = [
  {
    name: "x87 pointers that were not loaded",
    why: 'AMD64 APM Vol. 2, "FXSAVE and FXRSTOR Instructions": the pointers are loaded only if FSW.ES is set; an exception that becomes pending later does not bring them back',
    explains: (d, c) =>
      POINTERS.has(d.field) && c.native.getBigUint64(Result.FX + Fx.FIP, true) === 0n,
  },
  {
    name: "x87 pointers and MXCSR_MASK in images",
    why: "as above, for images that a test stores; MXCSR_MASK bit 17 is AMD's misaligned SSE mode",
    explains: (d, c) =>
      inImageGap(d, c) ||
      (d.field === "outside" && c.instructions.some((i) => gapsOf(i).length > 0)),
  },
  {
    name: "C1 after FCOMI",
    why: 'SDM Vol. 2, "FCOMI/FCOMIP/FUCOMI/FUCOMIP": C1 is set to 0; AMD leaves it as it was',
    explains: (d, c) => d.field === "fsw" && differsIn(d, FSW_C1) && c.has(COMPARES_TO_FLAGS),
  },
  {
    name: "MXCSR.MM",
    why: "AMD64 APM Vol. 1, MXCSR bit 17, misaligned exception mask: reserved in the SDM, so that LDMXCSR raises #GP",
    explains: (_, c) => (c.native.getUint32(Result.FX + Fx.MXCSR, true) & MXCSR_MM) !== 0,
  },
  {
    name: "prefetch of a register",
    why: "AMD64 APM Vol. 3, PREFETCH: #UD with a register operand; the SDM has a NOP there",
    explains: (_, c) =>
      c.nativeStatus === Vector.UD &&
      c.stoppedAt?.row?.opcode === 0x0d &&
      PREFETCH_HINTS.has(c.stoppedAtKey),
  },
  {
    name: "rest of an undefined instruction",
    why: 'SDM Vol. 2, "UD": UD0 and UD1 have a ModRM byte, whose fetch may fault; for AMD the opcode is enough. The displacement of an undefined MOV Sreg it fetches, we do not',
    explains: (_, c) =>
      (c.nativeStatus === Vector.UD && c.oursStatus === Vector.PF && c.oursError >= FETCH) ||
      (c.oursStatus === Vector.UD && c.nativeStatus === Vector.PF && c.nativeError >= FETCH),
  },
  {
    name: "XRSTOR of more components",
    why: 'the native XCR0 has components that ours has not; SDM Vol. 1, "Operation of XRSTOR": #GP if XSTATE_BV has others than XCR0',
    explains: (_, c) =>
      c.oursStatus === Vector.GP &&
      c.oursStoppedAt?.row?.sem === "xrstor" &&
      (c.nativeStatus !== Vector.GP || c.stoppedAt !== c.oursStoppedAt),
  },
  {
    name: "LOCK MOV CR",
    why: "AMD64 APM Vol. 3, MOV CRn: LOCK MOV CR0 means CR8; the SDM has #UD",
    explains: (_, c) =>
      c.nativeStatus === Vector.GP && c.oursStatus === Vector.UD && c.hasLockedControlMove,
  },
  {
    name: "LOCK VERR, LOCK VERW",
    why: "SDM Vol. 2: #UD if the LOCK prefix is used; AMD's ignore it",
    explains: (_, c) => c.oursStatus === Vector.UD && c.hasLockedVerify,
  },
  {
    name: "MOVSXD with a 16-bit operand size",
    why: 'SDM Vol. 2, "MOVSX/MOVSXD": the source is r/m16; AMD reads r/m32, which can fault where two bytes do not',
    explains: (_, c) => ADDRESS_FAULTS.has(c.nativeStatus) && c.isShortMovsxd,
  },
  {
    name: "effective address not canonical before the segment base",
    why: "AMD checks the address before FS or GS base is added as well; the SDM checks the linear address alone, which is canonical here",
    explains: (_, c) =>
      c.nativeStatus === Vector.GP &&
      c.oursStatus === Vector.PF &&
      c.oursCr2 >= USER_END &&
      c.overridesFsGs,
  },
  {
    name: "far return that releases parameters",
    why: "AMD touches the stack beyond the parameters before it looks at the code segment",
    explains: (_, c) =>
      ADDRESS_FAULTS.has(c.nativeStatus) && c.oursStatus <= Vector.GP && c.stoppedAtKey === "retf",
  },
  {
    name: "CALL, target and stack",
    why: 'SDM Vol. 2, "CALL": the target is checked before the return address is pushed; AMD pushes first',
    explains: (_, c) =>
      c.oursStatus === Vector.GP &&
      ADDRESS_FAULTS.has(c.nativeStatus) &&
      c.stoppedAtKey === "call_ind",
  },
];

const UNSPECIFIED: readonly Rule[] = [
  {
    name: "approximate reciprocals",
    why: 'SDM Vol. 2, "RCPPS", "RSQRTPS": the relative error is at most 1.5 * 2^-12; the table behind it is the maker\'s own',
    explains: (d, c) => d.field.startsWith("xmm") && c.has(APPROXIMATE_SSE) && isNearReciprocal(d),
  },
  {
    name: "transcendental functions, last bit",
    why: 'SDM Vol. 1, "Transcendental Instruction Accuracy": the error is below one unit in the last place; C1 tells which way it was rounded',
    explains: (d, c) =>
      c.has(TRANSCENDENTAL) &&
      ((X87_FIELD.test(d.field) && isNextFloat(d)) || (d.field === "fsw" && differsIn(d, FSW_C1))),
  },
  {
    name: "data pointer without operand",
    why: 'SDM Vol. 1, "x87 FPU Instruction and Data (Operand) Pointers": undefined if the last non-control instruction had no memory operand',
    explains: (d, c) => d.field === "fdp" && !c.lastX87HasMemory,
  },
  {
    name: "x87 pointers that are not canonical",
    why: "FXRSTOR and XRSTOR of a pointer that no instruction can have had: how many of its bits are kept is the implementation's affair",
    explains: (d, c) =>
      POINTERS.has(d.field) &&
      c.has(STATE_AREAS) &&
      ((d.native ^ d.ours) & 0xffff_ffff_ffffn) === 0n,
  },
  {
    name: "LAR, bits 19:16",
    why: 'SDM Vol. 2, "LAR": masked by 00FxFF00H, where x is undefined',
    explains: (d, c) => c.has(LAR) && GPR_FIELD.test(d.field) && differsIn(d, LAR_UNDEFINED),
  },
  {
    name: "page fault in a wide operand",
    why: "which of the bytes that fault is reported is not architectural for masked stores, state areas and ten-byte numbers",
    explains: (d, c) =>
      (d.field === "cr2" || d.field === "error") && c.nativeStatus === c.oursStatus && isWide(c),
  },
  {
    name: "first fault of a wide operand",
    why: "a part is not canonical and another not mapped, or it is misaligned as well: which is found first is not architectural",
    explains: (_, c) =>
      ADDRESS_FAULTS.has(c.nativeStatus) && ADDRESS_FAULTS.has(c.oursStatus) && isWide(c),
  },
  {
    name: "masked store, faults",
    why: 'SDM Vol. 2, "MASKMOVDQU": with a mask of all 0s, exceptions associated with addressing memory may still be signalled, #AC may be or not (implementation dependent)',
    explains: (_, c) => ADDRESS_FAULTS.has(c.nativeStatus) && MASKED_STORES.has(c.stoppedAtKey),
  },
  {
    name: "unaligned 16-byte moves, alignment checking",
    why: 'SDM Vol. 2, "MOVUPD": #AC may or may not be generated, depending on the implementation, when the operand is not aligned on an 8-byte boundary; AMD wants 16',
    explains: (_, c) => c.nativeStatus === Vector.AC && UNALIGNED_MOVES.has(c.stoppedAtKey),
  },
  {
    name: "IRET, order of checks",
    why: 'SDM Vol. 2, "IRET": several conditions of #GP are met; which comes first is told differently in its operation section and by processors',
    explains: (d, c) =>
      d.field === "error" &&
      c.nativeStatus === Vector.GP &&
      c.oursStatus === Vector.GP &&
      c.stoppedAtKey === "iret",
  },
  {
    name: "string operands that both fault",
    why: "whether RSI or RDI is accessed first is not architectural",
    explains: (_, c) =>
      ADDRESS_FAULTS.has(c.nativeStatus) &&
      ADDRESS_FAULTS.has(c.oursStatus) &&
      TWO_SOURCES.has(c.stoppedAtKey),
  },
  {
    name: "far returns, address of a page fault in the frame",
    why: "the order in which the frame's fields are read is not architectural",
    explains: (d, c) =>
      d.field === "cr2" && FAR_RETURNS.has(c.stoppedAtKey) && isNear(d.native, d.ours, FRAME_BYTES),
  },
];

export const RULES: readonly Rule[] = [...ENVIRONMENT, ...OTHER_MAKER, ...UNSPECIFIED];

/** Differences that no rule explains, and the rules that explained others. */
export function excuse(
  found: readonly Difference[],
  c: Case,
): { left: Difference[]; rules: string[] } {
  const rules = new Set<string>();
  const left = found.filter((d) => {
    const rule = RULES.find((r) => r.explains(d, c));
    if (rule) rules.add(rule.name);
    return rule === undefined;
  });
  return { left, rules: [...rules] };
}
