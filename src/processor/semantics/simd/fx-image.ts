/**
 * The 512-byte legacy region that FXSAVE, FXRSTOR and the XSAVE family share, and LDMXCSR, STMXCSR.
 * Spec: SDM Vol. 1, "FXSAVE Area", "Saving the x87 FPU, MMX, and SSE State"; Vol. 2, "FXSAVE".
 *
 *   FCW u16 +0 · FSW u16 +2 · abridged tags u8 +4 (bit n: Rn is not empty) · FOP u16 +6 · FIP +8 · FDP +16 (64 bits with REX.W, else 32 bits
 *   and a selector) · MXCSR +24 · MXCSR_MASK +28 · ST0..7 from +32, 16 bytes each · XMM0..15 from +160
 * Registers XMM8..15 are left out outside 64-bit mode. Bytes from 416 up are never touched.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { Cr0 } from "../../state/control-bits.ts";
import { FPR, Mode, S, XMM } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { defineProcedure, type Procedure } from "../procedure.ts";
import { mxcsrMask } from "./mxcsr.ts";
import { requireAligned, requireSse } from "./operands.ts";

const AT = {
  FCW: 0,
  FSW: 2,
  TAGS: 4,
  FOP: 6,
  FIP: 8,
  FCS: 12,
  FDP: 16,
  FDS: 20,
  MXCSR: 24,
  MASK: 28,
  ST: 32,
  XMM: 160,
};
export const LEGACY_BYTES = 512;
const FOP_BITS = 0x7ff;
/** FCW: bits that exist, and bit 6 that reads as one. */
const FCW_BITS = 0x1f3f;
const FCW_ONE = 0x40;
const FSW_ERROR = 0x8080;
const EXCEPTIONS = 0x3f;
const TOP_SHIFT = 11;
const FCW_INIT = 0x37f;

const eachRegister = (body: (i: number) => void): void => {
  for (let i = 0; i < 8; i++) body(i);
};

/** Address of the state slot of ST(i) less FPR. */
const stackSlot = (top: Val, i: number): Val => top.add(i).and(7).shl(4);

const registerBits = (cpu: Cpu): Val => cpu.fn.v128x2(-1n, 0xffffn);

/** Bytes of XMM registers that the current mode has. */
function xmmBytes(cpu: Cpu): Val {
  const long = cpu.get(S.MODE).and(Mode.CODE_MASK).eq(Mode.CODE64);
  return long.select(cpu.i32(256), cpu.i32(128));
}

export function saveX87(p: Procedure, host: Val, wide: Val): void {
  const { fn } = p;
  const fsw = p.get(S.FSW);
  p.setRaw(2, host, p.get(S.FCW), AT.FCW);
  p.setRaw(2, host, fsw, AT.FSW);
  p.setRaw(2, host, p.get(S.FTAG_EMPTY).xor(0xff).and(0xff), AT.TAGS);
  p.setRaw(2, host, p.get(S.FOP), AT.FOP);
  fn.if(
    wide,
    () => {
      p.setRaw(8, host, p.get(S.FIP), AT.FIP);
      p.setRaw(8, host, p.get(S.FDP), AT.FDP);
    },
    () => {
      p.setRaw(4, host, p.get(S.FIP).wrap(), AT.FIP);
      p.setRaw(4, host, p.get(S.FCS).and(0xffff), AT.FCS);
      p.setRaw(4, host, p.get(S.FDP).wrap(), AT.FDP);
      p.setRaw(4, host, p.get(S.FDS).and(0xffff), AT.FDS);
    },
  );
  const top = fsw.shrU(TOP_SHIFT);
  const bits = registerBits(p);
  eachRegister((i) => {
    const v = fn.load("v128.load", stackSlot(top, i), FPR);
    p.setRaw(16, host, fn.op("v128.and", v, bits), AT.ST + 16 * i);
  });
}

export function saveMxcsr(p: Procedure, host: Val): void {
  p.setRaw(4, host, p.get(S.MXCSR), AT.MXCSR);
  p.setRaw(4, host, mxcsrMask(p), AT.MASK);
}

export function saveXmm(p: Procedure, host: Val): void {
  p.fn.memoryCopy(host.add(AT.XMM), p.i32(XMM), xmmBytes(p));
}

/** FSW with its summary bits made right for the masks. */
function summarized(p: Procedure, fsw: Val, fcw: Val): Val {
  const pending = fsw.and(fcw.not()).and(EXCEPTIONS);
  return fsw.and(~FSW_ERROR).or(pending.select(p.i32(FSW_ERROR), p.i32(0)));
}

export function loadX87(p: Procedure, host: Val, wide: Val): void {
  const { fn } = p;
  const fcw = p.raw(2, host, AT.FCW).and(FCW_BITS).or(FCW_ONE);
  const fsw = summarized(p, p.raw(2, host, AT.FSW), fcw);
  p.set(S.FCW, fcw);
  p.set(S.FSW, fsw);
  p.set(S.FTAG_EMPTY, p.raw(1, host, AT.TAGS).xor(0xff));
  p.set(S.FOP, p.raw(2, host, AT.FOP).and(FOP_BITS));
  fn.if(
    wide,
    () => {
      p.set(S.FIP, p.raw(8, host, AT.FIP));
      p.set(S.FDP, p.raw(8, host, AT.FDP));
      p.set(S.FCS, 0);
      p.set(S.FDS, 0);
    },
    () => {
      p.set(S.FIP, p.raw(4, host, AT.FIP).extU());
      p.set(S.FDP, p.raw(4, host, AT.FDP).extU());
      p.set(S.FCS, p.raw(2, host, AT.FCS));
      p.set(S.FDS, p.raw(2, host, AT.FDS));
    },
  );
  const top = fsw.shrU(TOP_SHIFT);
  const bits = registerBits(p);
  eachRegister((i) => {
    const v = fn.op("v128.and", p.raw(16, host, AT.ST + 16 * i), bits);
    fn.store("v128.store", stackSlot(top, i), v, FPR);
  });
}

export function initX87(p: Procedure): void {
  p.set(S.FCW, FCW_INIT);
  p.set(S.FSW, 0);
  p.set(S.FTAG_EMPTY, 0xff);
  p.set(S.FOP, 0);
  p.set(S.FIP, 0);
  p.set(S.FDP, 0);
  p.set(S.FCS, 0);
  p.set(S.FDS, 0);
  p.fn.memoryFill(p.i32(FPR), 0, p.i32(128));
}

/** Nonzero (i32) if the x87 state is not as initX87 leaves it. */
export function x87InUse(p: Procedure): Val {
  const control = p.get(S.FCW).xor(FCW_INIT).or(p.get(S.FSW)).or(p.get(S.FTAG_EMPTY).xor(0xff));
  const selectors = p.get(S.FOP).or(p.get(S.FCS)).or(p.get(S.FDS));
  const pointers = p.get(S.FIP).or(p.get(S.FDP)).ne(0);
  return control
    .or(selectors)
    .or(pointers)
    .or(anySet(p, FPR, 8))
    .ne(0);
}

function anySet(p: Procedure, at: number, count: number): Val {
  let all = p.raw(16, 0, at);
  for (let i = 1; i < count; i++) all = p.fn.op("v128.or", all, p.raw(16, 0, at + 16 * i));
  return p.fn.op("v128.any_true", all);
}

export const xmmInUse = (p: Procedure): Val => anySet(p, XMM, 16);

/** #GP(0) if the image's MXCSR has a bit that this processor lacks. */
export function checkMxcsr(p: Procedure, host: Val): void {
  p.faultIf(p.raw(4, host, AT.MXCSR).and(mxcsrMask(p).not()), Vector.GP);
}

export function loadMxcsr(p: Procedure, host: Val): void {
  p.set(S.MXCSR, p.raw(4, host, AT.MXCSR));
}

export function loadXmm(p: Procedure, host: Val): void {
  p.fn.memoryCopy(p.i32(XMM), host.add(AT.XMM), xmmBytes(p));
}

export function initXmm(p: Procedure): void {
  p.fn.memoryFill(p.i32(XMM), 0, xmmBytes(p));
}

export function defineFxImage(module: ModuleBuilder): void {
  const params = ["i64", "i32", "i32"] as const;
  const requireUnit = (p: Procedure): void => {
    const cr0 = p.raw(4, 0, S.CR0.at);
    p.faultIf(cr0.and(Cr0.EM), Vector.UD);
    p.faultIf(cr0.and(Cr0.TS), Vector.NM);
    requireAligned(p, p.fn.param(0), 16);
  };
  defineProcedure(module, "fxsave", params, (p) => {
    requireUnit(p);
    const host = p.hostW(p.fn.param(0), LEGACY_BYTES, p.fn.param(1));
    saveX87(p, host, p.fn.param(2));
    saveMxcsr(p, host);
    saveXmm(p, host);
    p.commit(host);
  });
  defineProcedure(module, "fxrstor", params, (p) => {
    requireUnit(p);
    const host = p.hostR(p.fn.param(0), LEGACY_BYTES, p.fn.param(1));
    checkMxcsr(p, host);
    loadX87(p, host, p.fn.param(2));
    loadMxcsr(p, host);
    loadXmm(p, host);
  });
}

/** Calls a procedure (linear address, access flags, REX.W) of a state-saving instruction. */
export function callOnArea(insn: Insn, procedure: string, bytes: number, writes: boolean): void {
  const wide = insn.i32(insn.shape.opsize === 8 ? 1 : 0);
  const target = insn.module.get(procedure);
  insn.propagate(insn.fn.call(target, insn.ea(bytes, writes), insn.memFlags(), wide));
}

const area =
  (procedure: string, writes: boolean): Semantics =>
  (insn) =>
    callOnArea(insn, procedure, LEGACY_BYTES, writes);

export const FX_IMAGE: SemanticsTable = {
  fxsave: area("fxsave", true),
  fxrstor: area("fxrstor", false),
  ldmxcsr: (insn) => {
    requireSse(insn);
    const v = insn.rd(0);
    insn.faultIf(v.and(mxcsrMask(insn).not()), Vector.GP);
    insn.set(S.MXCSR, v);
  },
  stmxcsr: (insn) => {
    requireSse(insn);
    insn.wr(0, insn.get(S.MXCSR));
  },
};
