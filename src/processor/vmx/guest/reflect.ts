/**
 * Whose exit it is: a VM exit out of a guest's guest goes to the guest hypervisor if its controls ask for it, else to our own.
 * SDM Vol. 3C, "Instructions That Cause VM Exits", "Other Causes of VM Exits", "I/O-Bitmap Addresses", "MSR-Bitmap Address".
 * EPT, external interrupts and the preemption timer are decided where they are found (guest-vmx.ts).
 */
import { ExitReason } from "../../isa/exit-reasons.ts";
import { Field, PinControl, PrimaryControl, SecondaryControl } from "../../isa/vmcs-fields.ts";
import { GPR, S } from "../../state/layout.ts";
import type { EptMemory } from "./guest-ept.ts";
import type { GuestVmcs } from "./guest-vmcs.ts";

/** Exits that every VMM gets. */
const UNCONDITIONAL = new Set<number>([
  ExitReason.TRIPLE_FAULT,
  ExitReason.TASK_SWITCH,
  ExitReason.CPUID,
  ExitReason.GETSEC,
  ExitReason.INVD,
  ExitReason.VMCALL,
  ExitReason.VMCLEAR,
  ExitReason.VMLAUNCH,
  ExitReason.VMPTRLD,
  ExitReason.VMPTRST,
  ExitReason.VMREAD,
  ExitReason.VMRESUME,
  ExitReason.VMWRITE,
  ExitReason.VMXOFF,
  ExitReason.VMXON,
  ExitReason.INVEPT,
  ExitReason.INVVPID,
  ExitReason.XSETBV,
  ExitReason.VMFUNC,
  // No control of ours sends it out: who asked was the guest hypervisor.
  ExitReason.MTF,
]);

const PRIMARY: ReadonlyMap<number, number> = new Map([
  [ExitReason.INTERRUPT_WINDOW, PrimaryControl.INTERRUPT_WINDOW],
  [ExitReason.NMI_WINDOW, PrimaryControl.NMI_WINDOW],
  [ExitReason.HLT, PrimaryControl.HLT],
  [ExitReason.INVLPG, PrimaryControl.INVLPG],
  [ExitReason.INVPCID, PrimaryControl.INVLPG],
  [ExitReason.RDPMC, PrimaryControl.RDPMC],
  [ExitReason.RDTSC, PrimaryControl.RDTSC],
  [ExitReason.RDTSCP, PrimaryControl.RDTSC],
  [ExitReason.DR_ACCESS, PrimaryControl.MOV_DR],
  [ExitReason.MWAIT, PrimaryControl.MWAIT],
  [ExitReason.MONITOR, PrimaryControl.MONITOR],
  [ExitReason.PAUSE, PrimaryControl.PAUSE],
]);
const SECONDARY: ReadonlyMap<number, number> = new Map([
  [ExitReason.GDTR_IDTR, SecondaryControl.DESCRIPTOR_TABLE],
  [ExitReason.LDTR_TR, SecondaryControl.DESCRIPTOR_TABLE],
  [ExitReason.WBINVD, SecondaryControl.WBINVD],
  [ExitReason.RDRAND, SecondaryControl.RDRAND],
  [ExitReason.RDSEED, SecondaryControl.RDSEED],
]);

const NMI = 2;
const PAGE_FAULT = 14;

export function wantsExit(reason: number, vmcs: GuestVmcs, memory: EptMemory): boolean {
  if (UNCONDITIONAL.has(reason)) return true;
  const primary = vmcs.number(Field.PRIMARY_CONTROLS);
  const wanted = PRIMARY.get(reason);
  if (wanted !== undefined) return (primary & wanted) !== 0;
  const second = SECONDARY.get(reason);
  if (second !== undefined)
    return (
      (primary & PrimaryControl.SECONDARY) !== 0 &&
      (vmcs.number(Field.SECONDARY_CONTROLS) & second) !== 0
    );
  if (reason === ExitReason.EXCEPTION_OR_NMI) {
    const info = memory.view.getUint32(S.EXIT_INTERRUPTION.at, true);
    if (((info >> 8) & 7) === NMI) return (vmcs.number(Field.PIN_CONTROLS) & PinControl.NMI) !== 0;
    const error = memory.view.getUint32(S.EXIT_INTERRUPTION_ERROR.at, true);
    return interceptsException(vmcs, info & 0xff, error);
  }
  if (reason === ExitReason.CR_ACCESS) return wantsControlRegister(memory, primary);
  if (reason === ExitReason.IO) return wantsIo(vmcs, memory, primary);
  if (reason === ExitReason.RDMSR || reason === ExitReason.WRMSR)
    return wantsMsr(vmcs, memory, reason === ExitReason.WRMSR);
  return false;
}

/** Accesses to CR8 come here because of our own TPR shadow, too. Those to the others only if the guest hypervisor has asked for them. */
function wantsControlRegister({ view }: EptMemory, primary: number): boolean {
  const qualification = view.getUint32(S.EXIT_QUALIFICATION.at, true);
  if ((qualification & 15) !== 8) return true;
  const isLoad = (qualification & 0x30) === 0;
  return (primary & (isLoad ? PrimaryControl.CR8_LOAD : PrimaryControl.CR8_STORE)) !== 0;
}

export function interceptsException(vmcs: GuestVmcs, vector: number, error: number): boolean {
  const bit = ((vmcs.number(Field.EXCEPTION_BITMAP) >>> vector) & 1) !== 0;
  if (vector !== PAGE_FAULT) return bit;
  const masked = (error & vmcs.number(Field.PF_ERROR_MASK)) >>> 0;
  const matches = masked === vmcs.number(Field.PF_ERROR_MATCH);
  return bit === matches;
}

/** A bit of a bitmap page in guest memory; where there is no memory, all ones. */
function bitOf(memory: EptMemory, page: bigint, bit: number): boolean {
  const at = memory.hostOf(page + BigInt(bit >>> 3));
  return at === 0 || ((memory.view.getUint8(at) >>> (bit & 7)) & 1) !== 0;
}

function wantsIo(vmcs: GuestVmcs, memory: EptMemory, primary: number): boolean {
  if ((primary & PrimaryControl.IO_BITMAPS) === 0)
    return (primary & PrimaryControl.UNCONDITIONAL_IO) !== 0;
  const qualification = memory.view.getUint32(S.EXIT_QUALIFICATION.at, true);
  const bytes = (qualification & 7) + 1;
  const first = qualification >>> 16;
  if (first + bytes > 0x1_0000) return true;
  for (let port = first; port < first + bytes; port++) {
    const page = vmcs.big(port < 0x8000 ? Field.IO_BITMAP_A : Field.IO_BITMAP_B);
    if (bitOf(memory, page, port & 0x7fff)) return true;
  }
  return false;
}

const MSR_RANGE = 0x2000;
const HIGH_MSRS = 0xc000_0000;

function wantsMsr(vmcs: GuestVmcs, memory: EptMemory, isWrite: boolean): boolean {
  if ((vmcs.number(Field.PRIMARY_CONTROLS) & PrimaryControl.MSR_BITMAPS) === 0) return true;
  const index = memory.view.getUint32(GPR + 8, true);
  const isHigh = index >= HIGH_MSRS;
  const low = isHigh ? index - HIGH_MSRS : index;
  if (low >= MSR_RANGE) return true;
  const at = (isWrite ? 0x4000 : 0) + (isHigh ? 0x2000 : 0) + low;
  return bitOf(memory, vmcs.big(Field.MSR_BITMAP), at);
}
