/**
 * Whether a guest hypervisor's VM entry takes place: what the rows of the entry checks say, and what needs memory (VMCS link, PDPTEs).
 * SDM Vol. 3C, "Basic VM-Entry Checks", "Checks on VMX Controls and Host-State Area", "Checking and Loading Guest State".
 */
import { Field, SecondaryControl } from "../../isa/vmcs-fields.ts";
import { Efer } from "../../state/control-bits.ts";
import { S } from "../../state/layout.ts";
import { type EntryLimits, REVISION } from "../capabilities.ts";
import { isBadPdpte, usesPae } from "../entry-checks/guest-rest.ts";
import { EntryChecks, firstBroken } from "../entry-checks.ts";
import { FAIL_INVALID, type Outcome, SUCCEED, VmxError } from "./outcome.ts";
import { NO_POINTER, type VmxOperation } from "./vmx-operation.ts";

const BLOCKING_MOV_SS = 2;
/** Qualifications of an entry that fails for guest state. */
const EntryQualification = { NONE: 0n, PDPTE: 2n, LINK: 4n } as const;

/** Why there is no VM entry at all: VMfail, or a fault. */
export function refusalOf(operation: VmxOperation, isLaunch: boolean): Outcome {
  const view = operation.view;
  if (operation.current === NO_POINTER || operation.vmcs.isShadow) return FAIL_INVALID;
  if ((view.getUint32(S.INTERRUPTIBILITY.at, true) & BLOCKING_MOV_SS) !== 0) return VmxError.MOV_SS;
  const vmcs = operation.vmcs;
  if (isLaunch && vmcs.isLaunched) return VmxError.VMLAUNCH_NOT_CLEAR;
  if (!isLaunch && !vmcs.isLaunched) return VmxError.VMRESUME_NOT_LAUNCHED;
  const context = checkContext(operation);
  const controls = operation.mustCheck ? EntryChecks.controls : EntryChecks.injection;
  if (firstBroken(controls, vmcs, context) || operation.apic.isThresholdBad)
    return VmxError.CONTROLS;
  if (operation.mustCheck && firstBroken(EntryChecks.host, vmcs, context))
    return VmxError.HOST_STATE;
  return SUCCEED;
}

/** Exit qualification of an entry that guest state forbids, or null. */
export function guestProblem(operation: VmxOperation): bigint | null {
  const vmcs = operation.vmcs;
  const checks = operation.mustCheck ? EntryChecks.guest : EntryChecks.volatile;
  const broken = firstBroken(checks, vmcs, checkContext(operation));
  if (broken?.text.startsWith("VMCS link")) return EntryQualification.LINK;
  if (broken?.text.startsWith("PDPTE")) return EntryQualification.PDPTE;
  if (broken) return EntryQualification.NONE;
  const link = vmcs.big(Field.VMCS_LINK);
  if (link !== NO_POINTER) {
    operation.other.at = operation.hostOf(link);
    const shadows = operation.secondary(SecondaryControl.VMCS_SHADOWING);
    const isBad =
      operation.other.at === 0 ||
      link === operation.current ||
      operation.other.revision !== REVISION ||
      operation.other.isShadow !== shadows;
    if (isBad) return EntryQualification.LINK;
  }
  if (
    usesPae(vmcs) &&
    !operation.secondary(SecondaryControl.EPT) &&
    !pdptesAt(operation, vmcs.big(Field.GUEST_CR3))
  )
    return EntryQualification.PDPTE;
  return null;
}

function checkContext(operation: VmxOperation): { limits: EntryLimits; fromLong: boolean } {
  const fromLong = (operation.view.getUint32(S.EFER.at, true) & Efer.LMA) !== 0;
  return { limits: operation.limits, fromLong };
}

/** The four PAE page-directory-pointer entries under a CR3, or null if they cannot be loaded. */
function pdptesAt(operation: VmxOperation, cr3: bigint): bigint[] | null {
  const at = operation.hostOf(cr3 & 0xffff_ffe0n);
  if (at === 0) return null;
  const entries = [0, 1, 2, 3].map((i) => operation.view.getBigUint64(at + 8 * i, true));
  return entries.some((e) => isBadPdpte(e, operation.limits.physicalBits)) ? null : entries;
}

export function loadPdptes(operation: VmxOperation, cr3: bigint): boolean {
  const entries = pdptesAt(operation, cr3);
  if (!entries) return false;
  [S.PDPTE0, S.PDPTE1, S.PDPTE2, S.PDPTE3].forEach(({ at }, i) => {
    operation.view.setBigUint64(at, entries[i]!, true);
  });
  return true;
}
