/** What criteria about KVM inside have in common: the outer guest, KVM loaded in one way, the inner guest booted from a disk. */
import { bootNested, isHealthy, type NestedGuest } from "../harness/nested-guest.ts";
import type { CriterionContext } from "./criterion.ts";

export interface NestedBoot {
  readonly isHealthy: boolean;
  readonly isSameData: boolean;
  readonly seconds: number;
  /** Value of a parameter of kvm_intel as it has become. */
  readonly parameter: string;
  /** Exits of the outer guest by reason, as our own hypervisor has seen them. */
  readonly exits: ReadonlyArray<readonly [string, number]>;
  readonly warnings: readonly string[];
  readonly details: readonly string[];
}

/** `ask`: a parameter of kvm_intel to read back. `more`: something else to do before the end. */
export async function bootInside(
  { progress }: CriterionContext,
  id: string,
  parameters: string,
  ask: string,
  more: (guest: NestedGuest) => Promise<void> = () => Promise.resolve(),
): Promise<NestedBoot> {
  progress(`${id}: booting the outer guest`);
  const guest = await bootNested({ engine: "auto" });
  try {
    const before = await guest.warnings();
    const problems = await guest.load(parameters);
    progress(`${id}: booting the inner guest`);
    const { run, isSame } = await guest.qemuWithDisk();
    const read = await guest.session.run(`cat /sys/module/kvm_intel/parameters/${ask}`);
    await more(guest);
    const warnings = (await guest.warnings()).filter((line) => !before.includes(line));
    await guest.session.powerOff();
    const report = await guest.machine.report;
    const healthy = problems === "" && isHealthy(run);
    return {
      isHealthy: healthy,
      isSameData: isSame,
      seconds: run.wallSeconds,
      parameter: read.output.trim(),
      exits: report?.exits ?? [],
      warnings,
      details: healthy ? [...warnings] : [problems, run.output.slice(-1500), ...warnings],
    };
  } catch (error) {
    guest.machine.kill();
    throw error;
  }
}
