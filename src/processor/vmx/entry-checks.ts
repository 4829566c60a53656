/**
 * Checks of VM entry as data: one row per rule, in the order of SDM Vol. 3C, "Checks on VMX Controls and Host-State Area" and "Checking and
 * Loading Guest State". Each row says when it is broken, and how a test can break it in a VMCS that is fine.
 *
 * Our own micro-hypervisor's VMCSs and those of guests go through the same rows, with other limits; host state is the guests' alone (root mode
 * of ours is not x86 code). What needs memory (MSR areas, VMCS link, PDPTEs under CR3) is in guest/guest-vmx.ts.
 */
import { CplExit, VendorControl, VendorField } from "../isa/vendor.ts";
import { ExitControl, PinControl, SecondaryControl } from "../isa/vmcs-fields.ts";
import { OWN_LIMITS } from "./capabilities.ts";
import type { CheckContext, CheckedVmcs, EntryCheck } from "./entry-checks/check.ts";
import { exit, isInjecting, pin, secondary } from "./entry-checks/check.ts";
import { CONTROL_REGISTERS } from "./entry-checks/control-registers.ts";
import { CONTROLS } from "./entry-checks/controls.ts";
import { REST } from "./entry-checks/guest-rest.ts";
import { HOST } from "./entry-checks/host.ts";
import { INJECTION } from "./entry-checks/injection.ts";
import { SEGMENT_CHECKS } from "./entry-checks/segments.ts";

/** Which group a failing check belongs to decides how VM entry fails. */
export const EntryChecks = {
  controls: [...CONTROLS, ...INJECTION],
  injection: INJECTION,
  host: HOST,
  guest: [...CONTROL_REGISTERS, ...SEGMENT_CHECKS, ...REST],
  /** Those of `guest` that a VMM's every entry may break: about RIP, RFLAGS, blocking and what is injected. */
  volatile: REST,
} as const satisfies Record<string, readonly EntryCheck[]>;

/** The first check that is broken, or null. */
export function firstBroken(
  checks: readonly EntryCheck[],
  v: CheckedVmcs,
  context: CheckContext,
): EntryCheck | null {
  for (const check of checks) if (check.isBroken(v, context)) return check;
  return null;
}

/** Root mode of ours is no x86 code, so neither its mode nor host state is checked. */
const OWN: CheckContext = { limits: OWN_LIMITS, fromLong: true };

/** The rule that a VMCS of our own breaks, or null. The processor reports only that there is one. */
export function checkControls(vmcs: CheckedVmcs): string | null {
  if ((vmcs.number(VendorField.CPL_EXIT_CONTROLS) & CplExit.RESERVED) !== 0)
    return "reserved bits of the CPL-exit controls";
  return firstBroken(EntryChecks.controls, vmcs, OWN)?.text ?? checkDirectDelivery(vmcs);
}

/** The rule about direct delivery that is broken, or null. */
function checkDirectDelivery(vmcs: CheckedVmcs): string | null {
  if ((vmcs.number(VendorField.CONTROLS) & VendorControl.DIRECT_DELIVERY) === 0) return null;
  const isWhole =
    pin(vmcs, PinControl.EXTERNAL_INTERRUPT) &&
    exit(vmcs, ExitControl.ACKNOWLEDGE_INTERRUPT) &&
    secondary(vmcs, SecondaryControl.VIRTUAL_INTERRUPTS);
  return isWhole
    ? null
    : "direct delivery requires external-interrupt exiting, acknowledgement and virtual-interrupt delivery";
}

export function checkInjection(vmcs: CheckedVmcs): string | null {
  if (!isInjecting(vmcs)) return null;
  return firstBroken(EntryChecks.injection, vmcs, OWN)?.text ?? null;
}

export function checkGuestState(vmcs: CheckedVmcs): string | null {
  return firstBroken(EntryChecks.guest, vmcs, OWN)?.text ?? null;
}
