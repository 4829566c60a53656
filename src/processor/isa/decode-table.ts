/**
 * Lookup tables of the decoder, built from the rows once per CPU model.
 *
 * Every opcode byte of every map in every mode is a slot. A slot is a small dense array over just those facts its rows distinguish
 * (mandatory prefix, operand size, address size, REX.B, ModRM.mod = 3, ModRM.reg, ModRM.rm); a fact that does not matter has stride 0,
 * so the decoder finds the row with one sum of products. Cells hold row ids, or NO_ROW for #UD.
 *
 * Among rows that match one cell, a row with just that prefix wins over one that lets it through, then the earlier row wins.
 * A row whose feature the model lacks is not there at all.
 */
import { invariant } from "../../base/invariant.ts";
import type { CpuFeatures } from "./features.ts";
import { OPERAND_CLASSES, OPERAND_PLACES, SIZE_CODES } from "./operand.ts";
import type { OpcodeMap, Row } from "./row.ts";

export const NO_ROW = -1;

/** Facts in the order of a slot's strides, and how many values each has. */
export const Fact = { PREFIX: 0, OPSIZE: 1, ADDRSIZE: 2, REXB: 3, MOD3: 4, REG: 5, RM: 6 } as const;
const FACT_SIZES: readonly number[] = [4, 3, 3, 2, 2, 8, 8];
export const FACT_COUNT = FACT_SIZES.length;

/** Values of the PREFIX fact; F3 and F2 hide 66. */
export const PrefixClass = { NONE: 0, P66: 1, F3: 2, F2: 3 } as const;

/** Bits of a REX prefix. */
export const Rex = { B: 1, X: 2, R: 4, W: 8 } as const;

const MAPS: readonly OpcodeMap[] = ["1", "0F", "0F38", "0F3A"];
const MODES = [16, 32, 64] as const;

export interface DecodeTable {
  /** Slot of (mode index << 10 | map << 8 | opcode). Slot 0 has no rows. */
  readonly slots: Uint16Array;
  /** FACT_COUNT strides for each slot. */
  readonly strides: Uint16Array;
  readonly bases: Int32Array;
  readonly needsModrm: Uint8Array;
  readonly cells: Int16Array;
}

export function buildDecodeTable(rows: readonly Row[], features: CpuFeatures): DecodeTable {
  const slots = new Uint16Array(MODES.length << 10);
  const strides: number[] = new Array<number>(FACT_COUNT).fill(0);
  const bases: number[] = [0];
  const needsModrm: number[] = [0];
  const cells: number[] = [NO_ROW];
  for (const [key, slotRows] of rowsBySlot(rows, features)) {
    slots[key] = bases.length;
    const hasModrm = slotRows[0]!.hasModrm;
    invariant(
      slotRows.every((r) => r.hasModrm === hasModrm),
      `opcode ${slotRows[0]!.mnemonic}: with and without ModRM`,
    );
    const slotStrides = stridesOf(slotRows);
    strides.push(...slotStrides);
    bases.push(cells.length);
    needsModrm.push(hasModrm ? 1 : 0);
    fillCells(cells, slotRows, slotStrides, MODES[key >> 10]!);
  }
  return {
    slots,
    strides: Uint16Array.from(strides),
    bases: Int32Array.from(bases),
    needsModrm: Uint8Array.from(needsModrm),
    cells: Int16Array.from(cells),
  };
}

function rowsBySlot(rows: readonly Row[], features: CpuFeatures): Map<number, Row[]> {
  const bySlot = new Map<number, Row[]>();
  for (const row of rows) {
    if (!features.has(row.feature)) continue;
    for (let mode = 0; mode < MODES.length; mode++) {
      if (MODES[mode] === 64 ? row.i64 : row.o64) continue;
      for (let i = 0; i < (row.plusReg ? 8 : 1); i++) {
        const key = (mode << 10) | (MAPS.indexOf(row.map) << 8) | (row.opcode + i);
        const list = bySlot.get(key);
        if (list) list.push(row);
        else bySlot.set(key, [row]);
      }
    }
  }
  return bySlot;
}

function stridesOf(rows: readonly Row[]): number[] {
  const matters = [
    rows.some((r) => r.prefix !== ""),
    rows.some((r) => r.opsizes !== (2 | 4 | 8)),
    rows.some((r) => r.addrSizes !== (2 | 4 | 8)),
    rows.some((r) => r.rexB >= 0),
    rows.some((r) => r.mod !== "any" && !r.modIgnored),
    rows.some((r) => r.ext >= 0 || r.specs.some((s) => s.cls === "seg" || s.cls === "cr")),
    rows.some((r) => r.rm >= 0),
  ];
  let stride = 1;
  return matters.map((m, fact) => {
    if (!m) return 0;
    const mine = stride;
    stride *= FACT_SIZES[fact]!;
    return mine;
  });
}

function fillCells(
  cells: number[],
  rows: readonly Row[],
  strides: readonly number[],
  mode: number,
): void {
  const used = FACT_SIZES.map((size, fact) => (strides[fact] === 0 ? 1 : size));
  const count = used.reduce((product, size) => product * size, 1);
  for (let i = 0; i < count; i++) {
    const facts = used.map((size, fact) =>
      size === 1 ? -1 : Math.floor(i / strides[fact]!) % size,
    );
    let best = NO_ROW;
    let bestRank = 0;
    for (const row of rows) {
      const rank = matchCell(row, facts, mode);
      if (rank > bestRank) {
        best = row.id;
        bestRank = rank;
      }
    }
    cells.push(best);
  }
}

/** 0: no match; 2: the row asks for just this prefix; 1: the prefix is let through. A fact that is -1 matters to no row of the slot. */
function matchCell(row: Row, facts: readonly number[], mode: number): 0 | 1 | 2 {
  const opsize = facts[Fact.OPSIZE]!;
  const addrSize = facts[Fact.ADDRSIZE]!;
  const reg = facts[Fact.REG]!;
  if (opsize >= 0 && (row.opsizes & (2 << effectiveOpsize(row, opsize, mode))) === 0) return 0;
  if (addrSize >= 0 && (row.addrSizes & (2 << addrSize)) === 0) return 0;
  if (row.rexB >= 0 && row.rexB !== facts[Fact.REXB]) return 0;
  if (!row.modIgnored && row.mod !== "any" && (row.mod === "reg") !== (facts[Fact.MOD3] === 1))
    return 0;
  if (row.ext >= 0 && row.ext !== reg) return 0;
  if (row.rm >= 0 && row.rm !== facts[Fact.RM]) return 0;
  if (!isRegisterThere(row, reg)) return 0;
  return matchPrefix(row, facts[Fact.PREFIX]!);
}

/** Index (0, 1, 2 for 2, 4, 8 bytes) after the row's default or forced size. */
function effectiveOpsize(row: Row, opsize: number, mode: number): number {
  if (mode !== 64) return opsize;
  return row.f64 || (row.d64 && opsize === 1) ? 2 : opsize;
}

/** Segment registers 6 and 7 do not exist, CS cannot be loaded; of the control registers only 0, 2, 3, 4 (and 8) exist. */
function isRegisterThere(row: Row, reg: number): boolean {
  const spec = row.specs.find((s) => s.place === "reg");
  if (spec?.cls === "seg") return reg <= 5 && !(reg === 1 && row.specs[0] === spec);
  if (spec?.cls === "cr") return reg === 0 || (reg >= 2 && reg <= 4);
  return true;
}

function matchPrefix(row: Row, prefix: number): 0 | 1 | 2 {
  const isRepeat = prefix === PrefixClass.F3 || prefix === PrefixClass.F2;
  switch (row.prefix) {
    case "":
      return 1;
    case "NP":
      return prefix === PrefixClass.NONE ? 2 : 0;
    case "NFx":
      return isRepeat ? 0 : 1;
    case "66":
      return prefix === PrefixClass.P66 ? 2 : 0;
    case "F3":
      return prefix === PrefixClass.F3 ? 2 : 0;
    case "F2":
      return prefix === PrefixClass.F2 ? 2 : 0;
  }
}

/** Row properties the decoder reads, by row id. */
export interface RowTable {
  readonly flags: Uint8Array;
  readonly opCounts: Uint8Array;
  /** Four packed operands for each row, see `packOperand`. */
  readonly operands: Int32Array;
}

export const RowFlag = {
  LOCKABLE: 1,
  D64: 2,
  F64: 4,
  MOD_IGNORED: 8,
  /** An F3 or F2 is part of the opcode. */
  REP_IS_OPCODE: 16,
  NO64: 32,
} as const;

export function buildRowTable(rows: readonly Row[]): RowTable {
  const operands = new Int32Array(rows.length * 4);
  for (const row of rows) {
    for (const [i, spec] of row.specs.entries()) {
      operands[row.id * 4 + i] =
        OPERAND_PLACES.indexOf(spec.place) |
        (OPERAND_CLASSES.indexOf(spec.cls) << 4) |
        (SIZE_CODES.indexOf(spec.size) << 8) |
        (SIZE_CODES.indexOf(spec.memSize) << 13) |
        ((spec.num + 1) << 18) |
        (Number(spec.signed) << 24) |
        (Number(spec.fixedEs) << 25);
    }
  }
  const flagsOf = (r: Row): number =>
    (r.lockable ? RowFlag.LOCKABLE : 0) |
    (r.d64 ? RowFlag.D64 : 0) |
    (r.f64 ? RowFlag.F64 : 0) |
    (r.modIgnored ? RowFlag.MOD_IGNORED : 0) |
    (r.no64 ? RowFlag.NO64 : 0) |
    (r.prefix === "F3" || r.prefix === "F2" ? RowFlag.REP_IS_OPCODE : 0);
  return {
    flags: Uint8Array.from(rows, flagsOf),
    opCounts: Uint8Array.from(rows, (r) => r.specs.length),
    operands,
  };
}
