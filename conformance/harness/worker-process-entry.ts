/**
 * A machine as `hypo run` has it, in a process of its own: `worker-process-entry.ts CONFIG.json`. Standard input goes to the second serial
 * port; on standard output come lines of JSON (WorkerProcessMessage), console and log on standard error.
 */
import type { MachineConfig } from "../../src/control/protocol.ts";
import type { BootFiles } from "./guest-machine.ts";
import { WorkerMachine } from "./worker-machine.ts";

export interface WorkerProcessConfig extends BootFiles {
  readonly cpuModel: string;
  /** To the configuration that a run has without a word. */
  readonly changes: Partial<MachineConfig>;
}

export interface WorkerProcessMessage {
  readonly text?: string;
  readonly stopped?: Awaited<WorkerMachine["stopped"]>;
}

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
send({ stopped: await machine.stopped });
process.stdin.destroy();
