/**
 * The VMCS of a new guest: registers after boot loading, and the execution controls under which the micro-hypervisor runs it.
 */

import { type CpuidModel, PHYSICAL_BITS } from "../processor/isa/cpuid.ts";
import {
  EntryControl,
  ExitControl,
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../processor/isa/vmcs-fields.ts";
import { Cr0, Cr4, Efer } from "../processor/state/control-bits.ts";
import { gprAt, HYPERVISOR_BASE, S } from "../processor/state/layout.ts";
import type { Vmcs } from "../processor/vmx/vmcs.ts";
import type { BootState } from "./boot/boot-state.ts";

const PAGE = 4096;
const IO_BITMAP_A = HYPERVISOR_BASE;
const IO_BITMAP_B = HYPERVISOR_BASE + PAGE;
const MSR_BITMAP = HYPERVISOR_BASE + 2 * PAGE;
const RESET_PAT = 0x0007_0406_0007_0406n;
const RESET_DR6 = 0xffff_0ff0n;
const RESET_DR7 = 0x400;
const RESET_FCW = 0x37f;
const RESET_MXCSR = 0x1f80;
const MXCSR_MASK = 0xffff;

/** MSRs that the processor serves without exit. */
const NATIVE_MSRS = [
  0x174, 0x175, 0x176, 0x277, 0xda0, 0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0083,
  0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0103,
] as const;

/** CR4 bits by the CPU flag that brings them. */
const CR4_BITS: readonly (readonly [string, number])[] = [
  ["base", Cr4.TSD | Cr4.PCE],
  ["vme", Cr4.VME | Cr4.PVI],
  ["de", Cr4.DE],
  ["pse", Cr4.PSE],
  ["pae", Cr4.PAE],
  ["pge", Cr4.PGE],
  ["fxsr", Cr4.OSFXSR],
  ["sse", Cr4.OSXMMEXCPT],
  ["umip", Cr4.UMIP],
  ["fsgsbase", Cr4.FSGSBASE],
  ["pcid", Cr4.PCIDE],
  ["xsave", Cr4.OSXSAVE],
  ["smep", Cr4.SMEP],
  ["smap", Cr4.SMAP],
  ["vmx", Cr4.VMXE],
];
const EFER_BITS: readonly (readonly [string, number])[] = [
  ["syscall", Efer.SCE],
  ["lm", Efer.LME | Efer.LMA],
  ["nx", Efer.NXE],
];

function allowed(cpuid: CpuidModel, bits: readonly (readonly [string, number])[]): bigint {
  return BigInt(
    bits.reduce((sum, [flag, bit]) => (flag === "base" || cpuid.has(flag) ? sum | bit : sum), 0),
  );
}

/** Intercepts every port and every MSR that the processor does not serve itself. */
function fillBitmaps(view: DataView): void {
  new Uint8Array(view.buffer, IO_BITMAP_A, 3 * PAGE).fill(0xff);
  for (const msr of NATIVE_MSRS) {
    const half = msr >= 0xc000_0000 ? 1024 : 0;
    const index = msr & 0x1fff;
    for (const write of [0, 2048]) {
      const at = MSR_BITMAP + half + write + (index >> 3);
      view.setUint8(at, view.getUint8(at) & ~(1 << (index & 7)));
    }
  }
}

/** The VMCS of a guest that boots. */
export function configureVmcs(
  vmcs: Vmcs,
  view: DataView,
  boot: BootState,
  cpuid: CpuidModel,
  eptp: bigint,
): void {
  prepareBlock(view, cpuid);
  setControls(vmcs);
  placeStructures(vmcs, eptp);
  setRegisters(vmcs, boot);
}

/** The VMCS of a guest that goes on: its fields and state block have been restored, what they were pointing at is ours. */
export function adoptVmcs(vmcs: Vmcs, view: DataView, cpuid: CpuidModel, eptp: bigint): void {
  prepareBlock(view, cpuid);
  placeStructures(vmcs, eptp);
}

function prepareBlock(view: DataView, cpuid: CpuidModel): void {
  view.setBigUint64(S.CR4_ALLOWED.at, allowed(cpuid, CR4_BITS), true);
  view.setBigUint64(S.EFER_ALLOWED.at, allowed(cpuid, EFER_BITS), true);
  view.setBigUint64(
    S.PHYSICAL_RESERVED.at,
    0x000f_ffff_ffff_ffffn & ~((1n << BigInt(PHYSICAL_BITS)) - 1n),
    true,
  );
  view.setUint32(S.MXCSR_MASK.at, MXCSR_MASK, true);
  fillBitmaps(view);
}

function placeStructures(vmcs: Vmcs, eptp: bigint): void {
  vmcs.set(Field.IO_BITMAP_A, IO_BITMAP_A);
  vmcs.set(Field.IO_BITMAP_B, IO_BITMAP_B);
  vmcs.set(Field.MSR_BITMAP, MSR_BITMAP);
  vmcs.setBig(Field.EPTP, eptp);
}

function setControls(vmcs: Vmcs): void {
  vmcs.set(
    Field.PIN_CONTROLS,
    PinControl.EXTERNAL_INTERRUPT | PinControl.NMI | PinControl.PREEMPTION_TIMER,
  );
  const { HLT, TSC_OFFSETTING, IO_BITMAPS, MSR_BITMAPS, SECONDARY } = PrimaryControl;
  vmcs.set(
    Field.PRIMARY_CONTROLS,
    (HLT | TSC_OFFSETTING | IO_BITMAPS | MSR_BITMAPS | SECONDARY) >>> 0,
  );
  const { EPT, RDTSCP, VPID, UNRESTRICTED_GUEST, INVPCID, XSAVES } = SecondaryControl;
  vmcs.set(Field.SECONDARY_CONTROLS, EPT | RDTSCP | VPID | UNRESTRICTED_GUEST | INVPCID | XSAVES);
  vmcs.set(
    Field.EXIT_CONTROLS,
    ExitControl.SAVE_DEBUG | ExitControl.HOST_64 | ExitControl.ACKNOWLEDGE_INTERRUPT,
  );
  vmcs.setBig(Field.VMCS_LINK, 0xffff_ffff_ffff_ffffn);
  vmcs.set(Field.VPID, 1);
}

function setRegisters(vmcs: Vmcs, boot: BootState): void {
  for (const [name, s] of Object.entries(boot.segments)) {
    const upper = name.toUpperCase() as Uppercase<keyof BootState["segments"]>;
    vmcs.set(Field[`GUEST_${upper}_SELECTOR`], s.selector);
    vmcs.set(Field[`GUEST_${upper}_BASE`], s.base);
    vmcs.set(Field[`GUEST_${upper}_LIMIT`], s.limit);
    vmcs.set(Field[`GUEST_${upper}_RIGHTS`], s.accessRights);
  }
  vmcs.set(Field.GUEST_GDTR_BASE, boot.gdtr.base);
  vmcs.set(Field.GUEST_GDTR_LIMIT, boot.gdtr.limit);
  vmcs.set(Field.GUEST_IDTR_BASE, boot.idtr.base);
  vmcs.set(Field.GUEST_IDTR_LIMIT, boot.idtr.limit);
  vmcs.set(Field.GUEST_CR0, (boot.cr0 | Cr0.NE | Cr0.ET) >>> 0);
  vmcs.set(Field.GUEST_CR3, boot.cr3);
  vmcs.set(Field.GUEST_CR4, boot.cr4);
  vmcs.set(Field.GUEST_EFER, boot.efer);
  vmcs.set(
    Field.ENTRY_CONTROLS,
    EntryControl.LOAD_DEBUG |
      EntryControl.LOAD_EFER |
      (boot.efer & Efer.LMA ? EntryControl.IA32E_GUEST : 0),
  );
  vmcs.set(Field.GUEST_DR7, RESET_DR7);
  vmcs.setBig(Field.GUEST_PAT, RESET_PAT);
  vmcs.set(Field.GUEST_RFLAGS, boot.rflags);
  vmcs.set(Field.GUEST_RIP, boot.rip);
  vmcs.set(Field.GUEST_RSP, boot.rsp);
  const { state } = vmcs;
  const set = (n: number, value: number): void => state.setBigUint64(gprAt(n), BigInt(value), true);
  set(0, boot.rax);
  set(3, boot.rbx);
  set(6, boot.rsi);
  state.setBigUint64(S.DR6.at, RESET_DR6, true);
  state.setUint32(S.FCW.at, RESET_FCW, true);
  state.setUint32(S.FTAG_EMPTY.at, 0xff, true);
  state.setUint32(S.MXCSR.at, RESET_MXCSR, true);
  state.setBigUint64(S.XCR0.at, 1n, true);
}
