/**
 * Gives the guest VMX of its own, if its CPU model has it: capability MSRs in the vCPU's store, and the processor's unit for it.
 */
import type { CpuidModel } from "../processor/isa/cpuid.ts";
import { S } from "../processor/state/layout.ts";
import { capabilityMsrs, offeredLimits } from "../processor/vmx/capabilities.ts";
import type { OtherMsrs } from "../processor/vmx/guest/msr-area.ts";
import type { Processor } from "../processor/vmx/processor.ts";

/** After configureVmcs. Answers the MSRs that the guest reads about it; null for a model without VMX. */
export function offerVmx(
  processor: Processor,
  cpuid: CpuidModel,
  msrs: OtherMsrs,
): ReadonlyMap<number, bigint> | null {
  if (!cpuid.has("vmx")) return null;
  const limits = offeredLimits((flag) => cpuid.has(flag), {
    cr4Allowed: processor.view.getBigUint64(S.CR4_ALLOWED.at, true),
    eferAllowed: processor.view.getBigUint64(S.EFER_ALLOWED.at, true),
  });
  processor.offerVmx(limits, msrs);
  return capabilityMsrs(limits);
}
