/**
 * P1-A8: virtualization inside. The inner guest's devices are QEMU's in the outer guest, the outer guest's are services; both go on, and the inner
 * Debian gets to its shell. kvmtool is not in the suite.
 */
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { bootInside } from "./nested-boot.ts";

async function run(context: CriterionContext): Promise<CriterionResult> {
  const boot = await bootInside(context, "P1-A8", "", "ept");
  const io = boot.exits.find(([reason]) => reason === "IO")?.[1] ?? 0;
  return {
    passed: boot.isHealthy && boot.isSameData && io > 0 && boot.warnings.length === 0,
    measured: `the inner Debian ${boot.isHealthy ? "came to its shell" : "DID NOT COME UP"} in ${boot.seconds.toFixed(1)} s by QEMU's devices, its disk's data ${boot.isSameData ? "identical" : "DIFFERENT"}; ${io} port accesses of the outer guest served by services; ${boot.warnings.length} warnings`,
    details: boot.details,
  };
}

export const nestedDevices: Criterion = {
  id: "P1-A8",
  title:
    "devices of the inner guest by the outer guest's QEMU, those of the outer guest by services",
  bar: "the inner Debian comes to its shell; data identical; no warning",
  timeBase: "none",
  runMode: "nested",
  isSeeded: false,
  run,
};
