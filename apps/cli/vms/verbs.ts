/** The verbs about machines that are running: `hypo ps`, `hypo services`, `hypo service`. */
import type { DrillName } from "../../../src/control/protocol.ts";
import { ExitCode } from "../exit-code.ts";
import { ask, chooseMachine, runningMachines } from "./door-client.ts";
import { formatMachines, formatServices } from "./tables.ts";

export interface ListOptions {
  readonly json?: boolean;
}

export async function ps({ json }: ListOptions): Promise<number> {
  const machines = await runningMachines();
  const text = json ? JSON.stringify(machines, undefined, 2) : formatMachines(machines, Date.now());
  process.stdout.write(`${text}\n`);
  return ExitCode.OK;
}

export async function services(vm: string | undefined, { json }: ListOptions): Promise<number> {
  const report = await ask(await chooseMachine(vm), { verb: "services" });
  const text = json ? JSON.stringify(report, undefined, 2) : formatServices(report);
  process.stdout.write(`${text}\n`);
  return ExitCode.OK;
}

export async function drillService(
  drill: DrillName,
  service: string,
  vm: string | undefined,
): Promise<number> {
  await ask(await chooseMachine(vm), { verb: "drill", service, drill });
  return ExitCode.OK;
}
