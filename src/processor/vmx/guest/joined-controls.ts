/**
 * A guest hypervisor's controls joined to our own: exits are the union of both, what lets instructions exist the intersection.
 * In the hot form (S.CTL_*) that the engine looks at; there is no third VMCS.
 */
import { Field, PinControl, PrimaryControl, SecondaryControl } from "../../isa/vmcs-fields.ts";
import { JOINED_MSR_BITMAP, S } from "../../state/layout.ts";
import type { VmxOperation } from "./vmx-operation.ts";

/** Controls of the guest hypervisor that work as exits on top of ours. */
const JOINED_PRIMARY =
  PrimaryControl.HLT |
  PrimaryControl.INVLPG |
  PrimaryControl.MWAIT |
  PrimaryControl.RDPMC |
  PrimaryControl.RDTSC |
  PrimaryControl.CR3_LOAD |
  PrimaryControl.CR3_STORE |
  PrimaryControl.CR8_LOAD |
  PrimaryControl.CR8_STORE |
  PrimaryControl.NMI_WINDOW |
  PrimaryControl.MOV_DR |
  PrimaryControl.UNCONDITIONAL_IO |
  PrimaryControl.MONITOR_TRAP |
  PrimaryControl.MONITOR |
  PrimaryControl.PAUSE;
const JOINED_SECONDARY =
  SecondaryControl.DESCRIPTOR_TABLE |
  SecondaryControl.WBINVD |
  SecondaryControl.RDRAND |
  SecondaryControl.RDSEED |
  SecondaryControl.VM_FUNCTIONS;
/** Controls that let instructions exist: both hypervisors must. */
const ENABLING_SECONDARY =
  SecondaryControl.RDTSCP | SecondaryControl.INVPCID | SecondaryControl.XSAVES;
/** Our hypervisor owns no bit of CR0 or CR4 and has no CR3 targets, so the guest's are taken as they are. */
const WIDE: readonly (readonly [at: number, field: number])[] = [
  [S.CTL_CR0_MASK.at, Field.CR0_MASK],
  [S.CTL_CR0_SHADOW.at, Field.CR0_SHADOW],
  [S.CTL_CR4_MASK.at, Field.CR4_MASK],
  [S.CTL_CR4_SHADOW.at, Field.CR4_SHADOW],
  [S.CTL_CR3_TARGET0.at, Field.CR3_TARGET0],
  [S.CTL_CR3_TARGET1.at, Field.CR3_TARGET1],
  [S.CTL_CR3_TARGET2.at, Field.CR3_TARGET2],
  [S.CTL_CR3_TARGET3.at, Field.CR3_TARGET3],
];

/** Joins the guest hypervisor's controls to ours in the hot form (S.CTL_*), which holds ours alone. */
export function joinControls(operation: VmxOperation): void {
  const { view } = operation;
  const v = operation.vmcs;
  const or = (at: number, bits: number): void =>
    view.setInt32(at, view.getInt32(at, true) | bits, true);
  const pin = v.number(Field.PIN_CONTROLS);
  or(S.CTL_PIN.at, pin & (PinControl.EXTERNAL_INTERRUPT | PinControl.NMI | PinControl.VIRTUAL_NMI));
  const ours = view.getInt32(S.CTL_PRIMARY.at, true);
  const theirs = v.number(Field.PRIMARY_CONTROLS) & JOINED_PRIMARY;
  // With a TPR shadow MOV CR8 is carried out here.
  const shadow = operation.apic.hasShadow ? PrimaryControl.CR8_LOAD | PrimaryControl.CR8_STORE : 0;
  view.setInt32(S.CTL_PRIMARY.at, ours | theirs | shadow, true);
  const second = operation.primary(PrimaryControl.SECONDARY)
    ? v.number(Field.SECONDARY_CONTROLS)
    : 0;
  const ourSecond = view.getInt32(S.CTL_SECONDARY.at, true);
  view.setInt32(
    S.CTL_SECONDARY.at,
    (ourSecond & ~ENABLING_SECONDARY) |
      (ourSecond & second & ENABLING_SECONDARY) |
      (second & JOINED_SECONDARY),
    true,
  );
  or(S.CTL_EXCEPTION_BITMAP.at, v.number(Field.EXCEPTION_BITMAP));
  view.setUint32(S.CTL_PF_MASK.at, v.number(Field.PF_ERROR_MASK), true);
  view.setUint32(S.CTL_PF_MATCH.at, v.number(Field.PF_ERROR_MATCH), true);
  view.setUint32(S.CTL_CR3_TARGETS.at, v.number(Field.CR3_TARGET_COUNT), true);
  for (const [at, field] of WIDE) view.setBigUint64(at, v.big(field), true);
  joinMsrBitmap(operation);
}

/** The MSR bitmap of both, in a page of our own; without one of the guest's every access exits. */
function joinMsrBitmap(operation: VmxOperation): void {
  const { view } = operation;
  const ours = view.getUint32(S.CTL_MSR_BITMAP.at, true);
  const theirs = operation.primary(PrimaryControl.MSR_BITMAPS)
    ? operation.hostOf(operation.vmcs.big(Field.MSR_BITMAP))
    : 0;
  if (ours === 0 || theirs === 0) {
    view.setUint32(S.CTL_MSR_BITMAP.at, 0, true);
    return;
  }
  const from = new Uint32Array(view.buffer, theirs, 1024);
  const base = new Uint32Array(view.buffer, ours, 1024);
  const to = new Uint32Array(view.buffer, JOINED_MSR_BITMAP, 1024);
  for (let i = 0; i < 1024; i++) to[i] = base[i]! | from[i]!;
  view.setUint32(S.CTL_MSR_BITMAP.at, JOINED_MSR_BITMAP, true);
}
