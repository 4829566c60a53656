/** P8-A8: KVM with enable_apicv: virtual interrupts of the inner guest are the processor's work. */
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { bootInside } from "./nested-boot.ts";

async function run(context: CriterionContext): Promise<CriterionResult> {
  const on = await bootInside(context, "P8-A8", "", "enable_apicv");
  const off = await bootInside(context, "P8-A8", "enable_apicv=0", "enable_apicv");
  const isGood = [on, off].every(({ isHealthy, isSameData }) => isHealthy && isSameData);
  return {
    passed: isGood && on.parameter === "Y" && off.parameter === "N",
    measured: `enable_apicv=${on.parameter}: ${on.isHealthy ? "boots" : "FAILS"} in ${on.seconds.toFixed(1)} s, data ${on.isSameData ? "identical" : "DIFFERENT"}; enable_apicv=${off.parameter}: ${off.isHealthy ? "boots" : "FAILS"} in ${off.seconds.toFixed(1)} s, data ${off.isSameData ? "identical" : "DIFFERENT"}`,
    details: [...on.details, ...off.details],
  };
}

export const apicVirtualization: Criterion = {
  id: "P8-A8",
  title: "KVM with and without APIC virtualization and posted interrupts",
  bar: "the inner Debian boots both ways; data of its disk identical",
  timeBase: "none",
  runMode: "nested",
  isSeeded: false,
  run,
};
