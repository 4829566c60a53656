/**
 * A machine as `hypo run` has it, in a process of its own: `worker-process-entry.ts CONFIG.json`. Standard input goes to the second serial
 * port; on standard output come lines of JSON (WorkerProcessMessage), console and log on standard error.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { DrillName, MachineConfig } from "../../src/control/protocol.ts";
import type { BootFiles } from "./guest-machine.ts";
import { WorkerMachine } from "./worker-machine.ts";

export interface WorkerProcessConfig extends BootFiles {
  readonly cpuModel: string;
  /** To the configuration that a run has without a word. */
  readonly changes: Partial<MachineConfig>;
  /** Services that are killed, one drill after the other, with random pauses up to so many milliseconds. */
  readonly drills?: { readonly services: readonly string[]; readonly pauseMs: number };
}

export interface WorkerProcessMessage {
  readonly text?: string;
  readonly stopped?: Awaited<WorkerMachine["stopped"]>;
}

const DRILLS: readonly DrillName[] = ["kill", "lose-reply", "restart"];
const config = JSON.parse(process.argv[2]!) as WorkerProcessConfig;
const send = (message: WorkerProcessMessage): void => {
  process.stdout.write(`${JSON.stringify(message)}\n`);
};
const machine = new WorkerMachine(config, config.cpuModel, config.changes, (text) =>
  process.stderr.write(text, "latin1"),
);
machine.onText((text) => send({ text }));
process.stdin.setEncoding("latin1").on("data", (text: string) => machine.write(text));
// Whoever started us is gone.
process.stdin.on("end", () => process.exit());
if (config.drills) void drill(config.drills);
send({ stopped: await machine.stopped });
process.stdin.destroy();

async function drill({
  services,
  pauseMs,
}: NonNullable<WorkerProcessConfig["drills"]>): Promise<void> {
  let isOver = false;
  void machine.stopped.then(() => {
    isOver = true;
  });
  for (let i = 0; !isOver; i++) {
    await sleep(Math.random() * pauseMs);
    for (const service of services) await machine.client.drill(service, DRILLS[i % DRILLS.length]!);
  }
}
