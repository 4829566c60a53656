/**
 * What the manual leaves undefined in RFLAGS, by semantic key. SDM Vol. 2, "Flags Affected" of each instruction; Vol. 1, "EFLAGS Cross-Reference".
 *
 * `undefined` is compared on neither side. `reads` and `defines` keep undefined flags from deciding anything later in a sequence: the generator
 * places no reader of a flag after an instruction that left it undefined, unless something between defines it again.
 */
export const Flags = { CF: 1, PF: 4, AF: 0x10, ZF: 0x40, SF: 0x80, OF: 0x800 } as const;
const { CF, PF, AF, ZF, SF, OF } = Flags;
export const ARITHMETIC = CF | PF | AF | ZF | SF | OF;

interface UndefinedFlags {
  readonly flags: number;
  /** The manual's words. */
  readonly why: string;
}

const LOGIC = { flags: AF, why: "the state of the AF flag is undefined" };
const MULTIPLY = { flags: SF | ZF | AF | PF, why: "the SF, ZF, AF, and PF flags are undefined" };
const DIVIDE = { flags: ARITHMETIC, why: "the CF, OF, SF, ZF, AF, and PF flags are undefined" };
const SHIFT_ANY = {
  flags: CF | OF | AF,
  why: "OF is undefined for multi-bit shifts, AF for a non-zero count, CF for SHL and SHR by the operand size or more",
};
const ROTATE = { flags: OF, why: "the OF flag is defined only for the 1-bit rotates" };
const DOUBLE_SHIFT = {
  flags: ARITHMETIC,
  why: "if the count is greater than the operand size, the flags are undefined; AF is undefined, OF for counts above 1",
};
const BIT_TEST = { flags: OF | SF | AF | PF, why: "the OF, SF, AF, and PF flags are undefined" };
const BIT_SCAN = {
  flags: CF | OF | SF | AF | PF,
  why: "CF, OF, SF, AF, and PF flags are undefined",
};

const TABLE: Readonly<Record<string, UndefinedFlags>> = {
  and: LOGIC,
  or: LOGIC,
  xor: LOGIC,
  test: LOGIC,
  mul: MULTIPLY,
  imul1: MULTIPLY,
  imul2: MULTIPLY,
  imul3: MULTIPLY,
  div: DIVIDE,
  idiv: DIVIDE,
  shl: SHIFT_ANY,
  shr: SHIFT_ANY,
  sar: { flags: OF | AF, why: SHIFT_ANY.why },
  rol: ROTATE,
  ror: ROTATE,
  rcl: ROTATE,
  rcr: ROTATE,
  shld: DOUBLE_SHIFT,
  shrd: DOUBLE_SHIFT,
  bt: BIT_TEST,
  bts: BIT_TEST,
  btr: BIT_TEST,
  btc: BIT_TEST,
  bsf: BIT_SCAN,
  bsr: BIT_SCAN,
  aaa: { flags: OF | SF | ZF | PF, why: "the OF, SF, ZF, and PF flags are undefined" },
  aas: { flags: OF | SF | ZF | PF, why: "the OF, SF, ZF, and PF flags are undefined" },
  aam: { flags: OF | AF | CF, why: "the OF, AF, and CF flags are undefined" },
  aad: { flags: OF | AF | CF, why: "the OF, AF, and CF flags are undefined" },
  daa: { flags: OF, why: "the OF flag is undefined" },
  das: { flags: OF, why: "the OF flag is undefined" },
};

/** What is known of a shift when it is generated. */
export interface ShiftFacts {
  /** Count after masking, or -1 if only execution will tell. */
  readonly count: number;
  /** Operand size in bits. */
  readonly bits: number;
}

function afterShift(sem: string, { count, bits }: ShiftFacts): number {
  const all = TABLE[sem]!.flags;
  if (count < 0) return all;
  if (count === 0) return 0;
  switch (sem) {
    case "shl":
    case "shr":
      return AF | (count === 1 ? 0 : OF) | (count >= bits ? CF : 0);
    case "sar":
      return AF | (count === 1 ? 0 : OF);
    case "shld":
    case "shrd":
      return count > bits ? ARITHMETIC : AF | (count === 1 ? 0 : OF);
    default:
      return count === 1 ? 0 : OF;
  }
}

const SHIFTS = new Set(["shl", "shr", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd"]);
export const isShift = (sem: string): boolean => SHIFTS.has(sem);

/** Flags that an instruction may leave undefined. */
export function undefinedFlags(sem: string, shift: ShiftFacts): number {
  if (SHIFTS.has(sem)) return afterShift(sem, shift);
  return TABLE[sem]?.flags ?? 0;
}

/** The manual's words for it, or null. */
export function undefinedWhy(sem: string): string | null {
  return TABLE[sem]?.why ?? null;
}

const READS: Readonly<Record<string, number>> = {
  adc: CF,
  sbb: CF,
  rcl: CF,
  rcr: CF,
  cmc: CF,
  salc: CF,
  daa: CF | AF,
  das: CF | AF,
  aaa: AF,
  aas: AF,
  into: OF,
  jcc: ARITHMETIC,
  setcc: ARITHMETIC,
  cmovcc: ARITHMETIC,
  loope: ZF,
  loopne: ZF,
  pushf: ARITHMETIC,
  lahf: ARITHMETIC,
};

/** Flags whose value changes what the instruction does. */
export function readFlags(sem: string): number {
  return sem.startsWith("fcmov") ? CF | ZF | PF : (READS[sem] ?? 0);
}

const DEFINES: Readonly<Record<string, number>> = {
  add: ARITHMETIC,
  sub: ARITHMETIC,
  adc: ARITHMETIC,
  sbb: ARITHMETIC,
  cmp: ARITHMETIC,
  neg: ARITHMETIC,
  xadd: ARITHMETIC,
  popcnt: ARITHMETIC,
  ptest: ARITHMETIC,
  inc: ARITHMETIC & ~CF,
  dec: ARITHMETIC & ~CF,
  and: ARITHMETIC & ~AF,
  or: ARITHMETIC & ~AF,
  xor: ARITHMETIC & ~AF,
  test: ARITHMETIC & ~AF,
  clc: CF,
  stc: CF,
  sahf: ARITHMETIC & ~OF,
};

/** Flags that the instruction sets whatever its operands are. */
export function definedFlags(sem: string): number {
  return DEFINES[sem] ?? 0;
}
