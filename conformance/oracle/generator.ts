/**
 * Generator of tests: row by row, with every operand form the row has, random and edge operands, prefixes and addressing modes.
 *
 * A test depends on the run's seed and its index alone. The bytes are decoded again at the end: what the decoder says is the row that
 * counts as covered, whatever was meant.
 */
import { Decoder } from "../../src/processor/isa/decode.ts";
import { Instruction, type Mode } from "../../src/processor/isa/instruction.ts";
import { type OperandSpec, SIZES } from "../../src/processor/isa/operand.ts";
import type { Row } from "../../src/processor/isa/row.ts";
import { ROWS } from "../../src/processor/isa/table.ts";
import { type MemoryForm, pickAddrSize, planMemory } from "./addresses.ts";
import { Draft, MASK64, RSP } from "./draft.ts";
import { type Chosen, emit, type Immediate } from "./emit.ts";
import { ORACLE_FEATURES } from "./emulated.ts";
import type { Facts } from "./native.ts";
import { operandPool, rowPool } from "./operands.ts";
import { Fx, Kind, Option, type Records } from "./records.ts";
import {
  APPROXIMATE,
  branches,
  endsSequence,
  existsIn,
  operandSizes,
  seesTrapFlag,
  TESTED_ROWS,
} from "./rows.ts";
import { controlWord, IMPLICIT, mxcsrValue, SETUPS, statusWord } from "./setups.ts";
import { definedFlags, isShift, readFlags, undefinedFlags } from "./undefined-flags.ts";
import { F80S, MIXED, randomInteger } from "./values.ts";
import { BOUNDARY, CODE_BYTES, Local, READ_ONLY, Selector } from "./world.ts";

export interface GeneratorOptions {
  readonly seed: number;
  /** Keys or mnemonics, lower case; empty: all rows. */
  readonly rows?: readonly string[];
  readonly mode?: Mode;
  /** Modes the native machine does not offer are left out. */
  readonly facts?: Facts;
}

const MAX_CODE = 60;
const MAX_INSTRUCTION = 15;
const SS = 2;
const CHANGES_SEGMENT = new Set([
  "mov_to_sreg",
  "pop_sreg",
  "lfs",
  "lgs",
  "wrfsbase",
  "wrgsbase",
  "retf",
  "iret",
  "jmpf",
  "callf",
]);
/**
 * Depend on registers as they were set up: of images parts of which are excused the place must be known; a mask in RDX:RAX or a register
 * number in RCX leads to state that only one side has. Nothing may change a register before them.
 */
const NEEDS_REGISTERS = new Set([
  "fxsave",
  "xsave",
  "xsavec",
  "xsaveopt",
  "xrstor",
  "fnstenv",
  "fnsave",
  "xgetbv",
]);
const REP_STRINGS = new Set(["movs", "cmps", "stos", "lods", "scas"]);
/** Memory operands of the row's own size. */
const XSAVE_BYTES = 576;
const ALIGNED64 = new Set(["xsave", "xrstor", "xsavec", "xsaveopt"]);

function rowsFor(mode: Mode, wanted: readonly string[]): readonly Row[] {
  const chosen = (row: Row): boolean =>
    wanted.length === 0 || wanted.includes(row.sem) || wanted.includes(row.mnemonic.toLowerCase());
  return TESTED_ROWS.filter((row) => existsIn(row, mode) && chosen(row));
}

/** Modes of a run, each as often as it shall be picked: those the native machine offers. */
export function modesFor(options: Pick<GeneratorOptions, "mode" | "facts">): readonly Mode[] {
  const { mode, facts } = options;
  if (mode) return [mode];
  if (facts && !facts.hasCode32) return [64];
  if (facts && !facts.hasLocalTable) return [64, 64, 32];
  return [64, 64, 64, 64, 64, 64, 32, 32, 32, 16];
}

export class Generator {
  readonly draft = new Draft();
  readonly #seed: number;
  readonly #keepsNt: boolean;
  readonly #modes: readonly Mode[];
  readonly #rows: Readonly<Record<Mode, readonly Row[]>>;
  readonly #decoder = new Decoder(ORACLE_FEATURES);
  readonly #decoded = new Instruction(ROWS[0]!);
  readonly #bytes = new Uint8Array(MAX_CODE + 32);

  constructor(options: GeneratorOptions) {
    this.#seed = options.seed;
    this.#keepsNt = options.facts?.keepsNestedTask ?? true;
    this.#modes = modesFor(options);
    const wanted = options.rows ?? [];
    this.#rows = { 16: rowsFor(16, wanted), 32: rowsFor(32, wanted), 64: rowsFor(64, wanted) };
  }

  /** Makes test `index` of the run as record `slot`. What it is made of is then in `draft`. */
  generate(records: Records, slot: number, index: number): void {
    const d = this.draft;
    d.r.reset(this.#seed, index);
    d.begin(records, slot);
    this.#pickMode();
    pickSegments(d);
    pickRegisters(d, this.#keepsNt);
    pickFx(d);
    d.fillWindow(MIXED);
    pickStack(d);
    d.kind = d.r.chance(50) ? Kind.RUN : Kind.STEP;
    d.offset = pickOffset(d);
    const dice = d.r.below(100);
    const length = dice < 55 ? 1 : dice < 72 ? 2 : dice < 88 ? 3 : 4;
    for (let i = 0; i < length; i++) {
      if (!this.#append(i === length - 1)) break;
    }
    if (d.kind === Kind.STEP && d.r.chance(12)) d.options |= Option.TRAPS;
    d.finish();
  }

  #pickMode(): void {
    const d = this.draft;
    let mode = d.r.pick(this.#modes);
    for (let i = 0; i < 20 && this.#rows[mode].length === 0; i++) mode = d.r.pick(this.#modes);
    d.mode = mode;
  }

  /** Adds one instruction; false when nothing may follow it. */
  #append(isLast: boolean): boolean {
    const d = this.draft;
    const isFirst = d.instructions.length === 0;
    const rows = this.#rows[d.mode];
    let row = d.r.pick(rows);
    for (let i = 0; i < 20 && !this.#fits(row, isFirst, isLast); i++) row = d.r.pick(rows);
    if (!this.#fits(row, isFirst, isLast)) return false;
    if (isFirst && (branches(row.sem) || row.sem === "int1")) d.kind = Kind.STEP;
    const c = choose(d, row);
    SETUPS[row.sem]?.(d, c);
    const start = d.code.length;
    emit(d, c);
    if (d.code.length > MAX_CODE) {
      d.code.length = start;
      return false;
    }
    this.#noteFlags(c);
    this.#note(start, c);
    // Between the steps of a test a kernel sees the segment registers, and may not keep all of them.
    const isKept = d.kind === Kind.RUN || !CHANGES_SEGMENT.has(row.sem);
    return (
      isKept &&
      !endsSequence(row.sem) &&
      !APPROXIMATE.has(row.sem) &&
      d.code.length + MAX_INSTRUCTION <= MAX_CODE
    );
  }

  #fits(row: Row, isFirst: boolean, isLast: boolean): boolean {
    const d = this.draft;
    const { sem } = row;
    if (isFirst) return true;
    if (APPROXIMATE.has(sem)) return false;
    if ((readFlags(sem) & d.undefinedFlags) !== 0) return false;
    if (endsSequence(sem) && !isLast) return false;
    if (
      NEEDS_REGISTERS.has(sem) &&
      !d.instructions.every((i) => i.row?.feature === "fpu" && i.row.operands[0] !== "AX")
    )
      return false;
    if (d.kind === Kind.RUN) return !branches(sem) && sem !== "int1";
    return true;
  }

  #noteFlags(c: Chosen): void {
    const d = this.draft;
    const { sem, specs, operands } = c.row;
    const isImmediate = operands.at(-1) === "Ib" || operands.at(-1) === "1";
    const bits = 8 * (specs[0]?.size === "b" ? 1 : c.opsize);
    const raw =
      operands.at(-1) === "1"
        ? 1
        : Number((c.immediates.at(-1)?.value ?? 0n) & (bits === 64 ? 63n : 31n));
    const count = isShift(sem) && isImmediate ? raw : -1;
    d.undefinedFlags &= ~definedFlags(sem);
    d.undefinedFlags |= undefinedFlags(sem, { count, bits });
    // A STEP test counts instructions on one side and traps on the other; these see the difference.
    if (CHANGES_SEGMENT.has(sem)) d.options |= Option.FS_GS;
    const loadsStack =
      (sem === "mov_to_sreg" && c.reg === SS) || (sem === "pop_sreg" && c.row.operands[0] === "SS");
    if (d.kind === Kind.STEP && (seesTrapFlag(sem) || loadsStack || (c.rep !== 0 && c.row.repeats)))
      d.options |= Option.TRAPS;
  }

  #note(start: number, c: Chosen): void {
    const d = this.draft;
    this.#bytes.fill(0xcc);
    for (let i = start; i < d.code.length; i++) this.#bytes[i] = d.code[i]!;
    const length = this.#decoder.decode(this.#bytes, start, d.mode, this.#decoded);
    d.instructions.push({
      row: length > 0 ? this.#decoded.row : null,
      start,
      length: d.code.length - start,
      undefinedFlags: d.undefinedFlags,
      repeats: c.rep !== 0 && c.row.repeats,
      target: c.target,
    });
  }
}

// ---- the state a test starts from ----

const CODE_SELECTOR = {
  16: Local.CODE16,
  32: Selector.USER_CODE32,
  64: Selector.USER_CODE64,
} as const;

function pickSegments(d: Draft): void {
  const { r, selectors } = d;
  selectors[1] = d.mode === 32 && r.chance(8) ? Local.CODE32 : CODE_SELECTOR[d.mode];
  for (const s of [0, 2, 3]) selectors[s] = Selector.USER_DATA;
  selectors[4] = d.mode === 64 ? 0 : Local.FS;
  selectors[5] = d.mode === 64 ? 0 : Local.GS;
  if (d.mode === 64) return;
  if (d.mode === 32 && r.chance(75)) return;
  const data = [
    Selector.USER_DATA,
    Local.DATA,
    Local.DATA,
    Local.DATA,
    Local.DOWN,
    Local.READ_ONLY,
    Local.DOWN16,
    0,
    Selector.USER_CODE32,
  ];
  for (const s of [0, 3]) selectors[s] = r.chance(60) ? Local.DATA : r.pick(data);
  selectors[SS] =
    d.mode === 16 || r.chance(50)
      ? r.pick([Local.STACK16, Local.STACK16, Local.DATA, Selector.USER_DATA])
      : Selector.USER_DATA;
  if (r.chance(10)) selectors[SS] = r.pick([Local.DOWN, Local.DOWN16]);
  if (r.chance(30)) selectors[4] = r.pick(data);
  if (r.chance(10)) selectors[5] = r.pick(data);
}

function pickRegisters(d: Draft, keepsNt: boolean): void {
  const { r } = d;
  const mask = d.mode === 64 ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
  for (let i = 0; i < 16; i++) d.gpr[i] = i >= d.registers ? 0n : randomInteger(r) & mask;
  d.rflags = r.u32() & 0x8d5;
  if (r.chance(12)) d.rflags |= 0x400;
  if (r.chance(2) && keepsNt) d.rflags |= 0x4000;
  if (r.chance(3)) d.rflags |= 0x4_0000;
  if (r.chance(3)) d.rflags |= 0x20_0000;
}

function pickFx(d: Draft): void {
  const { r } = d;
  const control = controlWord(d);
  d.fx16(Fx.FCW, control);
  d.fx16(Fx.FSW, statusWord(d, control));
  d.fx16(Fx.FTW, r.chance(70) ? 0xff : r.chance(60) ? r.below(256) : 0);
  d.fx16(Fx.FOP, r.below(0x800));
  for (const at of [Fx.FIP, Fx.FDP]) {
    d.fx32(at, r.u32());
    d.fx32(at + 4, d.mode === 64 ? r.below(0x8000) : 0);
  }
  d.fx32(Fx.MXCSR, mxcsrValue(d));
  d.fx32(Fx.MXCSR_MASK, 0);
  d.fxFrom(F80S, Fx.ST, 128);
  for (let i = 0; i < 16; i++) d.setXmm(i, MIXED);
}

/** The stack pointer: mostly well inside the window. */
function pickStack(d: Draft): void {
  const { r } = d;
  const dice = r.below(100);
  let top: number;
  if (dice < 72) top = BOUNDARY + 8 * r.between(-24, 24);
  else if (dice < 84) top = BOUNDARY + r.between(-128, 128);
  else if (dice < 92) top = BOUNDARY + r.between(-8, 8);
  else if (dice < 96) top = READ_ONLY + r.between(-8, 24);
  else {
    d.gpr[RSP] = randomInteger(r) & (d.mode === 64 ? MASK64 : 0xffff_ffffn);
    return;
  }
  const offset = BigInt(top - d.segmentBase(SS));
  const isShort = d.selectors[SS] === Local.STACK16 || d.selectors[SS] === Local.DOWN16;
  d.gpr[RSP] = isShort ? (d.gpr[RSP]! & 0xffff_0000n) | (offset & 0xffffn) : offset & 0xffff_ffffn;
}

function pickOffset(d: Draft): number {
  const { r } = d;
  const dice = r.below(100);
  if (dice < 80) return 0x100 + r.below(0xe00);
  if (dice < 90) return 0x1000 - r.below(40);
  if (dice < 97) return 0x1000 + r.below(0xf00);
  return CODE_BYTES - r.between(1, 24);
}

// ---- one instruction ----

function pickOpsize(d: Draft, row: Row): 2 | 4 | 8 {
  const sizes = operandSizes(row, d.mode);
  // Far pointers with 64-bit offsets are one maker's only.
  const isFar = row.specs.some((s) => s.memSize === "p");
  const usable = isFar ? sizes.filter((s) => s !== 8) : sizes;
  return d.r.pick(usable);
}

function addrSizeFor(d: Draft, row: Row): 2 | 4 | 8 {
  const size = pickAddrSize(d);
  if ((row.addrSizes & size) !== 0) return size;
  return ([2, 4, 8] as const).find((s) => (row.addrSizes & s) !== 0)!;
}

const sizeOf = (code: keyof typeof SIZES, opsize: number): number => SIZES[code][opsize >> 2]!;

function memoryBytes(row: Row, spec: OperandSpec, opsize: number): number {
  const size = sizeOf(spec.memSize, opsize);
  if (size > 0) return size;
  return ALIGNED64.has(row.sem) ? XSAVE_BYTES : 8;
}

interface Choice {
  memory: MemoryForm | null;
  target: number;
  targetBytes: number;
}

function choose(d: Draft, row: Row): Chosen {
  const { r } = d;
  const opsize = pickOpsize(d, row);
  const addrSize = addrSizeFor(d, row);
  IMPLICIT[row.sem]?.(d);
  const regSpec = row.specs.find((s) => s.place === "reg");
  // A field without meaning: NOP Ev.
  const isFree = row.hasModrm && row.ext < 0 && !regSpec;
  const reg = isFree ? d.randomRegister() : pickRegister(d, regSpec);
  const rmSpec = row.specs.find((s) => s.place === "rm");
  const rm = pickRegister(d, rmSpec);
  const opreg = row.rexB === 0 ? 0 : d.mode === 64 ? r.below(16) : r.below(8);
  const isMemory =
    rmSpec !== undefined &&
    !row.modIgnored &&
    (row.mod === "mem" || (row.mod === "any" && r.chance(55)));
  const place: Choice = { memory: null, target: -1, targetBytes: 0 };
  fillRegisters(d, row, reg, rm, isMemory);
  if (isMemory) {
    const bytes = memoryBytes(row, rmSpec, opsize);
    const linear = d.target(bytes, alignment(row, bytes));
    place.memory = planMemory(d, linear, addrSize);
    place.target = linear < 0x8000_0000n ? Number(linear) : -1;
    place.targetBytes = bytes;
    if (r.chance(75)) d.pokeFrom(operandPool(r, row, rmSpec, bytes), place.target, bytes);
  }
  const immediates = row.specs.flatMap((s) => pickImmediates(d, s, opsize, addrSize));
  for (const s of row.specs) if (s.place === "string") placeString(d, s, opsize, addrSize);
  const c: Chosen = {
    row,
    opsize,
    addrSize,
    reg,
    rm,
    opreg: row.plusReg ? opreg : 0,
    ...place,
    immediates,
    lock: false,
    rep: 0,
  };
  pickPrefixes(d, c);
  return c;
}

function alignment(row: Row, bytes: number): number {
  if (ALIGNED64.has(row.sem)) return 64;
  return bytes >= 16 ? 16 : bytes;
}

function pickRegister(d: Draft, spec: OperandSpec | undefined): number {
  const { r } = d;
  if (!spec) return 0;
  if (spec.cls === "seg") return r.chance(93) ? r.pick([0, 2, 3, 4, 5]) : r.below(8);
  if (spec.cls === "mm" || spec.cls === "st") return r.below(8);
  return d.randomRegister();
}

/** Contents of vector registers by the row's element type, sometimes equal to each other. */
function fillRegisters(d: Draft, row: Row, reg: number, rm: number, isMemory: boolean): void {
  const pool = rowPool(d.r, row);
  if (!pool) return;
  d.setXmm(reg, pool);
  if (isMemory) return;
  if (d.r.chance(8)) d.copyXmm(rm, reg);
  else d.setXmm(rm, pool);
}

function pickImmediates(
  d: Draft,
  spec: OperandSpec,
  opsize: number,
  addrSize: number,
): Immediate[] {
  const { r } = d;
  const bytes = sizeOf(spec.size, opsize);
  switch (spec.place) {
    case "imm":
      return [{ value: randomInteger(r), bytes }];
    case "rel":
      return [{ value: r.chance(80) ? BigInt(r.between(-40, 60)) : randomInteger(r), bytes }];
    case "far":
      return [
        { value: d.codePointer(), bytes: opsize === 2 ? 2 : 4 },
        { value: BigInt(d.selector()), bytes: 2 },
      ];
    case "moffs":
      return [{ value: d.target(bytes) - BigInt(d.segmentBase(3)), bytes: addrSize }];
    default:
      return [];
  }
}

/** Points the register of an implicit memory operand at something. */
function placeString(d: Draft, spec: OperandSpec, opsize: number, addrSize: number): void {
  const bytes = sizeOf(spec.size, opsize) || 1;
  const linear = d.target(bytes);
  const offset =
    linear -
    BigInt(d.segmentBase(spec.fixedEs ? 0 : 3)) -
    (spec.code.startsWith("BB") ? d.gpr[0]! & 0xffn : 0n);
  if (!d.isPinned(spec.num)) d.setGpr(spec.num, addrSize, offset);
}

function pickPrefixes(d: Draft, c: Chosen): void {
  const { r } = d;
  const isLockable = c.row.lockable && c.memory !== null;
  c.lock = isLockable ? r.chance(20) : r.chance(1);
  // A repeat prefix on other rows would choose another row, or be another maker's instruction.
  if (c.row.repeats && r.chance(REP_STRINGS.has(c.row.sem) ? 65 : 10)) c.rep = r.pick([0xf2, 0xf3]);
}
