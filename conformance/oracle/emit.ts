/**
 * Bytes of one instruction: a row, its operands already chosen, and prefixes in any order the format allows.
 * Spec: SDM Vol. 2, "Instruction Format". On purpose not the project's assembler, which picks one form where many exist.
 */
import { opsizePrefixes } from "../../src/processor/isa/encode.ts";
import type { Row } from "../../src/processor/isa/row.ts";
import { type MemoryForm, relativeDisplacement } from "./addresses.ts";
import type { Draft } from "./draft.ts";

export interface Immediate {
  value: bigint;
  readonly bytes: number;
}

/** An instruction with everything decided. */
export interface Chosen {
  readonly row: Row;
  readonly opsize: 2 | 4 | 8;
  readonly addrSize: 2 | 4 | 8;
  /** Number in ModRM.reg and its extension, in ModRM.rm (register form), in the opcode. */
  reg: number;
  rm: number;
  opreg: number;
  readonly memory: MemoryForm | null;
  /** Linear address of the memory operand, its size; -1 if there is none or it is nowhere near the test's data. */
  readonly target: number;
  readonly targetBytes: number;
  readonly immediates: Immediate[];
  lock: boolean;
  rep: 0 | 0xf2 | 0xf3;
}

const SEGMENT_PREFIX = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
const MAP_BYTES = { "1": [], "0F": [0x0f], "0F38": [0x0f, 0x38], "0F3A": [0x0f, 0x3a] } as const;
const MANDATORY = { F3: 0xf3, F2: 0xf2, "66": 0x66, NP: 0, NFx: 0, "": 0 } as const;

function shuffle(d: Draft, list: number[]): void {
  for (let i = list.length - 1; i > 0; i--) {
    const k = d.r.below(i + 1);
    [list[i], list[k]] = [list[k]!, list[i]!];
  }
}

function legacyPrefixes(d: Draft, c: Chosen, has66: boolean): number[] {
  const { r } = d;
  const list: number[] = [];
  const mandatory = MANDATORY[c.row.prefix];
  if (has66) list.push(0x66);
  if (mandatory !== 0 && mandatory !== 0x66) list.push(mandatory);
  if (c.addrSize !== d.mode / 8) list.push(0x67);
  const segment = c.memory?.segment ?? -1;
  if (segment >= 0) list.push(SEGMENT_PREFIX[segment]!);
  if (c.lock) list.push(0xf0);
  if (c.rep) list.push(c.rep);
  if (list.length > 0 && r.chance(4)) list.push(r.pick(list));
  shuffle(d, list);
  return list;
}

function rexByte(d: Draft, c: Chosen, w: boolean): number {
  const { r } = d;
  const { row } = c;
  let rex = w ? 8 : 0;
  rex |= (c.reg >> 3) << 2;
  if (c.memory) rex |= c.memory.rexB | (c.memory.rexX << 1);
  else rex |= (c.rm >> 3) | (c.opreg >> 3);
  if (row.rexB === 1) rex |= 1;
  // Bits that count for nothing.
  if (r.chance(25)) {
    if (row.ext >= 0 || !row.hasModrm) rex |= r.below(2) << 2;
    if (c.memory === null || c.memory.sib < 0) rex |= r.below(2) << 1;
    // F3 with REX.B and 90 is PAUSE to Intel's decoder and its likes, XCHG to the native processor.
    if (!row.hasModrm && !row.plusReg && row.rexB < 0 && row.sem !== "pause") rex |= r.below(2);
    rex |= 0x40;
  }
  return rex === 0 ? 0 : rex | 0x40;
}

function pushInt(out: number[], value: bigint, bytes: number): void {
  for (let i = 0; i < bytes; i++) out.push(Number((value >> BigInt(8 * i)) & 255n));
}

/** Appends the instruction to the draft's code. */
export function emit(d: Draft, c: Chosen): void {
  const { row } = c;
  const out = d.code;
  const sizing = opsizePrefixes(row, d.mode, c.opsize)!;
  const prefixes = legacyPrefixes(d, c, sizing.has66);
  const isStray = d.mode === 64 && prefixes.length > 0 && d.r.chance(2);
  // A REX that is not next to the opcode is ignored.
  if (isStray) prefixes.splice(d.r.below(prefixes.length), 0, 0x40 | d.r.below(16));
  out.push(...prefixes);
  if (d.mode === 64) {
    const rex = rexByte(d, c, sizing.w);
    if (rex) out.push(rex);
  }
  out.push(...MAP_BYTES[row.map], row.opcode | (c.opreg & 7));
  let patch = -1;
  if (row.hasModrm) patch = pushModrm(out, c);
  for (const immediate of c.immediates) pushInt(out, immediate.value, immediate.bytes);
  if (patch >= 0) {
    const disp = relativeDisplacement(d, c.memory!, out.length);
    for (let i = 0; i < 4; i++) out[patch + i] = (disp >> (8 * i)) & 255;
  }
}

/** Answers where a RIP-relative displacement is, or -1. */
function pushModrm(out: number[], c: Chosen): number {
  const { row, memory } = c;
  const reg = (row.ext >= 0 ? row.ext : c.reg & 7) << 3;
  if (!memory) {
    out.push(0xc0 | reg | (row.rm >= 0 ? row.rm : c.rm & 7));
    return -1;
  }
  out.push((memory.mod << 6) | reg | memory.rm);
  if (memory.sib >= 0) out.push(memory.sib);
  const at = out.length;
  pushInt(out, BigInt(memory.disp), memory.dispBytes);
  return memory.relative === null ? -1 : at;
}
