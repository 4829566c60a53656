/**
 * Segment register loads and stores, LLDT/LTR and their stores, FS and GS bases.
 * Spec: SDM Vol. 2, one entry per key; the loads themselves are core/segment-load.ts.
 */

import type { Val } from "../../ir/value.ts";
import { Cr4 } from "../../state/control-bits.ts";
import { S, SEG_BASE, SEG_SELECTOR, Seg, segmentAt } from "../../state/layout.ts";
import { Access, elementFlags, Vector } from "../cpu.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import {
  ExitReason,
  exitWithOperand,
  jumpNext,
  notInReal,
  refresh,
  registerOperand,
  ring0,
  Secondary,
  secondary,
  undefinedIf,
} from "./common.ts";
import { segmentAddress } from "./descriptor.ts";
import { callVoid, perform } from "./procedure-text.ts";
import {
  currentMask,
  frameAbove,
  frameBelow,
  mergeStackPointer,
  moveStackPointer,
  RSP,
  setStackPointer,
} from "./stack-frame.ts";
import { Blocking, nonCanonical } from "./state.ts";

/** A selector in the width of the destination: 16 bits in memory, zero-extended in a register. */
function writeSelector(insn: Insn, selector: Val): void {
  insn.wr(0, insn.bytes(0) === 8 ? selector.extU() : selector);
}

/** After a load of a data segment: outside 64-bit mode it may have changed the code mode (flat or not). */
function afterDataSegment(insn: Insn): void {
  if (insn.is64) return;
  const before = insn.get(S.MODE);
  callVoid(insn, "updateMode");
  insn.fn.if(insn.get(S.MODE).ne(before), () => jumpNext(insn));
}

/** After MOV SS and POP SS: events wait for one instruction. */
function shadowNext(insn: Insn): void {
  insn.set(S.INTERRUPTIBILITY, insn.get(S.INTERRUPTIBILITY).or(Blocking.MOV_SS));
  refresh(insn);
}

function movToSreg(insn: Insn): void {
  const seg = insn.regNumber(0);
  undefinedIf(insn, seg.eq(Seg.CS).or(seg.gtU(Seg.GS)));
  perform(insn, "loadSegment", seg, insn.rd(1).and(0xffff));
  insn.fn.if(seg.eq(Seg.SS), () => shadowNext(insn));
  afterDataSegment(insn);
}

function movFromSreg(insn: Insn): void {
  const seg = insn.regNumber(1);
  undefinedIf(insn, seg.gtU(Seg.GS));
  writeSelector(insn, insn.fn.load("i32.load16_u", segmentAddress(seg), SEG_SELECTOR));
}

function pushSreg(insn: Insn): void {
  const size = insn.shape.opsize;
  const selector = insn.fn.load("i32.load16_u", segmentAddress(insn.regNumber(0)), SEG_SELECTOR);
  const host = insn.hostW(frameBelow(insn, size), size, Access.STACK);
  insn.setRaw(size, host, size === 8 ? selector.extU() : selector);
  insn.commit(host);
  moveStackPointer(insn, BigInt(-size));
}

function popSreg(insn: Insn): void {
  const size = insn.shape.opsize;
  const seg = insn.regNumber(0);
  const selector = insn.raw(2, insn.hostR(frameAbove(insn, size), size, Access.STACK));
  // The old stack's width decides, even if this loads SS.
  const sp = mergeStackPointer(insn, currentMask(insn), insn.gpr(RSP, 8).add(BigInt(size)));
  perform(insn, "loadSegment", seg, selector);
  setStackPointer(insn, sp);
  insn.fn.if(seg.eq(Seg.SS), () => shadowNext(insn));
  afterDataSegment(insn);
}

function loadFarPointer(seg: number): Semantics {
  return (insn) => {
    const size = insn.shape.opsize;
    const flags = insn.memFlags().or(elementFlags(size));
    const host = insn.hostR(insn.ea(size + 2, false), size + 2, flags);
    const offset = insn.raw(size, host);
    perform(insn, "loadSegment", seg, insn.raw(2, host, size));
    insn.wr(0, offset);
    if (seg === Seg.SS) refresh(insn);
    else afterDataSegment(insn);
  };
}

// ---- LDTR and TR ----

/** Instruction information of LGDT, LIDT, SGDT, SIDT outside 64-bit mode. */
const OPERAND_32 = 1 << 11;

/** #GP(0) for the stores of system registers outside ring 0 under CR4.UMIP. */
export function checkUmip(insn: Insn): void {
  insn.faultIf(insn.get(S.CR4).and(Cr4.UMIP).ne(0).and(insn.get(S.CPL).ne(0)), Vector.GP);
}

/** VM exit of the descriptor-table instructions, `identity` being bits 29:28 of the instruction information. */
export function descriptorTableExit(insn: Insn, reason: number, identity: number): void {
  insn.fn.if(secondary(insn, Secondary.DESCRIPTOR_TABLE), () => {
    const isTable = reason === ExitReason.GDTR_IDTR;
    const isWide = isTable && !insn.is64 && insn.shape.opsize === 4 ? OPERAND_32 : 0;
    exitWithOperand(insn, reason, registerOperand(insn, 0).or((identity << 28) | isWide));
  });
}

function storeSelector(seg: number, identity: number): Semantics {
  return (insn) => {
    notInReal(insn);
    checkUmip(insn);
    descriptorTableExit(insn, ExitReason.LDTR_TR, identity);
    writeSelector(insn, insn.segSelector(seg));
  };
}

function loadSystemSegment(procedure: string, identity: number, ...rest: number[]): Semantics {
  return (insn) => {
    notInReal(insn);
    ring0(insn);
    descriptorTableExit(insn, ExitReason.LDTR_TR, identity);
    perform(insn, procedure, insn.rd(0).and(0xffff), ...rest);
  };
}

// ---- bases ----

function swapgs(insn: Insn): void {
  ring0(insn);
  const base = insn.segBase(Seg.GS);
  insn.setRaw(8, 0, insn.get(S.KERNEL_GS_BASE), segmentAt(Seg.GS) + SEG_BASE);
  insn.set(S.KERNEL_GS_BASE, base);
}

function checkFsgsbase(insn: Insn): void {
  undefinedIf(insn, insn.get(S.CR4).and(Cr4.FSGSBASE).eqz());
}

function readBase(seg: number): Semantics {
  return (insn) => {
    checkFsgsbase(insn);
    const base = insn.segBase(seg);
    insn.wr(0, insn.bytes(0) === 8 ? base : base.wrap());
  };
}

function writeBase(seg: number): Semantics {
  return (insn) => {
    checkFsgsbase(insn);
    const base = insn.rd(0).extU();
    if (insn.bytes(0) === 8) insn.faultIf(nonCanonical(base), Vector.GP);
    insn.setRaw(8, 0, base, segmentAt(seg) + SEG_BASE);
  };
}

export const SEGMENT_LOADS: SemanticsTable = {
  mov_to_sreg: movToSreg,
  mov_from_sreg: movFromSreg,
  push_sreg: pushSreg,
  pop_sreg: popSreg,
  les: loadFarPointer(Seg.ES),
  lds: loadFarPointer(Seg.DS),
  lss: loadFarPointer(Seg.SS),
  lfs: loadFarPointer(Seg.FS),
  lgs: loadFarPointer(Seg.GS),
  sldt: storeSelector(Seg.LDTR, 0),
  str: storeSelector(Seg.TR, 1),
  lldt: loadSystemSegment("loadLdtr", 2, Vector.GP),
  ltr: loadSystemSegment("loadTaskRegister", 3),
  swapgs,
  rdfsbase: readBase(Seg.FS),
  rdgsbase: readBase(Seg.GS),
  wrfsbase: writeBase(Seg.FS),
  wrgsbase: writeBase(Seg.GS),
};
