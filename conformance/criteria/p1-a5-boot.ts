/**
 * P1-A5: the unmodified Debian cloud kernel boots with all device models in services; the build says how large the micro-hypervisor is,
 * and fails if it links a device model other than the interrupt controllers.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkKernel, describeKernel, ENTRY } from "../../tools/check-kernel.ts";
import { bootFiles } from "../harness/boot.ts";
import { CHECKOUT } from "../harness/cache.ts";
import { guestKernel } from "../harness/kernels.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { runToEnd, textOf } from "./machine-run.ts";

const PLANTED = 'export * from "../../devices/platform/uart-16550a.ts";';

async function run({ progress }: CriterionContext): Promise<CriterionResult> {
  const report = await checkKernel(CHECKOUT);
  const planted = await plantBreach();
  const kernel = await guestKernel("cloud");
  const details = [describeKernel(report), ...report.problems, `planted: ${planted.join("; ")}`];
  const placements: string[] = [];
  let boots = 0;
  for (const placement of ["inline", "worker"] as const) {
    progress(`P1-A5: boot with all services in ${placement}`);
    const files = bootFiles(kernel, { commands: ["echo all is $((6 * 7))"] });
    const { machine, output, end } = runToEnd(files, { config: { services: { all: placement } } });
    const kinds = machine.vm.services.map(({ name, messages }) => `${name} ${messages}`);
    const isBooted = textOf(output[0]!).includes("all is 42");
    if (isBooted) boots++;
    placements.push(placement);
    details.push(
      `${placement}: ${isBooted ? "shell" : "NO SHELL"}, ${end}; messages: ${kinds.join(", ")}`,
    );
  }
  const passed = report.problems.length === 0 && planted.length > 0 && boots === placements.length;
  return {
    passed,
    measured: `${report.lines} source lines, ${report.codeBytes} bytes of code; ${boots} of ${placements.length} boots (${placements.join(", ")}); planted device model ${planted.length > 0 ? "refused" : "NOT REFUSED"}`,
    details,
  };
}

/** What the check says to a micro-hypervisor that links the UART. */
async function plantBreach(): Promise<readonly string[]> {
  const root = mkdtempSync(join(tmpdir(), "hypo-kernel-"));
  try {
    cpSync(join(CHECKOUT, "src"), join(root, "src"), { recursive: true });
    const path = join(root, ENTRY);
    writeFileSync(path, `${readFileSync(path, "utf8")}\n${PLANTED}\n`);
    return (await checkKernel(root)).problems;
  } finally {
    rmSync(root, { recursive: true });
  }
}

export const bootWithServices: Criterion = {
  id: "P1-A5",
  title: "Debian boots with all device models in services; the micro-hypervisor's size is checked",
  bar: "boots; at most 5000 source lines; a linked device model fails the check",
  timeBase: "none",
  runMode: "mh",
  isSeeded: false,
  run,
};
