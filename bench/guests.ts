/** The guests of a benchmark, booted: QEMU's TCG and our engines, all with the same kernel, initramfs, kernel command line and memory. */
import type { BootFiles, GuestMachine } from "../conformance/harness/guest-machine.ts";
import { GuestSession } from "../conformance/harness/guest-session.ts";
import { ProcessMachine } from "../conformance/harness/process-machine.ts";
import { QemuMachine } from "../conformance/harness/qemu-machine.ts";
import { type EvenTerms, V2_TERMS } from "./even-terms.ts";
import type { BenchOptions } from "./options.ts";
import type { Contestant } from "./workload.ts";

export const QEMU_NAME = "QEMU";
const BOOT_SECONDS = 600;

/** By name, how to start each. */
export type MachineStarters = Readonly<Record<string, (files: BootFiles) => GuestMachine>>;

/** QEMU, other peers, our engines. */
export function machineStarters(
  { nodeOptions, withQemu, qemuCpu, engines }: BenchOptions,
  terms: EvenTerms = V2_TERMS,
  peers: MachineStarters = {},
): MachineStarters {
  const starters: Record<string, (files: BootFiles) => GuestMachine> = {};
  if (withQemu) starters[QEMU_NAME] = (files) => new QemuMachine(files, qemuCpu ?? terms.qemuCpu);
  Object.assign(starters, peers);
  const { cpuModel } = terms;
  for (const engine of engines) {
    starters[engine] = (files) =>
      new ProcessMachine({ ...files, clock: "wall", cpuModel, engine, nodeOptions });
  }
  return starters;
}

/** What must not outlive this process. */
const running = new Set<Guest>();
process.on("exit", () => {
  for (const guest of running) guest.kill();
});

/** A guest that does not answer in time is ended: what it is at would disturb all others. */
export class Guest implements Contestant {
  readonly session: GuestSession;

  constructor(machine: GuestMachine) {
    this.session = new GuestSession(machine);
    running.add(this);
    machine.stopped.then(() => running.delete(this));
  }

  ready(): Promise<void> {
    return this.#orEnd(this.session.ready(BOOT_SECONDS));
  }

  run(command: string, timeoutSeconds: number): ReturnType<GuestSession["run"]> {
    return this.#orEnd(this.session.run(command, timeoutSeconds));
  }

  kill(): void {
    this.session.machine.kill();
  }

  async #orEnd<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise;
    } catch (error) {
      this.kill();
      throw error;
    }
  }
}

export async function bootGuests(
  starters: MachineStarters,
  files: BootFiles,
): Promise<Record<string, Guest>> {
  const guests: Record<string, Guest> = {};
  for (const [name, start] of Object.entries(starters)) guests[name] = new Guest(start(files));
  const all = Object.values(guests);
  try {
    await Promise.all(all.map((guest) => guest.ready()));
  } catch (error) {
    for (const guest of all) guest.kill();
    throw error;
  }
  return guests;
}
