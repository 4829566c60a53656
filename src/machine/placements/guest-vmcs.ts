/**
 * The VMCS of a service's VM: 64-bit mode at the image's entry, in ring 0 or ring 3, with an exit for all that is not computation.
 *
 * A service is a function of its messages: no time-stamp counter, no random numbers, no performance counters, no ports, no MSRs. Every
 * exception exits, so no IDT is needed and a fault is reported where it happens.
 */

import {
  EntryControl,
  ExitControl,
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../../processor/isa/vmcs-fields.ts";
import { Cr0, Cr4, Efer } from "../../processor/state/control-bits.ts";
import { gprAt, HYPERVISOR_BASE, S } from "../../processor/state/layout.ts";
import type { Vmcs } from "../../processor/vmx/vmcs.ts";
import {
  GDT_LIMIT,
  type MemoryImage,
  Selector,
  TSS_LIMIT,
} from "../../services/guest/memory-image.ts";
import { Layout } from "../../services/guest/memory-layout.ts";

export type Ring = 0 | 3;

const PAGE = 4096;
/** Of the pCPU's memory; EPT tables are behind it. */
export const MSR_BITMAP = HYPERVISOR_BASE;
export const EPT_START = HYPERVISOR_BASE + PAGE;
const R15 = 15;
const RFLAGS_FIXED = 2;
const RESET_DR6 = 0xffff_0ff0n;
const RESET_DR7 = 0x400;
const RESET_FCW = 0x37f;
const RESET_MXCSR = 0x1f80;
const RESET_PAT = 0x0007_0406_0007_0406n;
const Rights = { CODE0: 0xa09b, DATA0: 0xc093, CODE3: 0xa0fb, DATA3: 0xc0f3 } as const;
const BUSY_TSS = 0x8b;
const UNUSABLE = 0x1_0000;
const ALL_EXCEPTIONS = 0xffff_ffff;

export function configureServiceVmcs(
  vmcs: Vmcs,
  image: MemoryImage,
  ring: Ring,
  eptp: bigint,
): void {
  setControls(vmcs, eptp);
  setSegments(vmcs, ring);
  setRegisters(vmcs, image);
}

function setControls(vmcs: Vmcs, eptp: bigint): void {
  vmcs.set(Field.PIN_CONTROLS, PinControl.NMI | PinControl.PREEMPTION_TIMER);
  const { HLT, MWAIT, RDPMC, RDTSC, MOV_DR, UNCONDITIONAL_IO } = PrimaryControl;
  const { MSR_BITMAPS, MONITOR, SECONDARY } = PrimaryControl;
  const primary = HLT | MWAIT | RDPMC | RDTSC | MOV_DR | UNCONDITIONAL_IO | MONITOR;
  vmcs.set(Field.PRIMARY_CONTROLS, (primary | MSR_BITMAPS | SECONDARY) >>> 0);
  const { EPT, VPID, WBINVD } = SecondaryControl;
  vmcs.set(Field.SECONDARY_CONTROLS, EPT | VPID | WBINVD);
  vmcs.set(Field.EXIT_CONTROLS, ExitControl.SAVE_DEBUG | ExitControl.HOST_64);
  vmcs.set(Field.ENTRY_CONTROLS, EntryControl.LOAD_DEBUG | EntryControl.IA32E_GUEST);
  vmcs.set(Field.EXCEPTION_BITMAP, ALL_EXCEPTIONS);
  vmcs.set(Field.MSR_BITMAP, MSR_BITMAP);
  vmcs.setBig(Field.EPTP, eptp);
  vmcs.setBig(Field.VMCS_LINK, 0xffff_ffff_ffff_ffffn);
  vmcs.set(Field.VPID, 1);
}

function setSegments(vmcs: Vmcs, ring: Ring): void {
  const code = ring === 0 ? Selector.CODE0 : Selector.CODE3;
  const data = ring === 0 ? Selector.DATA0 : Selector.DATA3;
  const set =
    (name: "ES" | "CS" | "SS" | "DS" | "FS" | "GS" | "LDTR" | "TR") =>
    (selector: number, base: number, limit: number, rights: number): void => {
      vmcs.set(Field[`GUEST_${name}_SELECTOR`], selector);
      vmcs.set(Field[`GUEST_${name}_BASE`], base);
      vmcs.set(Field[`GUEST_${name}_LIMIT`], limit);
      vmcs.set(Field[`GUEST_${name}_RIGHTS`], rights);
    };
  const flat = 0xffff_ffff;
  set("CS")(code, 0, flat, ring === 0 ? Rights.CODE0 : Rights.CODE3);
  for (const name of ["SS", "DS", "ES", "FS", "GS"] as const)
    set(name)(data, 0, flat, ring === 0 ? Rights.DATA0 : Rights.DATA3);
  set("LDTR")(0, 0, 0, UNUSABLE);
  set("TR")(Selector.TASK, Layout.TSS, TSS_LIMIT, BUSY_TSS);
  vmcs.set(Field.GUEST_GDTR_BASE, Layout.GDT);
  vmcs.set(Field.GUEST_GDTR_LIMIT, GDT_LIMIT);
  vmcs.set(Field.GUEST_IDTR_BASE, 0);
  vmcs.set(Field.GUEST_IDTR_LIMIT, 0);
}

function setRegisters(vmcs: Vmcs, image: MemoryImage): void {
  vmcs.set(Field.GUEST_CR0, (Cr0.PG | Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP) >>> 0);
  vmcs.set(Field.GUEST_CR3, image.pageTables);
  vmcs.set(Field.GUEST_CR4, Cr4.PAE);
  vmcs.set(Field.GUEST_EFER, Efer.LME | Efer.LMA | Efer.NXE);
  vmcs.set(Field.GUEST_DR7, RESET_DR7);
  vmcs.setBig(Field.GUEST_PAT, RESET_PAT);
  vmcs.set(Field.GUEST_RFLAGS, RFLAGS_FIXED);
  vmcs.set(Field.GUEST_RIP, image.entry);
  vmcs.set(Field.GUEST_RSP, image.stack);
  const { state } = vmcs;
  state.setBigUint64(gprAt(R15), BigInt(image.window.at), true);
  state.setBigUint64(S.DR6.at, RESET_DR6, true);
  state.setUint32(S.FCW.at, RESET_FCW, true);
  state.setUint32(S.FTAG_EMPTY.at, 0xff, true);
  state.setUint32(S.MXCSR.at, RESET_MXCSR, true);
  state.setBigUint64(S.XCR0.at, 1n, true);
}
