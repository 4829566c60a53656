/** P1-A6: what the ledger gives to guest, micro-hypervisor and services sums up to the time that the machine had, measured from outside. */
import { reportServices } from "../../src/machine/service-report.ts";
import { bootFiles } from "../harness/boot.ts";
import { guestKernel } from "../harness/kernels.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { runToEnd } from "./machine-run.ts";

const BAR_PERCENT = 0.1;

async function run({ progress }: CriterionContext): Promise<CriterionResult> {
  const files = bootFiles(await guestKernel("cloud"), { commands: ["uname -a", "sleep 0.2"] });
  let worst = 0;
  const details: string[] = [];
  for (const placement of ["inline", "worker"] as const) {
    progress(`P1-A6: ${placement}`);
    const config = { clock: "wall", services: { all: placement } } as const;
    const { machine, runMs } = runToEnd(files, { config });
    const { guestMs, kernelMs, services, activeMs } = reportServices(machine.vm);
    const off = (100 * Math.abs(activeMs - runMs)) / runMs;
    worst = Math.max(worst, off);
    const parts = services.map(({ name, ms, vcpuMs }) => {
      return `${name} ${ms.toFixed(2)} (vCPU ${vcpuMs.toFixed(2)})`;
    });
    details.push(
      `${placement}: guest ${guestMs.toFixed(2)} ms, kernel ${kernelMs.toFixed(2)}, ${parts.join(", ")}; sum ${activeMs.toFixed(3)}, measured ${runMs.toFixed(3)}`,
    );
  }
  return {
    passed: worst <= BAR_PERCENT,
    measured: `sum off by ${worst.toFixed(4)} % at most`,
    details,
  };
}

export const ledgerSums: Criterion = {
  id: "P1-A6",
  title: "the ledger's accounts of guest, micro-hypervisor and services sum up to the total",
  bar: `within ${BAR_PERCENT} %`,
  timeBase: "wall",
  runMode: "mh",
  isSeeded: false,
  run,
};
