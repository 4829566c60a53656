/**
 * Loads of segment registers by instructions, and of LDTR and TR.
 * Spec: SDM Vol. 2, "MOV", "LDS/LES/LFS/LGS/LSS", "LLDT", "LTR"; Vol. 3A, "Privilege Level Checking When Accessing Data Segments".
 *
 * Each procedure checks everything before it changes anything, except for the accessed bit, which may be set by a load that then faults on
 * something later in the same instruction.
 */

import type { Val } from "../ir/value.ts";
import { Access, Vector } from "../semantics/cpu.ts";
import type { Procedure } from "../semantics/procedure.ts";
import {
  DescriptorType,
  descriptorBase,
  descriptorDpl,
  descriptorLimit,
  descriptorRights,
  descriptorType,
  isConforming,
  isNull,
  isPresent,
  isReadable,
  markAccessed,
  readDescriptor,
  rplOf,
  segmentAddress,
  storeSegment,
} from "../semantics/system/descriptor.ts";
import {
  callVoid,
  obtain,
  type ProcedureText,
  perform,
} from "../semantics/system/procedure-text.ts";
import { Rights } from "../semantics/system/rights.ts";
import {
  in64,
  inReal,
  longMode,
  nonCanonical,
  plainFaultIf,
  SYS,
  selectorFaultIf,
} from "../semantics/system/state.ts";
import {
  S,
  SEG_RIGHTS,
  SEG_SELECTOR,
  SEGMENT_BYTES,
  SEGMENTS,
  Seg,
  Status,
  segmentAt,
} from "../state/layout.ts";

/** (segment number, selector, vector): ES, DS, FS, GS in protected mode. */
function loadDataSegment(p: Procedure): void {
  const { fn } = p;
  const address = segmentAddress(fn.param(0));
  const selector = fn.param(1);
  const vector = fn.param(2);
  fn.if(isNull(selector), () => {
    storeSegment(p, address, { base: 0n, limit: 0, rights: Rights.UNUSABLE, selector });
    p.leave(Status.NEXT);
  });
  const d = readDescriptor(p, selector, vector);
  const dpl = descriptorDpl(d);
  const denied = rplOf(selector).gtU(dpl).or(p.get(S.CPL).gtU(dpl)).and(isConforming(d).eqz());
  selectorFaultIf(p, isReadable(d).eqz().or(denied), vector, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  callVoid(p, "cacheSegment", address, selector, markAccessed(p, d));
}

/** (selector): SS by MOV, POP and LSS in protected mode. */
function loadStackSegment(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  const cpl = p.get(S.CPL);
  fn.if(isNull(selector), () => {
    const allowed = in64(p).and(cpl.ne(3)).and(rplOf(selector).eq(cpl));
    plainFaultIf(p, allowed.eqz(), Vector.GP);
    callVoid(p, "cacheStack", selector, 0n, cpl);
    p.leave(Status.NEXT);
  });
  callVoid(p, "cacheStack", selector, obtain(p, "stackDescriptor", selector, cpl, Vector.GP), cpl);
}

/** (segment number, selector): any segment register but CS, in any mode. */
function loadSegment(p: Procedure): void {
  const { fn } = p;
  fn.if(inReal(p), () => {
    callVoid(p, "loadRealSegment", fn.param(0), fn.param(1));
    p.leave(Status.NEXT);
  });
  fn.if(fn.param(0).eq(Seg.SS), () =>
    fn.return(fn.call(p.module.get("loadStackSegment"), fn.param(1))),
  );
  fn.return(fn.call(p.module.get("loadDataSegment"), fn.param(0), fn.param(1), Vector.GP));
}

/** Base of a 16-byte system descriptor whose low half has been read; checks what only the high half can show. */
function wideBase(p: Procedure, selector: Val, vector: number | Val): { high: Val; base: Val } {
  const host = obtain(p, "descriptorHost", selector, 16, vector);
  const low = p.raw(8, host);
  const high = p.raw(8, host, 8);
  const base = descriptorBase(low).or(high.shl(32));
  selectorFaultIf(p, high.shrU(40).and(0x1f).ne(0).or(nonCanonical(base)), vector, selector);
  return { high, base };
}

/** (selector, vector of the faults): LLDT, and the LDT of a new task. */
function loadLdtr(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  const vector = fn.param(1);
  const address = segmentAt(Seg.LDTR);
  fn.if(isNull(selector), () => {
    storeSegment(p, address, { base: 0n, limit: 0, rights: Rights.UNUSABLE, selector });
    p.leave(Status.NEXT);
  });
  selectorFaultIf(p, selector.and(4), vector, selector);
  const d = readDescriptor(p, selector, vector);
  selectorFaultIf(p, descriptorType(d).ne(DescriptorType.LDT), vector, selector);
  // A task's missing LDT is #TS, not #NP.
  selectorFaultIf(
    p,
    isPresent(d).eqz(),
    vector.eq(Vector.GP).select(p.i32(Vector.NP), vector),
    selector,
  );
  const base = fn.variable("i64", descriptorBase(d));
  fn.if(longMode(p), () => base.set(wideBase(p, selector, vector).base));
  storeSegment(p, address, {
    base: base.read(),
    limit: descriptorLimit(d),
    rights: descriptorRights(d),
    selector,
  });
}

/** (selector): LTR. Marks the descriptor busy. */
function loadTaskRegister(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  plainFaultIf(p, isNull(selector), Vector.GP);
  selectorFaultIf(p, selector.and(4), Vector.GP, selector);
  const d = readDescriptor(p, selector, Vector.GP);
  const type = descriptorType(d);
  const isWide = type.eq(DescriptorType.TSS);
  const ok = isWide.or(type.eq(DescriptorType.TSS16).and(longMode(p).eqz()));
  selectorFaultIf(p, ok.eqz(), Vector.GP, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  const base = fn.variable("i64", descriptorBase(d));
  fn.if(longMode(p), () => base.set(wideBase(p, selector, p.i32(Vector.GP)).base));
  perform(p, "setBusy", p.get(SYS.DESCRIPTOR_LINEAR), 2);
  storeSegment(p, segmentAt(Seg.TR), {
    base: base.read(),
    limit: descriptorLimit(d),
    rights: descriptorRights(d).or(2),
    selector,
  });
}

/** (linear address of a TSS descriptor, 2 or 0): sets or clears its busy bit. */
function setBusy(p: Procedure): void {
  const host = p.hostW(p.fn.param(0).add(5), 1, Access.SYSTEM | Access.MODIFY);
  p.setRaw(1, host, p.raw(1, host).and(~2).or(p.fn.param(1)));
  p.commit(host);
}

/**
 * (new CPL): on a return to an outer level, data segments that the outer level may not use become null. Bases stay, as they do in processors:
 * FS.base and GS.base of a 64-bit program live on under null selectors.
 */
function nullInnerSegments(p: Procedure): void {
  const { fn } = p;
  const cpl = fn.param(0);
  for (const seg of [Seg.ES, Seg.DS, Seg.FS, Seg.GS]) {
    const at = SEGMENTS + SEGMENT_BYTES * seg;
    const rights = p.segRights(seg);
    const dpl = rights.shrU(5).and(3);
    const conforming = rights
      .and(Rights.CODE | Rights.CONFORMING)
      .eq(Rights.CODE | Rights.CONFORMING);
    const inner = dpl.ltU(cpl).and(conforming.eqz());
    fn.if(isNull(p.segSelector(seg)).or(inner), () => {
      fn.store("i32.store16", 0, 0, at + SEG_SELECTOR);
      fn.store("i32.store", 0, rights.or(Rights.UNUSABLE), at + SEG_RIGHTS);
    });
  }
}

export const segmentProcedures: readonly ProcedureText[] = [
  {
    name: "loadDataSegment",
    params: ["i32", "i32", "i32"],
    answer: "status",
    body: loadDataSegment,
  },
  { name: "loadStackSegment", params: ["i32"], answer: "status", body: loadStackSegment },
  { name: "loadSegment", params: ["i32", "i32"], answer: "status", body: loadSegment },
  { name: "loadLdtr", params: ["i32", "i32"], answer: "status", body: loadLdtr },
  { name: "loadTaskRegister", params: ["i32"], answer: "status", body: loadTaskRegister },
  { name: "setBusy", params: ["i64", "i32"], answer: "status", body: setBusy },
  { name: "nullInnerSegments", params: ["i32"], answer: "none", body: nullInnerSegments },
];
