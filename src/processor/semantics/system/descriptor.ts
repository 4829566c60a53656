/**
 * Segment descriptors: their fields, reading them from the GDT or LDT, and moving them into the hidden part of a segment register.
 * Spec: SDM Vol. 3A, "Segment Descriptors", "System Descriptor Types"; Vol. 2, "MOV" (segment loads).
 *
 * A descriptor is handled as the 64 bits it has in memory. The read is an implicit supervisor access. The checks of each use are with
 * that use: here are only the table limit and what all stack segments have in common.
 */

import type { Val } from "../../ir/value.ts";
import {
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  SEG_SELECTOR,
  SEGMENT_BYTES,
  SEGMENTS,
  Seg,
} from "../../state/layout.ts";
import { Access, type Cpu, Vector } from "../cpu.ts";
import type { Procedure } from "../procedure.ts";
import { obtain, type ProcedureText, perform } from "./procedure-text.ts";
import { Rights } from "./rights.ts";
import { inV86, raise, SYS, selectorError, selectorFaultIf, wrapLinear } from "./state.ts";

/** S and type bits of a descriptor. SDM Vol. 3A, "System-Segment and Gate-Descriptor Types". */
export const DescriptorType = {
  TSS16: 1,
  LDT: 2,
  TSS16_BUSY: 3,
  CALL_GATE16: 4,
  TASK_GATE: 5,
  INTERRUPT16: 6,
  TRAP16: 7,
  TSS: 9,
  TSS_BUSY: 0xb,
  CALL_GATE: 0xc,
  INTERRUPT: 0xe,
  TRAP: 0xf,
} as const;

const ACCESSED_BIT = 40;

export const descriptorBase = (d: Val): Val =>
  d.shrU(16).and(0xff_ffff).or(d.shrU(32).and(0xff00_0000));
/** Bits of access rights as the VMCS has them. */
export const descriptorRights = (d: Val): Val => d.shrU(40).wrap().and(0xf0ff);
export const descriptorType = (d: Val): Val => d.shrU(40).wrap().and(0x1f);
export const descriptorDpl = (d: Val): Val => d.shrU(45).wrap().and(3);
/** Nonzero if present (i32). */
export const isPresent = (d: Val): Val => d.shrU(47).wrap().and(1);
export const isLongCode = (d: Val): Val => d.shrU(53).wrap().and(1);
const isDefault32 = (d: Val): Val => d.shrU(54).wrap().and(1);
export const isCode = (d: Val): Val => descriptorType(d).and(0x18).eq(0x18);
export const isConforming = (d: Val): Val => descriptorType(d).and(0x1c).eq(0x1c);
export const isWritableData = (d: Val): Val => descriptorType(d).and(0x1a).eq(0x12);
/** Data, or code that may be read. */
export const isReadable = (d: Val): Val => {
  const type = descriptorType(d);
  return type.and(0x18).eq(0x10).or(type.and(0x1a).eq(0x1a));
};
/** A code segment that claims to be 64-bit and 32-bit at once. */
export const isImpossibleCode = (d: Val): Val => isLongCode(d).and(isDefault32(d));
export const isNull = (selector: Val): Val => selector.and(0xfffc).eqz();
export const rplOf = (selector: Val): Val => selector.and(3);

export function descriptorLimit(d: Val): Val {
  const raw = d.wrap().and(0xffff).or(d.high().and(0xf_0000));
  return d.shrU(55).wrap().and(1).select(raw.shl(12).or(0xfff), raw);
}

/** Reads a descriptor; leaves with the fault `vector`(selector) if the selector points outside its table. */
export function readDescriptor(p: Cpu, selector: Val, vector: number | Val): Val {
  return p.raw(8, obtain(p, "descriptorHost", selector, 8, vector));
}

/** Sets the accessed bit of the descriptor just read, if it is clear. Answers the descriptor with the bit set. */
export function markAccessed(p: Cpu, d: Val): Val {
  p.fn.if(d.shrU(ACCESSED_BIT).wrap().and(1).eqz(), () => perform(p, "setAccessed"));
  return d.or(1n << BigInt(ACCESSED_BIT));
}

export function setSegment(p: Cpu, seg: number, selector: Val | number, d: Val): void {
  p.fn.callVoid(p.module.get("cacheSegment"), SEGMENTS + SEGMENT_BYTES * seg, selector, d);
}

/** Fields of a segment register whose number is a value. */
export const segmentAddress = (seg: Val): Val => seg.shl(5).add(SEGMENTS);

export function storeSegment(
  p: Cpu,
  address: Val | number,
  fields: {
    base?: Val | bigint;
    limit?: Val | number;
    rights: Val | number;
    selector: Val | number;
  },
): void {
  if (fields.base !== undefined) p.fn.store("i64.store", address, fields.base, SEG_BASE);
  if (fields.limit !== undefined) p.fn.store("i32.store", address, fields.limit, SEG_LIMIT);
  p.fn.store("i32.store", address, fields.rights, SEG_RIGHTS);
  p.fn.store("i32.store16", address, fields.selector, SEG_SELECTOR);
}

/** (selector, bytes 8 or 16, vector of the fault) -> host address of the descriptor. */
function descriptorHost(p: Procedure): void {
  const { fn } = p;
  const selector = fn.param(0);
  const bytes = fn.param(1);
  const base = fn.variable("i64", p.get(S.GDTR_BASE));
  const limit = fn.variable("i32", p.get(S.GDTR_LIMIT));
  fn.if(selector.and(4), () => {
    base.set(p.segBase(Seg.LDTR));
    limit.set(p.segRights(Seg.LDTR).and(Rights.UNUSABLE).select(p.i32(0), p.segLimit(Seg.LDTR)));
  });
  const index = selector.and(0xfff8);
  const outside = index.add(bytes).sub(1).gtU(limit.read());
  fn.if(outside, () => raise(p, fn.param(2), selectorError(p, selector)));
  const linear = wrapLinear(p, base.read().add(index.extU()));
  p.set(SYS.DESCRIPTOR_LINEAR, linear);
  fn.return(fn.call(p.module.get("memR"), linear, bytes, Access.SYSTEM));
}

function setAccessed(p: Procedure): void {
  const host = p.hostW(p.get(SYS.DESCRIPTOR_LINEAR).add(5), 1, Access.SYSTEM | Access.MODIFY);
  p.setRaw(1, host, p.raw(1, host).or(1));
  p.commit(host);
}

/** (address of the segment register, selector, descriptor). */
function cacheSegment(p: Procedure): void {
  const d = p.fn.param(2);
  storeSegment(p, p.fn.param(0), {
    base: descriptorBase(d),
    limit: descriptorLimit(d),
    rights: descriptorRights(d),
    selector: p.fn.param(1),
  });
}

/** (selector, descriptor, CPL): SS, which may be null in 64-bit mode; its DPL is the CPL even then. */
function cacheStack(p: Procedure): void {
  const selector = p.fn.param(0);
  const address = SEGMENTS + SEGMENT_BYTES * Seg.SS;
  p.fn.if(
    isNull(selector),
    () =>
      storeSegment(p, address, {
        base: 0n,
        limit: 0,
        rights: p.fn.param(2).shl(5).or(Rights.UNUSABLE),
        selector,
      }),
    () => setSegment(p, Seg.SS, selector, p.fn.param(1)),
  );
}

/** (segment number, selector): real-address and virtual-8086 mode. Real mode keeps limit and rights, as processors do ("unreal" mode). */
function loadRealSegment(p: Procedure): void {
  const { fn } = p;
  const address = segmentAddress(fn.param(0));
  const selector = fn.param(1);
  fn.store("i64.store", address, selector.shl(4).extU(), SEG_BASE);
  fn.store("i32.store16", address, selector, SEG_SELECTOR);
  fn.if(inV86(p), () => {
    fn.store("i32.store", address, 0xffff, SEG_LIMIT);
    fn.store("i32.store", address, 0xf3, SEG_RIGHTS);
  });
}

/** (selector, CPL, vector of all faults but #SS) -> descriptor of a stack segment, marked accessed. A null selector is the caller's. */
function stackDescriptor(p: Procedure): void {
  const selector = p.fn.param(0);
  const cpl = p.fn.param(1);
  const vector = p.fn.param(2);
  const d = readDescriptor(p, selector, vector);
  const bad = rplOf(selector).ne(cpl).or(isWritableData(d).eqz()).or(descriptorDpl(d).ne(cpl));
  selectorFaultIf(p, bad, vector, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.SS, selector);
  p.fn.return(markAccessed(p, d));
}

export const descriptorProcedures: readonly ProcedureText[] = [
  { name: "descriptorHost", params: ["i32", "i32", "i32"], answer: "host", body: descriptorHost },
  { name: "setAccessed", params: [], answer: "status", body: setAccessed },
  { name: "cacheSegment", params: ["i32", "i32", "i64"], answer: "none", body: cacheSegment },
  { name: "cacheStack", params: ["i32", "i64", "i32"], answer: "none", body: cacheStack },
  { name: "loadRealSegment", params: ["i32", "i32"], answer: "none", body: loadRealSegment },
  { name: "stackDescriptor", params: ["i32", "i32", "i32"], answer: "wide", body: stackDescriptor },
];
