/**
 * XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS, XGETBV for x87 and SSE state (XCR0 at most 3, IA32_XSS 0).
 * Spec: SDM Vol. 1, "Managing State Using the XSAVE Feature Set".
 *
 * Header at +512: XSTATE_BV u64, XCOMP_BV u64 (bit 63: compacted), 48 reserved bytes. With these two components both formats lie in the
 * legacy region and differ in the header and in MXCSR only: the standard form loads it whenever SSE (or AVX) is asked for, the
 * compacted form treats it as part of SSE.
 * In use (XINUSE) is found by looking at the registers, so that a component in its initial state always says so.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { Cr0, Cr4 } from "../../state/control-bits.ts";
import { S } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import type { Semantics, SemanticsTable } from "../insn.ts";
import { defineProcedure, Procedure } from "../procedure.ts";
import {
  callOnArea,
  checkMxcsr,
  initX87,
  initXmm,
  LEGACY_BYTES,
  loadMxcsr,
  loadX87,
  loadXmm,
  saveMxcsr,
  saveX87,
  saveXmm,
  x87InUse,
  xmmInUse,
} from "./fx-image.ts";
import { MXCSR_INIT } from "./mxcsr.ts";
import { requireAligned } from "./operands.ts";

const X87 = 1;
const SSE = 2;
const SUPPORTED = X87 | SSE;
const HEADER = LEGACY_BYTES;
const AREA_BYTES = HEADER + 64;
const XSTATE_BV = HEADER;
const XCOMP_BV = HEADER + 8;
const COMPACTED = 1n << 63n;
/** Secondary control "enable XSAVES/XRSTORS". */
const ENABLE_XSAVES = 1 << 20;

function requireXsave(p: Procedure): void {
  p.faultIf(p.raw(4, 0, S.CR4.at).and(Cr4.OSXSAVE).eqz(), Vector.UD);
  p.faultIf(p.raw(4, 0, S.CR0.at).and(Cr0.TS), Vector.NM);
  requireAligned(p, p.fn.param(0), 64);
}

/** Components asked for: EDX:EAX and XCR0. */
const requested = (cpu: Cpu): Val =>
  cpu
    .gpr(0, 4)
    .and(cpu.raw(4, 0, S.XCR0.at))
    .and(SUPPORTED);

/** xinuse() -> bits of the components that are not in their initial state. MXCSR does not count. */
function defineInUse(module: ModuleBuilder): void {
  module.function("xinuse", [], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    fn.return(x87InUse(p).or(xmmInUse(p).shl(1)));
  });
}

const inUse = (p: Procedure): Val => p.fn.call(p.module.get("xinuse"));

/** XSAVE and XSAVEOPT: the standard form. XSAVEOPT leaves out what is in its initial state. */
function defineStandardSave(module: ModuleBuilder, name: string, leavesOut: boolean): void {
  defineProcedure(module, name, ["i64", "i32", "i32"], (p) => {
    requireXsave(p);
    const { fn } = p;
    const host = p.hostW(fn.param(0), AREA_BYTES, fn.param(1));
    const asked = requested(p);
    const used = inUse(p);
    const written = leavesOut ? asked.and(used) : asked;
    fn.if(written.and(X87), () => saveX87(p, host, fn.param(2)));
    fn.if(written.and(SSE), () => saveXmm(p, host));
    fn.if(asked.and(SSE), () => saveMxcsr(p, host));
    const kept = p.raw(8, host, XSTATE_BV).and(asked.not().extS());
    p.setRaw(8, host, kept.or(asked.and(used).extU()), XSTATE_BV);
    p.commit(host);
  });
}

/** XSAVEC and XSAVES. MXCSR not at its initial value puts SSE in use. */
function defineCompactedSave(module: ModuleBuilder): void {
  defineProcedure(module, "xsavec", ["i64", "i32", "i32"], (p) => {
    requireXsave(p);
    const { fn } = p;
    const host = p.hostW(fn.param(0), AREA_BYTES, fn.param(1));
    const asked = requested(p);
    const control = p.get(S.MXCSR).ne(MXCSR_INIT).shl(1);
    const written = asked.and(inUse(p).or(control));
    fn.if(written.and(X87), () => saveX87(p, host, fn.param(2)));
    fn.if(written.and(SSE), () => {
      saveXmm(p, host);
      saveMxcsr(p, host);
    });
    p.setRaw(8, host, written.extU(), XSTATE_BV);
    p.setRaw(8, host, asked.extU().or(COMPACTED), XCOMP_BV);
    p.commit(host);
  });
}

/** #GP(0) for a header that no save could have written. `onlyCompacted`: XRSTORS. */
function checkHeader(p: Procedure, host: Val, onlyCompacted: boolean): void {
  const { fn } = p;
  const state = p.raw(8, host, XSTATE_BV);
  const compaction = p.raw(8, host, XCOMP_BV);
  const allowed = p.get(S.XCR0);
  const isCompacted = compaction.ltS(0);
  const components = compaction.and(COMPACTED - 1n);
  const bad = fn.variable("i64", state.and(allowed.not()));
  fn.if(
    isCompacted,
    () => bad.set(components.and(allowed.not()).or(state.and(components.not()))),
    () => bad.set(onlyCompacted ? fn.i64(1) : bad.read().or(compaction)),
  );
  const reserved = p.raw(8, host, HEADER + 16);
  // The standard form checks bytes 23:8 of the header, the compacted one 63:8.
  const rest = fn.op("v128.or", p.raw(16, host, HEADER + 32), p.raw(16, host, HEADER + 48));
  const upper = fn.op("v128.any_true", rest).or(p.raw(8, host, HEADER + 24).ne(0));
  p.faultIf(bad.read().or(reserved).ne(0).or(isCompacted.and(upper)), Vector.GP);
}

function defineRestore(module: ModuleBuilder, name: string, onlyCompacted: boolean): void {
  defineProcedure(module, name, ["i64", "i32", "i32"], (p) => {
    requireXsave(p);
    const { fn } = p;
    const host = p.hostR(fn.param(0), AREA_BYTES, fn.param(1));
    checkHeader(p, host, onlyCompacted);
    const asked = requested(p);
    const present = asked.and(p.raw(4, host, XSTATE_BV));
    const isCompacted = p.raw(8, host, XCOMP_BV).ltS(0);
    const takesMxcsr = isCompacted.select(present, asked).and(SSE);
    fn.if(takesMxcsr, () => checkMxcsr(p, host));
    const load = (component: number, fill: () => void, init: () => void): void =>
      fn.if(asked.and(component), () => fn.if(present.and(component), fill, init));
    load(
      X87,
      () => loadX87(p, host, fn.param(2)),
      () => initX87(p),
    );
    load(
      SSE,
      () => loadXmm(p, host),
      () => initXmm(p),
    );
    fn.if(
      takesMxcsr,
      () => loadMxcsr(p, host),
      () => fn.if(asked.and(SSE), () => p.set(S.MXCSR, MXCSR_INIT)),
    );
  });
}

export function defineXsave(module: ModuleBuilder): void {
  defineInUse(module);
  defineStandardSave(module, "xsave", false);
  defineStandardSave(module, "xsaveopt", true);
  defineCompactedSave(module);
  defineRestore(module, "xrstor", false);
  defineRestore(module, "xrstors", true);
}

const area =
  (procedure: string, writes: boolean): Semantics =>
  (insn) =>
    callOnArea(insn, procedure, AREA_BYTES, writes);

/** XSAVES, XRSTORS: #UD in a guest whose VMM has not enabled them. */
const supervisor =
  (procedure: string, writes: boolean): Semantics =>
  (insn) => {
    const enabled = insn.get(S.CTL_SECONDARY).and(ENABLE_XSAVES);
    insn.faultIf(insn.get(S.NON_ROOT).ne(0).and(enabled.eqz()), Vector.UD);
    callOnArea(insn, procedure, AREA_BYTES, writes);
  };

export const XSAVE: SemanticsTable = {
  xsave: area("xsave", true),
  xsaveopt: area("xsaveopt", true),
  xsavec: area("xsavec", true),
  xsaves: supervisor("xsavec", true),
  xrstor: area("xrstor", false),
  xrstors: supervisor("xrstors", false),
  xgetbv: (insn) => {
    const { fn } = insn;
    insn.faultIf(insn.raw(4, 0, S.CR4.at).and(Cr4.OSXSAVE).eqz(), Vector.UD);
    const index = insn.gpr(1, 4);
    insn.faultIf(index.gtU(1), Vector.GP);
    const xcr0 = insn.raw(4, 0, S.XCR0.at);
    const value = index.select(fn.call(insn.module.get("xinuse")).and(xcr0), xcr0);
    insn.setGpr(0, 4, value);
    insn.setGpr(2, 4, 0);
  },
};
