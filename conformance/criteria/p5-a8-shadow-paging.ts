/** P5-A8, the part with KVM: its shadow page tables (ept=0) under a Debian guest. The storm of shootdowns needs more than one vCPU. */
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { bootInside } from "./nested-boot.ts";

async function run(context: CriterionContext): Promise<CriterionResult> {
  const boot = await bootInside(context, "P5-A8", "ept=0", "ept");
  const isOff = boot.parameter === "N";
  const isGood = boot.isHealthy && boot.isSameData && isOff;
  return {
    passed: false,
    measured: `ept=0: the inner Debian ${isGood ? `boots in ${boot.seconds.toFixed(1)} s, data identical` : "FAILS"}; not tried: 4 vCPUs (a VM has one)`,
    details: boot.details,
  };
}

export const shadowPaging: Criterion = {
  id: "P5-A8",
  title: "a guest hypervisor without EPT, and shootdowns between vCPUs",
  bar: "the inner Debian boots with ept=0; 4 vCPUs under stress-ng --tlb-shootdown, 0 corruptions",
  timeBase: "none",
  runMode: "nested",
  isSeeded: false,
  run,
};
