/**
 * Guest and host state of a guest hypervisor's VMCS, in and out of the live state block.
 * SDM Vol. 3C, "Loading Guest State", "Saving Guest State", "Loading Host State".
 */
import { EntryControl, ExitControl, Field } from "../../isa/vmcs-fields.ts";
import { Cr0, Cr4, Efer } from "../../state/control-bits.ts";
import {
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  SEG_SELECTOR,
  Seg,
  segmentAt,
} from "../../state/layout.ts";
import { readRflags, writeRflags } from "../rflags.ts";
import { EXIT_INFORMATION, GUEST_STATE } from "../vmcs.ts";
import type { GuestVmcs } from "./guest-vmcs.ts";

const PDPTES = new Set<number>([
  Field.GUEST_PDPTE0,
  Field.GUEST_PDPTE1,
  Field.GUEST_PDPTE2,
  Field.GUEST_PDPTE3,
]);
/** Copied only with a control. */
const CONDITIONAL = new Set<number>([
  Field.GUEST_EFER,
  Field.GUEST_PAT,
  Field.GUEST_DR7,
  ...PDPTES,
]);
const PLAIN = GUEST_STATE.filter(({ field }) => !CONDITIONAL.has(field));
const CONDITIONAL_PLACES = GUEST_STATE.filter(({ field }) => CONDITIONAL.has(field));

const RFLAGS_FIXED = 2;
const RESET_DR7 = 0x400n;
const BLOCKING_BY_NMI = 8;
/** Access rights that VM exits load: busy 32-bit TSS, flat code and data. */
const RIGHTS = {
  TSS: 0x8b,
  CODE: 0x809b,
  LONG: 0x2000,
  DB: 0x4000,
  DATA: 0xc093,
  UNUSABLE: 0x1_0000,
} as const;
const KEPT_CR0 = BigInt(Cr0.NW | Cr0.CD);

interface Place {
  readonly field: number;
  readonly at: number;
  readonly bytes: 2 | 4 | 8;
}

/** Of all plain fields between the region and the state block, without big numbers: entries and exits are frequent. */
function copyPlain(
  view: DataView,
  vmcs: GuestVmcs,
  places: readonly Place[],
  isEntry: boolean,
): void {
  for (const { field, at, bytes } of places) {
    const place = vmcs.placeOf(field);
    const [from, to] = isEntry ? [place, at] : [at, place];
    if (bytes === 2) view.setUint16(to, view.getUint16(from, true), true);
    else view.setUint32(to, view.getUint32(from, true), true);
    if (bytes === 8) view.setUint32(to + 4, view.getUint32(from + 4, true), true);
  }
}

function put(view: DataView, { at, bytes }: Place, value: bigint): void {
  if (bytes === 8) view.setBigUint64(at, value, true);
  else if (bytes === 4) view.setUint32(at, Number(value & 0xffff_ffffn), true);
  else view.setUint16(at, Number(value & 0xffffn), true);
}

function get(view: DataView, { at, bytes }: Place): bigint {
  if (bytes === 8) return view.getBigUint64(at, true);
  return BigInt(bytes === 4 ? view.getUint32(at, true) : view.getUint16(at, true));
}

/** VM entry: everything but CR3's page-directory-pointer entries, which depend on EPT. */
export function loadGuestState(view: DataView, vmcs: GuestVmcs): void {
  const controls = vmcs.number(Field.ENTRY_CONTROLS);
  const oldCr0 = view.getBigUint64(S.CR0.at, true);
  copyPlain(view, vmcs, PLAIN, true);
  for (const place of CONDITIONAL_PLACES) {
    if (PDPTES.has(place.field)) continue;
    const bit =
      place.field === Field.GUEST_EFER
        ? EntryControl.LOAD_EFER
        : place.field === Field.GUEST_PAT
          ? EntryControl.LOAD_PAT
          : EntryControl.LOAD_DEBUG;
    if ((controls & bit) !== 0) put(view, place, vmcs.big(place.field));
  }
  const cr0 = (vmcs.big(Field.GUEST_CR0) & ~KEPT_CR0) | (oldCr0 & KEPT_CR0) | BigInt(Cr0.ET);
  view.setBigUint64(S.CR0.at, cr0, true);
  if ((controls & EntryControl.LOAD_EFER) === 0) {
    const isLong = (controls & EntryControl.IA32E_GUEST) !== 0;
    const old = view.getUint32(S.EFER.at, true);
    let efer = isLong ? old | Efer.LMA : old & ~Efer.LMA;
    if ((cr0 & BigInt(Cr0.PG)) !== 0n) efer = isLong ? efer | Efer.LME : efer & ~Efer.LME;
    view.setUint32(S.EFER.at, efer, true);
  }
  writeRflags(view, vmcs.number(Field.GUEST_RFLAGS));
  view.setUint32(S.CPL.at, (vmcs.number(Field.GUEST_SS_RIGHTS) >> 5) & 3, true);
}

export function loadGuestPdptes(view: DataView, vmcs: GuestVmcs): void {
  for (const place of CONDITIONAL_PLACES)
    if (PDPTES.has(place.field)) put(view, place, vmcs.big(place.field));
}

/** VM exit: guest state and exit information. */
export function saveGuestState(view: DataView, vmcs: GuestVmcs): void {
  const controls = vmcs.number(Field.EXIT_CONTROLS);
  copyPlain(view, vmcs, PLAIN, false);
  for (const place of CONDITIONAL_PLACES) {
    if (place.field === Field.GUEST_EFER && (controls & ExitControl.SAVE_EFER) === 0) continue;
    if (place.field === Field.GUEST_PAT && (controls & ExitControl.SAVE_PAT) === 0) continue;
    if (place.field === Field.GUEST_DR7 && (controls & ExitControl.SAVE_DEBUG) === 0) continue;
    vmcs.setBig(place.field, get(view, place));
  }
  vmcs.set(Field.GUEST_RFLAGS, readRflags(view));
  const isLong = (view.getUint32(S.EFER.at, true) & Efer.LMA) !== 0;
  const entry = vmcs.number(Field.ENTRY_CONTROLS);
  vmcs.set(
    Field.ENTRY_CONTROLS,
    (isLong ? entry | EntryControl.IA32E_GUEST : entry & ~EntryControl.IA32E_GUEST) >>> 0,
  );
}

export function saveExitInformation(view: DataView, vmcs: GuestVmcs): void {
  copyPlain(view, vmcs, EXIT_INFORMATION, false);
}

interface SegmentValue {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  readonly rights: number;
}

function setSegment(view: DataView, seg: number, value: SegmentValue): void {
  const at = segmentAt(seg);
  view.setBigUint64(at + SEG_BASE, value.base, true);
  view.setUint32(at + SEG_LIMIT, value.limit, true);
  view.setUint32(at + SEG_RIGHTS, value.rights, true);
  view.setUint16(at + SEG_SELECTOR, value.selector, true);
}

/** VM exit: what the VMM goes on with. `blocksNmi`: NMIs are blocked from here on. */
export function loadHostState(view: DataView, vmcs: GuestVmcs, blocksNmi: boolean): void {
  const controls = vmcs.number(Field.EXIT_CONTROLS);
  const isLong = (controls & ExitControl.HOST_64) !== 0;
  const oldCr0 = view.getBigUint64(S.CR0.at, true);
  const cr0 = (vmcs.big(Field.HOST_CR0) & ~KEPT_CR0) | (oldCr0 & KEPT_CR0) | BigInt(Cr0.ET);
  view.setBigUint64(S.CR0.at, cr0, true);
  view.setBigUint64(S.CR3.at, vmcs.big(Field.HOST_CR3), true);
  const cr4 = vmcs.number(Field.HOST_CR4);
  view.setBigUint64(S.CR4.at, BigInt(isLong ? cr4 | Cr4.PAE : cr4 & ~Cr4.PCIDE), true);
  view.setBigUint64(S.DR7.at, RESET_DR7, true);
  view.setBigUint64(S.SYSENTER_CS.at, BigInt(vmcs.number(Field.HOST_SYSENTER_CS)), true);
  view.setBigUint64(S.SYSENTER_ESP.at, vmcs.big(Field.HOST_SYSENTER_ESP), true);
  view.setBigUint64(S.SYSENTER_EIP.at, vmcs.big(Field.HOST_SYSENTER_EIP), true);
  if ((controls & ExitControl.LOAD_EFER) !== 0)
    view.setBigUint64(S.EFER.at, vmcs.big(Field.HOST_EFER), true);
  else {
    const old = view.getUint32(S.EFER.at, true);
    const both = Efer.LMA | Efer.LME;
    view.setUint32(S.EFER.at, isLong ? old | both : old & ~both, true);
  }
  if ((controls & ExitControl.LOAD_PAT) !== 0)
    view.setBigUint64(S.PAT.at, vmcs.big(Field.HOST_PAT), true);
  loadHostSegments(view, vmcs, isLong);
  view.setBigUint64(S.GDTR_BASE.at, vmcs.big(Field.HOST_GDTR_BASE), true);
  view.setBigUint64(S.IDTR_BASE.at, vmcs.big(Field.HOST_IDTR_BASE), true);
  view.setUint32(S.GDTR_LIMIT.at, 0xffff, true);
  view.setUint32(S.IDTR_LIMIT.at, 0xffff, true);
  const mask = isLong ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
  view.setBigUint64(S.RIP.at, vmcs.big(Field.HOST_RIP) & mask, true);
  view.setBigUint64(RSP_AT, vmcs.big(Field.HOST_RSP) & mask, true);
  writeRflags(view, RFLAGS_FIXED);
  view.setUint32(S.CPL.at, 0, true);
  view.setUint32(S.INTERRUPTIBILITY.at, blocksNmi ? BLOCKING_BY_NMI : 0, true);
  view.setUint32(S.ACTIVITY.at, 0, true);
  view.setBigUint64(S.PENDING_DEBUG.at, 0n, true);
}

const RSP_AT = GUEST_STATE.find(({ field }) => field === Field.GUEST_RSP)!.at;

function loadHostSegments(view: DataView, vmcs: GuestVmcs, isLong: boolean): void {
  const all = 0xffff_ffff;
  setSegment(view, Seg.CS, {
    selector: vmcs.number(Field.HOST_CS_SELECTOR),
    ...{ base: 0n, limit: all },
    rights: RIGHTS.CODE | (isLong ? RIGHTS.LONG : RIGHTS.DB),
  });
  const data: readonly (readonly [seg: number, selector: number, base: bigint])[] = [
    [Seg.SS, Field.HOST_SS_SELECTOR, 0n],
    [Seg.DS, Field.HOST_DS_SELECTOR, 0n],
    [Seg.ES, Field.HOST_ES_SELECTOR, 0n],
    [Seg.FS, Field.HOST_FS_SELECTOR, vmcs.big(Field.HOST_FS_BASE)],
    [Seg.GS, Field.HOST_GS_SELECTOR, vmcs.big(Field.HOST_GS_BASE)],
  ];
  for (const [seg, field, base] of data) {
    const selector = vmcs.number(field);
    const rights = selector === 0 ? RIGHTS.DATA | RIGHTS.UNUSABLE : RIGHTS.DATA;
    setSegment(view, seg, { selector, base, limit: all, rights });
  }
  setSegment(view, Seg.TR, {
    selector: vmcs.number(Field.HOST_TR_SELECTOR),
    ...{ base: vmcs.big(Field.HOST_TR_BASE), limit: 0x67, rights: RIGHTS.TSS },
  });
  setSegment(view, Seg.LDTR, { selector: 0, base: 0n, limit: 0, rights: RIGHTS.UNUSABLE });
}
